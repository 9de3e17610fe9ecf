//! A session: handshake, then receive → format → spool → stdout; at the end shutdown and report.
//!
//! Three threads share the work. The receiver takes datagrams from the socket, formats them and puts them into the
//! spool; the writer does nothing but write the spool to stdout, and now and then looks up what the kernel dropped.
//! The third, which called [`run`], is the session: it sleeps until one of them, a signal or a timer has news. Neither
//! of the others writes to stderr, so that one that blocks (`2>&1 | less`) does not hold them up.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver as Inbox, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use socket2::SockRef;

use crate::exchange::{ExchangeError, Step, drive, send};
use crate::format::{Aside, Format, Formatter};
use crate::handshake::{Action, Failure, Handshake, Retry};
use crate::protocol::{BitRate, Command, Filter, Line, Reply, lines, printable, replies};
use crate::signal::{Signal, Terminal};
use crate::socket::{DATAGRAM_MAX, DropCounter, RECEIVE_BUFFER, Target, open, receive_buffer, share};
use crate::spool::{Rejected, Spool};
use crate::{Verbosity, signal, socket};

/// What `can-listen` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway.
    pub target: Target,
    /// Our own end.
    pub bind: socket::Bind,
    /// The gateway's CAN port, 1 to 4.
    pub channel: u8,
    /// Bit rate of the bus.
    pub bit_rate: BitRate,
    /// What the gateway's acceptance filter lets pass; nothing passes an empty one.
    pub filters: Vec<Filter>,
    /// How patiently commands are repeated.
    pub retry: Retry,
    /// What datagrams become on stdout.
    pub format: Format,
    /// End after this many datagrams were printed.
    pub count: Option<NonZeroU64>,
    /// Fail when nothing has arrived for this long.
    pub idle_timeout: Option<Duration>,
    /// Halt the bus at the end.
    pub stop_on_exit: bool,
    /// How much is said on stderr.
    pub verbosity: Verbosity,
}

/// How long nothing may arrive after `START` before the user is told why that may be.
const SILENCE: Duration = Duration::from_secs(5);

/// For how long a stream that does not pause is still taken after the end was asked for.
const DRAIN: Duration = Duration::from_millis(250);

/// How many datagrams the kernel can hold at most: each takes up at least half a kilobyte of a buffer that Linux makes
/// twice as large as asked for. So many are taken even if the machine is too busy to take them in time.
const QUEUED_MAX: u64 = (2 * RECEIVE_BUFFER / 512) as u64;

/// How long the end may wait for the gateway, or for whoever reads stdout, before the user is told.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the kernel's drops and the terminal are looked at while datagrams arrive.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many notices may wait for stderr. A gateway that reports more than can be shown must not fill the memory.
const NOTICES_MAX: usize = 1000;

/// How a larger receive buffer is had.
const MORE: &str = "more with: sudo sysctl -w net.core.rmem_max=4194304";

