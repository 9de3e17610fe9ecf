//! The loop on a simulated network and clock: requests and replies are lost, late and doubled, and the program stands still at
//! any moment, before and after it reads, sends and looks at the clock. Each seed is one such session. The network is as
//! bad as [`transaction`](crate::gateway::transaction) assumes, and no worse; the gateway is like the vendor's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::thread;
use std::time::{Duration, Instant};

use super::{Driver, Event, Transport};
use crate::gateway::handshake::Setup;
use crate::gateway::{Answer, Command, Failure, Filter, Outcome, RetryConfig, SETTLE};

const TIMEOUT: Duration = Duration::from_secs(1);

const OK: &[u8] = b"R ok\n";
const FILTER_SET_TWICE: &[u8] = b"R ERR 5 standard filter set twice\n";
const INVALID_STATE: &[u8] = b"R ERR 10 invalid CAN state\n";
const UNKNOWN: &[u8] = b"R ERR 99 unknown command\n";
const STOPPED: &[u8] = b"R CAN 1 ----I 100\n";
const RUNNING: &[u8] = b"R CAN 1 ----- 100\n";
const FRAME: &[u8] = b"M 1 CSD 100 55\n";

const FILTERS: [Filter; 2] = [Filter::ALL_STANDARD, Filter::Extended { id: 0, mask: 0 }];
const START: Command = Command::Start { channel: 1 };
const STOP: Command = Command::Stop { channel: 1 };

/// Pseudo-random numbers (xorshift, Marsaglia 2003).
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// Mostly short, as most delays in a network are, and never longer than `max`.
    fn delay(&mut self, max: Duration) -> Duration {
        let max = max.as_micros() as u64;
        let max = if self.one_in(3) { max } else { max.min(3_000) };
        Duration::from_micros(self.below(max + 1))
    }
}

#[derive(Clone)]
enum InFlight {
    /// One of `copies` copies of a transmission, all of which are carried out and answered by then.
    Request {
        line: String,
        answered_by: Instant,
        copies: u64,
    },
    Reply(&'static [u8]),
}

/// The gateway, the network and the clock.
struct World {
    rng: Rng,
    now: Instant,
    in_flight: Vec<(Instant, InFlight)>,
    queue: VecDeque<&'static [u8]>,
    nonblocking: bool,
    read_timeout: Option<Duration>,
    /// One chance in so many that something is lost, or that the program stands still.
    loss: u64,
    stall: u64,
    knows_status: bool,
    initialised: bool,
    running: bool,
    filters: Vec<String>,
    stops_carried_out: u32,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..4 {
            rng.below(2);
        }
        let (loss, stall) = ([3, 6, 20][rng.below(3) as usize], [5, 20, 100][rng.below(3) as usize]);
        let (knows_status, running) = (!rng.one_in(3), rng.one_in(3));
        World {
            rng,
            now: Instant::now(),
            in_flight: Vec::with_capacity(16),
            queue: VecDeque::with_capacity(16),
            nonblocking: false,
            read_timeout: None,
            loss,
            stall,
            knows_status,
            initialised: running,
            running,
            filters: vec![FILTERS[0].to_string()],
            stops_carried_out: 0,
        }
    }

    fn maybe_stall(&mut self) {
        if self.rng.one_in(self.stall) {
            let pause = self.rng.delay(2 * TIMEOUT + 4 * SETTLE);
            self.advance(self.now + pause);
        }
    }

    fn next(&self) -> Option<(usize, Instant)> {
        (0..self.in_flight.len()).map(|index| (index, self.in_flight[index].0)).min_by_key(|&(_, at)| at)
    }

    /// Lets everything happen that happens until then.
    fn advance(&mut self, until: Instant) {
        while let Some((index, at)) = self.next().filter(|&(_, at)| at <= until) {
            self.now = self.now.max(at);
            match self.in_flight.swap_remove(index).1 {
                InFlight::Reply(line) => self.queue.push_back(line),
                InFlight::Request { line, answered_by, copies } => self.on_request(&line, answered_by, copies),
            }
        }
        self.now = self.now.max(until);
    }

    fn send(&mut self, line: &str) {
        if self.rng.one_in(self.loss) {
            return;
        }
        let answered_by = self.now + 2 * TIMEOUT;
        let delay = self.rng.delay(TIMEOUT);
        // The copies of a doubled request are carried out together, and answered at about the same time.
        let copies = 1 + u64::from(self.rng.one_in(6));
        self.in_flight.push((self.now + delay, InFlight::Request { line: line.to_owned(), answered_by, copies }));
    }

    fn on_request(&mut self, line: &str, answered_by: Instant, copies: u64) {
        let delay = self.rng.delay(answered_by - self.now);
        for _ in 0..copies {
            let reply = self.carry_out(line);
            if self.rng.one_in(self.loss) {
                continue;
            }
            for _ in 0..1 + u64::from(self.rng.one_in(4)) {
                let apart = self.rng.delay(SETTLE - Duration::from_micros(1));
                self.in_flight.push((self.now + delay + apart, InFlight::Reply(reply)));
            }
        }
        if self.rng.one_in(8) {
            self.in_flight.push((self.now, InFlight::Reply(FRAME)));
        }
    }

