//! A simulated CAN@net gateway on a real UDP socket, for tests.
//!
//! It is written from the protocol alone and uses nothing of the crate, so that a mistake made there is not made here
//! again. A network that misbehaves is part of the simulation: a script says what befalls each command.
//!
//! ```ignore
//! let gateway = Gateway::builder()
//!     .frames_per_second(1000.0)
//!     .script(|command, copy| match (command, copy) {
//!         ("CAN 1 FILTER CLEAR\n", 1) => Reaction::LoseReply,
//!         _ => Reaction::Answer,
//!     })
//!     .start();
//! // ... point a program at gateway.target() ...
//! gateway.wait_for_command("CAN 1 START\n");
//! gateway.wait_until_streamed(100);
//! ```
#![allow(dead_code)] // each test uses a part of it

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the waits without a timeout of their own last before they panic.
const PATIENCE: Duration = Duration::from_secs(30);

/// The streamer rests at least this long between two bursts: a sleep cannot be much shorter, and everybody else gets
/// the lock meanwhile.
const TICK: Duration = Duration::from_millis(1);

/// The bit rates the vendor lists, in kbit/s.
const BIT_RATES: [&str; 10] = ["5", "10", "20", "50", "100", "125", "250", "500", "800", "1000"];

/// Those of the data phase of CAN FD.
const DATA_BIT_RATES: [&str; 6] = ["500", "1000", "2000", "4000", "5000", "8000"];

/// What the long form of INIT can say.
const KEYS: [&str; 4] = ["MODE", "BAUDA", "BAUDD", "ISO"];

type FrameMaker = Box<dyn FnMut(u64) -> Vec<u8> + Send>;
type Script = Box<dyn FnMut(&str, u32) -> Reaction + Send>;

/// What befalls one command and the reply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The command is carried out and answered.
    Answer,
    /// The command gets lost on the way: not carried out, not answered, but recorded.
    LoseRequest,
    /// The command is carried out, the reply gets lost.
    LoseReply,
    /// The command is carried out at once and answered that much later; other commands are handled meanwhile.
    Delay(Duration),
    /// The reply is sent so many times in a row.
    Repeat(u32),
    /// The command is carried out, and these bytes are sent in place of the reply.
    Garble(Vec<u8>),
    /// These bytes are sent as a datagram of their own before the reply.
    Before(Vec<u8>),
}

/// A datagram that the gateway received.
#[derive(Clone, Debug)]
pub struct Received {
    /// What was in it.
    pub bytes: Vec<u8>,
    /// Who sent it.
    pub from: SocketAddr,
    /// When it arrived.
    pub at: Instant,
}

impl Received {
    /// What was in it, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// What kind of gateway to start; see [`Gateway::builder`].
pub struct GatewayBuilder {
    address: SocketAddr,
    running: bool,
    silent: bool,
    line_ending: String,
    refuse_init: bool,
    refusals: Vec<(String, String)>,
    status: Option<String>,
    frames_per_second: f64,
    stop_after_frames: u64,
    frame_maker: Option<FrameMaker>,
    script: Script,
}

impl GatewayBuilder {
    /// The address to listen on, 127.0.0.1 and a free port by default.
    pub fn bind(mut self, address: impl ToSocketAddrs) -> Self {
        let mut resolved = address.to_socket_addrs().expect("an address to bind to");
        self.address = resolved.next().expect("an address to bind to");
        // Behind a wildcard, std cannot tell which address was asked, and so not answer from it either.
        let one_address = !self.address.ip().is_unspecified();
        assert!(one_address, "bind to one address, not to all");
        self
    }

    /// Whether the controller is running already, since an earlier session. Nobody is streamed to before a START.
    pub fn running(mut self, running: bool) -> Self {
        self.running = running;
        self
    }

    /// Whether it plays dead: every command is recorded, none is carried out or answered.
    pub fn silent(mut self, silent: bool) -> Self {
        self.silent = silent;
        self
    }

    /// What ends a reply and a frame of the default stream: `"\n"` (the default), `"\r"`, `"\r\n"`, `"\\n"`.
    pub fn line_ending(mut self, line_ending: &str) -> Self {
        self.line_ending = line_ending.to_owned();
        self
    }

    /// Whether INIT is refused even when the controller is stopped.
    pub fn refuse_init_always(mut self, refuse: bool) -> Self {
        self.refuse_init = refuse;
        self
    }

