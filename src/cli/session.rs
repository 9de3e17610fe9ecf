//! Runs one session: handshake, stream, shutdown, in one loop on the main thread, from the first `INIT` to the last `STOP`.
//! [`Connection`] says what happened, [`Bus`] what is known, [`Silence`] when to ask; here is what follows from it.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Error, anyhow};

use crate::cli::advice;
use crate::cli::bus::{Bus, Remedy};
use crate::cli::console::{Console, Content};
use crate::cli::losses::Losses;
use crate::cli::messages::Exit;
use crate::cli::options::ListenOptions;
use crate::cli::report::{self, Report};
use crate::cli::shutdown::{SHUTDOWN_NOTICE_AFTER, Shutdown};
use crate::cli::silence::Silence;
use crate::gateway::reply::Status;
use crate::gateway::{Answer, Cause, Command, Connection, Event, Failure, NetworkError, Outcome, Takeover, Verb};
use crate::output::spool::Output;

/// How often the terminal is checked, where that is needed, and how often losses are looked for while data comes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How soon one message about the network may follow another.
const MIN_NETWORK_MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// A session. What it needs and can fail to acquire is acquired before `INIT` is sent.
pub(crate) struct Session<'a> {
    options: &'a ListenOptions,
    /// Further addresses of the gateway's name.
    others: Vec<SocketAddr>,
    bus: Connection,
    console: Console<'a>,
    output: Arc<dyn Output>,
    shutdown: Arc<Shutdown>,
    stage: Stage,
    known: Bus,
    silence: Silence,
    losses: Losses,
    /// When `START` left, and when the shutdown began.
    started: Option<Instant>,
    ended: Option<Instant>,
    next_terminal_check: Instant,
    next_check: Instant,
    /// When the latest `STATUS` was first sent.
    asked_at: Option<Instant>,
    /// A `STATUS` that came late, and what was read before it.
    late_status: Option<(Instant, Status)>,
    deletion_is_reported: bool,
    network_errors: u64,
    last_network_message: Option<Instant>,
    /// What went wrong; the last becomes the session's error.
    failures: Vec<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `START` has not left.
    Starting,
    /// `START` has left.
    Streaming,
    /// `STOP` is to be confirmed. The user is notified of that at `notice_at`.
    Stopping { notice_at: Option<Instant> },
    /// What arrived before `until` is still printed.
    Draining { until: Instant },
}

