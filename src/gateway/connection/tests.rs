//! The loop on a simulated network and clock: requests and replies are lost, late and doubled, another program uses the port
//! while it is shared, and the program stands still at any moment, before and after it reads, sends and looks at the clock.
//! Each seed is one such session. The network is as bad as `transaction` assumes, and no worse; the gateway is like the
//! vendor's. What the state machine does in such a world is proven by the exhaustive schedules; here is what the loop adds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::*;
use crate::gateway::{Filter, SETTLE};

const TIMEOUT: Duration = Duration::from_secs(1);
const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5000);

const OK: &[u8] = b"R ok\n";
const FILTER_SET_TWICE: &[u8] = b"R ERR 5 standard filter set twice\n";
const INVALID_STATE: &[u8] = b"R ERR 10 invalid CAN state\n";
const UNKNOWN: &[u8] = b"R ERR 0 unknown command\n";
const STOPPED: &[u8] = b"R CAN 1 ----I 100\n";
const RUNNING: &[u8] = b"R CAN 1 ----- 100\n";
const FRAME: &[u8] = b"M 1 CSD 100 55\n";

const FILTERS: [Filter; 2] = [Filter::ALL_STANDARD, Filter::ALL_EXTENDED];

/// Pseudo-random numbers (xorshift, Marsaglia 2003).
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Never with 0.
    fn one_in(&mut self, chances: u64) -> bool {
        chances > 0 && self.below(chances) == 0
    }

    /// Mostly short, as most delays in a network are, and never longer than `max`.
    fn delay(&mut self, max: Duration) -> Duration {
        let max = max.as_micros() as u64;
        let max = if self.one_in(3) { max } else { max.min(3_000) };
        Duration::from_micros(self.below(max + 1))
    }
}

#[derive(Debug)]
enum InFlight {
    /// Copies of the transmission of a command, all of which are carried out and answered by then.
    Request {
        number: u32,
        line: String,
        answered_by: Instant,
        copies: u64,
    },
    Reply(Datagram),
}

/// What the gateway sends; the number of the command that it answers, 0 for none of ours.
#[derive(Clone, Copy, Debug)]
struct Datagram {
    number: u32,
    bytes: &'static [u8],
}

/// The gateway, the network and the clock.
#[derive(Debug)]
struct World {
    rng: Rng,
    now: Instant,
    in_flight: Vec<(Instant, InFlight)>,
    /// With the time of arrival.
    queue: VecDeque<(Instant, Datagram)>,
    /// One chance in so many that something is lost, that the program stands still, that another program is answered.
    loss: u64,
    stall: u64,
    neighbour: u64,
    /// Whatever is read, the next frame is there.
    floods: bool,
    port_is_shared: bool,
    is_woken: bool,
    knows_status: bool,
    initialised: bool,
    running: bool,
    filters: Vec<String>,
    /// Every line that left; the latest command, and its number.
    sent: Vec<String>,
    latest: String,
    number: u32,
    violation: Option<String>,
}

type Shared = Arc<Mutex<World>>;

impl World {
    /// Where nothing goes wrong: an initialised gateway that is stopped.
    fn good() -> World {
        World {
            rng: Rng(1),
            now: Instant::now(),
            in_flight: Vec::new(),
            queue: VecDeque::new(),
            loss: 0,
            stall: 0,
            neighbour: 0,
            floods: false,
            port_is_shared: false,
            is_woken: false,
            knows_status: true,
            initialised: true,
            running: false,
            filters: vec![FILTERS[0].to_string()],
            sent: Vec::new(),
            latest: String::new(),
            number: 0,
            violation: None,
        }
    }

    fn bad(seed: u64) -> World {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..4 {
            rng.below(2);
        }
        let (loss, stall) = ([3, 6, 20][rng.below(3) as usize], [5, 20, 100][rng.below(3) as usize]);
        let (knows_status, running) = (!rng.one_in(3), rng.one_in(3));
        World { rng, loss, stall, neighbour: 5, knows_status, initialised: running, running, ..World::good() }
    }

    fn expect(&mut self, holds: bool, promise: &str) {
        if !holds && self.violation.is_none() {
            self.violation = Some(format!("{promise}: {self:?}"));
        }
    }