/// Runs a session until it ends as asked: by a signal, by its count, or because the reader of stdout went away.
///
/// Installs the process's handler for SIGINT, SIGTERM and SIGHUP, for good. Such a signal ends the whole process at
/// once, with exit code 130, unless it is the first one while the stream runs.
///
/// # Errors
///
/// What happened, to whom, at which step, and what to try.
pub fn run(options: &Options) -> Result<()> {
    let (events, inbox) = mpsc::channel();
    let stage = Arc::new(AtomicU8::new(STARTING));
    let terminal = handle_signals(options, &stage, &events)?;

    let gateway = options.target.resolve(&options.bind)?;
    let socket = open(&options.bind, gateway)?;
    // Where that cannot be, can-stop takes a free port.
    let _ = share(&socket);
    let handshake_frames = shake_hands(options, &socket, gateway)?;
    stage.store(STREAMING, Relaxed);
    let started = Instant::now();
    let shared = Shared { drops: Mutex::new(DropCounter::of(&socket)), ..Shared::default() };
    socket.set_read_timeout(options.idle_timeout).context("cannot set the idle timeout")?;

    let spool = Spool::new();
    let queue = receive_buffer(&socket).unwrap_or_default();
    let writer = Writer { terminal, queue, loss_told: false, events: events.clone(), shared: &shared };
    let receiver = Receiver::new(options, gateway, started, &socket, &spool, &shared, events);
    let mut session = Session {
        options,
        gateway,
        started,
        socket: &socket,
        shared: &shared,
        inbox,
        start_answered: false,
        writer_ended: false,
    };
    let (end, stopped, report) = thread::scope(|scope| {
        let writer = scope.spawn(|| writer.run(&spool));
        let receiver = scope.spawn(|| receiver.run());
        if options.verbosity > Verbosity::Quiet {
            tell(&format!("{gateway} is started (channel {}); waiting for data, Ctrl-C ends it", options.channel));
        }
        let end = session.wait_for_end();
        stage.store(ENDING, Relaxed);
        let to_stop = options.stop_on_exit && !matches!(end, End::StartRefused(_));
        let stopped = to_stop.then(|| session.stop_bus());
        shared.ending.store(true, Relaxed);
        // Wakes the receiver; what the kernel holds can still be read.
        let _ = SockRef::from(&socket).shutdown(Shutdown::Read);
        let tally = receiver.join().expect("the receiver does not panic");
        // What arrives from now on is nobody's loss.
        let dropped = shared.count_drops();
        spool.close();
        session.wait_for_writer();
        let (written, failure) = writer.join().expect("the writer does not panic");
        let end = match failure {
            Some(error) => end.or_failed_write(error),
            None => end,
        };
        (end, stopped, Report { tally, written, dropped, handshake_frames })
    });
    if options.verbosity > Verbosity::Quiet || report.something_is_missing(&end) {
        tell(&report.line(options, &end, stopped.as_ref(), started.elapsed()));
    }
    let result = end.into_result(options, gateway);
    let Some(Err(not_stopped)) = stopped else { return result };
    if let Err(error) = result {
        tell(&format!("{error:#}"));
    }
    Err(not_stopped.context("the bus may still run: STOP was not confirmed"))
}

fn tell(words: &str) {
    crate::say("can-listen", words);
}

/// How far the session is: a signal means something else at each stage.
const STARTING: u8 = 0;
const STREAMING: u8 = 1;
const ENDING: u8 = 2;

/// The first signal while the stream runs asks for the end of the session; any other leaves the process at once.
fn handle_signals(options: &Options, stage: &Arc<AtomicU8>, events: &Sender<Event>) -> Result<Terminal> {
    let (stage, events) = (Arc::clone(stage), events.clone());
    let words_while_ending = format!(
        "left at once: what still waited for stdout is lost, and the bus may still run, halt it with: {}",
        stop_command(options)
    );
    let words_while_starting =
        format!("left at once, during the handshake: the bus may run or not, halt it with: {}", stop_command(options));
    signal::handle(move |signal| {
        let event = match signal {
            Signal::TerminalClosed => Event::TerminalClosed,
            Signal::End if stage.load(Relaxed) == STARTING => leave_at_once(words_while_starting.clone()),
            Signal::End if stage.swap(ENDING, Relaxed) == STREAMING => Event::Signal,
            Signal::End => leave_at_once(words_while_ending.clone()),
        };
        let _ = events.send(event);
    })
    .context("cannot handle signals")
}

/// Says why, unless stderr holds that up.
fn leave_at_once(words: String) -> ! {
    let (said, wait) = mpsc::channel();
    thread::spawn(move || {
        tell(&words);
        let _ = said.send(());
    });
    let _ = wait.recv_timeout(Duration::from_millis(100));
    process::exit(130);
}

