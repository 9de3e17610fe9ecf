//! Runs one session: handshake, stream, shutdown. Everything happens in one loop on the main thread, from the first `INIT`
//! to the last `STOP`. [`Connection`] says what happened; here is what follows from it.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

use crate::cli::address_watch::AddressWatch;
use crate::cli::advice;
use crate::cli::handshake::{debug_sent, handshake};
use crate::cli::messages::Messages;
use crate::cli::notices::print;
use crate::cli::options::ListenOptions;
use crate::cli::report::{BusState, Report};
use crate::cli::shutdown::{SHUTDOWN_NOTICE_AFTER, Shutdown, Terminal};
use crate::cli::silence::Silence;
use crate::format::Format;
use crate::gateway::drops::DropCounter;
use crate::gateway::reply::{Line, Reply, has_only_replies, lines};
use crate::gateway::{Command, Connection, Event, Failure, Outcome};
use crate::output::printer::Printer;
use crate::output::spool::Spool;

mod silence;

/// How often the terminal is checked, where that is needed.
pub(crate) const TERMINAL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How soon one message about the network may follow another.
const MIN_NETWORK_MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// What a session needs and can fail to acquire, so it is acquired before `INIT` is sent.
pub(crate) struct Resources<'a> {
    pub options: &'a ListenOptions,
    pub gateway: SocketAddr,
    /// Further addresses of the gateway's name.
    pub others: Vec<SocketAddr>,
    pub shutdown: Arc<Shutdown>,
    pub terminal: Terminal,
    pub printer: Printer,
    pub spool: Arc<Spool>,
    pub drops: Arc<DropCounter>,
    /// Receives the result of all writing to stdout.
    pub stdout: Receiver<io::Result<()>>,
    pub messages: &'a Messages,
}

/// Runs a session until it ends as asked (by a signal, by its count, or because the reader of stdout went away).
///
/// # Errors
///
/// What happened, to what, at which step, and what to try.
pub(crate) fn run(mut resources: Resources<'_>, mut bus: Connection) -> Result<()> {
    handshake(&mut resources, &mut bus)?;
    let mut session = Session::new(resources, bus);
    session.stream();
    session.report()
}

/// A session after `START` has left.
struct Session<'a> {
    resources: Resources<'a>,
    bus: Connection,
    stage: Stage,
    bus_state: BusState,
    silence: Silence,
    address: AddressWatch,
    /// When `START` left, and when the shutdown began.
    started: Instant,
    ended: Option<Instant>,
    next_terminal_check: Instant,
    /// Whether answers to `STATUS` can come.
    status_was_requested: bool,
    network_errors: u64,
    last_network_message: Option<Instant>,
    /// What went wrong; the last becomes the session's error.
    failures: Vec<Error>,
}

enum Stage {
    Streaming,
    /// `STOP` is to be confirmed. The user is told of that at `notice_at`.
    Stopping {
        notice_at: Option<Instant>,
    },
    /// What arrived before `until` is still printed.
    Draining {
        until: Instant,
    },
}

