//! Runs one session: handshake, stream, shutdown, in one loop on the main thread, from the first `INIT` to the end, or to the
//! `STOP` that is asked for.
//! [`Connection`] says what happened, [`Bus`] what is known, [`Silence`] when to ask; what follows from each event is in
//! `events`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Error, anyhow};

use crate::cli::advice;
use crate::cli::bus::Bus;
use crate::cli::console::Console;
use crate::cli::losses::Tally;
use crate::cli::messages::{Exit, Messages};
use crate::cli::options::ListenOptions;
use crate::cli::report::{self, Report};
use crate::cli::shutdown::{SHUTDOWN_NOTICE_AFTER, Shutdown};
use crate::cli::silence::Silence;
use crate::gateway::reply::Status;
use crate::gateway::{Connection, Drops, Event, Takeover};

mod events;

/// How often the terminal is checked, where that is needed, and losses are looked for while data comes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How the message of a second signal begins while the output is being written.
const EXITED: &str = "exited; any unwritten output was discarded";

/// A session. Everything that can fail is acquired before `INIT` is sent.
pub(crate) struct Session<'a> {
    options: &'a ListenOptions,
    /// Further addresses of the gateway's name.
    others: Vec<SocketAddr>,
    bus: Connection,
    messages: &'a Messages,
    console: Console<'a>,
    shutdown: Arc<Shutdown>,
    stage: Stage,
    known: Bus,
    silence: Silence,
    /// What the kernel had dropped when `START` left. That is no loss; where it is unknown, it is counted.
    dropped_before: u64,
    dropped: Tally,
    overflowed: Tally,
    network_errors: u64,
    unreachable: Tally,
    /// Frames that came before `START` left.
    handshake_frames: u64,
    /// When the shutdown began.
    ended: Option<Instant>,
    next_check: Instant,
    /// An answer to `STATUS` that came late, and when it was read.
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
        bus: Connection,
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
            known: Bus::default(),
            silence: Silence::new(options.status_after, options.idle_timeout),
            dropped_before: 0,
            dropped: Tally::default(),
            overflowed: Tally::default(),
            network_errors: 0,
            unreachable: Tally::default(),
            handshake_frames: 0,
            ended: None,
            next_check: bus.now(),
            late_status: None,
            failures: Vec::new(),
            bus,
        }
    }

    /// Runs the session until it ends, as asked (by a signal, by its count, or because the reader of stdout went away) or by a
    /// failure.
    pub fn run(mut self) -> Exit {
        // Nothing is under way on a new connection.
        let _ = self.bus.begin_start(&self.options.setup());
        loop {
            let deadline = self.next_deadline();
            let (in_flight, may_be_ours) = (self.bus.in_flight().map(|command| command.verb), self.bus.is_answerable());
            match self.bus.next_event(deadline) {
                Event::Early(datagram) => {
                    self.handshake_frames += self.console.note_early(datagram);
                    self.console.report(self.bus.received_at());
                }
                Event::Datagram(datagram) => {
                    let content = self.console.print(datagram, None, may_be_ours);
                    self.on_content(in_flight, &content);
                }
                Event::Answer { command, datagram } => {
                    let content = self.console.print(datagram, Some(command.verb), true);
                    self.on_content(in_flight, &content);
                }
                Event::Sent { command, attempt, left } => self.on_sent(command, attempt, left),
                Event::InitRefused { was_running, .. } => {
                    let was = if was_running { "was already" } else { "may have been" };
                    let message = format_args!("the bus {was} running; restarting it with these settings");
                    self.messages.info(message);
                }
                Event::Completed { command, outcome } => self.on_completed(command, outcome),
                Event::Failed(failure) if self.stage == Stage::Starting => {
                    let explanation = advice::failure(&failure);
                    let others = advice::other_addresses(&failure, &self.options.common.target, &self.others);
                    return Exit::Failure(anyhow!("{explanation}{others}"));
                }
                Event::Failed(failure) => self.on_failure(failure),
                Event::NetworkError(_) => self.on_network_error(),
                // Decided here and not by the signal handler, so that no signal falls between START and the stream.
                Event::Woken if self.stage == Stage::Starting => return Exit::Quit(self.handshake_exit()),
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

    /// When the last frame came; before any, when `START` was first sent.
    fn last_data(&self) -> Instant {
        self.known.last_data().unwrap_or_else(|| self.bus.now())
    }

    /// When `--idle-timeout` ends the session.
    fn idle_at(&self) -> Option<Instant> {
        self.options.idle_timeout.map(|timeout| self.last_data() + timeout)
    }

    fn begin_stream(&mut self, now: Instant) {
        (self.stage, self.next_check) = (Stage::Streaming, now + CHECK_INTERVAL);
        let drops = self.bus.check_drops();
        if drops.is_lower_bound {
            let why = "many sockets are open, or /proc/net cannot be read";
            self.messages.debug(now, format_args!("what the kernel drops is reported at the end only: {why}"));
        }
        self.dropped_before = drops.count;
        self.console.printer.begin();
        let gateway = self.bus.gateway();
        self.messages.info(format_args!("START sent to {gateway}; waiting for data (Ctrl-C to stop)"));
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
        let drops = Drops { count: drops.count.saturating_sub(self.dropped_before), ..drops };
        report::end(&*self.console.printer.output, self.messages, &self.shutdown, self.failures, |written| {
            let now = self.bus.read_clock();
            Report {
                stats: self.console.printer.stats,
                drops,
                written,
                messages_not_shown: self.console.limiter.suppressed + self.messages.sink.lost(),
                network_errors: self.network_errors,
                handshake_frames: self.handshake_frames,
                duration: self.ended.zip(self.known.first_start).map_or(Duration::ZERO, |(end, start)| end - start),
                bus: self.known.conclusion(now, &self.options.common.can_stop_command_line()),
            }
        })
    }

    /// What a signal during the handshake leaves behind.
    fn handshake_exit(&self) -> String {
        if !self.bus.has_sent {
            return "exited before anything was sent".to_owned();
        }
        let bus = match self.bus.takeover() {
            takeover @ Some(Takeover { was_running: true, is_stopped: true, .. }) => advice::takeover(takeover),
            Some(Takeover { is_stopped: true, .. }) => "; the bus was not started",
            _ if self.bus.is_initialised() => "; the bus was not started",
            _ => &format!("; the bus may be running, stop it with:\n{}", self.options.common.can_stop_command_line()),
        };
        format!("exited during the handshake{bus}")
    }
}