/// Tells how many frames arrived meanwhile.
fn shake_hands(options: &Options, socket: &UdpSocket, gateway: SocketAddr) -> Result<u64> {
    let begun = Instant::now();
    let tell_step = |words: String| {
        if options.verbosity == Verbosity::Verbose {
            tell(&format!("{:.3} s: {words}", begun.elapsed().as_secs_f64()));
        }
    };
    let local = socket.local_addr().context("the socket has no address")?;
    let granted = receive_buffer(socket).unwrap_or_default();
    let more =
        if granted < RECEIVE_BUFFER { format!(" of {} KiB; {MORE}", RECEIVE_BUFFER >> 10) } else { String::new() };
    tell_step(format!("from {local} to {gateway}"));
    tell_step(format!("receive buffer: {} KiB granted{more}", granted >> 10));
    let machine = Handshake::start(begun, options.retry, options.channel, options.bit_rate, &options.filters);
    let frames = drive(machine, socket, gateway, |step| match step {
        Step::Sent(command, copy) => tell_step(format!("sent {command} (attempt {copy})")),
        Step::NotSent(command, error) => tell_step(format!("could not send {command}: {error}")),
        Step::Heard(line) => tell_step(format!("heard {}", printable(line))),
        Step::TakingOver(words) if options.verbosity > Verbosity::Quiet => tell(&format!(
            "the gateway refused INIT ({words}), so its controller probably still runs: stopping it, then INIT again"
        )),
        Step::TakingOver(_) => {}
    })?;
    Ok(frames)
}

/// News for the session.
enum Event {
    /// What the gateway has to say, for stderr.
    Notice(String),
    /// Something that is wrong on our side, for stderr. There are few of these.
    Warning(String),
    /// Ctrl-C or the like.
    Signal,
    /// The terminal has closed, and `nohup` wants that ignored.
    TerminalClosed,
    /// As many datagrams were printed as asked for.
    CountReached,
    /// Nothing has arrived for as long as `idle_timeout` says.
    Idle,
    /// The gateway answered `START`; with these words if it refused.
    StartReply(Result<(), String>),
    /// While the bus is being stopped: a reply came; with these words if it is a refusal.
    StopReply(Result<(), Vec<u8>>),
    /// While the bus is being stopped: an error of the network's.
    StopTrouble(io::Error),
    /// The writer has ended.
    WriterEnded,
}

/// What the threads tell each other beside events.
#[derive(Default)]
struct Shared {
    /// The receiver shall take what is left and end.
    ending: AtomicBool,
    /// The receiver shall hand on the replies that come.
    stopping: AtomicBool,
    /// Something has arrived that is more than an answer.
    data_arrived: AtomicBool,
    /// How many notices wait for stderr.
    notices: AtomicUsize,
    drops: Mutex<Option<DropCounter>>,
}

impl Shared {
    /// What the kernel dropped since `START`; `None` if it does not say.
    fn count_drops(&self) -> Option<u64> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.count()
    }
}

/// The thread that takes datagrams from the socket.
struct Receiver<'a> {
    gateway: SocketAddr,
    socket: &'a UdpSocket,
    spool: &'a Spool,
    shared: &'a Shared,
    events: Sender<Event>,
    formatter: Formatter,
    idle_timeout: Option<Duration>,
    /// Until when the first reply is that to `START`; `None` once that is over.
    start_reply_until: Option<Instant>,
    data_arrived: bool,
    /// How many datagrams are still to be printed.
    remaining: Option<u64>,
    failing_since: Option<Instant>,
    tally: Tally,
}

/// What the receiver counted.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    datagrams: u64,
    bytes: u64,
    /// Datagrams that went into the spool.
    spooled: u64,
    /// Datagrams lost because the spool was full.
    overflowed: u64,
    /// Datagrams that came after stdout had failed.
    after_failure: u64,
    malformed: u64,
    notices_skipped: u64,
    network_errors: u64,
}

