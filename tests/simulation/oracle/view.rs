//! What had happened at a moment of the log: what the process could know, and what was true.

use std::collections::VecDeque;

use crate::simulation::log::{By, Ending, Fact, Log, MILLISECOND, Origin, Pushed, SECOND, Time, Truth, Verb};
use crate::simulation::plan::{Item, Plan};
use crate::simulation::protocol::{self, Change, Line};
use crate::simulation::sentences::{self, Sentence};

/// The options that matter here.
#[derive(Clone, Debug)]
pub struct Options {
    pub is_can_stop: bool,
    pub is_raw: bool,
    pub format: String,
    pub count: Option<u64>,
    /// Never, if zero.
    pub status_after: Time,
    pub idle: Option<Time>,
    pub stop_on_exit: bool,
    pub quiet: bool,
    pub timeout: Time,
    pub attempts: u64,
    pub port: u8,
    pub filters: Vec<String>,
    pub vendor_port: bool,
}

impl Options {
    fn new(plan: &Plan) -> Options {
        let time = |name, default: f64| {
            let value: f64 = plan.option(name).and_then(|value| value.parse().ok()).unwrap_or(default);
            (value * SECOND as f64).round() as Time
        };
        let has = |name| plan.option(name).is_some();
        let either = |short, long| plan.option(short).or(plan.option(long));
        let format = either("-f", "--format").unwrap_or("raw").to_owned();
        Options {
            is_can_stop: plan.has(&Item::CanStop),
            is_raw: format == "raw",
            format,
            count: either("-n", "--count").and_then(|value| value.parse().ok()),
            status_after: time("--status-after", 5.0),
            idle: has("--idle-timeout").then(|| time("--idle-timeout", 0.0)),
            stop_on_exit: has("--stop-on-exit"),
            quiet: has("--quiet"),
            timeout: time("--timeout", 1.0),
            attempts: plan.option("--attempts").and_then(|value| value.parse().ok()).unwrap_or(3),
            port: plan.option("--channel").and_then(|value| value.parse().ok()).unwrap_or(1),
            filters: plan
                .options()
                .filter(|(name, _)| *name == "--filter")
                .map(|(_, value)| value.to_uppercase())
                .collect(),
            vendor_port: plan.option("--target").is_some_and(|target| target.ends_with(":19228")),
        }
    }

    /// How long a silence lasts before STATUS is sent, at least.
    pub fn query_after(&self) -> Time {
        match self.idle {
            Some(idle) if idle < 2 * self.status_after => idle / 2,
            _ => self.status_after,
        }
    }

    /// How long the answer to the last transmission is awaited.
    pub fn answer_window(&self) -> Time {
        2 * self.timeout + 20 * MILLISECOND
    }

    /// How long a command takes that nothing answers.
    pub fn command_time(&self) -> Time {
        (self.attempts + 1) * self.timeout + 40 * MILLISECOND
    }
}

/// A datagram of the stream with a frame of this port.
#[derive(Clone, Copy, Debug)]
pub struct FrameRead {
    pub arrived: Time,
    /// When it was read, at the latest for all that the process knows: it may have stood still before it looked at the clock.
    pub read: Time,
}

#[derive(Clone, Debug)]
pub struct StatusRead {
    pub read: Time,
    /// The same at the latest for all that the process knows.
    pub read_by: Time,
    /// When the first of several answers in a row was read that say the same.
    pub since: Time,
    pub flags: [u8; 5],
    pub transmission: Option<usize>,
}

impl StatusRead {
    pub fn stopped(&self) -> bool {
        self.flags[4] == b'I'
    }
}

/// What the process knows of the bus.
#[derive(Clone, Debug)]
pub struct Known {
    pub silent_since: Time,
    pub answers: Vec<StatusRead>,
    pub bus_off: bool,
    pub warning: bool,
    pub sick: bool,
    pub overrun: bool,
    /// The last STATUS that was sent.
    pub query: Option<Group>,
    pub frames: u64,
    pub last_start: Option<Time>,
    pub start_ok: Option<Time>,
}

