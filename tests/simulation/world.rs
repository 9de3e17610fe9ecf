//! Everything outside the process, in virtual time: the gateway, the bus behind it, the network, other users, the reader of
//! stdout. It follows a [`Plan`] and draws nothing by itself, so the same plan makes the same session.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::io::ErrorKind;

use super::device::{ControllerState, Device};
use super::log::{By, Fact, Log, MILLISECOND, Origin, Packet, Pushed, SECOND, Time, Transmission, Truth, Verb};
use super::plan::{Copy, Fate, Happening, Item, Kind, Plan, SendError};
use super::protocol::{self, Line};

/// How long a datagram takes in one direction.
const TRIP: Time = MILLISECOND;

/// How long the writer of stdout waits between two writes.
const WRITE_INTERVAL: Time = 8 * MILLISECOND;

/// Signals closer together than this are one.
const SIGNAL_DEBOUNCE: Time = 100 * MILLISECOND;

/// How long after the last signal of the plan another one follows, for a session that waits.
const LAST_SIGNAL_AFTER: Time = 1000 * SECOND;

#[derive(Debug)]
enum Event {
    /// The item of the plan at this index.
    Planned(usize),
    Tick {
        item: usize,
        number: u64,
    },
    Request {
        transmission: usize,
        copy: Copy,
        sent_at: Time,
    },
    Reply(usize),
    Error(ErrorKind),
    Write,
    Signal,
}

#[derive(Debug)]
struct Scheduled {
    at: Time,
    number: u64,
    event: Event,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

/// What goes through stdout.
#[derive(Debug, Default)]
pub struct Stdout {
    /// Bytes and datagrams that wait.
    waiting: (usize, u64),
    capacity: usize,
    pub written: u64,
    pub failed: Option<ErrorKind>,
    pub closed: bool,
    pub is_deleted: bool,
    write_is_due: bool,
    slow: bool,
    /// How the next write fails.
    fails: Option<ErrorKind>,
    /// When a sync that has begun is done.
    pub synced_at: Option<Time>,
}

#[derive(Debug)]
pub struct World {
    pub now: Time,
    pub log: Log,
    pub plan: Plan,
    events: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    device: Device,
    port: u8,
    line_end: String,
    odd_text: bool,
    status_refused: bool,
    status_ignored: bool,
    status_form: Option<String>,
    refusals: Vec<(String, u32, String)>,
    delay: Time,
    packs: bool,
    has_data_rate: bool,
    runs: Option<By>,
    truth: Truth,
    send_error: Option<SendError>,
    faults: Vec<(usize, Fate)>,
    /// The session's socket.
    queue: VecDeque<usize>,
    queue_capacity: usize,
    pub pending_error: Option<ErrorKind>,
    pub shared: bool,
    pub drops: u64,
    pub no_drop_counter: bool,
    pub woken: bool,
    /// Signals that wait for their handler.
    pub signals: u32,
    last_signal: Option<Time>,
    stalled_until: Time,
    pauses: Vec<(u32, Time)>,
    pub calls: u32,
    pub early_wakeups: bool,
    pub stdout: Stdout,
    pub file: Option<(Time, bool)>,
    stderr_blocked: bool,
    pub not_shown: u64,
}

impl World {
    pub fn new(plan: Plan) -> World {
        let port = plan.option("--channel").and_then(|value| value.parse().ok()).unwrap_or(1);
        let has_data_rate = plan.option("--data-bitrate").is_some();
        let mut world = World {
            now: 0,
            log: Log::default(),
            plan: Plan::default(),
            events: BinaryHeap::with_capacity(32),
            scheduled: 0,
            device: Device::new(),
            port,
            line_end: "\n".to_owned(),
            odd_text: false,
            status_refused: false,
            status_ignored: false,
            status_form: None,
            refusals: Vec::new(),
            delay: 0,
            packs: false,
            has_data_rate,
            runs: None,
            truth: Truth { power: true, ..Truth::default() },
            send_error: None,
            faults: Vec::new(),
            queue: VecDeque::new(),
            queue_capacity: 4096,
            pending_error: None,
            shared: false,
            drops: 0,
            no_drop_counter: false,
            woken: false,
            signals: 0,
            last_signal: None,
            stalled_until: 0,
            pauses: Vec::new(),
            calls: 0,
            early_wakeups: false,
            stdout: Stdout { capacity: 32 << 20, ..Stdout::default() },
            file: None,
            stderr_blocked: false,
            not_shown: 0,
        };
        for (index, item) in plan.0.iter().enumerate() {
            world.set_up(index, item);
        }
        world.plan = plan;
        world
    }