    /// Refuses every command that begins with `prefix`, with a reply such as `R ERR 5 text`. Can be given repeatedly.
    pub fn refuse(mut self, prefix: &str, reply: &str) -> Self {
        self.refusals.push((prefix.to_owned(), reply.to_owned()));
        self
    }

    /// Whether it knows STATUS, and which flags it shows beside `I`: `"----"`, `"B---"`. By default it does not know it.
    pub fn status(mut self, flags: &str) -> Self {
        self.status = Some(flags.to_owned());
        self
    }

    /// How many frames a second appear on the simulated bus from START until STOP; 0, the default, for none.
    pub fn frames_per_second(mut self, rate: f64) -> Self {
        assert!(rate.is_finite() && rate >= 0.0, "{rate} is no rate");
        self.frames_per_second = rate;
        self
    }

    /// Falls silent once a START was followed by so many streamed frames.
    pub fn stop_after_frames(mut self, frames: u64) -> Self {
        self.stop_after_frames = frames;
        self
    }

    /// Makes the n-th datagram of the stream, with its line ending, from 0 and never starting over. If its first line
    /// is no frame, no filter holds it back. The default makes standard frames, whose first four data bytes are `n`.
    pub fn frame_maker(mut self, maker: impl FnMut(u64) -> Vec<u8> + Send + 'static) -> Self {
        self.frame_maker = Some(Box::new(maker));
        self
    }

    /// Decides what befalls each command. It is told the text as it came, and how many times that very text has been
    /// received by now, this one included.
    pub fn script(mut self, script: impl FnMut(&str, u32) -> Reaction + Send + 'static) -> Self {
        self.script = Box::new(script);
        self
    }

    /// Starts the gateway.
    pub fn start(mut self) -> Gateway {
        let mut bound = UdpSocket::bind(self.address);
        // A port that was just closed is still held by a program that is being started at this moment.
        let deadline = Instant::now() + PATIENCE;
        while bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) && Instant::now() < deadline {
            thread::sleep(TICK);
            bound = UdpSocket::bind(self.address);
        }
        let socket = bound.unwrap_or_else(|error| panic!("the gateway cannot bind {}: {error}", self.address));
        let address = socket.local_addr().expect("a bound socket has an address");
        let line_ending = self.line_ending.clone();
        self.frame_maker.get_or_insert_with(|| {
            Box::new(move |n| {
                let [.., a, b, c, d] = n.to_be_bytes();
                let data = format!("{a:02X} {b:02X} {c:02X} {d:02X} 55 AA 55 AA");
                format!("M 1 CSD 1{d:02X} {data}{line_ending}").into_bytes()
            })
        });
        let state = Mutex::new(State {
            running: self.running,
            initialised: self.running,
            options: self,
            filters: Vec::new(),
            received: Vec::new(),
            latest_client: None,
            late_replies: Vec::new(),
            stream: None,
            frames_made: 0,
            frames_sent: 0,
            ending: false,
            crashed: false,
        });
        let changed = Condvar::new();
        let device = Arc::new(Device { socket, address, state, changed });
        let threads = vec![device.spawn(Device::receive), device.spawn(Device::keep_time)];
        Gateway { device, threads }
    }
}

/// A running gateway. Dropping it ends its threads and closes the port.
pub struct Gateway {
    device: Arc<Device>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// A well-behaved gateway with a stopped controller and a quiet bus.
    pub fn start() -> Gateway {
        Gateway::builder().start()
    }