    /// The program may stand still, and others do something.
    fn maybe_stall(&mut self) {
        if self.rng.one_in(self.stall) {
            let pause = self.rng.delay(2 * TIMEOUT + 4 * SETTLE);
            self.advance(self.now + pause);
        }
        if self.port_is_shared && self.rng.one_in(self.neighbour) {
            let bytes = if self.rng.one_in(2) { OK } else { INVALID_STATE };
            self.queue.push_back((self.now, Datagram { number: 0, bytes }));
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
                InFlight::Reply(datagram) => self.queue.push_back((at, datagram)),
                InFlight::Request { number, line, answered_by, copies } => {
                    self.on_request(number, &line, answered_by, copies);
                }
            }
        }
        self.now = self.now.max(until);
    }

    fn on_request(&mut self, number: u32, line: &str, answered_by: Instant, copies: u64) {
        let delay = self.rng.delay(answered_by - self.now);
        for _ in 0..copies {
            let bytes = self.carry_out(line);
            if self.rng.one_in(self.loss) {
                continue;
            }
            let is_doubled = self.loss > 0 && self.rng.one_in(4);
            for _ in 0..1 + u64::from(is_doubled) {
                let apart = self.rng.delay(SETTLE - Duration::from_micros(1));
                self.in_flight.push((self.now + delay + apart, InFlight::Reply(Datagram { number, bytes })));
            }
        }
        // Of an earlier stream, or of the new one, whose first frames overtake the answer.
        if self.running && (line.ends_with("START") || self.rng.one_in(8)) {
            self.in_flight.push((self.now, InFlight::Reply(Datagram { number: 0, bytes: FRAME })));
        }
    }

    fn carry_out(&mut self, line: &str) -> &'static [u8] {
        match line.strip_prefix("CAN 1 ").expect("a command for channel 1") {
            "STATUS" if !self.knows_status => return UNKNOWN,
            "STATUS" if !self.initialised => return INVALID_STATE,
            "STATUS" => return [STOPPED, RUNNING][usize::from(self.running)],
            "STOP" if self.running => self.running = false,
            _ if self.running => return INVALID_STATE,
            "INIT STD 250" => self.initialised = true,
            _ if !self.initialised => return INVALID_STATE,
            "FILTER CLEAR" => self.filters.clear(),
            "START" => self.running = true,
            add => match add.strip_prefix("FILTER ADD ") {
                Some(filter) if self.filters.iter().any(|set| set == filter) => return FILTER_SET_TWICE,
                Some(filter) => self.filters.push(filter.to_owned()),
                None => return INVALID_STATE,
            },
        }
        OK
    }

    /// `START` may be under way to the gateway.
    fn may_start(&self) -> bool {
        self.in_flight
            .iter()
            .any(|(_, packet)| matches!(packet, InFlight::Request { line, .. } if line.ends_with("START")))
    }
}

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().expect("no panic")
}

impl Transport for Shared {
    fn now(&self) -> Instant {
        let mut world = lock(self);
        world.maybe_stall();
        let now = world.now;
        world.maybe_stall();
        now
    }

