//! The loop on a simulated network and clock: commands and replies get lost, late and doubled, and the program stands
//! still at any moment, before and after it reads, sends and looks at the clock. Each seed is one such run. What is
//! assumed of the network is what [`handshake`](crate::gateway::handshake) assumes, and no more.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::thread;
use std::time::{Duration, Instant};

use super::{Endpoint, Exchange, Turn};
use crate::gateway::command::{Command, Filter, Init};
use crate::gateway::handshake::{Answer, Failure, Machine, Retry, SETTLE};

const TIMEOUT: Duration = Duration::from_secs(1);

const OK: &[u8] = b"R ok\n";
const REFUSED: &[u8] = b"R ERR 3 controller is running\n";
const UNKNOWN: &[u8] = b"R ERR 2 unknown command\n";
const STOPPED: &[u8] = b"R CAN 1 ----I 100\n";
const RUNNING: &[u8] = b"R CAN 1 ----- 100\n";
const FRAME: &[u8] = b"M 1 CSD 100 55\n";

/// Numbers that look random (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn once_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    /// Mostly short, as most things in a network are, and never longer than `most`.
    fn delay(&mut self, most: Duration) -> Duration {
        let most = most.as_micros() as u64;
        let most = if self.once_in(3) { most } else { most.min(3_000) };
        Duration::from_micros(self.roll(most + 1))
    }
}

#[derive(Clone, Copy)]
enum Event {
    /// A copy of a command reaches the gateway, whose reply must be back by then.
    Arrives(Command, Instant),
    Reply(&'static [u8]),
}

/// The gateway, the network and the clock.
struct World {
    dice: Dice,
    now: Instant,
    under_way: Vec<(Instant, Event)>,
    queue: VecDeque<&'static [u8]>,
    nonblocking: bool,
    read_timeout: Option<Duration>,
    /// One chance in so many that something is lost, or that the program stands still.
    loss: u64,
    stall: u64,
    knows_status: bool,
    running: bool,
    /// What the gateway has carried out of the handshake, without immediate repetitions.
    set_up: Vec<Command>,
    stops_carried_out: u32,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..4 {
            dice.roll(2);
        }
        let (loss, stall) = ([3, 6, 20][dice.roll(3) as usize], [5, 20, 100][dice.roll(3) as usize]);
        let (knows_status, running) = (!dice.once_in(3), dice.once_in(3));
        World {
            dice,
            now: Instant::now(),
            under_way: Vec::with_capacity(16),
            queue: VecDeque::with_capacity(16),
            nonblocking: false,
            read_timeout: None,
            loss,
            stall,
            knows_status,
            running,
            set_up: Vec::with_capacity(8),
            stops_carried_out: 0,
        }
    }

    fn maybe_stand_still(&mut self) {
        if self.dice.once_in(self.stall) {
            let pause = self.dice.delay(2 * TIMEOUT + 4 * SETTLE);
            self.pass_until(self.now + pause);
        }
    }

    fn next(&self) -> Option<(usize, Instant)> {
        (0..self.under_way.len()).map(|index| (index, self.under_way[index].0)).min_by_key(|&(_, at)| at)
    }

    /// Lets all happen that is to happen until then.
    fn pass_until(&mut self, until: Instant) {
        while let Some((index, at)) = self.next().filter(|&(_, at)| at <= until) {
            self.now = self.now.max(at);
            match self.under_way.swap_remove(index).1 {
                Event::Reply(line) => self.queue.push_back(line),
                Event::Arrives(command, answered_by) => self.carry_out(command, answered_by),
            }
        }
        self.now = self.now.max(until);
    }

    fn send(&mut self, command: Command) {
        if self.dice.once_in(self.loss) {
            return;
        }
        let answered_by = self.now + 2 * TIMEOUT;
        let way = self.dice.delay(TIMEOUT);
        self.under_way.push((self.now + way, Event::Arrives(command, answered_by)));
    }

    fn carry_out(&mut self, command: Command, answered_by: Instant) {
        let reply = match command {
            Command::Init { .. } if self.running => REFUSED,
            Command::Init { .. } => {
                self.set_up.clear();
                OK
            }
            Command::Stop { .. } => {
                self.running = false;
                self.stops_carried_out += 1;
                OK
            }
            Command::Start { .. } => {
                self.running = true;
                OK
            }
            Command::Status { .. } if !self.knows_status => UNKNOWN,
            Command::Status { .. } => [STOPPED, RUNNING][usize::from(self.running)],
            _ => OK,
        };
        if reply == OK && self.set_up.last() != Some(&command) {
            self.set_up.push(command);
        }
        if self.dice.once_in(self.loss) {
            return;
        }
        let way = self.dice.delay(answered_by - self.now);
        self.under_way.push((self.now + way, Event::Reply(reply)));
        if self.dice.once_in(4) {
            let copy = self.dice.delay(SETTLE - Duration::from_micros(1));
            self.under_way.push((self.now + way + copy, Event::Reply(reply)));
        }
        if self.dice.once_in(8) {
            self.under_way.push((self.now, Event::Reply(FRAME)));
        }
    }
}

impl Endpoint for &RefCell<World> {
    fn now(&self) -> Instant {
        let mut world = self.borrow_mut();
        world.maybe_stand_still();
        let now = world.now;
        world.maybe_stand_still();
        now
    }