impl<'a> Receiver<'a> {
    fn new(
        options: &Options,
        gateway: SocketAddr,
        started: Instant,
        socket: &'a UdpSocket,
        spool: &'a Spool,
        shared: &'a Shared,
        events: Sender<Event>,
    ) -> Receiver<'a> {
        Receiver {
            gateway,
            socket,
            spool,
            shared,
            events,
            formatter: Formatter::new(options.format, &options.target.to_string(), io::stdout().is_terminal()),
            idle_timeout: options.idle_timeout,
            start_reply_until: Some(started + options.retry.clamped().timeout),
            data_arrived: false,
            remaining: options.count.map(NonZeroU64::get),
            failing_since: None,
            tally: Tally::default(),
        }
    }

    fn run(mut self) -> Tally {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let mut line = Vec::new();
        // Until when, and how many datagrams, at least.
        let mut drain: Option<(Instant, u64)> = None;
        loop {
            if drain.is_none() && self.shared.ending.load(Relaxed) {
                let _ = self.socket.set_nonblocking(true);
                drain = Some((Instant::now() + DRAIN, QUEUED_MAX));
            }
            match self.socket.recv(&mut buffer) {
                // What woke us, not a datagram.
                Ok(0) if self.shared.ending.load(Relaxed) => {}
                Ok(length) => self.take(&buffer[..length], &mut line),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock if drain.is_some() => break,
                    io::ErrorKind::WouldBlock => self.report(Event::Idle),
                    _ => self.take_error(error),
                },
            }
            if let Some((until, queued)) = &mut drain {
                *queued = queued.saturating_sub(1);
                if *queued == 0 && Instant::now() >= *until {
                    break;
                }
            }
        }
        self.tally
    }

    fn take(&mut self, datagram: &[u8], line: &mut Vec<u8>) {
        let answers_start = self.take_replies(datagram);
        if self.remaining == Some(0) {
            return;
        }
        self.tally.datagrams += 1;
        self.tally.bytes += datagram.len() as u64;
        self.failing_since = None;
        if !self.data_arrived {
            self.data_arrived = lines(datagram).any(|line| !matches!(Line::classify(line), Line::Reply(_)));
            self.shared.data_arrived.store(self.data_arrived, Relaxed);
        }
        line.clear();
        let (shared, events, tally) = (self.shared, &self.events, &mut self.tally);
        self.formatter.write(datagram, since_1970, line, |aside| {
            let words = match aside {
                // That ends the session, which says so.
                Aside::Refusal(_) if answers_start => return,
                Aside::Refusal(line) => format!("the gateway refused a command: {}", printable(line)),
                Aside::Event(line) => format!("the gateway reports: {}", printable(line)),
                Aside::Malformed(line, fault) => {
                    tally.malformed += 1;
                    if tally.malformed > 1 {
                        return;
                    }
                    format!("malformed line ({fault}), left out; more will only be counted: {}", printable(line))
                }
            };
            if shared.notices.fetch_add(1, Relaxed) < NOTICES_MAX {
                let _ = events.send(Event::Notice(words));
            } else {
                shared.notices.fetch_sub(1, Relaxed);
                tally.notices_skipped += 1;
            }
        });
        if !line.is_empty() {
            self.spool_line(line);
        }
    }

    fn spool_line(&mut self, line: &[u8]) {
        match self.spool.push(line) {
            Ok(()) => {
                self.tally.spooled += 1;
                if let Some(remaining) = &mut self.remaining {
                    *remaining -= 1;
                    if *remaining == 0 {
                        self.report(Event::CountReached);
                    }
                }
            }
            Err(Rejected::Closed) => self.tally.after_failure += 1,
            Err(Rejected::Full) => {
                self.tally.overflowed += 1;
                if self.tally.overflowed == 1 {
                    self.report(Event::Warning(
                        "datagrams are being lost: whoever reads stdout is too slow, 32 MiB wait for it already; \
                         a faster reader or a file keeps them all"
                            .to_owned(),
                    ));
                }
            }
        }
    }

    /// Hands on the replies that somebody waits for. `true` if one of them is that to `START`.
    fn take_replies(&mut self, datagram: &[u8]) -> bool {
        let mut answers_start = false;
        let stopping = self.shared.stopping.load(Relaxed);
        if self.start_reply_until.is_none() && !stopping {
            return answers_start;
        }
        if self.start_reply_until.is_some_and(|until| Instant::now() > until) {
            self.start_reply_until = None;
        }
        for reply in replies(datagram) {
            if self.start_reply_until.take().is_some() {
                answers_start = true;
                self.report(Event::StartReply(match reply {
                    Reply::Ok => Ok(()),
                    Reply::Refused(words) => Err(printable(words)),
                }));
            } else if stopping {
                self.report(Event::StopReply(match reply {
                    Reply::Ok => Ok(()),
                    Reply::Refused(words) => Err(words.to_vec()),
                }));
            }
        }
        answers_start
    }

    /// An error of the network's passes; it must be neither fatal nor keep a processor busy.
    fn take_error(&mut self, error: io::Error) {
        self.tally.network_errors += 1;
        if self.shared.stopping.load(Relaxed) {
            self.report(Event::StopTrouble(error));
        } else if self.tally.network_errors == 1 {
            let cause = match error.kind() {
                io::ErrorKind::ConnectionRefused => "its port is closed, is it starting anew?".to_owned(),
                _ => error.to_string(),
            };
            let words = format!("cannot hear {} for now, still listening: {cause}", self.gateway);
            self.report(Event::Warning(words));
        }
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if self.idle_timeout.is_some_and(|timeout| since.elapsed() >= timeout) {
            self.report(Event::Idle);
        }
        thread::sleep(Duration::from_millis(1));
    }

    fn report(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The thread that writes the spool to stdout.
struct Writer<'a> {
    terminal: Terminal,
    /// Size of the socket's queue, in bytes.
    queue: usize,
    loss_told: bool,
    events: Sender<Event>,
    shared: &'a Shared,
}