impl Known {
    /// Whether the last answer to STATUS says so, and nothing is newer.
    pub fn says_stopped(&self, stopped: bool) -> bool {
        let newest = |status: &&StatusRead| Some(status.read) > self.last_start && Some(status.read) > self.start_ok;
        let fits = |status: &StatusRead| status.stopped() == stopped && (!stopped || newest(&status));
        self.answers.iter().any(fits)
    }
}

/// Transmissions of one command, the same text in a row.
#[derive(Clone, Debug)]
pub struct Group {
    pub verb: Verb,
    pub line: String,
    pub first: Time,
    pub last: Time,
    /// When the last one that left was sent.
    pub last_left: Option<Time>,
    pub transmissions: Vec<usize>,
    pub left: u64,
    /// When an answer was read that belongs to it.
    pub answered: Option<Time>,
    pub was_ok: bool,
    /// A state was read.
    pub has_status: bool,
    /// One that says that it runs.
    pub ran: bool,
    /// One that says that it is stopped.
    pub stood: bool,
    /// The lines read since its first transmission that could answer it.
    pub refusals: Vec<String>,
    /// Another `R` line that answers it in an unknown form, and whether it was certainly read in time.
    pub unknown: Vec<(String, bool)>,
    /// STATUS that decides about INIT, START or STOP.
    pub is_check: bool,
}

pub struct View<'a> {
    pub options: Options,
    pub items: &'a [Item],
    pub log: &'a Log,
    pub wild: bool,
    pub has_no_drop_counter: bool,
    pub now: Time,
    /// When the queue was last found empty.
    pub empty_at: Option<Time>,
    /// Unread datagrams and when they arrived.
    pub queued: VecDeque<(Time, usize)>,
    /// The latest datagram that was read, and its lines.
    pub last_read: Option<usize>,
    pub last_lines: Vec<Line>,
    pub last_read_at: Time,
    pub groups: Vec<Group>,
    pub init_left: Option<Time>,
    pub start_left: Option<Time>,
    /// The same at the latest for all that the process knows.
    pub start_by: Option<Time>,
    pub last_start_left: Option<Time>,
    pub frame: Option<FrameRead>,
    pub frame_before: Option<FrameRead>,
    pub frames_read: u64,
    /// Datagrams read since INIT first left.
    pub datagrams_read: u64,
    /// The latest answer to STATUS about this port since START left.
    pub status: Option<StatusRead>,
    pub status_before_start: Option<StatusRead>,
    /// All answers to the STATUS that was answered last: copies can differ.
    pub answers: Vec<StatusRead>,
    /// When evidence was read that the bus runs.
    pub start_ok: Option<Time>,
    pub running_status: Option<Time>,
    /// The same from an answer that was overtaken by a newer one.
    pub maybe_running: Option<Time>,
    /// When the latest of several answers to one STATUS was read that differ: their order cannot be told.
    pub disputed: Option<Time>,
    /// What the events and flags say: bus off, error warning. RESET leaves it open.
    pub bus_off: Option<Time>,
    pub warning: Option<Time>,
    /// Bus off or warning, for certain.
    pub sick: Option<Time>,
    pub overrun: bool,
    /// When such evidence was cleared, at the latest.
    pub flags_cleared: Option<Time>,
    pub own_refusal_of_status: Option<Time>,
    pub stop_sent: Option<Time>,
    /// STOP was sent, or could not be.
    pub stop_tried: Option<Time>,
    /// `--idle-timeout` was over once, for all that can be told from outside.
    pub idle_over: bool,
    /// START left after a signal, and something was read in between.
    pub started_after_signal: bool,
    /// What was known when the session ended, or could have.
    pub at_end: Vec<Known>,
    /// When the silence began in which STOP was first sent, or stdout closed.
    pub silent_at_end: Option<(Time, Time)>,
    pub no_answer_said: Option<Time>,
    pub runs: Option<By>,
    pub ran_since_start: bool,
    pub signals: Vec<Time>,
    pub reads_since_signal: u32,
    pub write_failed: Option<Time>,
    pub closed: Option<Time>,
    pub read_errors: Vec<Time>,
    pub stalls: Vec<(Time, Time)>,
    pub accepted: u64,
    pub accepted_frames: u64,
    pub is_complete: bool,
    pub not_shown: bool,
    pub failure_said: bool,
    pub truth: Truth,
    pub ending: Option<Ending>,
}