impl<'a> Session<'a> {
    fn new(mut resources: Resources<'a>, mut bus: Connection) -> Session<'a> {
        let started = bus.received_at();
        let ListenOptions { status_after, idle_timeout, .. } = *resources.options;
        resources.drops.reset();
        resources.printer.begin();
        // A time stamp is the time of reading, and people read a terminal.
        bus.set_moderated(resources.options.format == Format::Raw && !io::stdout().is_terminal());
        resources.messages.info(format_args!("START sent to {}; waiting for data (Ctrl-C to stop)", resources.gateway));
        Session {
            stage: Stage::Streaming,
            bus_state: BusState::Unknown,
            silence: Silence::new(started, status_after, idle_timeout),
            address: AddressWatch::new(bus.socket(), resources.gateway, status_after),
            started,
            ended: None,
            next_terminal_check: started + TERMINAL_CHECK_INTERVAL,
            status_was_requested: false,
            network_errors: 0,
            last_network_message: None,
            failures: Vec::new(),
            resources,
            bus,
        }
    }

    /// Returns when everything has been received that the session still prints.
    fn stream(&mut self) {
        let channel = self.resources.options.common.channel;
        loop {
            let deadline = self.next_deadline();
            match self.bus.next_event(deadline) {
                Event::Datagram(datagram) => {
                    let is_data = !has_only_replies(datagram);
                    if is_data || !self.status_was_requested || !holds_only_status(datagram, channel) {
                        print(&mut self.resources, datagram, false);
                    }
                    self.on_printed(is_data);
                }
                Event::Answer { command: Command::Status { .. }, .. } => {}
                Event::Answer { command, datagram } => {
                    let is_ok = lines(datagram).any(|line| Line::classify(line) == Line::Reply(Reply::Ok));
                    print(&mut self.resources, datagram, true);
                    if is_ok && matches!(command, Command::Start { .. }) {
                        self.on_start_answered();
                    }
                    self.on_printed(false);
                }
                Event::Sent { command, attempt, left } => {
                    debug_sent(self.resources.messages, &self.bus, command, attempt, left);
                }
                Event::Completed { command, outcome } => self.on_completed(command, outcome),
                Event::Failed(failure) => self.on_failure(failure),
                Event::NetworkError(error) => {
                    let is_port_closed = error.port_is_closed();
                    let cause = if is_port_closed { "port closed".to_owned() } else { error.to_string() };
                    self.on_network_error(&cause, is_port_closed);
                }
                Event::Woken => self.begin_shutdown(),
                Event::Timeout if matches!(self.stage, Stage::Draining { .. }) => break,
                Event::Timeout => self.on_timeout(),
                _ => {}
            }
        }
        // A START that was refused and is not checked by a STATUS any more.
        if let Some(failure) = self.bus.cancel() {
            self.on_failure(failure);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let terminal = self.resources.terminal.needs_polling().then_some(self.next_terminal_check);
        match self.stage {
            Stage::Streaming => {
                // Only one command can be in flight.
                let ask = self.silence.ask_at().filter(|_| self.bus.is_idle());
                let probe = Some(self.address.probe_at(self.silence.last_data()));
                [ask, probe, self.idle_at(), terminal].into_iter().flatten().min()
            }
            Stage::Stopping { notice_at } => notice_at.into_iter().chain(terminal).min(),
            Stage::Draining { until } => Some(until),
        }
    }

    /// When `--idle-timeout` ends the session.
    fn idle_at(&self) -> Option<Instant> {
        self.resources.options.idle_timeout.map(|timeout| self.silence.last_data() + timeout)
    }

    fn on_printed(&mut self, is_data: bool) {
        if is_data {
            if let Some(gap) = self.silence.on_data(self.bus.received_at()) {
                self.resources.messages.info(format_args!("data resumed after {:.1} s", gap.as_secs_f64()));
            }
            if let Stage::Streaming = self.stage {
                self.bus_state = BusState::Running;
                self.bus.cancel_status();
            }
        }
        if self.resources.printer.is_complete() {
            self.begin_shutdown();
        }
    }

    fn on_start_answered(&mut self) {
        self.silence.on_start_answered();
        if let Stage::Streaming = self.stage {
            self.bus_state = BusState::Running;
        }
    }

    fn on_completed(&mut self, command: Command, outcome: Outcome) {
        let messages = self.resources.messages;
        match command {
            Command::Start { .. } => {
                let answer = if let Outcome::Answered(_) = outcome { "answered" } else { "not answered" };
                messages.debug(format_args!("START was {answer}"));
            }
            Command::Stop { .. } => {
                self.bus_state = BusState::Stopped;
                self.resources.shutdown.bus_is_stopped.store(true, Relaxed);
                self.stage = Stage::Draining { until: Instant::now() };
            }
            Command::Status { .. } if matches!(self.stage, Stage::Streaming) => self.on_status(outcome),
            _ => {}
        }
    }

    fn on_failure(&mut self, failure: Failure) {
        let Resources { gateway, .. } = self.resources;
        let explanation = advice::failure(gateway, self.bus.retry(), &failure, self.bus.network_error());
        self.failures.push(anyhow!(explanation));
        match failure {
            Failure::Refused(Command::Start { .. }, _) => self.bus_state = BusState::NotStarted,
            _ => self.bus_state = BusState::Unknown,
        }
        match failure.command() {
            Command::Stop { .. } => self.stage = Stage::Draining { until: Instant::now() },
            _ => self.begin_shutdown(),
        }
    }

    fn on_network_error(&mut self, cause: &str, is_port_closed: bool) {
        self.network_errors += 1;
        let now = self.bus.received_at();
        let is_due = self.last_network_message.is_none_or(|last| now >= last + MIN_NETWORK_MESSAGE_INTERVAL);
        if is_due && matches!(self.stage, Stage::Streaming) {
            self.last_network_message = Some(now);
            let hint = if is_port_closed { "; is it restarting?" } else { "" };
            let gateway = self.resources.gateway;
            self.resources.messages.warn(format_args!("{gateway} unreachable ({cause}), still listening{hint}"));
        }
    }

    fn on_timeout(&mut self) {
        let now = self.bus.read_up_to();
        if self.next_terminal_check <= now {
            self.next_terminal_check = now + TERMINAL_CHECK_INTERVAL;
            self.resources.terminal.check();
        }
        match &mut self.stage {
            Stage::Streaming => self.on_silence(now),
            Stage::Stopping { notice_at } if notice_at.is_some_and(|at| at <= now) => {
                *notice_at = None;
                let hint = self.resources.shutdown.quit_hint();
                self.resources
                    .messages
                    .warn(format_args!("waiting for the gateway to confirm STOP; {hint} (the bus may keep running)"));
            }
            _ => {}
        }
    }

    /// Begins the shutdown, unless it has begun.
    fn begin_shutdown(&mut self) {
        if !matches!(self.stage, Stage::Streaming) {
            return;
        }
        self.resources.shutdown.in_progress.store(true, Relaxed);
        let now = Instant::now();
        self.ended = Some(now);
        if !self.resources.options.stop_on_exit {
            self.bus.cancel_status();
            self.stage = Stage::Draining { until: now };
            return;
        }
        self.stage = Stage::Stopping { notice_at: Some(now + SHUTDOWN_NOTICE_AFTER) };
        if let Some(failure) = self.bus.begin_stop(self.resources.options.common.channel) {
            self.on_failure(failure);
        }
    }

    /// Waits until everything is written, and prints what was counted.
    fn report(mut self) -> Result<()> {
        let Resources { options, shutdown, printer, spool, drops, stdout, messages, .. } = self.resources;
        // Datagrams dropped from here on are not counted.
        let drops = drops.count();
        spool.close();
        let write_error = shutdown.wait_for_stdout(&stdout, messages).err();
        let report = Report {
            stats: printer.stats,
            drops,
            written: spool.written(),
            write_error,
            messages_not_shown: messages.not_shown(),
            network_errors: self.network_errors,
            handshake_frames: self.bus.handshake_frames(),
            duration: self.ended.unwrap_or_else(Instant::now) - self.started,
            bus: self.bus_state,
            can_stop: options.common.can_stop_command_line(),
        };
        if !options.quiet || report.has_losses() {
            messages.warn(&report);
        }
        self.failures.extend(report.stdout_failure());
        let Some(last) = self.failures.pop() else { return Ok(()) };
        for error in self.failures {
            messages.warn(format_args!("{error:#}"));
        }
        Err(last)
    }
}

/// Whether these replies are nothing but late answers to `STATUS`.
fn holds_only_status(replies: &[u8], channel: u8) -> bool {
    lines(replies).all(|line| match Line::classify(line) {
        Line::Reply(Reply::Status(status)) => status.channel == channel,
        _ => false,
    })
}
