//! A session from beginning to end: the order of things.
//!
//! Everything between gateway and session happens in one loop, on the main thread, from the first `INIT` to the last
//! `STOP`. Each turn of the module `exchange` tells what happened; here is what follows from it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

use crate::cli::messages::Stderr;
use crate::cli::options::ListenOptions;
use crate::cli::report::{Bus, Report};
use crate::cli::shutdown::{Ending, PATIENCE};
use crate::cli::signal::Terminal;
use crate::cli::silence::{Silence, Verdict};
use crate::gateway::command::Command;
use crate::gateway::driver::{Connection, Exchange, Turn, earlier};
use crate::gateway::drops::DropCounter;
use crate::gateway::handshake::{Answer, Failure, Machine, Retry};
use crate::gateway::reply::{Line, Reply, has_only_replies, lines};
use crate::gateway::socket::share;
use crate::output::printer::Intake;
use crate::output::spool::Spool;
use crate::text::escape_truncated;

/// How often the terminal is checked, where it matters.
const CHECK_TERMINAL_EVERY: Duration = Duration::from_secs(1);

/// What a session needs and can fail to get, so it is had before `INIT` is sent.
pub(crate) struct Kit<'a> {
    pub options: &'a ListenOptions,
    pub gateway: SocketAddr,
    pub connection: &'a Arc<Connection>,
    pub ending: Arc<Ending>,
    pub terminal: Terminal,
    pub spool: Arc<Spool>,
    pub drops: Arc<DropCounter>,
    /// The result of all writing to stdout comes out here.
    pub writer: Receiver<io::Result<()>>,
    pub stderr: &'a Stderr,
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Streaming,
    /// The end has begun, and STOP is to be confirmed.
    Stopping,
    /// What arrived before this moment is still taken.
    Draining(Instant),
}

/// The session itself.
pub(crate) struct Session<'a> {
    kit: Kit<'a>,
    exchange: Exchange<&'a Connection>,
    intake: Intake,
    silence: Silence,
    /// When START was sent.
    started: Instant,
    phase: Phase,
    next_terminal_check: Instant,
    /// When the user is told what the end waits for.
    patience: Option<Instant>,
    /// Whether answers to STATUS can be expected.
    status_is_sent: bool,
    /// What is known of the bus, if not what STATUS said of it.
    bus: Option<Bus>,
    /// What went wrong; the last is told last.
    failures: Vec<Error>,
}