    /// What [`Gateway::start`] starts, to be changed before.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            running: false,
            silent: false,
            line_ending: "\n".to_owned(),
            refuse_init: false,
            refusals: Vec::new(),
            status: None,
            frames_per_second: 0.0,
            stop_after_frames: u64::MAX,
            frame_maker: None,
            script: Box::new(|_, _| Reaction::Answer),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.device.address
    }

    /// Where it listens, as `127.0.0.1:PORT`.
    pub fn target(&self) -> String {
        self.address().to_string()
    }

    /// Whether the controller is running.
    pub fn is_running(&self) -> bool {
        self.device.lock().running
    }

    /// How many datagrams of the stream have been handed to the kernel: what the filters held back does not count.
    pub fn frames_sent(&self) -> u64 {
        self.device.lock().frames_sent
    }

    /// Every datagram received so far.
    pub fn received(&self) -> Vec<Received> {
        self.device.lock().received.clone()
    }

    /// Every datagram received so far, as text.
    pub fn commands(&self) -> Vec<String> {
        let state = self.device.lock();
        state.received.iter().map(Received::text).collect()
    }

    /// Waits until `condition` holds for the datagrams received and returns them. Panics if that takes longer than
    /// `timeout`. The condition must ask the gateway nothing itself: the gateway is locked while it is evaluated.
    #[track_caller]
    pub fn wait_for(&self, timeout: Duration, mut condition: impl FnMut(&[Received]) -> bool) -> Vec<Received> {
        let state = self.wait_until(timeout, "what the test waits for", |state| condition(&state.received));
        state.received.clone()
    }

    /// Waits until this very command, line ending included, has been received, and returns the first such datagram.
    #[track_caller]
    pub fn wait_for_command(&self, command: &str) -> Received {
        let is_it = |received: &Received| received.bytes == command.as_bytes();
        let state = self.wait_until(PATIENCE, command, |state| state.received.iter().any(is_it));
        let found = state.received.iter().find(|received| is_it(received));
        found.expect("the wait is over").clone()
    }

    /// Waits until at least so many frames have been streamed.
    #[track_caller]
    pub fn wait_until_streamed(&self, frames: u64) {
        let what = format!("{frames} frames streamed");
        drop(self.wait_until(PATIENCE, &what, |state| state.frames_sent >= frames));
    }

    /// Sends a datagram to the client that sent the latest command.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let client = self.device.lock().latest_client;
        self.send_to(client.expect("no client has sent anything yet"), bytes);
    }

    /// Sends a datagram to anyone, from the gateway's own address.
    pub fn send_to(&self, address: SocketAddr, bytes: impl AsRef<[u8]>) {
        self.device.send(address, bytes.as_ref());
    }

    /// What STATUS shows from now on.
    pub fn set_status(&self, flags: &str) {
        self.device.lock().options.status = Some(flags.to_owned());
    }

    /// Without power it hears nothing, answers nothing and forgets everything.
    pub fn set_power(&self, on: bool) {
        let mut state = self.device.lock();
        state.options.silent = !on;
        state.lose_power();
    }

    /// Streams so many frames in all, from now on; u64::MAX for no limit.
    pub fn set_limit(&self, frames: u64) {
        self.device.lock().options.stop_after_frames = frames;
        self.device.changed.notify_all();
    }

    /// Halts the bus as another program would.
    pub fn halt(&self) {
        let mut state = self.device.lock();
        state.running = false;
        state.stream = None;
    }

    /// Ends it. The port is free again when this returns.
    pub fn stop(self) {}

    #[track_caller]
    fn wait_until(
        &self,
        timeout: Duration,
        what: &str,
        mut condition: impl FnMut(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + timeout;
        let mut state = self.device.lock();
        while !condition(&state) {
            assert!(!state.crashed, "a thread of the gateway panicked");
            if Instant::now() >= deadline {
                let list = state.received.iter().map(|r| format!("\n  {:?} from {}", r.text(), r.from));
                let (count, list) = (list.len(), list.collect::<String>());
                let frames = state.frames_sent;
                panic!("{what:?} not within {timeout:?}; {frames} frames streamed, received {count}:{list}");
            }
            state = self.device.wait(state, Some(deadline));
        }
        state
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.device.lock().ending = true;
        self.device.changed.notify_all();
        // A thread that is blocked in recv_from sees nothing but a datagram.
        self.device.send(self.device.address, b"");
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                // A test must not pass over this; one that fails already has said why.
                if !thread::panicking() {
                    panic::resume_unwind(panic);
                }
            }
        }
    }
}

/// What the threads and the handle share.
struct Device {
    socket: UdpSocket,
    address: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    options: GatewayBuilder,
    running: bool,
    initialised: bool,
    filters: Vec<Filter>,
    received: Vec<Received>,
    latest_client: Option<SocketAddr>,
    late_replies: Vec<LateReply>,
    stream: Option<Stream>,
    frames_made: u64,
    frames_sent: u64,
    ending: bool,
    crashed: bool,
}

struct Filter {
    extended: bool,
    identifier: u32,
    mask: u32,
}