    fn sleep(&self, duration: Duration) {
        let mut world = lock(self);
        let until = world.now + duration;
        world.advance(until);
    }

    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let mut world = lock(self);
        world.maybe_stall();
        let shared = world.port_is_shared;
        world.expect(!shared, "no other program shares the port while a command is in flight");
        let line = std::str::from_utf8(datagram).expect("a command is text").trim_end().to_owned();
        if world.latest != line {
            (world.latest, world.number) = (line.clone(), world.number + 1);
        }
        if world.loss > 0 && world.rng.one_in(40) {
            return Err(ErrorKind::NetworkUnreachable.into());
        }
        if line.ends_with("START") {
            let is_first = !world.sent.contains(&line);
            world.expect(is_first, "START leaves once");
            let filters_are_right = world.filters == FILTERS.map(|filter| filter.to_string());
            world.expect(filters_are_right, "START leaves with the wanted filters set");
        }
        world.sent.push(line.clone());
        let loss = world.loss;
        if !world.rng.one_in(loss) {
            let answered_by = world.now + 2 * TIMEOUT;
            let delay = world.rng.delay(TIMEOUT);
            // The copies of a doubled request are carried out together, and answered at about the same time.
            let copies = 1 + u64::from(loss > 0 && world.rng.one_in(6));
            let (at, number) = (world.now + delay, world.number);
            world.in_flight.push((at, InFlight::Request { number, line, answered_by, copies }));
        }
        world.maybe_stall();
        Ok(())
    }

    fn recv(&mut self, buffer: &mut [u8], wait: Option<Duration>) -> io::Result<usize> {
        let mut world = lock(self);
        world.maybe_stall();
        if world.floods {
            let now = world.now + Duration::from_micros(100);
            world.advance(now);
            world.queue.push_back((now, Datagram { number: 0, bytes: FRAME }));
        }
        let deadline = match wait {
            _ if world.is_woken => Some(world.now),
            wait => wait.map(|wait| world.now + wait),
        };
        while world.queue.is_empty() && deadline.is_none_or(|deadline| world.now < deadline) {
            let next = world.next().map(|(_, at)| at);
            let until = next.into_iter().chain(deadline).min().expect("something comes, or there is a deadline");
            world.advance(until);
        }
        if world.is_woken && world.queue.is_empty() {
            let later = world.now + Duration::from_millis(1);
            world.advance(later);
        }
        let datagram = world.queue.pop_front();
        world.maybe_stall();
        let (_, Datagram { bytes, .. }) = datagram.ok_or(ErrorKind::WouldBlock)?;
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn share_port(&mut self, on: bool) {
        lock(self).port_is_shared = on;
    }

    fn waker(&self) -> Waker {
        Waker::default()
    }

    fn is_woken(&self) -> bool {
        lock(self).is_woken
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(GATEWAY)
    }

    fn address_is_lost(&self, _gateway: SocketAddr) -> bool {
        false
    }

    fn drops(&mut self) -> Drops {
        Drops::default()
    }

    fn check_drops(&mut self) -> Drops {
        Drops::default()
    }

    fn receive_buffer(&self) -> usize {
        1 << 16
    }
}

fn connect(world: World) -> (Shared, Connection) {
    let world = Arc::new(Mutex::new(world));
    let bus = Connection::over(Box::new(Arc::clone(&world)), GATEWAY, Channel::DEFAULT);
    (world, bus)
}

fn setup(attempts: u32) -> Setup {
    Setup { filters: FILTERS.to_vec(), retry: RetryConfig { timeout: TIMEOUT, attempts }, ..Setup::default() }
}

/// How sessions ended.
#[derive(Debug, Default)]
struct Tally {
    started: u64,
    neighbours: u64,
    confirmed: u64,
    unconfirmed: u64,
}

/// Runs a session: the handshake, some `STATUS`, and a `STOP` at any time after `START`.
fn run(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let (world, mut bus) = connect(World::bad(seed));
    let (attempts, queries, stop_after) = {
        let rng = &mut lock(&world).rng;
        (1 + rng.below(3) as u32, rng.below(4), rng.delay(4 * TIMEOUT))
    };
    session(&world, &mut bus, attempts, queries, stop_after, tally);
    lock(&world).violation.take().map_or(Ok(()), Err)
}

fn session(
    world: &Shared,
    bus: &mut Connection,
    attempts: u32,
    mut queries: u64,
    stop_after: Duration,
    tally: &mut Tally,
) {
    match bus.start(&setup(attempts)) {
        Ok(()) => {}
        Err(CommandError::Failed(failure)) if failure.command.verb == Verb::Start => check_failure(world, &failure),
        Err(CommandError::Failed(failure)) => return check_failure(world, &failure),
        Err(error) => return lock(world).expect(false, &error.to_string()),
    }
    tally.started += 1;
    let deadline = bus.now() + stop_after;
    loop {
        if queries > 0 && bus.request_status().is_ok() {
            queries -= 1;
        }
        match bus.next_event(Some(deadline)) {
            Event::Timeout => break,
            Event::Completed(_, Outcome::NoReply(_)) => check_no_reply(world),
            Event::Failed(failure) => check_failure(world, &failure),
            Event::Datagram(datagram) => tally.neighbours += u64::from(datagram == OK),
            _ => {}
        }
    }
    let all_is_read = lock(world).queue.front().is_none_or(|&(arrived, _)| arrived >= deadline);
    lock(world).expect(all_is_read, "everything was read that arrived before the deadline");
    match bus.stop() {
        Ok(()) => {
            tally.confirmed += 1;
            let is_stopped = !lock(world).running && !lock(world).may_start();
            lock(world).expect(is_stopped, "a bus whose STOP is confirmed is stopped, and stays so");
        }
        Err(failure) => {
            tally.unconfirmed += 1;
            check_failure(world, &failure);
        }
    }
}