impl Writer<'_> {
    /// Tells how many datagrams were written, and what failed if not all were.
    fn run(mut self, spool: &Spool) -> (u64, Option<io::Error>) {
        let mut written = 0;
        let mut next_look = Instant::now() + LOOK_EVERY;
        let result = io::stdout().as_fd().try_clone_to_owned().and_then(|stdout| {
            spool.write_out(&mut File::from(stdout), |datagrams| {
                written += datagrams;
                let now = Instant::now();
                if now >= next_look && !self.shared.ending.load(Relaxed) {
                    next_look = now + LOOK_EVERY;
                    self.terminal.look();
                    self.look_at_drops();
                }
            })
        });
        let _ = self.events.send(Event::WriterEnded);
        (written, result.err())
    }

    fn look_at_drops(&mut self) {
        if self.shared.count_drops().is_some_and(|dropped| dropped > 0) && !self.loss_told {
            self.loss_told = true;
            let size = self.queue >> 10;
            let cure = if self.queue < RECEIVE_BUFFER {
                format!("it has {size} KiB; {MORE}, then start again")
            } else {
                format!("all its {size} KiB were full: this machine is too busy, or the program was stopped")
            };
            let words =
                format!("datagrams are being lost: they come faster than the socket's queue is emptied; {cure}");
            let _ = self.events.send(Event::Warning(words));
        }
    }
}

/// The thread that decides.
struct Session<'a> {
    options: &'a Options,
    gateway: SocketAddr,
    started: Instant,
    socket: &'a UdpSocket,
    shared: &'a Shared,
    inbox: Inbox<Event>,
    start_answered: bool,
    writer_ended: bool,
}

/// Why a session ended.
enum End {
    Signal,
    Count,
    ReaderGone,
    /// Nothing has arrived for this long; it may be for these reasons.
    Idle(Duration, String),
    StartRefused(String),
    Stdout(io::Error),
}

