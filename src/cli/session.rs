//! Runs one session: handshake, stream, shutdown, in one loop on the main thread, from the first `INIT` to the end, or to the
//! `STOP` that is asked for.
//! [`Connection`] says what happened, [`Bus`] what is known; what a silent bus and lost datagrams lead to is in `watch`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Error, anyhow};

use crate::cli::advice;
use crate::cli::bus::Bus;
use crate::cli::console::{Console, Content};
use crate::cli::losses::{self, Tally};
use crate::cli::messages::{Exit, Messages};
use crate::cli::options::ListenOptions;
use crate::cli::report::{self, Report};
use crate::cli::shutdown::{SHUTDOWN_NOTICE_AFTER, Shutdown};
use crate::cli::silence::Silence;
use crate::gateway::reply::Status;
use crate::gateway::{Command, Connection, Drops, Event, Failure, Outcome, Verb};

mod watch;

/// How often the terminal is checked, where that is needed, and losses are looked for while data comes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How the message of a second signal begins while the output is being written.
const EXITED: &str = "exited; any unwritten output was discarded";

/// A session. Everything that can fail is acquired before `INIT` is sent.
pub(crate) struct Session<'a> {
    options: &'a ListenOptions,
    /// Further addresses of the gateway's name.
    others: Vec<SocketAddr>,
    connection: Connection,
    messages: &'a Messages,
    console: Console<'a>,
    shutdown: Arc<Shutdown>,
    stage: Stage,
    bus: Bus,
    silence: Silence,
    /// What the kernel had dropped when `START` left. That is no loss; where it is unknown, it is counted.
    dropped_before: u64,
    dropped: Tally,
    overflowed: Tally,
    network_errors: u64,
    unreachable: Tally,
    /// When the shutdown began.
    ended: Option<Instant>,
    next_check: Instant,
    /// An answer to `STATUS` that came late, and when it was read: it counts once everything that came before has been read.
    late_status: Option<(Instant, Status)>,
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
        connection: Connection,
        console: Console<'a>,
        shutdown: Arc<Shutdown>,
    ) -> Session<'a> {
        let can_stop = options.common.can_stop_command_line();
        shutdown.set_quit_message(format!("{EXITED}; the bus may still run, stop it with:\n{can_stop}"));
        Session {
            options,
            others,
            messages: console.messages,
            console,
            shutdown,
            stage: Stage::Starting,
            bus: Bus::default(),
            silence: Silence::new(options.status_after, options.idle_timeout),
            dropped_before: 0,
            dropped: Tally::default(),
            overflowed: Tally::default(),
            network_errors: 0,
            unreachable: Tally::default(),
            ended: None,
            next_check: connection.now(),
            late_status: None,
            failures: Vec::new(),
            connection,
        }
    }

    /// Runs the session until it ends, as asked (by a signal, by its count, or because the reader of stdout went away) or by a
    /// failure.
    pub fn run(mut self) -> Exit {
        // Nothing is under way on a new connection.
        let _ = self.connection.begin_start(&self.options.setup());
        loop {
            let deadline = self.next_deadline();
            // Whether a refusal that comes may be one of our commands'. Asked first, since the event borrows the connection.
            let may_be_ours = self.connection.answerable().is_some();
            match self.connection.next_event(deadline) {
                Event::Early(datagram) => self.console.note_early(datagram),
                Event::Datagram(datagram) => {
                    let content = self.console.print(datagram, None, may_be_ours);
                    self.on_content(&content);
                }
                Event::Answer(command, datagram) => {
                    let content = self.console.print(datagram, Some(command.verb), true);
                    self.on_content(&content);
                }
                Event::Sent { command, attempt, left } => self.on_sent(command, attempt, left),
                Event::InitRefused { was_running, .. } => {
                    let was = if was_running { "was already" } else { "may have been" };
                    self.messages.info(format_args!("the bus {was} running; restarting it with these settings"));
                }
                Event::Completed(command, outcome) => self.on_completed(command, outcome),
                Event::Failed(failure) if self.stage == Stage::Starting => {
                    let target = &self.options.common.target;
                    return Exit::Failure(anyhow!(advice::first_failure(&failure, target, &self.others)));
                }
                Event::Failed(failure) => self.on_failure(failure),
                Event::NetworkError(_) => self.on_network_error(),
                // By a signal, since nothing is written yet. Decided here and not by the signal handler, so that no signal falls
                // between START and the stream.
                Event::Woken if self.stage == Stage::Starting => {
                    return Exit::Quit(advice::handshake_exit(&self.connection, &self.options.common));
                }
                Event::Woken => self.begin_shutdown(),
                Event::Timeout if matches!(self.stage, Stage::Draining { .. }) => return self.finish(),
                Event::Timeout => self.on_timeout(),
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let terminal = self.shutdown.watches_terminal().then_some(self.next_check);
        let next = match self.stage {
            Stage::Starting => None,
            Stage::Streaming => {
                let (look_at, late_status) =
                    (self.silence.address_look_at(self.last_data()), self.late_status.map(|(at, _)| at));
                [self.ask_at(), Some(look_at), late_status, self.idle_at()].into_iter().flatten().min()
            }
            Stage::Stopping { notice_at } => notice_at,
            Stage::Draining { until } => return Some(until),
        };
        next.into_iter().chain(terminal).min()
    }

    /// When the last frame came; before any, when `START` was first sent.
    fn last_data(&self) -> Instant {
        self.bus.last_data().unwrap_or_else(|| self.connection.now())
    }

    fn on_sent(&mut self, command: Command, attempt: u32, left: bool) {
        let now = self.connection.now();
        match self.connection.network_error().filter(|_| !left) {
            Some(error) => self.messages.debug(format_args!("could not send {command}: {}", error.io_error())),
            None => self.messages.debug(format_args!("sent {command} (attempt {attempt})")),
        }
        match command.verb {
            Verb::Status => {
                self.console.status_was_sent |= left;
                self.bus.on_status_sent(attempt, left.then_some(now));
            }
            Verb::Start if left => {
                self.bus.on_start_sent(now);
                if self.stage == Stage::Starting {
                    self.begin_stream(now);
                }
            }
            Verb::Stop if left => self.bus.on_stop_sent(now),
            _ => {}
        }
    }

    fn begin_stream(&mut self, now: Instant) {
        (self.stage, self.next_check) = (Stage::Streaming, now + CHECK_INTERVAL);
        let drops = self.connection.transport.check_drops();
        if drops.is_lower_bound {
            let why = "many sockets are open, or /proc/net cannot be read";
            self.messages.debug(format_args!("what the kernel drops is reported at the end only: {why}"));
        }
        self.dropped_before = drops.count;
        self.console.printer.begin();
        self.messages
            .info(format_args!("START sent to {}; waiting for data (Ctrl-C to stop)", self.connection.gateway));
    }

    /// A datagram of the stream was read, and printed unless it answers `STATUS`. This is what it says of the bus; the end of
    /// the command that it answers comes as an event of its own.
    fn on_content(&mut self, content: &Content) {
        let now = self.connection.received_at();
        let in_flight = self.connection.sequencer.in_flight().map(|command| command.verb);
        match (in_flight, self.connection.answerable(), content.status) {
            (Some(Verb::Start), Some(Verb::Start), _) if content.has_ok => self.bus.on_started(now),
            // Late: nothing is in flight, or it has not left. It is compared with everything that was read up to now, so the
            // queue is read first.
            (None, _, Some(status)) | (_, None, Some(status)) if self.bus.takes_late_status(status) => {
                self.connection.cancel_status();
                self.late_status = Some((now, status));
            }
            (.., Some(status)) => self.bus.on_status(now, status),
            // At once: if STOP overtakes that STATUS, its end is no event.
            (_, Some(Verb::Status), None) if content.has_refusal && !self.bus.has_new_sign() => self.bus.on_doubt(now),
            _ => {}
        }
        if content.has_frame {
            self.on_frame(now);
        }
        for &change in &content.events {
            self.bus.on_event(now, change);
        }
        if let Some(count) = self.overflowed.due(now, self.console.printer.stats.overflowed) {
            self.messages.warn(losses::in_output(&count, self.console.printer.output.is_file()));
        }
        self.check();
        if self.console.printer.is_complete() {
            self.begin_shutdown();
        }
    }

    fn on_frame(&mut self, now: Instant) {
        let gap = self.silence.on_frame(now, self.last_data());
        self.bus.on_frame(now);
        self.late_status = None;
        if self.stage == Stage::Streaming {
            self.connection.cancel_status();
            if let Some(gap) = gap {
                self.messages.info(format_args!("data resumed after {:.1} s", gap.as_secs_f64()));
            }
        }
    }

    fn on_completed(&mut self, command: Command, outcome: Outcome) {
        let now = self.connection.read_up_to;
        match command.verb {
            Verb::Start => {
                let answered = if let Outcome::NoReply(_) = outcome { "not answered" } else { "answered" };
                self.messages.debug(format_args!("START was {answered}"));
            }
            Verb::Stop => {
                self.bus.on_halted();
                self.shutdown.set_quit_message(format!("{EXITED}; the bus is halted"));
                self.drain();
            }
            Verb::Status if self.stage == Stage::Streaming => self.on_status_ended(now, outcome),
            _ => {}
        }
    }

    /// A `START` or `STOP` has failed after the stream has begun.
    fn on_failure(&mut self, mut failure: Failure) {
        let now = self.connection.read_up_to;
        let is_answered = matches!(failure.outcome, Outcome::Refused(_));
        failure.in_doubt |= is_answered && failure.command.verb == Verb::Start && self.bus.answers_differ();
        let message = advice::failure(&failure);
        if failure.command.verb == Verb::Stop {
            if failure.in_doubt {
                self.bus.on_doubt(now);
            }
            self.failures.push(anyhow!(message));
            return self.drain();
        }
        // A check that the shutdown has cut short is no evidence against a frame.
        let is_cut_short = self.stage != Stage::Streaming && self.bus.has_frames();
        if failure.is_refused() {
            self.bus.on_start_refused();
        } else if failure.in_doubt && !is_cut_short && !self.bus.has_new_sign() {
            self.bus.on_doubt(now);
        }
        if self.bus.has_frames() && !failure.is_refused() {
            self.messages.debug(format_args!("{failure}; but what was asked for has come"));
        // A START that was sent again ends no session by its failure.
        } else if self.bus.repairs > 0 || !is_answered {
            if self.stage == Stage::Streaming {
                self.messages.warn(format_args!("{message}; still listening"));
            }
        } else {
            self.failures.push(anyhow!(message));
            self.begin_shutdown();
        }
    }

    /// Begins the shutdown, unless it has begun.
    fn begin_shutdown(&mut self) {
        if self.stage != Stage::Streaming {
            return;
        }
        self.shutdown.in_progress.store(true, Relaxed);
        let now = self.connection.read_clock();
        self.ended = Some(now);
        if self.options.stop_on_exit {
            self.stage = Stage::Stopping { notice_at: Some(now + SHUTDOWN_NOTICE_AFTER) };
            self.connection.begin_stop();
        } else {
            self.drain();
        }
    }

    /// Prints what has arrived by now. Nothing more is sent.
    fn drain(&mut self) {
        self.connection.is_mute = true;
        self.stage = Stage::Draining { until: self.connection.read_clock() };
    }

    /// Waits until everything is written, and prints what was counted and what is known of the bus.
    fn finish(mut self) -> Exit {
        if let Some(failure) = self.connection.unchecked_start() {
            self.on_failure(failure);
        }
        // Datagrams dropped from here on are not counted.
        let drops = self.connection.drops();
        let drops = Drops { count: drops.count.saturating_sub(self.dropped_before), ..drops };
        report::end(&*self.console.printer.output, self.messages, &self.shutdown, self.failures, |written| {
            let now = self.connection.read_clock();
            Report {
                stats: self.console.printer.stats,
                drops,
                written,
                messages_not_shown: self.console.limiter.suppressed + self.messages.sink.lost(),
                network_errors: self.network_errors,
                handshake_frames: self.console.handshake_frames,
                duration: self.ended.zip(self.bus.first_start).map_or(Duration::ZERO, |(end, start)| end - start),
                bus: self.bus.conclusion(now, &self.options.common.can_stop_command_line()),
            }
        })
    }
}