    fn set_up(&mut self, index: usize, item: &Item) {
        match item {
            Item::CanStop | Item::Option(_) => {}
            Item::LineEnd(text) => self.line_end.clone_from(text),
            Item::OddText => self.odd_text = true,
            Item::Initially { state, stream_is_ours } => {
                let states = [ControllerState::Uninitialised, ControllerState::Stopped, ControllerState::Running];
                self.device.set_state(self.port, states[usize::from(*state)]);
                self.device.execute(&format!("CAN {} FILTER CLEAR", self.port));
                self.runs = (*state == 2).then_some(By::Other);
                self.truth.stream_is_ours = *stream_is_ours;
            }
            Item::Accepting => self.device.accepting = true,
            Item::StatusRefused => self.status_refused = true,
            Item::StatusIgnored => self.status_ignored = true,
            Item::StatusForm(text) => self.status_form = Some(text.clone()),
            Item::Refuses { action, times, text } => self.refusals.push((action.clone(), *times, text.clone())),
            Item::Delay(time) => self.delay = *time,
            Item::Packs => self.packs = true,
            Item::WrongRate => self.truth.wrong_rate = true,
            Item::Stream { from, .. } => self.schedule(*from, Event::Tick { item: index, number: 0 }),
            Item::At(at, _) => self.schedule(*at, Event::Planned(index)),
            Item::Fault(transmission, fate) => self.faults.push((*transmission, fate.clone())),
            Item::Pause(call, time) => self.pauses.push((*call, *time)),
            Item::Queue(size) => self.queue_capacity = *size,
            Item::NoDropCounter => self.no_drop_counter = true,
            Item::Buffer(size) => self.stdout.capacity = *size,
            Item::File { sync, fails } => self.file = Some((*sync, *fails)),
            Item::EarlyWakeups => self.early_wakeups = true,
            Item::End(at) => {
                self.schedule(*at, Event::Signal);
                self.schedule(*at + LAST_SIGNAL_AFTER, Event::Signal);
            }
        }
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse(Scheduled { at, number: self.scheduled, event }));
    }

    /// What is true now.
    pub fn truth(&self) -> Truth {
        let controller = match self.device.state(self.port) {
            ControllerState::Uninitialised => 0,
            ControllerState::Stopped => 1,
            ControllerState::Running => 2,
        };
        Truth { controller, send_fails: self.send_error.is_some(), ..self.truth }
    }

    /// The size of the socket's receive buffer that makes its queue that long: the kernel charges at least 768 bytes for a
    /// datagram, and counts against twice the size.
    pub fn receive_buffer(&self) -> usize {
        self.queue_capacity * 768 / 2
    }

    /// Something is there for a read.
    pub fn is_readable(&self) -> bool {
        self.pending_error.is_some() || !self.queue.is_empty()
    }