impl Session<'_> {
    /// The next event that asks for a decision, if one comes before `until`. What is only to be shown is shown.
    fn next_event(&mut self, until: Option<Instant>) -> Option<Event> {
        loop {
            let event = match until {
                None => self.inbox.recv().ok()?,
                Some(until) => self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?,
            };
            match event {
                Event::Notice(words) => {
                    self.shared.notices.fetch_sub(1, Relaxed);
                    tell(&words);
                }
                Event::Warning(words) => tell(&words),
                Event::TerminalClosed => tell(
                    "the terminal has closed; going on, since SIGHUP was ignored from the start (nohup). \
                     The next signal ends it",
                ),
                event => {
                    self.start_answered |= matches!(event, Event::StartReply(_));
                    self.writer_ended |= matches!(event, Event::WriterEnded);
                    return Some(event);
                }
            }
        }
    }

    fn wait_for_end(&mut self) -> End {
        let mut silence = Some(self.started + SILENCE);
        loop {
            match self.next_event(silence) {
                None => {
                    silence = None;
                    self.tell_silence();
                }
                Some(Event::Signal) => return End::Signal,
                Some(Event::CountReached) => return End::Count,
                Some(Event::Idle) => {
                    return End::Idle(self.options.idle_timeout.unwrap_or_default(), self.reasons_for_silence());
                }
                Some(Event::StartReply(Err(words))) => return End::StartRefused(words),
                // The spool is still open, so the writer has failed; how, it tells itself.
                Some(Event::WriterEnded) => return End::ReaderGone,
                Some(_) => {}
            }
        }
    }

    fn tell_silence(&self) {
        if !self.shared.data_arrived.load(Relaxed) && self.options.verbosity > Verbosity::Quiet {
            let but = if self.start_answered { " but the answer to START" } else { "" };
            tell(&format!("nothing has arrived for {} s{but}: {}", SILENCE.as_secs(), self.reasons_for_silence()));
        }
    }

    fn reasons_for_silence(&self) -> String {
        if self.shared.data_arrived.load(Relaxed) {
            return "has the gateway lost power, or did somebody halt the bus or take the stream over?".to_owned();
        }
        let lost = if self.start_answered { "" } else { ", START was lost (it was not answered; run again)" };
        format!(
            "the bus is silent, --bitrate {} is wrong{lost}, or its frames have 29-bit identifiers and the filter does \
             not pass them (--filter EXT:0:0)",
            self.options.bit_rate
        )
    }

    /// Sends `STOP` until it is confirmed or the attempts are used up, while the stream goes on.
    fn stop_bus(&mut self) -> Result<()> {
        // Or the answer to START would be taken for that to STOP. Like any, it comes within two timeouts or never.
        let answer_due = self.started + 2 * self.options.retry.clamped().timeout;
        let mut patience = Some(Instant::now() + PATIENCE);
        while !self.start_answered && Instant::now() < answer_due {
            self.next_event(Some(patience.map_or(answer_due, |end| answer_due.min(end))));
            self.tell_if_patience_is_over(&mut patience);
        }
        self.shared.stopping.store(true, Relaxed);
        let mut machine = Handshake::stop(Instant::now(), self.options.retry, self.options.channel);
        let mut network = None;
        loop {
            self.tell_if_patience_is_over(&mut patience);
            match machine.poll(Instant::now()) {
                Ok(Action::Done) => return Ok(()),
                Ok(Action::Send { command, .. }) => network = send(self.socket, &command).err(),
                Ok(Action::TakeOver(_)) => {}
                Ok(Action::Wait(until)) => match self.next_event(Some(patience.map_or(until, |end| until.min(end)))) {
                    Some(Event::StopReply(Ok(()))) => machine.handle_reply(Instant::now(), Reply::Ok),
                    Some(Event::StopReply(Err(words))) => machine.handle_reply(Instant::now(), Reply::Refused(&words)),
                    Some(Event::StopTrouble(error)) => network = Some(error),
                    _ => {}
                },
                Err(failure) => {
                    let (gateway, retry) = (self.gateway, machine.retry());
                    return Err(ExchangeError { failure, gateway, retry, network }.into());
                }
            }
        }
    }

    fn tell_if_patience_is_over(&self, patience: &mut Option<Instant>) {
        if patience.is_some_and(|end| Instant::now() >= end) {
            *patience = None;
            tell("waiting for the gateway to confirm STOP; Ctrl-C leaves at once, and the bus may run on");
        }
    }

    fn wait_for_writer(&mut self) {
        let mut patience = Some(Instant::now() + PATIENCE);
        while !self.writer_ended {
            if self.next_event(patience).is_none() {
                patience = None;
                tell("waiting for the reader of stdout to take the rest; Ctrl-C leaves at once, without it");
            }
        }
        while self.next_event(Some(Instant::now())).is_some() {}
    }
}