fn check_failure(world: &Shared, failure: &Failure) {
    match (&failure.outcome, failure.command.verb) {
        (Outcome::NoReply(_), _) => check_no_reply(world),
        (Outcome::Refused(_), verb @ (Verb::Start | Verb::Stop)) if !failure.in_doubt => {
            let is_true = lock(world).running == (verb == Verb::Stop);
            lock(world).expect(is_true, "a refusal that is reported is true");
        }
        _ => {}
    }
}

/// An answer that lies in the queue has come, however late it is read.
fn check_no_reply(world: &Shared) {
    let mut world = lock(world);
    let number = world.number;
    let is_true = world.queue.iter().all(|(_, datagram)| datagram.number != number);
    world.expect(is_true, "no reply is reported only if none lies in the queue");
}

#[test]
fn loop_keeps_its_promises_in_bad_sessions() {
    const SEEDS: u64 = 100_000;
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
    assert!(sum(|tally| tally.neighbours) > SEEDS / 50, "{tallies:?}");
    assert!(sum(|tally| tally.unconfirmed) > 0, "{tallies:?}");
}

#[test]
fn deadline_is_kept_in_a_flood() {
    let (_, mut bus) = connect(World { floods: true, ..World::good() });
    let deadline = bus.now() + Duration::from_millis(10);
    let mut datagrams = 0;
    while !matches!(bus.next_event(Some(deadline)), Event::Timeout) {
        datagrams += 1;
    }
    // 100 until the deadline, and at most as many as the queue can have held then.
    assert!((100..=100 + bus.max_queued_datagrams).contains(&datagrams), "{datagrams}");
}

#[test]
fn waker_ends_start_and_what_follows_until_it_is_reported() {
    let (world, mut bus) = connect(World { is_woken: true, ..World::good() });
    for _ in 0..2 {
        assert!(matches!(bus.start(&setup(1)), Err(CommandError::Woken)));
    }
    assert_eq!(lock(&world).sent.len(), 0);
    assert!(matches!(bus.next_event(None), Event::Woken));
    bus.start(&setup(1)).expect("a waker fires once");
}

#[test]
fn waker_neither_ends_stop_nor_is_lost() {
    let (_, mut bus) = connect(World { is_woken: true, running: true, ..World::good() });
    bus.stop().expect("confirmed");
    assert!(matches!(bus.next_event(None), Event::Woken));
}

#[test]
fn data_before_the_answer_to_start_is_the_next_event() {
    let (_, mut bus) = connect(World::good());
    bus.start(&setup(1)).expect("started");
    assert!(matches!(bus.next_event(None), Event::Datagram(FRAME)));
    assert!(matches!(bus.next_event(None), Event::Answer(Command { verb: Verb::Start, .. }, OK)));
    assert!(matches!(bus.next_event(None), Event::Completed(Command { verb: Verb::Start, .. }, _)));
}

#[test]
fn mute_connection_reads_and_sends_nothing() {
    let (world, mut bus) = connect(World::good());
    bus.start(&setup(1)).expect("started");
    while !bus.is_idle() {
        let _ = bus.next_event(None);
    }
    bus.request_status().expect("idle");
    bus.is_mute = true;
    let (sent, deadline) = (lock(&world).sent.len(), bus.now() + TIMEOUT);
    lock(&world).queue.push_back((deadline, Datagram { number: 0, bytes: FRAME }));
    assert!(matches!(bus.next_event(Some(deadline)), Event::Datagram(FRAME)));
    assert!(matches!(bus.next_event(Some(deadline)), Event::Timeout));
    assert_eq!(lock(&world).sent.len(), sent);
}