    /// Lets everything happen until then, the process aside.
    pub fn run_through(&mut self, until: Time) {
        while self.events.peek().is_some_and(|Reverse(next)| next.at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Lets time pass until then, or until `stop`, or a signal.
    pub fn run_until(&mut self, until: Time, stop: impl Fn(&World) -> bool) {
        while self.signals == 0 && !stop(self) && self.events.peek().is_some_and(|Reverse(next)| next.at <= until) {
            self.step();
            if self.stalled_until > self.now {
                let until = self.stalled_until;
                self.stand_still(until);
            }
        }
        if self.signals == 0 && !stop(self) {
            self.now = self.now.max(until);
        }
    }

    fn stand_still(&mut self, until: Time) {
        self.log.add(self.now, Fact::Stalled { until });
        self.run_through(until);
        if self.stalled_until > self.now {
            self.stand_still(self.stalled_until);
        }
    }

    /// The process makes a call, which takes so long.
    pub fn on_call(&mut self, cost: Time) {
        self.calls += 1;
        if let Some(index) = self.pauses.iter().position(|(call, _)| *call == self.calls) {
            let until = self.now + self.pauses[index].1;
            self.stand_still(until);
        }
        if cost > 0 {
            let until = self.now + cost;
            self.run_through(until);
            if self.stalled_until > self.now {
                self.stand_still(self.stalled_until);
            }
        }
    }

    fn step(&mut self) {
        let Some(Reverse(Scheduled { at, event, .. })) = self.events.pop() else { return };
        self.now = self.now.max(at);
        match event {
            Event::Planned(index) => {
                let Item::At(_, happening) = &self.plan.0[index] else { return };
                let happening = happening.clone();
                self.happen(&happening);
            }
            Event::Tick { item, number } => self.tick(item, number),
            Event::Request { transmission, copy, sent_at } => self.on_request(transmission, &copy, sent_at),
            Event::Reply(packet) => self.arrive(packet),
            Event::Error(kind) => self.pending_error = Some(kind),
            Event::Write => self.write(),
            Event::Signal => self.signal(),
        }
    }

    fn signal(&mut self) {
        if self.last_signal.is_none_or(|last| self.now >= last + SIGNAL_DEBOUNCE) {
            self.last_signal = Some(self.now);
            self.signals += 1;
        }
    }

    /// A signal whose handler is to run.
    pub fn take_signal(&mut self) -> bool {
        if self.signals == 0 {
            return false;
        }
        self.signals -= 1;
        self.log.add(self.now, Fact::Signal);
        true
    }

    fn happened(&mut self, what: impl Into<String>) {
        self.log.add(self.now, Fact::Happened { what: what.into(), runs: self.runs });
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Signal => return self.signal(),
            Happening::Stall(time) => {
                self.stalled_until = self.stalled_until.max(self.now + time);
                return;
            }
            Happening::PowerOff => self.truth.power = false,
            Happening::PowerOn(keeps) => {
                if !keeps && !self.truth.power {
                    self.device.lose_power();
                    (self.runs, self.truth.stream_is_ours) = (None, false);
                }
                self.truth.power = true;
            }
            Happening::PortClosed(on) => self.truth.port_closed = *on,
            Happening::Firewall(on) => self.truth.firewall = *on,
            Happening::Cut(on) => self.truth.cut = *on,
            Happening::Muted(on) => self.truth.muted = *on,
            Happening::SendFails(error) => self.send_error = *error,
            Happening::AddressLost(on) => self.truth.address_lost = *on,
            Happening::Other(action) => {
                if !self.truth.power {
                    return;
                }
                let reply = self.execute(action, By::Other);
                if action == "START" && reply == "R ok" {
                    self.truth.stream_is_ours = false;
                }
                return self.happened(format!("other {action} => {reply}"));
            }
            Happening::Neighbour(action) => {
                if !self.truth.power || self.truth.cut || !self.shared {
                    return;
                }
                let reply = self.execute(action, By::Other);
                self.happened(format!("neighbour {action} => {reply}"));
                let bytes = self.line(&reply);
                return self.send_to_us(bytes, Origin::Foreign, 0);
            }
            Happening::StreamTaken(on) => self.truth.stream_is_ours = !on,
            Happening::Text(bytes) => {
                if self.truth.power && !self.truth.port_closed {
                    let is_frame = |line: &Line| matches!(line, Line::Frame(1..=4));
                    let frames = protocol::lines(bytes).iter().filter(|line| is_frame(line)).count();
                    self.send_to_us(bytes.clone(), Origin::Text, frames as u64);
                }
                return;
            }
            Happening::Flags(flags) => self.device.flags = *flags,
            Happening::ReaderSlow(on) => {
                self.stdout.slow = *on;
                self.schedule_write(0);
            }
            Happening::ReaderGone => self.stdout.fails = Some(ErrorKind::BrokenPipe),
            Happening::DiskFull => self.stdout.fails = Some(ErrorKind::StorageFull),
            Happening::FileDeleted => self.stdout.is_deleted = true,
            Happening::StderrBlocked(on) => self.stderr_blocked = *on,
        }
        self.happened(happening.to_string());
    }

    fn execute(&mut self, action: &str, by: By) -> String {
        let before = self.device.state(self.port);
        let reply = self.device.execute(&format!("CAN {} {action}", self.port));
        let after = self.device.state(self.port);
        if after != ControllerState::Running {
            self.runs = None;
        } else if before != ControllerState::Running || (action == "START" && reply == "R ok") {
            self.runs = Some(by);
        }
        reply
    }

    /// A line of the gateway with its end.
    fn line(&self, text: &str) -> Vec<u8> {
        let text = if self.odd_text { text.to_lowercase().replace(' ', "  ") } else { text.to_owned() };
        (text + &self.line_end).into_bytes()
    }

    fn frame(&self, kind: Kind, number: u64) -> String {
        let (port, id) = (self.port, 0x100 + number % 16);
        match kind {
            Kind::Standard => format!("M {port} CSD {id:X} {:02X} {:02X}", number >> 8 & 255, number & 255),
            Kind::Extended => format!("M {port} CED 18FEF{id:X} {:02X}", number & 255),
            Kind::Mixed if self.has_data_rate && number % 2 == 0 => format!("M {port} FSD {id:X} 01 02"),
            Kind::Mixed => format!("M {port} CSR {id:X} dlc=05"),
            Kind::OtherPort => format!("M {} CSD {id:X} {:02X}", port % 4 + 1, number & 255),
        }
    }

    fn tick(&mut self, item: usize, number: u64) {
        let Item::Stream { from, to, every, pack, kind } = self.plan.0[item] else { return };
        let next = from + (number + 1) * every;
        if every > 0 && next <= to {
            self.schedule(next, Event::Tick { item, number: number + 1 });
        }
        if !self.truth.power {
            return;
        }
        let id = 0x100 + (number % 16) as u32;
        if kind != Kind::OtherPort {
            if self.device.state(self.port) != ControllerState::Running || self.truth.wrong_rate {
                return;
            }
            let extended = kind == Kind::Extended;
            let id = if extended { 0x18FE_F000 | id } else { id };
            if !self.device.passes(self.port, extended, id) {
                self.truth.blocked[usize::from(extended)] = Some(self.now);
                return;
            }
            self.truth.passed = Some(self.now);
        }
        if !self.truth.stream_is_ours {
            return;
        }
        let mut bytes = Vec::new();
        for extra in 0..u64::from(pack) {
            // All of the same identifier, so that all pass or none.
            bytes.extend(self.line(&self.frame(kind, number + 16 * extra)));
        }
        self.send_to_us(bytes, Origin::Stream, u64::from(pack));
    }

    fn send_to_us(&mut self, bytes: Vec<u8>, origin: Origin, frames: u64) {
        self.log.packets.push(Packet { bytes, origin, frames });
        self.arrive(self.log.packets.len() - 1);
    }

    fn arrive(&mut self, packet: usize) {
        if self.truth.cut || self.truth.muted || self.truth.address_lost || self.truth.firewall {
            return;
        }
        if self.queue.len() >= self.queue_capacity {
            self.drops += 1;
            return self.log.add(self.now, Fact::Dropped(packet));
        }
        self.queue.push_back(packet);
        self.log.add(self.now, Fact::Arrived(packet));
    }

    /// The next datagram, or an error about an earlier one.
    pub fn read(&mut self) -> Result<&[u8], ErrorKind> {
        if let Some(kind) = self.pending_error.take() {
            self.log.add(self.now, Fact::ReadError(kind));
            return Err(kind);
        }
        let Some(packet) = self.queue.pop_front() else {
            self.log.add_empty(self.now);
            return Err(ErrorKind::WouldBlock);
        };
        self.log.add(self.now, Fact::Read(packet));
        Ok(&self.log.packets[packet].bytes)
    }

    pub fn send(&mut self, datagram: &[u8]) -> Result<(), ErrorKind> {
        // It reports the error to the first attempt and sends with the second.
        self.pending_error = None;
        let line = String::from_utf8_lossy(datagram).trim_end().to_owned();
        let number = self.log.transmissions.len();
        let fate = self.faults.iter().find(|(transmission, _)| *transmission == number).map(|(_, fate)| fate.clone());
        let error = self.send_error.or(match &fate {
            Some(Fate::Fails(error)) => Some(*error),
            _ => None,
        });
        self.log.transmissions.push(Transmission { verb: Verb::of(&line), line, at: self.now, left: error.is_none() });
        if self.log.transmissions[number].verb == Verb::Stop {
            self.log.add(self.now, Fact::Truth(self.truth()));
        }
        self.log.add(self.now, Fact::Sent(number));
        match error {
            Some(SendError::Unreachable) => return Err(ErrorKind::NetworkUnreachable),
            Some(SendError::Denied) => return Err(ErrorKind::PermissionDenied),
            None => {}
        }
        let copies = match fate {
            Some(Fate::Copies(copies)) => copies,
            _ => vec![Copy { carried_out: TRIP, answers: vec![2 * TRIP + self.delay] }],
        };
        for copy in copies {
            let (at, sent_at) = (self.now + copy.carried_out, self.now);
            self.schedule(at, Event::Request { transmission: number, copy, sent_at });
        }
        Ok(())
    }

    fn on_request(&mut self, transmission: usize, copy: &Copy, sent_at: Time) {
        if self.truth.cut || self.truth.address_lost {
            return;
        }
        if self.truth.firewall {
            return self.schedule(self.now + TRIP, Event::Error(ErrorKind::HostUnreachable));
        }
        if !self.truth.power {
            return;
        }
        if self.truth.port_closed {
            return self.schedule(self.now + TRIP, Event::Error(ErrorKind::ConnectionRefused));
        }
        let line = self.log.transmissions[transmission].line.clone();
        let Some((_, action)) = line.strip_prefix("CAN ").and_then(|rest| rest.split_once(' ')) else { return };
        let refusal =
            self.refusals.iter_mut().find(|(refused, times, _)| *times > 0 && action.starts_with(refused.as_str()));
        let is_status = action == "STATUS";
        let reply = if let Some((_, times, text)) = refusal {
            *times -= 1;
            Some(text.clone())
        } else if is_status && self.status_ignored {
            None
        } else if is_status && self.status_refused {
            Some("R ERR 0 unknown command".to_owned())
        } else {
            let reply = self.execute(action, By::Us);
            if action == "START" && reply == "R ok" {
                self.truth.stream_is_ours = true;
            }
            Some(self.status_form.clone().filter(|_| is_status && !reply.starts_with("R ERR")).unwrap_or(reply))
        };
        if is_status {
            self.log.add(self.now, Fact::Truth(self.truth()));
        }
        let shown = reply.clone().unwrap_or_else(|| "nothing".to_owned());
        self.log.add(self.now, Fact::CarriedOut { transmission, reply: shown, runs: self.runs });
        let Some(reply) = reply else { return };
        if copy.answers.is_empty() {
            return;
        }
        let mut bytes = self.line(&reply);
        let mut frames = 0;
        if self.packs
            && self.runs.is_some()
            && self.truth.stream_is_ours
            && self.device.passes(self.port, false, 0x100)
            && !self.truth.wrong_rate
        {
            bytes.extend(self.line(&self.frame(Kind::Standard, 0)));
            frames = 1;
        }
        self.log.packets.push(Packet { bytes, origin: Origin::Answer(transmission), frames });
        let packet = self.log.packets.len() - 1;
        for answer in &copy.answers {
            let at = (sent_at + answer).max(self.now);
            self.schedule(at, Event::Reply(packet));
        }
    }

    pub fn push(&mut self, bytes: &[u8], datagrams: u64) -> Pushed {
        let result = if self.stdout.failed.is_some() || self.stdout.closed {
            Pushed::Closed
        } else if self.stdout.waiting.0 + bytes.len() > self.stdout.capacity {
            Pushed::Full
        } else {
            self.stdout.waiting.0 += bytes.len();
            self.stdout.waiting.1 += datagrams;
            self.schedule_write(WRITE_INTERVAL);
            Pushed::Accepted
        };
        self.log.add(self.now, Fact::Pushed { bytes: bytes.to_vec(), datagrams, result });
        result
    }

    fn schedule_write(&mut self, after: Time) {
        if !self.stdout.write_is_due && self.stdout.waiting.0 > 0 {
            self.stdout.write_is_due = true;
            self.schedule(self.now + after, Event::Write);
        }
    }

    fn write(&mut self) {
        self.stdout.write_is_due = false;
        if self.stdout.slow || self.stdout.waiting.0 == 0 || self.stdout.failed.is_some() {
            return;
        }
        if let Some(kind) = self.stdout.fails {
            self.stdout.failed = Some(kind);
            self.woken = true;
            return self.log.add(self.now, Fact::WriteFailed(kind));
        }
        self.stdout.written += self.stdout.waiting.1;
        self.stdout.waiting = (0, 0);
        self.log.add(self.now, Fact::Written(self.stdout.written));
    }

    pub fn close(&mut self) {
        if !self.stdout.closed {
            self.stdout.closed = true;
            self.log.add(self.now, Fact::Truth(self.truth()));
            self.log.add(self.now, Fact::Closed);
            self.schedule_write(0);
        }
    }

    /// Everything is written, or will never be.
    pub fn is_written(&self) -> bool {
        self.stdout.failed.is_some() || self.stdout.waiting.0 == 0
    }

    pub fn say(&mut self, line: String) {
        if self.stderr_blocked {
            self.not_shown += 1;
            return self.log.add(self.now, Fact::NotShown(line));
        }
        let truth = self.truth();
        self.log.add(self.now, Fact::Said(line, truth));
    }
}