struct LateReply {
    due: Instant,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct Stream {
    to: SocketAddr,
    since: Instant,
    made: u64,
    sent: u64,
}

impl Device {
    fn spawn(self: &Arc<Self>, work: fn(&Device)) -> JoinHandle<()> {
        let device = Arc::clone(self);
        thread::spawn(move || {
            if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| work(&device))) {
                // Whoever waits for the gateway shall not wait in vain.
                device.lock().crashed = true;
                device.changed.notify_all();
                panic::resume_unwind(panic);
            }
        })
    }

    /// A test that panicked, maybe in a condition it waits for, must still be able to end the gateway: so poison is
    /// no obstacle.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        let timeout = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        let woken = self.changed.wait_timeout(state, timeout);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let sent = self.socket.send_to(bytes, to);
        sent.unwrap_or_else(|error| panic!("the gateway cannot send to {to}: {error}"));
    }

    /// One thread receives commands, carries them out and answers.
    fn receive(&self) {
        let mut buffer = vec![0; 65536];
        loop {
            let received = self.socket.recv_from(&mut buffer);
            let at = Instant::now();
            let mut state = self.lock();
            if state.ending {
                return;
            }
            match received {
                Ok((length, from)) => self.handle(&mut state, &buffer[..length], from, at),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the gateway cannot receive: {error}"),
            }
        }
    }

    /// The lock is held until the reply is out, so that no frame of the stream overtakes the answer to START, and none
    /// follows the answer to STOP.
    fn handle(&self, state: &mut State, bytes: &[u8], from: SocketAddr, at: Instant) {
        let command = String::from_utf8_lossy(bytes);
        let same = |earlier: &&Received| earlier.bytes == bytes;
        let copy = 1 + state.received.iter().filter(same).count() as u32;
        let reaction = match state.options.silent {
            true => Reaction::LoseRequest,
            false => (state.options.script)(&command, copy),
        };
        state.received.push(Received { bytes: bytes.to_vec(), from, at });
        state.latest_client = Some(from);
        self.changed.notify_all();
        if reaction == Reaction::LoseRequest {
            return;
        }
        let refusals = &state.options.refusals;
        let refusal = refusals.iter().find(|(prefix, _)| command.starts_with(prefix)).map(|(_, reply)| reply.clone());
        let answer = refusal.unwrap_or_else(|| state.carry_out(&command, from));
        let reply = (answer + &state.options.line_ending).into_bytes();
        let late = |bytes, delay| LateReply { due: at + delay, to: from, bytes };
        match reaction {
            Reaction::LoseRequest | Reaction::LoseReply => {}
            Reaction::Answer => self.send(from, &reply),
            Reaction::Delay(delay) => state.late_replies.push(late(reply, delay)),
            Reaction::Repeat(times) => (0..times).for_each(|_| self.send(from, &reply)),
            Reaction::Garble(other) => self.send(from, &other),
            Reaction::Before(other) => {
                self.send(from, &other);
                self.send(from, &reply);
            }
        }
    }

    /// The other thread does everything that happens at its time: late replies and the stream.
    fn keep_time(&self) {
        let mut state = self.lock();
        while !state.ending {
            let next_reply = self.send_late_replies(&mut state);
            let next_burst = self.send_frames(&mut state);
            state = self.wait(state, next_reply.into_iter().chain(next_burst).min());
        }
    }

    /// Sends the replies that are due and says when the next one will be.
    fn send_late_replies(&self, state: &mut State) -> Option<Instant> {
        let now = Instant::now();
        state.late_replies.sort_by_key(|reply| reply.due);
        let due = state.late_replies.partition_point(|reply| reply.due <= now);
        for reply in state.late_replies.drain(..due) {
            self.send(reply.to, &reply.bytes);
        }
        state.late_replies.first().map(|reply| reply.due)
    }

    /// Sends the frames that are due and says when to send the next ones.
    fn send_frames(&self, state: &mut State) -> Option<Instant> {
        let (rate, limit) = (state.options.frames_per_second, state.options.stop_after_frames);
        let (stream, make) = (state.stream.as_mut()?, state.options.frame_maker.as_mut()?);
        if rate == 0.0 {
            return None;
        }
        // The first one is due at once. Who was held up catches up, yet at no more than about twice the pace: a flood
        // would overrun the receive buffer of the other side, and no bus does that.
        let due = (stream.since.elapsed().as_secs_f64() * rate) as u64 + 1;
        let most = stream.made + (2.0 * rate * TICK.as_secs_f64()).ceil() as u64;
        while stream.made < due.min(most) && stream.sent < limit {
            let datagram = make(state.frames_made);
            state.frames_made += 1;
            stream.made += 1;
            if passes(&state.filters, &datagram) {
                self.send(stream.to, &datagram);
                stream.sent += 1;
                state.frames_sent += 1;
            }
        }
        self.changed.notify_all();
        let next = stream.since + Duration::from_secs_f64(stream.made as f64 / rate);
        (stream.sent < limit).then(|| next.max(Instant::now() + TICK))
    }
}