    fn sleep(&self, duration: Duration) {
        let mut world = self.borrow_mut();
        let until = world.now + duration;
        world.pass_until(until);
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let mut world = self.borrow_mut();
        let text = std::str::from_utf8(datagram).expect("a command is text");
        let command = COMMANDS.into_iter().find(|command| format!("{command}\n") == text).expect("one of ours");
        world.maybe_stand_still();
        world.send(command);
        world.maybe_stand_still();
        Ok(())
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut world = self.borrow_mut();
        world.maybe_stand_still();
        if world.queue.is_empty() && !world.nonblocking {
            let deadline = world.read_timeout.map(|timeout| world.now + timeout);
            while world.queue.is_empty() && deadline.is_none_or(|deadline| world.now < deadline) {
                let next = world.next().map(|(_, at)| at);
                let until = next.into_iter().chain(deadline).min().expect("the loop waits for ever");
                world.pass_until(until);
            }
        }
        let datagram = world.queue.pop_front();
        world.maybe_stand_still();
        let datagram = datagram.ok_or(ErrorKind::WouldBlock)?;
        buffer[..datagram.len()].copy_from_slice(datagram);
        Ok(datagram.len())
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.borrow_mut().nonblocking = nonblocking;
        Ok(())
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.borrow_mut().read_timeout = timeout;
        Ok(())
    }

    fn is_woken(&self) -> bool {
        false
    }
}

const HANDSHAKE: [Command; 4] = [
    Command::Init { channel: 1, init: Init::DEFAULT },
    Command::FilterClear { channel: 1 },
    Command::FilterAdd { channel: 1, filter: Filter::ALL_STANDARD },
    Command::Start { channel: 1 },
];
const STOP: Command = Command::Stop { channel: 1 };
const STATUS: Command = Command::Status { channel: 1 };
const COMMANDS: [Command; 6] = [HANDSHAKE[0], HANDSHAKE[1], HANDSHAKE[2], HANDSHAKE[3], STOP, STATUS];

/// How a run went.
#[derive(Debug, Default)]
struct Outcome {
    started: u64,
    confirmed: u64,
    unconfirmed: u64,
}

/// Runs a session on the exchange: the handshake, maybe a STATUS, and a STOP at any time after START.
fn run(seed: u64) -> Result<Outcome, String> {
    let world = RefCell::new(World::new(seed));
    let (attempts, asks, patience) = {
        let dice = &mut world.borrow_mut().dice;
        (1 + dice.roll(3) as u32, dice.once_in(2), dice.delay(4 * TIMEOUT))
    };
    let now = world.borrow().now;
    let machine = Machine::new(now, Retry { timeout: TIMEOUT, attempts }, TIMEOUT / 4, HANDSHAKE);
    let mut exchange = Exchange::new(&world, machine, now);
    let mut outcome = Outcome::default();
    let mut wake = None;
    let mut stops_before = None;
    let deadline = now + 120 * TIMEOUT;
    while world.borrow().now < deadline {
        match exchange.turn(wake) {
            Turn::Sent(Command::Start { .. }, _) if outcome.started == 0 => {
                outcome.started = 1;
                // START itself may have arrived already, since the program may stand still after sending it.
                let set_up = world.borrow().set_up.clone();
                if !set_up.starts_with(&HANDSHAKE[..3]) {
                    return Err(format!("START is sent after {set_up:?}"));
                }
                if asks {
                    exchange.machine.push(STATUS);
                }
                wake = Some(exchange.now() + patience);
            }
            Turn::Due => {
                wake = None;
                stops_before = Some(world.borrow().stops_carried_out);
                let now = (&world).now();
                exchange.machine.stop(now, 1);
            }
            Turn::Settled(STOP, answer) if outcome.started == 1 => {
                let carried_out = Some(world.borrow().stops_carried_out) > stops_before;
                outcome.confirmed = 1;
                return match answer {
                    Some(Answer::Ok) if carried_out => Ok(outcome),
                    answer => Err(format!("STOP is confirmed by {answer:?}, carried out: {carried_out}")),
                };
            }
            Turn::Failed(Failure::NoReply(STOP)) if outcome.started == 1 => {
                outcome.unconfirmed = 1;
                return Ok(outcome);
            }
            Turn::Failed(_) if outcome.started == 0 => return Ok(outcome),
            Turn::Failed(failure) => return Err(format!("fails with {failure:?}")),
            _ => {}
        }
    }
    Err("does not come to an end".to_owned())
}

#[test]
fn a_million_bad_days_make_no_false_start_and_no_false_confirmation_of_stop() {
    const SEEDS: u64 = 1_000_000;
    const WORKERS: u64 = 2;
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let worker = |first: u64| {
            let mut total = Outcome::default();
            for seed in (first..SEEDS).step_by(WORKERS as usize) {
                let outcome = run(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
                total.started += outcome.started;
                total.confirmed += outcome.confirmed;
                total.unconfirmed += outcome.unconfirmed;
            }
            total
        };
        let workers: Vec<_> = (0..WORKERS).map(|first| scope.spawn(move || worker(first))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no violation")).collect()
    });
    let sum = |count: fn(&Outcome) -> u64| outcomes.iter().map(count).sum::<u64>();
    // Or the days were too bad to show anything.
    assert!(sum(|outcome| outcome.started) > SEEDS / 2, "{outcomes:?}");
    assert!(sum(|outcome| outcome.confirmed) > SEEDS / 4, "{outcomes:?}");
    assert!(sum(|outcome| outcome.unconfirmed) > 0, "{outcomes:?}");
}