impl End {
    /// This end, unless stdout failed on the way to it. A reader that went away is no failure.
    fn or_failed_write(self, error: io::Error) -> End {
        if error.kind() == io::ErrorKind::BrokenPipe { self } else { End::Stdout(error) }
    }

    fn into_result(self, options: &Options, gateway: SocketAddr) -> Result<()> {
        match self {
            End::Signal | End::Count | End::ReaderGone => Ok(()),
            End::Idle(timeout, reasons) => Err(anyhow!(
                "nothing has arrived from {gateway} for {} s (--idle-timeout): {reasons}",
                timeout.as_secs_f64()
            )),
            End::StartRefused(words) => {
                let failure = Failure::Refused(Command::Start { channel: options.channel }, words);
                Err(ExchangeError { failure, gateway, retry: options.retry, network: None }.into())
            }
            End::Stdout(error) if error.kind() == io::ErrorKind::StorageFull => {
                Err(anyhow!("cannot write to stdout: {error}; make room there, or write to another disk"))
            }
            End::Stdout(error) => Err(anyhow!("cannot write to stdout: {error}; check where it is redirected to")),
        }
    }
}

/// What the last line on stderr is made of.
struct Report {
    tally: Tally,
    /// Datagrams that went out to stdout.
    written: u64,
    /// Datagrams that the kernel dropped; `None` if it does not say.
    dropped: Option<u64>,
    handshake_frames: u64,
}

impl Report {
    /// Datagrams that were received and could not be written.
    fn unwritten(&self, end: &End) -> u64 {
        match end {
            End::Stdout(_) => self.tally.spooled + self.tally.after_failure - self.written,
            _ => 0,
        }
    }

    fn something_is_missing(&self, end: &End) -> bool {
        self.dropped.unwrap_or(0) + self.tally.overflowed + self.tally.malformed + self.unwritten(end) > 0
    }

    fn line(&self, options: &Options, end: &End, stopped: Option<&Result<()>>, duration: Duration) -> String {
        let tally = &self.tally;
        let dropped = self.dropped.map_or("unknown (the system does not say)".to_owned(), |count| count.to_string());
        let mut line = format!(
            "{} ({}) in {:.1} s; lost: {dropped} in the kernel, {} in the spool",
            counted(tally.datagrams, "datagram"),
            counted(tally.bytes, "byte"),
            duration.as_secs_f64(),
            tally.overflowed,
        );
        for (count, what, fate) in [
            (self.unwritten(end), "datagram", "not written to stdout"),
            (tally.malformed, "malformed line", "left out"),
            (tally.notices_skipped, "message", "of the gateway not shown"),
            (tally.network_errors, "network error", "survived"),
            (self.handshake_frames, "frame", "during the handshake not printed"),
        ] {
            if count > 0 {
                line += &format!("; {} {fate}", counted(count, what));
            }
        }
        let still = match (stopped, end) {
            (Some(Ok(())), _) => return line + "; the bus is stopped",
            (_, End::StartRefused(_)) => return line + "; the bus was not started",
            (Some(Err(_)), _) | (_, End::Idle(..)) => "may still run",
            _ => "still runs",
        };
        line + &format!("; the bus {still}, halt it with: {}", stop_command(options))
    }
}

/// The `can-stop` that fits this session.
fn stop_command(options: &Options) -> String {
    let mut command = format!("can-stop --target {}", options.target);
    if options.channel != 1 {
        command += &format!(" --channel {}", options.channel);
    }
    command
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
