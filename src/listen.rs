//! A session from beginning to end: the order of things.
//!
//! Everything between gateway and session happens in one loop, on the thread that called [`run`], from the first `INIT`
//! to the last `STOP`. Each turn of the module `exchange` tells what happened; here is what follows from it.

use std::io::{self, ErrorKind, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use clap::CommandFactory;

use crate::exchange::{Connection, Exchange, Reason, Turn, earlier};
use crate::format::Format;
use crate::handshake::{Answer, Failure, Machine, Retry};
use crate::intake::Intake;
pub use crate::options::ListenOptions;
use crate::protocol::{Command, Line, Reply, lines, may_be_replies_only, printable};
use crate::report::{Bus, End, Report};
use crate::signal::{self, Signal, Terminal};
use crate::silence::{Silence, Verdict};
use crate::socket::{DropCounter, RECEIVE_BUFFER, open, receive_buffer, share};
use crate::spool::Spool;
use crate::stderr::{Stderr, exit_code};
use crate::writer::{LARGER_BUFFER, SharedDropCounter, Writer, count_drops};

/// How long the end may wait for the gateway, or for whoever reads stdout, before the user is told.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the terminal is checked, where it matters.
const CHECK_TERMINAL_EVERY: Duration = Duration::from_secs(1);

/// Runs a session until it ends as asked (by a signal, by its count, or because the reader of stdout went away), or
/// fails; tells what to leave with. What there is to say has been said on stderr.
///
/// Installs the process's handler for SIGINT, SIGTERM and SIGHUP, for good. Such a signal ends the whole process at
/// once, with exit code 130, unless it is the first one while the stream runs.
pub fn run(options: &ListenOptions) -> ExitCode {
    exit_code("can-listen", |stderr| {
        let ending = Arc::new(Ending::default());
        let terminal = handle_signals(options, &ending, stderr).context("cannot handle signals")?;
        if options.format == Format::Pcap && io::stdout().is_terminal() {
            let words = "pcap is not for a terminal, but for a pipe: can-listen --format pcap | wireshark -k -i -";
            ListenOptions::command().error(clap::error::ErrorKind::ArgumentConflict, words).exit();
        }
        let gateway = options.gateway.target.resolve(&options.gateway.local())?;
        let connection = Arc::new(Connection::new(open(&options.gateway.local(), gateway)?));
        let spool = Spool::new().context("not enough memory for the spool, which takes 64 MiB; see: ulimit -v")?;
        let spool = Arc::new(spool);
        let drops = Arc::new(Mutex::new(DropCounter::of(&connection.socket)));
        let writer = Writer {
            spool: Arc::clone(&spool),
            connection: Arc::clone(&connection),
            drops: Arc::clone(&drops),
            queue: receive_buffer(&connection.socket).unwrap_or_default(),
            stderr: stderr.clone(),
        };
        let writer = writer.start().context("cannot write to stdout")?;
        let now = Instant::now();
        let retry = Retry::from(&options.retry);
        let machine = Machine::new(now, retry, retry.initial_quiet(), options.handshake());
        let session = Session {
            options,
            gateway,
            stderr,
            ending,
            terminal,
            connection: &connection,
            exchange: Exchange::new(&*connection, machine, now),
            intake: Intake::new(options, Arc::clone(&spool), stderr.clone()),
            drops,
            silence: Silence::new(now, options.status_after, options.idle_timeout, options.bitrate),
            begun: now,
            started: now,
            phase: Phase::Handshake,
            next_terminal_check: now + CHECK_TERMINAL_EVERY,
            patience: None,
            end: None,
            bus: None,
            failures: Vec::new(),
        };
        let result = session.run(&spool, &writer);
        // Where the handshake failed, nobody has closed it.
        spool.close();
        result
    })
}

/// What the handler of signals shares with the session.
#[derive(Debug, Default)]
struct Ending {
    /// Set once the stream runs; before, a signal leaves at once.
    connection: OnceLock<Arc<Connection>>,
    /// The session is ending, for whatever reason.
    begun: AtomicBool,
    /// A signal came while the stream ran; the next one leaves at once.
    signalled: AtomicBool,
}

impl Ending {
    /// How the user can leave at once.
    fn way_out(&self) -> &'static str {
        if self.signalled.load(Relaxed) { "Ctrl-C leaves at once" } else { "Ctrl-C twice leaves at once" }
    }
}