impl<'a> Session<'a> {
    pub fn new(
        options: &'a ListenOptions,
        others: Vec<SocketAddr>,
        bus: Connection,
        console: Console<'a>,
        output: Arc<dyn Output>,
        shutdown: Arc<Shutdown>,
    ) -> Session<'a> {
        let now = bus.now();
        Session {
            options,
            others,
            console,
            output,
            shutdown,
            stage: Stage::Starting,
            known: Bus::default(),
            silence: Silence::new(options.status_after, options.idle_timeout),
            losses: Losses::new(bus.receive_buffer()),
            started: None,
            ended: None,
            next_terminal_check: now,
            next_check: now,
            asked_at: None,
            late_status: None,
            deletion_is_reported: false,
            network_errors: 0,
            last_network_message: None,
            failures: Vec::new(),
            bus,
        }
    }

    /// Runs the session until it ends, as asked (by a signal, by its count, or because the reader of stdout went away) or by a
    /// failure.
    pub fn run(mut self) -> Exit {
        let gateway = self.bus.gateway();
        // Nothing is under way on a new connection.
        let _ = self.bus.begin_start(&self.options.setup());
        loop {
            let deadline = self.next_deadline();
            let (in_flight, may_be_ours) = (self.bus.in_flight().map(|command| command.verb), self.bus.is_answerable());
            match self.bus.next_event(deadline) {
                Event::Early(datagram) => {
                    self.console.note_early(datagram);
                    self.console.report(self.bus.received_at());
                }
                Event::Datagram(datagram) => {
                    let content = self.console.print(datagram, None, self.asked_at.is_some(), may_be_ours);
                    self.on_content(in_flight, &content);
                }
                Event::Answer { command, datagram } => {
                    let content = self.console.print(datagram, Some(command), true, true);
                    self.on_content(in_flight, &content);
                }
                Event::Sent { command, attempt, left } => self.on_sent(command, attempt, left),
                Event::InitRefused { text, was_running } => {
                    let was = if was_running { "was already" } else { "may have been" };
                    let message = format_args!("the bus {was} running; restarting it with these settings");
                    self.console.messages.info(message);
                    self.console.debug(self.bus.now(), format_args!("INIT was refused: {text}"));
                }
                Event::Completed { command, outcome } => self.on_completed(command, outcome),
                Event::Failed(failure) if self.stage == Stage::Starting => {
                    let explanation = advice::failure(&failure);
                    let others = advice::other_addresses(&failure, &self.options.common.target, &self.others);
                    return Exit::Failure(anyhow!("{explanation}{others}"));
                }
                Event::Failed(failure) => self.on_failure(failure),
                Event::NetworkError(error) => {
                    let message = advice::unreachable(gateway, error);
                    self.on_network_error(message);
                }
                // Decided here and not by the signal handler, so that no signal falls between START and the stream.
                Event::Woken if self.stage == Stage::Starting => return Exit::Quit(self.quit_message()),
                Event::Woken => self.begin_shutdown(),
                Event::Timeout if matches!(self.stage, Stage::Draining { .. }) => return self.finish(),
                Event::Timeout => self.on_timeout(),
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let terminal = self.shutdown.watches_terminal().then_some(self.next_terminal_check);
        let next = match self.stage {
            Stage::Starting => None,
            Stage::Streaming => {
                let must_ask_again = self.bus.is_idle().then(|| self.known.must_ask_again());
                let silence = self.silence.wakes_at(self.last_data(), must_ask_again);
                let late_status = self.late_status.map(|(at, _)| at);
                [Some(silence), late_status, self.idle_at()].into_iter().flatten().min()
            }
            Stage::Stopping { notice_at } => notice_at,
            Stage::Draining { until } => return Some(until),
        };
        next.into_iter().chain(terminal).min()
    }

    /// When the last frame came; before any, when `START` was sent.
    fn last_data(&self) -> Instant {
        self.known.last_data().unwrap_or_else(|| self.bus.now())
    }

    /// When `--idle-timeout` ends the session.
    fn idle_at(&self) -> Option<Instant> {
        self.options.idle_timeout.map(|timeout| self.last_data() + timeout)
    }

    fn on_sent(&mut self, command: Command, attempt: u32, left: bool) {
        let now = self.bus.now();
        match self.bus.network_error() {
            Some(NetworkError::Send(error)) if !left => {
                self.console.debug(now, format_args!("could not send {command}: {error}"));
            }
            _ => self.console.debug(now, format_args!("sent {command} (attempt {attempt})")),
        }
        if command.verb == Verb::Status && attempt == 1 {
            self.asked_at = Some(now);
        }
        if !left {
            return;
        }
        if command.verb == Verb::Start {
            self.known.on_start_sent(now);
        }
        if command.verb == Verb::Start && self.stage == Stage::Starting {
            self.begin_stream(now);
        }
    }

    fn begin_stream(&mut self, now: Instant) {
        (self.stage, self.started, self.next_check) = (Stage::Streaming, Some(now), now + CHECK_INTERVAL);
        let drops = self.bus.check_drops();
        if drops.is_none() {
            self.console.debug(now, "many sockets are open: what the kernel drops is counted at the end");
        }
        self.losses.begin(drops);
        self.console.printer.begin();
        let gateway = self.bus.gateway();
        self.console.messages.info(format_args!("START sent to {gateway}; waiting for data (Ctrl-C to stop)"));
    }

    /// A datagram of the stream was read and printed, while this command was in flight.
    fn on_content(&mut self, in_flight: Option<Verb>, content: &Content) {
        let now = self.bus.received_at();
        match (in_flight, content.status) {
            (Some(Verb::Start), _) if content.has_ok && self.stage == Stage::Streaming => self.known.on_started(now),
            (Some(Verb::Status), Some(status)) => self.known.on_status(self.asked_at, now, status),
            // What a late one says is compared with what was read up to now, so that is read first.
            (None, Some(status)) if self.known.takes_late_status() => self.late_status = Some((now, status)),
            _ => {}
        }
        if content.has_frame {
            self.on_frame(now);
        }
        if let Some(change) = content.event {
            self.known.on_event(now, change);
        }
        self.console.report(now);
        if let Some(message) = self.losses.in_output(now, self.console.printer.stats.overflowed) {
            self.console.messages.warn(message);
        }
        if self.next_check <= now {
            self.check_losses(now);
        }
        if self.console.printer.is_complete() {
            self.begin_shutdown();
        }
    }

    fn on_frame(&mut self, now: Instant) {
        let gap = self.silence.on_frame(now, self.last_data());
        self.known.on_frame(now);
        self.late_status = None;
        if self.stage == Stage::Streaming {
            self.bus.cancel_status();
            if let Some(gap) = gap {
                self.console.messages.info(format_args!("data resumed after {:.1} s", gap.as_secs_f64()));
            }
        }
    }

    fn check_losses(&mut self, now: Instant) {
        self.next_check = now + CHECK_INTERVAL;
        let drops = self.bus.check_drops();
        if let Some(message) = drops.and_then(|drops| self.losses.in_kernel(now, drops)) {
            self.console.messages.warn(message);
        }
        if self.output.is_deleted() && !mem::replace(&mut self.deletion_is_reported, true) {
            self.console.messages.warn(advice::FILE_DELETED);
        }
    }

    fn on_completed(&mut self, command: Command, outcome: Outcome) {
        let now = self.bus.read_up_to();
        match command.verb {
            Verb::Start => {
                let is_answered = matches!(outcome, Outcome::Answered(_));
                if is_answered && self.stage == Stage::Streaming {
                    self.known.on_started(now);
                }
                let answered = if is_answered { "answered" } else { "not answered" };
                self.console.debug(now, format_args!("START was {answered}"));
            }
            Verb::Stop => {
                self.known.on_halted();
                self.shutdown.bus_is_stopped.store(true, Relaxed);
                self.drain();
            }
            Verb::Status if self.stage == Stage::Streaming => self.on_query(now, outcome),
            _ => {}
        }
    }

    /// A `STATUS` that was sent because of a silence has ended.
    fn on_query(&mut self, now: Instant, outcome: Outcome) {
        let silent_for = now.saturating_duration_since(self.last_data());
        let remedy = self.known.on_query(self.asked_at, now, outcome);
        let (is_warning, message) = match remedy {
            Remedy::StartAgain => {
                let message = advice::start_again(self.options, &self.known);
                self.silence.tells(&message);
                // A STATUS has just ended, so nothing else is under way.
                let _ = self.bus.start_again();
                (self.known.has_flags(), message)
            }
            Remedy::Explain => {
                let explanation = advice::no_data(self.options, &self.bus, &self.known);
                if !self.silence.tells(&explanation) {
                    return;
                }
                let is_warning = self.known.has_flags() || self.known.status().is_none();
                (is_warning, format!("no data for {:.1} s: {explanation}", silent_for.as_secs_f64()))
            }
        };
        let messages = self.console.messages;
        if is_warning { messages.warn(message) } else { messages.info(message) }
    }

    /// A `START` or `STOP` has failed after the stream has begun.
    fn on_failure(&mut self, failure: Failure) {
        let now = self.bus.read_up_to();
        let is_refused = matches!(failure.cause, Cause::Refused(_));
        let message = advice::failure(&failure);
        if failure.command.verb == Verb::Stop {
            if is_refused {
                self.known.on_stop_refused(now)
            } else {
                self.known.on_doubt(now)
            }
            self.failures.push(anyhow!(message));
            return self.drain();
        }
        if is_refused {
            self.known.on_start_refused(now);
        }
        if self.console.printer.is_complete() || self.known.has_frames() && !is_refused {
            self.console.debug(now, format_args!("{failure}; but what was asked for has come"));
        } else if self.known.is_repaired() || matches!(failure.cause, Cause::NoReply { .. }) {
            if self.stage == Stage::Streaming {
                self.console.messages.warn(format_args!("{message}; still listening"));
            }
        } else {
            if !is_refused {
                self.known.on_doubt(now);
            }
            self.failures.push(anyhow!(message));
            self.begin_shutdown();
        }
    }

    fn on_network_error(&mut self, message: String) {
        if self.started.is_none() {
            return;
        }
        let now = self.bus.now();
        self.network_errors += 1;
        self.known.on_doubt(now);
        let is_due = self.last_network_message.is_none_or(|last| now >= last + MIN_NETWORK_MESSAGE_INTERVAL);
        if is_due && self.stage == Stage::Streaming {
            self.last_network_message = Some(now);
            self.console.messages.warn(message);
        }
    }

    fn on_timeout(&mut self) {
        let now = self.bus.read_up_to();
        if self.next_terminal_check <= now {
            self.next_terminal_check = now + CHECK_INTERVAL;
            self.shutdown.check_terminal();
        }
        match &mut self.stage {
            Stage::Streaming => self.on_silence(now),
            Stage::Stopping { notice_at } if notice_at.is_some_and(|at| at <= now) => {
                *notice_at = None;
                let hint = self.shutdown.quit_hint();
                self.console
                    .messages
                    .warn(format_args!("waiting for the gateway to confirm STOP; {hint} (the bus may keep running)"));
            }
            _ => {}
        }
    }

    fn on_silence(&mut self, now: Instant) {
        if let Some((at, status)) = self.late_status.take_if(|&mut (at, _)| at <= now) {
            self.known.on_status(self.asked_at, at, status);
            self.on_query(now, Outcome::Answered(Answer::Status(status)));
        }
        let last_data = self.last_data();
        self.silence.observe(now, last_data);
        if self.idle_at().is_some_and(|at| at <= now) {
            let seconds = self.options.idle_timeout.unwrap_or_default().as_secs_f64();
            let gateway = self.bus.gateway();
            let explanation = advice::no_data(self.options, &self.bus, &self.known);
            let message = format!("no data from {gateway} for {seconds} s (--idle-timeout): {explanation}");
            self.failures.push(anyhow!(message));
            return self.begin_shutdown();
        }
        if self.bus.is_idle() && self.silence.must_ask(now, last_data, self.known.must_ask_again()) {
            let _ = self.bus.request_status();
        }
        if self.silence.must_look(now, last_data) {
            let (is_lost, now) = (self.bus.address_is_lost(), self.bus.read_clock());
            if !self.silence.on_look(now, is_lost) {
                return;
            }
            self.known.on_doubt(now);
            self.failures.push(anyhow!(advice::address_lost(self.bus.local_addr().ok(), self.bus.gateway())));
            self.begin_shutdown();
        }
    }

    /// Begins the shutdown, unless it has begun.
    fn begin_shutdown(&mut self) {
        if self.stage != Stage::Streaming {
            return;
        }
        self.shutdown.in_progress.store(true, Relaxed);
        let now = self.bus.read_clock();
        self.ended = Some(now);
        if self.options.stop_on_exit {
            self.stage = Stage::Stopping { notice_at: Some(now + SHUTDOWN_NOTICE_AFTER) };
            self.bus.begin_stop();
        } else {
            self.drain();
        }
    }

    /// Prints what has arrived by now. Nothing more is sent.
    fn drain(&mut self) {
        self.bus.send_no_more();
        self.stage = Stage::Draining { until: self.bus.read_clock() };
    }

    /// Waits until everything is written, and prints what was counted and what is known of the bus.
    fn finish(mut self) -> Exit {
        if let Some(failure) = self.bus.unchecked_start() {
            self.on_failure(failure);
        }
        // Datagrams dropped from here on are not counted.
        let drops = self.bus.drops();
        let drops = self.losses.since_start(drops);
        let Console { messages, .. } = self.console;
        let failures = mem::take(&mut self.failures);
        report::end(&*Arc::clone(&self.output), messages, &Arc::clone(&self.shutdown), failures, |written| {
            let now = self.bus.read_clock();
            let started = self.started.unwrap_or(now);
            Report {
                stats: self.console.printer.stats,
                drops,
                written,
                messages_not_shown: self.console.not_shown(),
                network_errors: self.network_errors,
                handshake_frames: self.bus.handshake_frames(),
                duration: self.ended.unwrap_or(now) - started,
                bus: self.known.conclusion(now),
                can_stop: self.known.may_run().then(|| self.options.common.can_stop_command_line()),
            }
        })
    }

    /// What a signal during the handshake leaves behind.
    fn quit_message(&self) -> String {
        match (self.bus.has_sent, self.bus.takeover()) {
            (false, _) => "exited before anything was sent".to_owned(),
            (_, takeover @ Takeover::Stopped { was_running: true }) => {
                format!("exited during the handshake{}", advice::takeover(takeover))
            }
            _ => format!(
                "exited during the handshake; the bus may be running, stop it with:\n{}",
                self.options.common.can_stop_command_line()
            ),
        }
    }
}