impl State {
    /// What the controller does on a command, and what it replies. The vendor's manual gives one refusal as an example,
    /// the one about the bit rate; the others are made up in its style.
    fn carry_out(&mut self, command: &str, from: SocketAddr) -> String {
        let refused = |words: &str| format!("R ERR {words}");
        let unknown = || refused("2 unknown command");
        let command = command.to_ascii_uppercase();
        let words: Vec<&str> = command.split_ascii_whitespace().collect();
        let ["CAN", "1" | "2" | "3" | "4", action @ ..] = words.as_slice() else {
            return unknown();
        };
        match action {
            _ if !command.ends_with('\n') => return unknown(),
            ["INIT", ..] if self.running || self.options.refuse_init => {
                return refused("3 controller is running");
            }
            ["INIT", how @ ..] => match initialise(how) {
                Ok(()) => self.initialised = true,
                Err(why) => return refused(why),
            },
            ["STATUS"] if self.options.status.is_none() => return unknown(),
            ["STATUS"] if !self.initialised && !self.running => return refused("6 not initialised"),
            ["STATUS"] => {
                let flags = self.options.status.as_deref().unwrap_or_default();
                let state = if self.running { '-' } else { 'I' };
                return format!("R CAN {} {flags}{state} 100", words[1]);
            }
            ["FILTER", "CLEAR"] => self.filters.clear(),
            ["FILTER", "ADD", kind, identifier, mask] => {
                let Some(filter) = Filter::parse(kind, identifier, mask) else {
                    return refused("4 invalid filter");
                };
                self.filters.push(filter);
            }
            ["START"] => {
                let since = Instant::now();
                self.running = true;
                self.stream = Some(Stream { to: from, since, made: 0, sent: 0 });
            }
            ["STOP"] => {
                self.running = false;
                self.stream = None;
            }
            _ => return unknown(),
        }
        "R ok".to_owned()
    }

    fn lose_power(&mut self) {
        self.running = false;
        self.initialised = false;
        self.stream = None;
        self.filters.clear();
    }
}

/// Whether the controller can be initialised like that: in short, or in the long form.
fn initialise(how: &[&str]) -> Result<(), &'static str> {
    if let ["STD", rate] = how {
        return if BIT_RATES.contains(rate) { Ok(()) } else { Err("1 invalid baudrate") };
    }
    let value = |key| how.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let known = how.iter().all(|word| word.split('=').next().is_some_and(|key| KEYS.contains(&key)));
    let mode = value("MODE").is_some_and(|mode| ["STD", "LISTEN"].contains(&mode));
    let rate = value("BAUDA").is_some_and(|rate| BIT_RATES.contains(&rate));
    let data = value("BAUDD").is_none_or(|rate| DATA_BIT_RATES.contains(&rate));
    let iso = value("ISO").is_none_or(|iso| ["ISO", "NONISO"].contains(&iso));
    if known && mode && rate && data && iso { Ok(()) } else { Err("1 invalid parameter") }
}

impl Filter {
    fn parse(kind: &str, identifier: &str, mask: &str) -> Option<Filter> {
        let (extended, highest) = match kind {
            "STD" => (false, 0x7FF),
            "EXT" => (true, 0x1FFF_FFFF),
            _ => return None,
        };
        let identifier = u32::from_str_radix(identifier, 16).ok()?;
        let mask = u32::from_str_radix(mask, 16).ok()?;
        let in_range = identifier <= highest && mask <= highest;
        in_range.then_some(Filter { extended, identifier, mask })
    }
}

/// Whether one of the filters accepts the datagram's first line, or that line is no frame at all.
fn passes(filters: &[Filter], datagram: &[u8]) -> bool {
    let Some((extended, identifier)) = identify(datagram) else {
        return true;
    };
    let accepts = |f: &Filter| f.extended == extended && f.identifier & f.mask == identifier & f.mask;
    filters.iter().any(accepts)
}

/// Reads the kind and the identifier of `M 1 CSD 100 ...`.
fn identify(datagram: &[u8]) -> Option<(bool, u32)> {
    let mut words = std::str::from_utf8(datagram).ok()?.split_ascii_whitespace();
    if !words.next()?.eq_ignore_ascii_case("M") {
        return None;
    }
    let format = words.nth(1)?.as_bytes();
    let extended = format.get(1)?.eq_ignore_ascii_case(&b'E');
    Some((extended, u32::from_str_radix(words.next()?, 16).ok()?))
}