    fn carry_out(&mut self, line: &str) -> &'static [u8] {
        let command = line.trim_end().strip_prefix("CAN 1 ").expect("a command for channel 1");
        match command {
            "STATUS" if !self.knows_status => UNKNOWN,
            "STATUS" if !self.initialised => INVALID_STATE,
            "STATUS" => [STOPPED, RUNNING][usize::from(self.running)],
            "STOP" if !self.running => INVALID_STATE,
            "STOP" => {
                self.running = false;
                self.stops_carried_out += 1;
                OK
            }
            _ if self.running => INVALID_STATE,
            "INIT STD 250" => {
                self.initialised = true;
                OK
            }
            _ if !self.initialised => INVALID_STATE,
            "FILTER CLEAR" => {
                self.filters.clear();
                OK
            }
            "START" => {
                self.running = true;
                OK
            }
            add => {
                let filter = add.strip_prefix("FILTER ADD ").expect("a known command").to_owned();
                if self.filters.contains(&filter) {
                    return FILTER_SET_TWICE;
                }
                self.filters.push(filter);
                OK
            }
        }
    }

    fn filters_are_right(&self) -> bool {
        self.filters == FILTERS.map(|filter| filter.to_string())
    }
}

impl Transport for &RefCell<World> {
    fn now(&self) -> Instant {
        let mut world = self.borrow_mut();
        world.maybe_stall();
        let now = world.now;
        world.maybe_stall();
        now
    }

    fn sleep(&self, duration: Duration) {
        let mut world = self.borrow_mut();
        let until = world.now + duration;
        world.advance(until);
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let mut world = self.borrow_mut();
        world.maybe_stall();
        if world.rng.one_in(40) {
            return Err(ErrorKind::NetworkUnreachable.into());
        }
        world.send(std::str::from_utf8(datagram).expect("a command is text"));
        world.maybe_stall();
        Ok(())
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut world = self.borrow_mut();
        world.maybe_stall();
        if world.queue.is_empty() && !world.nonblocking {
            let deadline = world.read_timeout.map(|timeout| world.now + timeout);
            while world.queue.is_empty() && deadline.is_none_or(|deadline| world.now < deadline) {
                let next = world.next().map(|(_, at)| at);
                let until =
                    next.into_iter().chain(deadline).min().expect("the loop never blocks without a deadline here");
                world.advance(until);
            }
        }
        let datagram = world.queue.pop_front();
        world.maybe_stall();
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

    fn set_port_sharing(&self, _on: bool) -> io::Result<()> {
        Ok(())
    }

    fn is_woken(&self) -> bool {
        false
    }
}

/// How sessions ended.
#[derive(Debug, Default)]
struct Tally {
    started: u64,
    confirmed: u64,
    unconfirmed: u64,
}

/// Runs a session: the handshake, maybe a STATUS, and a STOP at any time after START.
fn run(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let world = RefCell::new(World::new(seed));
    let (attempts, asks, stop_after) = {
        let rng = &mut world.borrow_mut().rng;
        (1 + rng.below(3) as u32, rng.one_in(2), rng.delay(4 * TIMEOUT))
    };
    let mut driver = Driver::new(&world, 1 << 16);
    let setup =
        Setup { filters: FILTERS.to_vec(), retry: RetryConfig { timeout: TIMEOUT, attempts }, ..Setup::default() };
    let end = world.borrow().now + 120 * TIMEOUT;
    let now = world.borrow().now;
    driver.sequencer().begin_start(now, setup);
    let mut wake = None;
    let mut stops_before = None;
    let mut has_started = false;
    let mut status_is_due = false;
    while world.borrow().now < end {
        if status_is_due && driver.sequencer().is_idle() {
            status_is_due = false;
            driver.sequencer().request_status();
        }
        match driver.next_event(wake) {
            Event::Sent { command: START, left: true, .. } => {
                if has_started {
                    return Err("START is sent twice".to_owned());
                }
                if !world.borrow().filters_are_right() {
                    return Err(format!("START is sent with the filters {:?}", world.borrow().filters));
                }
                (has_started, tally.started) = (true, tally.started + 1);
                wake = Some(driver.received_at() + stop_after);
            }
            Event::Completed { command: START, .. } => status_is_due = asks,
            Event::Timeout => {
                wake = None;
                stops_before = Some(world.borrow().stops_carried_out);
                let now = (&world).now();
                driver.sequencer().begin_stop(now, 1);
            }
            Event::Completed { command: STOP, outcome } => {
                let is_confirmed = match outcome {
                    Outcome::Answered(Answer::Ok) => Some(world.borrow().stops_carried_out) > stops_before,
                    Outcome::Answered(Answer::Status(status)) => status.stopped,
                    _ => false,
                };
                if !is_confirmed || world.borrow().running {
                    return Err(format!("STOP is confirmed by {outcome:?} while running: {}", world.borrow().running));
                }
                tally.confirmed += 1;
                return Ok(());
            }
            Event::Failed(failure) if failure.command() == START && has_started => match failure {
                Failure::Refused(..) if world.borrow().running => {
                    return Err("START is called refused while the bus is running".to_owned());
                }
                // A STOP that is due follows; otherwise the session is over.
                _ if driver.sequencer().is_idle() => return Ok(()),
                _ => {}
            },
            Event::Failed(_) if has_started => {
                tally.unconfirmed += 1;
                return Ok(());
            }
            Event::Failed(_) => return Ok(()),
            _ => {}
        }
    }
    Err("does not end".to_owned())
}

#[test]
fn loop_keeps_its_promises_in_a_million_bad_sessions() {
    const SEEDS: u64 = 1_000_000;
    const WORKERS: u64 = 2;
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let worker = |first: u64| {
            let mut tally = Tally::default();
            for seed in (first..SEEDS).step_by(WORKERS as usize) {
                run(seed, &mut tally).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
            }
            tally
        };
        let workers: Vec<_> = (0..WORKERS).map(|first| scope.spawn(move || worker(first))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no violation")).collect()
    });
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    // Or the network was too bad to show anything.
    assert!(sum(|tally| tally.started) > SEEDS / 4, "{tallies:?}");
    assert!(sum(|tally| tally.confirmed) > SEEDS / 8, "{tallies:?}");
    assert!(sum(|tally| tally.unconfirmed) > 0, "{tallies:?}");
}