fn handle_signals(options: &ListenOptions, ending: &Arc<Ending>, stderr: &Stderr) -> Result<Terminal, ctrlc::Error> {
    let (ending, stderr, stop_command) = (Arc::clone(ending), stderr.clone(), options.gateway.stop_command());
    signal::handle(move |signal| {
        match (signal, ending.connection.get()) {
        (Signal::TerminalClosed, _) => stderr.say(
            "the terminal has closed; going on, since SIGHUP was ignored from the start (nohup). The next signal ends it",
        ),
        (Signal::End, None) => stderr.leave(
            format_args!(
                "left at once, during the handshake: the bus may run or not, halt it with: {stop_command}"
            ),
            130,
        ),
        (Signal::End, Some(connection)) if !ending.signalled.swap(true, Relaxed) => {
            if ending.begun.load(Relaxed) {
                stderr.say("it is ending already; Ctrl-C once more leaves at once");
            }
            connection.wake(Reason::Signal);
        }
        (Signal::End, Some(_)) => stderr.leave(
            format_args!(
                "left at once: what still waited for stdout is lost, and the bus may still run, halt it with: \
                 {stop_command}"
            ),
            130,
        ),
    }
    })
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

struct Session<'a> {
    options: &'a ListenOptions,
    gateway: SocketAddr,
    stderr: &'a Stderr,
    ending: Arc<Ending>,
    terminal: Terminal,
    connection: &'a Arc<Connection>,
    exchange: Exchange<&'a Connection>,
    intake: Intake,
    drops: SharedDropCounter,
    silence: Silence,
    begun: Instant,
    /// When START was sent.
    started: Instant,
    phase: Phase,
    next_terminal_check: Instant,
    /// When the user is told what the end waits for.
    patience: Option<Instant>,
    end: Option<End>,
    /// What STOP came to.
    bus: Option<Bus>,
    /// What went wrong; the last is told last.
    failures: Vec<Error>,
}