impl<'a> Session<'a> {
    pub fn new(kit: Kit<'a>) -> Session<'a> {
        let (options, now) = (kit.options, Instant::now());
        let retry = Retry::from(&options.retry);
        let machine = Machine::new(now, retry, retry.initial_quiet(), options.handshake());
        Session {
            exchange: Exchange::new(&**kit.connection, machine, now),
            intake: Intake::new(options, Arc::clone(&kit.spool), kit.stderr.clone()),
            silence: Silence::new(now, options.status_after, options.idle_timeout, options.bitrate),
            started: now,
            phase: Phase::Handshake,
            next_terminal_check: now + CHECK_TERMINAL_EVERY,
            patience: None,
            status_is_sent: false,
            bus: None,
            failures: Vec::new(),
            kit,
        }
    }

    /// Runs until it ends as asked (by a signal, by its count, or because the reader of stdout went away).
    ///
    /// # Errors
    ///
    /// What happened, to whom, at which step, and what to try.
    pub fn run(mut self) -> Result<()> {
        loop {
            match self.exchange.turn(self.wakes_at()) {
                Turn::Datagram => self.note_datagram(),
                Turn::Sent(command, copy) => self.note_sent(command, copy),
                Turn::TakeOver(words) => self.kit.stderr.note(format_args!(
                    "the gateway refused INIT ({words}), so its controller probably still runs: stopping it, then INIT \
                     again"
                )),
                Turn::Settled(command, answer) => self.note_settled(command, answer),
                Turn::Failed(failure) => self.note_failure(failure)?,
                Turn::Trouble => self.note_trouble(),
                // Decided here and not where the signal comes, so that none falls between START and the stream.
                Turn::Woken if self.phase == Phase::Handshake => self.kit.stderr.leave(
                    format_args!(
                        "left at once, during the handshake: the bus may run or not, halt it with: {}",
                        self.kit.options.gateway.stop_command()
                    ),
                    130,
                ),
                Turn::Woken => self.end(),
                Turn::Due if matches!(self.phase, Phase::Draining(since) if since <= self.exchange.read_up_to()) => {
                    break;
                }
                Turn::Due => self.note_time(),
            }
        }
        // What arrives from now on is nobody's loss.
        let drops = self.kit.drops.count();
        self.kit.spool.close();
        let write_error = self.kit.ending.wait_for_writer(&self.kit.writer, self.kit.stderr).err();
        let report = Report {
            counts: self.intake.counts,
            drops,
            written: self.kit.spool.written(),
            write_error,
            words_skipped: self.kit.stderr.skipped(),
            duration: self.started.elapsed(),
            bus: self.bus.unwrap_or(match self.silence.bus_runs() {
                Some(true) => Bus::Runs,
                Some(false) => Bus::Halted,
                None => Bus::MayRun,
            }),
            stop_command: self.kit.options.gateway.stop_command(),
        };
        if !self.kit.options.gateway.quiet || report.something_is_missing() {
            self.kit.stderr.say(report.line());
        }
        self.failures.extend(report.stdout_failure());
        let Some(last) = self.failures.pop() else { return Ok(()) };
        for error in self.failures {
            self.kit.stderr.say(format_args!("{error:#}"));
        }
        Err(last)
    }

    fn wakes_at(&self) -> Option<Instant> {
        let terminal = self.kit.terminal.matters().then_some(self.next_terminal_check);
        match self.phase {
            Phase::Handshake => terminal,
            Phase::Streaming => {
                // While an answer is still to come, nothing else is asked.
                let ask = self.silence.ask_at().filter(|_| self.exchange.machine.is_idle());
                let idle = self.kit.options.idle_timeout.map(|timeout| self.silence.last_data() + timeout);
                earlier(earlier(ask, idle), terminal)
            }
            Phase::Stopping => earlier(self.patience, terminal),
            Phase::Draining(since) => Some(since),
        }
    }

    fn note_datagram(&mut self) {
        let datagram = self.exchange.datagram();
        if self.phase == Phase::Handshake {
            for line in lines(datagram) {
                match Line::classify(line) {
                    Line::Frame(_) => self.intake.counts.handshake_frames += 1,
                    _ => self.kit.stderr.step_for_gateway(format_args!("heard {}", escape_truncated(line))),
                }
            }
            return;
        }
        let in_hand = self.exchange.machine.in_hand();
        if !has_only_replies(datagram) {
            if let Some(gap) = self.silence.data(self.exchange.now()) {
                self.kit.stderr.note(format_args!("data comes again, after {:.1} s", gap.as_secs_f64()));
            }
            if self.phase == Phase::Streaming && matches!(in_hand, Some(Command::Status { .. })) {
                self.exchange.machine.withdraw_status();
            }
        } else if self.status_is_sent && self.answers_status(datagram, in_hand) {
            return;
        }
        self.intake.accept(self.exchange.datagram(), in_hand.is_some());
        if self.intake.is_complete() {
            self.end();
        }
    }

    /// Whether a datagram of replies holds nothing but answers to our `STATUS`.
    fn answers_status(&self, replies: &[u8], in_hand: Option<Command>) -> bool {
        let is_outstanding = matches!(in_hand, Some(Command::Status { .. }));
        lines(replies).all(|line| match Line::classify(line) {
            Line::Reply(Reply::Status(status)) => status.channel == self.kit.options.gateway.channel,
            Line::Reply(_) => is_outstanding,
            _ => false,
        })
    }

    fn note_sent(&mut self, command: Command, copy: u32) {
        match self.exchange.network_error() {
            None => self.kit.stderr.step(format_args!("sent {command} (attempt {copy})")),
            Some(error) => self.kit.stderr.step(format_args!("could not send {command}: {error}")),
        }
        self.status_is_sent |= matches!(command, Command::Status { .. });
        if let (Command::Start { .. }, Phase::Handshake) = (command, self.phase) {
            self.phase = Phase::Streaming;
            self.started = self.exchange.now();
            self.silence.begin(self.started);
            self.kit.drops.begin();
            self.intake.begin();
            self.kit.stderr.note(format_args!(
                "START is sent to {} (channel {}); waiting for data, Ctrl-C ends it",
                self.kit.gateway, self.kit.options.gateway.channel
            ));
        }
    }

    fn note_settled(&mut self, command: Command, answer: Option<Answer>) {
        match command {
            Command::Start { .. } => {
                let outcome = if answer.is_some() { "answered" } else { "not answered" };
                self.kit.stderr.step(format_args!("START was {outcome}; the port is shared with can-stop from now on"));
                if answer.is_some() {
                    self.silence.start_is_answered();
                }
                // Where that cannot be, can-stop takes a free port.
                let _ = share(&self.kit.connection.socket);
            }
            Command::Stop { .. } if self.phase == Phase::Stopping => {
                if matches!(answer, Some(Answer::Status(_))) {
                    self.kit
                        .stderr
                        .note("STOP was sent again and refused, but the gateway says that the bus is halted");
                }
                self.bus = Some(Bus::Halted);
                self.kit.ending.bus_is_halted.store(true, Relaxed);
                self.phase = Phase::Draining(Instant::now());
            }
            Command::Status { .. } if self.phase == Phase::Streaming => self.explain_silence(answer),
            _ => {}
        }
    }

    fn explain_silence(&mut self, answer: Option<Answer>) {
        match self.silence.answer(self.exchange.now(), answer, self.exchange.port_is_closed()) {
            Verdict::Nothing => {}
            Verdict::StartAgain { words, warn } => {
                if warn {
                    self.kit.stderr.say(words);
                } else {
                    self.kit.stderr.note(words);
                }
                self.exchange.machine.push(Command::Start { channel: self.kit.options.gateway.channel });
            }
            Verdict::Tell(words) => self.kit.stderr.note(words),
            Verdict::Warn(words) => self.kit.stderr.say(words),
        }
    }

    /// A failed handshake is the session's end at once; any other is told in the end.
    fn note_failure(&mut self, failure: Failure) -> Result<()> {
        let error = self.exchange.explain(&failure, self.kit.gateway);
        if self.phase == Phase::Handshake {
            return Err(error);
        }
        if let Failure::Refused(Command::Start { .. }, _) = failure {
            self.failures.push(error);
            self.bus = Some(Bus::NotStarted);
        } else {
            self.failures.push(error.context("the bus may still run: STOP was not confirmed"));
            self.bus = Some(Bus::MayRun);
        }
        self.kit.ending.begun.store(true, Relaxed);
        self.phase = Phase::Draining(Instant::now());
        Ok(())
    }

    fn note_trouble(&mut self) {
        if self.phase == Phase::Handshake {
            return;
        }
        self.intake.counts.network_errors += 1;
        if self.intake.counts.network_errors == 1 && self.phase == Phase::Streaming {
            let cause = match self.exchange.network_error() {
                Some(error) if !self.exchange.port_is_closed() => error.to_string(),
                _ => "its port is closed, is it starting anew?".to_owned(),
            };
            self.kit.stderr.say(format_args!("cannot hear {} for now, still listening: {cause}", self.kit.gateway));
        }
    }

    /// Something is due; what, the clock tells.
    fn note_time(&mut self) {
        let now = self.exchange.read_up_to();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_due(Some(self.next_terminal_check)) {
            self.next_terminal_check = now + CHECK_TERMINAL_EVERY;
            self.kit.terminal.check();
        }
        if self.phase == Phase::Stopping && is_due(self.patience) {
            self.patience = None;
            self.kit.stderr.say(format_args!(
                "waiting for the gateway to confirm STOP; {}, and the bus may run on",
                self.kit.ending.way_out()
            ));
        }
        if self.phase != Phase::Streaming {
            return;
        }
        if self.exchange.machine.is_idle() && is_due(self.silence.ask_at()) {
            self.silence.ask(now);
            self.exchange.machine.push(Command::Status { channel: self.kit.options.gateway.channel });
        }
        if let Some(timeout) = self.kit.options.idle_timeout {
            if is_due(Some(self.silence.last_data() + timeout)) {
                let explanation = self.silence.explanation(self.exchange.port_is_closed());
                self.failures.push(anyhow!(
                    "nothing has arrived from {} for {} s (--idle-timeout): {explanation}",
                    self.kit.gateway,
                    timeout.as_secs_f64()
                ));
                self.bus = (!self.silence.gateway_answers()).then_some(Bus::MayRun);
                self.end();
            }
        }
    }

    /// Begins the end, unless it has begun already.
    fn end(&mut self) {
        if self.phase != Phase::Streaming {
            return;
        }
        self.kit.ending.begun.store(true, Relaxed);
        if self.kit.options.stop_on_exit && self.silence.bus_runs() != Some(false) {
            self.exchange.machine.stop(Instant::now(), self.kit.options.gateway.channel);
            self.patience = Some(Instant::now() + PATIENCE);
            self.phase = Phase::Stopping;
        } else {
            self.exchange.machine.withdraw_status();
            self.phase = Phase::Draining(Instant::now());
        }
    }
}