impl<'a> View<'a> {
    pub fn new(plan: &'a Plan, log: &'a Log, wild: bool) -> View<'a> {
        View {
            options: Options::new(plan),
            items: &plan.0,
            log,
            wild,
            has_no_drop_counter: plan.has(&Item::NoDropCounter),
            now: 0,
            empty_at: None,
            queued: VecDeque::new(),
            last_read: None,
            last_lines: Vec::new(),
            last_read_at: 0,
            groups: Vec::new(),
            init_left: None,
            start_left: None,
            start_by: None,
            last_start_left: None,
            frame: None,
            frame_before: None,
            frames_read: 0,
            datagrams_read: 0,
            status: None,
            status_before_start: None,
            answers: Vec::new(),
            start_ok: None,
            running_status: None,
            maybe_running: None,
            disputed: None,
            bus_off: None,
            warning: None,
            sick: None,
            overrun: false,
            flags_cleared: None,
            own_refusal_of_status: None,
            stop_sent: None,
            stop_tried: None,
            idle_over: false,
            started_after_signal: false,
            at_end: Vec::new(),
            silent_at_end: None,
            no_answer_said: None,
            runs: None,
            ran_since_start: false,
            signals: Vec::new(),
            reads_since_signal: 0,
            write_failed: None,
            closed: None,
            read_errors: Vec::new(),
            stalls: Vec::new(),
            accepted: 0,
            accepted_frames: 0,
            is_complete: false,
            not_shown: false,
            failure_said: false,
            truth: Truth::default(),
            ending: None,
        }
    }

    /// How long the process stood still between these times.
    pub fn stalled(&self, from: Time, to: Time) -> Time {
        let overlap = |&(begin, end): &(Time, Time)| end.min(to).saturating_sub(begin.max(from));
        self.stalls.iter().map(overlap).sum()
    }

    /// When the process has run for so long since a time.
    pub fn after(&self, from: Time, duration: Time) -> Time {
        let later = |due: Time, &(begin, end): &(Time, Time)| {
            if begin < due && end > from { due + end - begin.max(from) } else { due }
        };
        self.stalls.iter().fold(from + duration, later)
    }

    /// When the silence began, at the earliest and at the latest that it can be said: a frame arrived and was read.
    pub fn silent_since(&self) -> Option<(Time, Time)> {
        let start = self.start_left?;
        Some(self.frame.map_or((start, self.start_by.unwrap_or(start)), |frame| (frame.arrived, frame.read)))
    }

    /// Something asked the session to end.
    pub fn end_asked(&self) -> Option<Time> {
        self.signals.first().copied().into_iter().chain(self.write_failed).min()
    }

    /// The session is over, or asked to end, or has printed all that was requested.
    pub fn is_ending(&self) -> bool {
        self.end_asked().is_some()
            || self.closed.is_some()
            || self.is_complete
            || self.failure_said
            || self.stop_tried.is_some()
            || self.idle_over
    }

    pub fn streams(&self) -> bool {
        self.start_left.is_some() && !self.is_ending()
    }

    /// The latest group of a command.
    pub fn group(&self, verb: Verb) -> Option<&Group> {
        self.groups.iter().rev().find(|group| group.verb == verb)
    }

    /// The evidence that the bus runs, the newest.
    pub fn evidence(&self) -> Option<Time> {
        [self.frame.map(|frame| frame.read), self.start_ok, self.running_status].into_iter().flatten().max()
    }

    /// What is certainly against it.
    pub fn against(&self) -> Option<Time> {
        let stopped = self.status.as_ref().filter(|status| status.stopped()).map(|status| status.read);
        // Until the line has settled a better answer may come.
        let settled = self.closed.unwrap_or(self.now).saturating_sub(
            self.options.answer_window() + self.stalled(self.now.saturating_sub(60 * SECOND), self.now),
        );
        let refusal = self.own_refusal_of_status.filter(|&read| read <= settled);
        [stopped, refusal, self.stop_sent].into_iter().flatten().max()
    }

    pub fn said(&self) -> impl Iterator<Item = (Time, &'a str)> {
        let log = self.log;
        log.facts.iter().filter_map(|(at, fact)| match fact {
            Fact::Said(message, _) => Some((*at, message.as_str())),
            _ => None,
        })
    }

    /// Whether this line was read as an answer to a transmission of the group.
    pub fn update(&mut self, now: Time, fact: &Fact) {
        let ends = matches!(fact, Fact::Closed)
            || matches!(fact, Fact::Sent(index) if self.log.transmissions[*index].verb == Verb::Stop);
        if ends && self.silent_at_end.is_none() {
            self.silent_at_end = self.silent_since();
        }
        // The process ends the session when it has read everything.
        let may_end = self.at_end.is_empty() || self.at_end.len() == 1 && matches!(fact, Fact::Empty { .. });
        let is_idle = may_end && self.idle_at().is_some_and(|at| now >= at);
        if self.start_left.is_some() && (is_idle || ends && self.at_end.len() < 4) {
            self.at_end.push(self.known_now());
        }
        self.now = now;
        match fact {
            Fact::Sent(index) => self.on_sent(*index),
            Fact::CarriedOut { runs, .. } | Fact::Happened { runs, .. } => {
                self.runs = *runs;
                self.ran_since_start |= runs.is_some() && self.start_left.is_some();
            }
            Fact::Arrived(packet) => self.queued.push_back((now, *packet)),
            Fact::Read(packet) => self.on_read(*packet),
            Fact::Empty { until } => {
                self.empty_at = Some(*until);
                self.reads_since_signal += 1;
            }
            Fact::ReadError(_) => {
                self.read_errors.push(now);
                self.reads_since_signal += 1;
            }
            Fact::Stalled { until } => self.on_stalled(*until),
            Fact::Signal => {
                self.signals.push(now);
                self.reads_since_signal = 0;
            }
            Fact::Pushed { bytes, datagrams, result } => self.on_pushed(bytes, *datagrams, *result),
            Fact::Closed => self.closed = Some(now),
            Fact::WriteFailed(_) => self.write_failed = self.write_failed.or(Some(now)),
            Fact::Said(_, truth) | Fact::Truth(truth) => self.truth = *truth,
            Fact::NotShown(_) => self.not_shown = true,
            Fact::Ended(ending) => self.ending = Some(ending.clone()),
            Fact::Dropped(_) | Fact::Shared(_) | Fact::Look { .. } | Fact::Written(_) => {}
        }
    }

    fn on_sent(&mut self, index: usize) {
        let transmission = &self.log.transmissions[index];
        let left = u64::from(transmission.left);
        let attempts = self.options.attempts;
        let continues = self.groups.last().is_some_and(|group| {
            let is_answered =
                group.answered.is_some() && (group.was_ok || group.verb == Verb::Status || !group.refusals.is_empty());
            let may_repeat = if group.verb == Verb::Start { group.left == 0 } else { true };
            // A STOP that overtook is followed by another one at once, or when the line has settled.
            let apart = self.now - group.last;
            let late = apart > self.options.timeout * 11 / 10 + self.stalled(group.last, self.now);
            let is_apart = group.verb == Verb::Stop && (late || apart < self.options.timeout / 2);
            group.line == transmission.line
                && !is_apart
                && !is_answered
                && may_repeat
                && (group.transmissions.len() as u64) < attempts
                && (self.frame.is_none_or(|frame| frame.read < group.first)
                    || group.verb != Verb::Status
                    || group.is_check)
        });
        if continues {
            let group = self.groups.last_mut().expect("it continues");
            group.last = self.now;
            group.left += left;
            group.last_left = if left > 0 { Some(self.now) } else { group.last_left };
            group.transmissions.push(index);
        } else {
            let last = self.groups.last().map(|last| last.verb);
            let mut commands = self.groups.iter().rev().take_while(|group| Some(group.verb) == last);
            let is_check = transmission.verb == Verb::Status
                && last != Some(Verb::Status)
                && commands.any(|command| !command.was_ok && !command.refusals.is_empty());
            self.groups.push(Group {
                verb: transmission.verb,
                line: transmission.line.clone(),
                first: self.now,
                last: self.now,
                last_left: transmission.left.then_some(self.now),
                transmissions: vec![index],
                left,
                answered: None,
                was_ok: false,
                has_status: false,
                ran: false,
                stood: false,
                refusals: Vec::new(),
                unknown: Vec::new(),
                is_check,
            });
        }
        if transmission.verb == Verb::Stop && self.start_left.is_some() {
            self.stop_tried.get_or_insert(self.now);
        }
        if left == 0 {
            return;
        }
        match transmission.verb {
            Verb::Init => {
                self.init_left.get_or_insert(self.now);
            }
            Verb::Start => {
                if self.start_left.is_none() {
                    (self.start_left, self.start_by) = (Some(self.now), Some(self.now));
                    self.started_after_signal = !self.signals.is_empty() && self.reads_since_signal > 0;
                }
                self.last_start_left = Some(self.now);
                self.ran_since_start |= self.runs.is_some();
            }
            Verb::Stop if self.start_left.is_some() => self.stop_sent = Some(self.now),
            _ => {}
        }
    }

    fn on_read(&mut self, packet: usize) {
        self.reads_since_signal += 1;
        let arrived = self.queued.pop_front().map_or(self.now, |(arrived, _)| arrived);
        let packet_read = &self.log.packets[packet];
        let lines = protocol::lines(&packet_read.bytes);
        (self.last_read, self.last_read_at) = (Some(packet), self.now);
        if self.init_left.is_some() {
            self.datagrams_read += 1;
        }
        if lines.contains(&Line::Frame(self.options.port)) {
            // It may have come too late.
            self.idle_over |= self.idle_at().is_some_and(|at| arrived >= at);
            if !self.is_ending() {
                self.at_end.clear();
            }
        }
        for line in &lines {
            self.on_line_read(line, packet_read.origin);
        }
        let port = self.options.port;
        if self.start_left.is_some() && lines.contains(&Line::Frame(port)) {
            self.frame_before = self.frame;
            self.frame = Some(FrameRead { arrived, read: self.now });
            self.frames_read += 1;
            self.flags_cleared = Some(self.now);
            (self.bus_off, self.warning, self.sick) = (None, None, None);
            // Of the same datagram.
            self.own_refusal_of_status = self.own_refusal_of_status.filter(|&at| at < self.now);
        }
        self.last_lines = lines;
    }

    fn on_line_read(&mut self, line: &Line, origin: Origin) {
        let (now, port) = (self.now, self.options.port);
        let answers = match origin {
            Origin::Answer(transmission) => Some(transmission),
            _ => None,
        };
        let group = self
            .groups
            .iter_mut()
            .rev()
            .find(|group| answers.is_some_and(|answer| group.transmissions.contains(&answer)));
        match line {
            Line::Ok => {
                if let Some(group) = group {
                    group.answered.get_or_insert(now);
                    group.was_ok = true;
                    if group.verb == Verb::Start {
                        self.start_ok = Some(now);
                    }
                }
            }
            Line::Refused(text) => {
                if let Some(group) = group {
                    group.answered.get_or_insert(now);
                    group.refusals.push(text.clone());
                    // A frame since the question is newer.
                    let mut sent = group.transmissions.iter().map(|&index| &self.log.transmissions[index]);
                    let first_left = sent.find(|sent| sent.left).map(|sent| sent.at);
                    let is_newest = group.refusals.len() == 1
                        && !group.has_status
                        && self.frame.is_none_or(|frame| Some(frame.read) < first_left);
                    if group.verb == Verb::Status && self.start_left.is_some() && is_newest {
                        self.own_refusal_of_status = Some(now);
                    }
                }
            }
            Line::Status(of, flags) if *of == port => {
                let asked = group.as_ref().map(|group| group.first);
                if let Some(group) = group {
                    group.has_status = true;
                    group.ran |= flags[4] != b'I';
                    group.stood |= flags[4] == b'I';
                    // So can the order of an answer and a frame.
                    let ran = group.ran || self.frame.is_some_and(|frame| frame.read >= group.first);
                    if ran && group.stood {
                        self.disputed = Some(now);
                    }
                    group.answered.get_or_insert(now);
                }
                // Overtaken by the answer to a later transmission: older news.
                let latest = if self.start_left.is_none() { &self.status_before_start } else { &self.status };
                if latest.as_ref().is_some_and(|latest| latest.transmission > answers) {
                    // The process cannot tell.
                    self.sick = None;
                    if self.start_left.is_some() && flags[4] != b'I' {
                        self.maybe_running = Some(now);
                    }
                    // A frame is newer.
                    if self.start_left.is_some() && self.frame.map(|frame| frame.read) < asked {
                        self.bus_off = (flags[0] == b'B').then_some(now).or(self.bus_off);
                        self.warning = (flags[1] == b'E').then_some(now).or(self.warning);
                    }
                    if let Some(latest) = self.status.as_mut().filter(|latest| latest.flags[4] == flags[4]) {
                        latest.read_by = now;
                    }
                    return;
                }
                let same =
                    self.status.as_ref().filter(|last| last.flags == *flags && Some(last.since) > self.last_start_left);
                let since = same.map_or(now, |last| last.since);
                let status = StatusRead { read: now, read_by: now, since, flags: *flags, transmission: answers };
                if self.start_left.is_none() {
                    self.status_before_start = Some(status);
                    return;
                }
                let is_same = |index: Option<usize>| {
                    index.is_some_and(|index| {
                        self.groups.iter().any(|group| {
                            group.transmissions.contains(&index)
                                && answers.is_some_and(|answer| group.transmissions.contains(&answer))
                        })
                    })
                };
                if !self.status.as_ref().is_some_and(|last| is_same(last.transmission)) {
                    self.answers.clear();
                }
                self.answers.push(status.clone());
                if !status.stopped() {
                    self.running_status = Some(now);
                }
                self.overrun = flags[2] == b'O';
                // A status that was asked for before an event does not clear it.
                let asked =
                    answers.and_then(|index| self.groups.iter().find(|group| group.transmissions.contains(&index)));
                let asked = asked.map(|group| group.first);
                let newer = |event: &Time| Some(*event) >= asked;
                // Of several answers, and of an answer and an event, either may be the newer one.
                let is_sick = self.answers.iter().all(|status| status.flags[0] == b'B' || status.flags[1] == b'E');
                let is_first = self.answers.len() == 1 || self.flags_cleared < asked;
                self.sick = (is_sick && is_first).then_some(now);
                // Nor does it say anything after a frame.
                let is_current = self.frame.map(|frame| frame.read) < asked;
                self.bus_off = if flags[0] == b'B' && is_current { Some(now) } else { self.bus_off.filter(newer) };
                self.warning = if flags[1] == b'E' { Some(now) } else { self.warning.filter(newer) };
                self.status = Some(status);
            }
            Line::Status(..) => {}
            Line::Reply(text) => {
                // Whatever it answers: it cannot be told.
                let last_left = self.groups.last().and_then(|group| group.last_left);
                let over = last_left.map(|sent| sent + self.options.answer_window() + self.stalled(sent, now));
                let is_open = over.is_some_and(|over| now <= over + MILLISECOND);
                if let Some(group) = self.groups.last_mut().filter(|group| is_open && group.verb == Verb::Status) {
                    group.unknown.push((text.clone(), Some(now) <= over));
                }
            }
            Line::Event(of, change) if *of == port => match change {
                Change::BusOff => (self.bus_off, self.sick) = (Some(now), Some(now)),
                Change::WarningSet => (self.warning, self.sick) = (Some(now), Some(now)),
                Change::WarningReset => {
                    self.flags_cleared = Some(now);
                    (self.bus_off, self.warning, self.sick) = (None, None, None);
                }
                Change::Other => {}
            },
            Line::Event(..) | Line::Frame(_) | Line::Other => {}
        }
    }

    fn on_stalled(&mut self, until: Time) {
        self.stalls.push((self.now, until));
        // It may not have looked at the clock between what it did last and this.
        let now = self.now;
        let frame = self.frame.as_mut().map(|frame| &mut frame.read);
        let status = self.status.as_mut().map(|status| &mut status.read_by);
        let others = [&mut self.start_by, &mut self.start_ok, &mut self.running_status].into_iter().flatten();
        for time in others.chain(frame).chain(status).filter(|time| **time == now) {
            *time = until;
        }
    }

    /// An answer to it lies in the queue, and has arrived before the last look.
    pub fn answer_waits(&self, group: &Group) -> bool {
        let looked = self.empty_at.unwrap_or(0).max(self.last_read_at);
        let answers = |packet: usize| match self.log.packets[packet].origin {
            Origin::Answer(transmission) => group.transmissions.contains(&transmission),
            _ => false,
        };
        self.queued.iter().any(|&(arrived, packet)| arrived + MILLISECOND < looked && answers(packet))
    }

    /// The earliest time at which what is done now can have been decided: after the last read, or before the process stood
    /// still.
    pub fn decided_at(&self) -> Time {
        let looked = self.empty_at.unwrap_or(0).max(self.last_read_at).min(self.now);
        self.before_stall(looked)
    }

    /// A time, or when the process began to stand still shortly before it.
    pub fn before_stall(&self, time: Time) -> Time {
        let shortly_before = |time: Time, (begin, end): &(Time, Time)| {
            // An error of the network is followed by a pause of 1 ms.
            if *begin <= time && end + 2 * MILLISECOND >= time { *begin } else { time }
        };
        self.stalls.iter().rev().fold(time, shortly_before)
    }

    /// What is known, now and when the session ended.
    pub fn known(&self) -> impl Iterator<Item = Known> {
        self.at_end.iter().cloned().chain([self.known_now()])
    }

    /// When `--idle-timeout` ends the session, at the earliest.
    pub fn idle_at(&self) -> Option<Time> {
        Some(self.silent_since()?.0 + self.options.idle?)
    }

    fn known_now(&self) -> Known {
        Known {
            silent_since: self.silent_since().map_or(0, |(arrived, _)| arrived),
            answers: self.answers.clone(),
            bus_off: self.bus_off.is_some(),
            warning: self.warning.is_some(),
            sick: self.sick.is_some(),
            overrun: self.answers.iter().any(|status| status.flags[2] == b'O'),
            query: self.group(Verb::Status).cloned(),
            frames: self.frames_read,
            last_start: self.last_start_left,
            start_ok: self.start_ok,
        }
    }

    fn on_pushed(&mut self, bytes: &[u8], datagrams: u64, result: Pushed) {
        if result == Pushed::Accepted {
            self.accepted += datagrams;
            if datagrams > 0 {
                self.accepted_frames += frames_in(&self.options.format, bytes);
            }
        }
        let done = if self.options.is_raw { self.accepted } else { self.accepted_frames };
        self.is_complete |= self.options.count.is_some_and(|count| done >= count);
    }

    /// A message was judged.
    pub fn after_message(&mut self, message: &str) {
        for line in sentences::lines(message) {
            match sentences::recognise(line) {
                // An error of the network explains more than that there was no answer.
                Sentence::NoData { why, .. } | Sentence::Idle { why, .. }
                    if why.contains("no answer to STATUS")
                        || self.group(Verb::Status).is_some_and(|group| group.left > 0 && group.answered.is_none()) =>
                {
                    self.no_answer_said = Some(self.now);
                }
                _ => {}
            }
            let is_failure = matches!(
                sentences::recognise(line),
                Sentence::Idle { .. } | Sentence::AddressLost | Sentence::NoReply { .. }
            );
            if is_failure && !line.ends_with("still listening") {
                self.failure_said = true;
            }
        }
    }
}

/// The frames that a piece of output holds.
pub fn frames_in(format: &str, bytes: &[u8]) -> u64 {
    let lines = || bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    match format {
        "candump" => lines().count() as u64,
        "influx" => lines().filter(|line| line.starts_with(b"can,")).count() as u64,
        "pcap" => {
            let (mut rest, mut frames) = (bytes, 0);
            while let Some((header, after)) = rest.split_at_checked(16) {
                let length = u32::from_le_bytes(header[8..12].try_into().expect("4 bytes")) as usize;
                let Some((record, after)) = after.split_at_checked(length) else { break };
                frames += u64::from(record.first().is_some_and(|first| first & 0x20 == 0));
                rest = after;
            }
            frames
        }
        _ => 0,
    }
}