impl Session<'_> {
    fn run(mut self, spool: &Spool, writer: &Receiver<io::Result<()>>) -> Result<()> {
        self.say_ends()?;
        loop {
            match self.exchange.turn(self.wakes_at()) {
                Turn::Datagram => self.take_datagram(),
                Turn::Sent(command, copy) => self.note_sent(command, copy),
                Turn::TakeOver(words) => self.say_unless_quiet(format_args!(
                    "the gateway refused INIT ({words}), so its controller probably still runs: stopping it, then INIT \
                     again"
                )),
                Turn::Settled(command, answer) => self.note_settled(command, answer),
                Turn::Failed(failure) => self.note_failure(failure)?,
                Turn::Trouble => self.note_trouble(),
                Turn::Woken => self.end(match self.connection.reason() {
                    Some(Reason::WriterFailed) => End::WriterFailed,
                    _ => End::Signal,
                }),
                Turn::Due if matches!(self.phase, Phase::Draining(since) if since <= self.exchange.read_up_to()) => {
                    break;
                }
                Turn::Due => self.note_time(),
            }
        }
        // What arrives from now on is nobody's loss.
        let drops = count_drops(&self.drops);
        spool.close();
        let write_error = self.wait_for_writer(writer).err();
        let report = Report {
            counts: self.intake.counts,
            drops,
            written: spool.written(),
            write_error,
            words_skipped: self.stderr.skipped(),
            duration: self.started.elapsed(),
            bus: self.bus(),
            stop_command: self.options.gateway.stop_command(),
        };
        if !self.options.gateway.quiet || report.something_is_missing() {
            self.stderr.say(report.line());
        }
        self.failures.extend(report.stdout_failure());
        let Some(last) = self.failures.pop() else { return Ok(()) };
        for error in self.failures {
            self.stderr.say(format_args!("{error:#}"));
        }
        Err(last)
    }

    fn say_ends(&self) -> Result<()> {
        let local = self.connection.socket.local_addr().context("the socket has no address")?;
        let granted = receive_buffer(&self.connection.socket).unwrap_or_default();
        let of = match granted < RECEIVE_BUFFER {
            true => format!(" of {} KiB; {LARGER_BUFFER}", RECEIVE_BUFFER >> 10),
            false => String::new(),
        };
        self.say_step(format_args!("from {local} to {}", self.gateway));
        self.say_step(format_args!("receive buffer: {} KiB granted{of}", granted >> 10));
        Ok(())
    }

    fn wakes_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Handshake => None,
            Phase::Streaming => {
                // While an answer is still to come, nothing else is asked.
                let ask = self.silence.ask_at().filter(|_| self.exchange.machine.is_idle());
                let idle = self.options.idle_timeout.map(|timeout| self.silence.last_data() + timeout);
                let terminal = self.terminal.matters().then_some(self.next_terminal_check);
                earlier(earlier(ask, idle), terminal)
            }
            Phase::Stopping => self.patience,
            Phase::Draining(since) => Some(since),
        }
    }

    fn take_datagram(&mut self) {
        let datagram = self.exchange.datagram();
        if self.phase == Phase::Handshake {
            for line in lines(datagram) {
                match Line::classify(line) {
                    Line::Frame(_) => self.intake.counts.handshake_frames += 1,
                    _ => self.say_step(format_args!("heard {}", printable(line))),
                }
            }
            return;
        }
        let in_hand = self.exchange.machine.in_hand();
        if !may_be_replies_only(datagram) || lines(datagram).any(|line| !matches!(Line::classify(line), Line::Reply(_)))
        {
            if let Some(gap) = self.silence.data(self.exchange.now()) {
                self.say_unless_quiet(format_args!("data comes again, after {:.1} s", gap.as_secs_f64()));
            }
            if self.phase == Phase::Streaming && matches!(in_hand, Some(Command::Status { .. })) {
                self.exchange.machine.withdraw_status();
            }
        } else if self.silence.has_asked() && self.answers_status(datagram, in_hand) {
            return;
        }
        self.intake.take(self.exchange.datagram(), in_hand.is_some());
        if self.intake.is_complete() {
            self.end(End::Count);
        }
    }

    /// Whether a datagram of replies holds nothing but answers to our `STATUS`.
    fn answers_status(&self, replies: &[u8], in_hand: Option<Command>) -> bool {
        let is_outstanding = matches!(in_hand, Some(Command::Status { .. }));
        lines(replies).all(|line| match Line::classify(line) {
            Line::Reply(Reply::Status(status)) => status.channel == self.options.gateway.channel,
            _ => is_outstanding,
        })
    }

    fn note_sent(&mut self, command: Command, copy: u32) {
        match self.exchange.network_error() {
            None => self.say_step(format_args!("sent {command} (attempt {copy})")),
            Some(error) => self.say_step(format_args!("could not send {command}: {error}")),
        }
        if let (Command::Start { .. }, Phase::Handshake) = (command, self.phase) {
            let _ = self.ending.connection.set(Arc::clone(self.connection));
            self.phase = Phase::Streaming;
            self.started = self.exchange.now();
            self.silence.begin(self.started);
            self.drops.lock().unwrap_or_else(PoisonError::into_inner).begin();
            self.intake.begin();
            self.say_unless_quiet(format_args!(
                "START is sent to {} (channel {}); waiting for data, Ctrl-C ends it",
                self.gateway, self.options.gateway.channel
            ));
        }
    }

    fn note_settled(&mut self, command: Command, answer: Option<Answer>) {
        match command {
            Command::Start { .. } => {
                let outcome = if answer.is_some() { "answered" } else { "not answered" };
                self.say_step(format_args!("START was {outcome}; the port is shared with can-stop from now on"));
                if answer.is_some() {
                    self.silence.start_is_answered();
                }
                // Where that cannot be, can-stop takes a free port.
                let _ = share(&self.connection.socket);
            }
            Command::Stop { .. } if self.phase == Phase::Stopping => {
                if matches!(answer, Some(Answer::Status(_))) {
                    self.say_unless_quiet(
                        "STOP was sent again and refused, but the gateway says that the bus is halted",
                    );
                }
                self.bus = Some(Bus::Halted);
                self.phase = Phase::Draining(Instant::now());
            }
            Command::Status { .. } => self.explain_silence(answer),
            _ => {}
        }
    }

    fn explain_silence(&mut self, answer: Option<Answer>) {
        let port_is_closed = self.port_is_closed();
        match self.silence.answer(self.exchange.now(), answer, port_is_closed) {
            Verdict::Nothing => {}
            Verdict::StartAgain(words) => {
                self.say_unless_quiet(words);
                self.exchange.machine.push(Command::Start { channel: self.options.gateway.channel });
            }
            Verdict::Tell(words) => self.say_unless_quiet(words),
            Verdict::Warn(words) => self.stderr.say(words),
        }
    }

    fn port_is_closed(&self) -> bool {
        self.exchange.network_error().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// A failed handshake is the session's end at once; any other is told in the end.
    fn note_failure(&mut self, failure: Failure) -> Result<()> {
        let error = self.exchange.explain(&failure, self.gateway);
        match self.phase {
            Phase::Handshake => return Err(error),
            Phase::Streaming => {
                self.failures.push(error);
                self.end(End::StartRefused);
            }
            Phase::Stopping | Phase::Draining(_) => {
                self.failures.push(error.context("the bus may still run: STOP was not confirmed"));
                self.bus = Some(Bus::MayRun);
                self.phase = Phase::Draining(Instant::now());
            }
        }
        Ok(())
    }

    fn note_trouble(&mut self) {
        if self.phase == Phase::Handshake {
            return;
        }
        self.intake.counts.network_errors += 1;
        if self.intake.counts.network_errors == 1 && self.phase == Phase::Streaming {
            let cause = match self.exchange.network_error() {
                Some(error) if !self.port_is_closed() => error.to_string(),
                _ => "its port is closed, is it starting anew?".to_owned(),
            };
            self.stderr.say(format_args!("cannot hear {} for now, still listening: {cause}", self.gateway));
        }
    }

    /// Something is due; what, the clock tells.
    fn note_time(&mut self) {
        let now = self.exchange.read_up_to();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if self.phase == Phase::Stopping && is_due(self.patience) {
            self.patience = None;
            self.stderr.say(format_args!(
                "waiting for the gateway to confirm STOP; {}, and the bus may run on",
                self.ending.way_out()
            ));
        }
        if self.phase != Phase::Streaming {
            return;
        }
        if self.next_terminal_check <= now {
            self.next_terminal_check = now + CHECK_TERMINAL_EVERY;
            self.terminal.check();
        }
        if self.exchange.machine.is_idle() && is_due(self.silence.ask_at()) {
            self.silence.ask(now);
            self.exchange.machine.push(Command::Status { channel: self.options.gateway.channel });
        }
        if let Some(timeout) = self.options.idle_timeout {
            if is_due(Some(self.silence.last_data() + timeout)) {
                let explanation = self.silence.explanation(self.port_is_closed());
                self.failures.push(anyhow!(
                    "nothing has arrived from {} for {} s (--idle-timeout): {explanation}",
                    self.gateway,
                    timeout.as_secs_f64()
                ));
                self.end(End::Idle);
            }
        }
    }

    /// Begins the end; the first reason stays.
    fn end(&mut self, end: End) {
        if self.phase != Phase::Streaming {
            return;
        }
        self.ending.begun.store(true, Relaxed);
        let bus_runs = self.silence.bus_runs() != Some(false) && !matches!(end, End::StartRefused);
        self.end = Some(end);
        if self.options.stop_on_exit && bus_runs {
            self.exchange.machine.stop(Instant::now(), self.options.gateway.channel);
            self.patience = Some(Instant::now() + PATIENCE);
            self.phase = Phase::Stopping;
        } else {
            self.phase = Phase::Draining(Instant::now());
        }
    }

    fn wait_for_writer(&self, writer: &Receiver<io::Result<()>>) -> io::Result<()> {
        match writer.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                self.stderr.say(format_args!(
                    "waiting for the reader of stdout to take the rest; {}, without it",
                    self.ending.way_out()
                ));
                writer.recv().unwrap_or(Ok(()))
            }
            result => result.unwrap_or(Ok(())),
        }
    }

    /// What is known of the bus in the end.
    fn bus(&self) -> Bus {
        match (self.bus, self.silence.bus_runs(), &self.end) {
            (Some(known), ..) => known,
            (None, _, Some(End::StartRefused)) => Bus::NotStarted,
            (None, Some(false), _) => Bus::Halted,
            (None, None, _) => Bus::MayRun,
            (None, Some(true), Some(End::Idle)) if !self.silence.gateway_answers() => Bus::MayRun,
            (None, Some(true), _) => Bus::Runs,
        }
    }

    fn say_unless_quiet(&self, words: impl std::fmt::Display) {
        if !self.options.gateway.quiet {
            self.stderr.say(words);
        }
    }

    fn say_step(&self, words: impl std::fmt::Display) {
        if self.options.verbose {
            self.stderr.say(format_args!("{:.3} s: {words}", self.begun.elapsed().as_secs_f64()));
        }
    }
}
