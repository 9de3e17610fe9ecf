//! A session: handshake, then receive → format → spool → stdout; at the end shutdown and report.
//!
//! Three threads share the work. The receiver does nothing but take datagrams from the socket and put them into the
//! spool; the writer does nothing but write the spool to stdout, and now and then looks up what the kernel dropped. The
//! third, which called [`run`], sleeps until one of them, a signal or a timer has news: it alone writes to stderr and
//! decides, so that a stderr that blocks (`2>&1 | less`) holds up nobody else.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver as Inbox, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use socket2::SockRef;

use crate::exchange::{ExchangeError, Step, drive, send};
use crate::format::{Aside, Format, Formatter};
use crate::handshake::{Action, Handshake, Retry};
use crate::protocol::{BitRate, Command, Filter, Reply, lines, printable, replies};
use crate::signal::{Signal, Terminal};
use crate::socket::{DATAGRAM_MAX, DropCounter, RECEIVE_BUFFER, Target, open, receive_buffer, share};
use crate::spool::{Rejected, Spool};
use crate::stop::resolve;
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

/// How long the end may wait for whoever reads stdout before the user is told.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// How often the kernel's drops and the terminal are looked at while datagrams arrive.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many notices may wait for stderr. A gateway that reports more than can be shown must not fill the memory.
const NOTICES_MAX: usize = 1000;

/// Runs a session until it ends as asked: by a signal, by its count, or because the reader of stdout went away.
///
/// Installs the process's handler for SIGINT, SIGTERM and SIGHUP. Such a signal leaves the process at once, with exit
/// code 130, if it is the second one or comes before the stream was started.
///
/// # Errors
///
/// What happened, to whom, at which step, and what to try.
pub fn run(options: &Options) -> Result<()> {
    let (events, inbox) = mpsc::channel();
    let streaming = Arc::new(AtomicBool::new(false));
    let terminal = handle_signals(&streaming, &events)?;

    let gateway = resolve(&options.target, &options.bind)?;
    let socket = open(&options.bind, gateway)?;
    share(&socket).context("cannot let can-stop share the port")?;
    let drops = DropCounter::of(&socket);
    let handshake_frames = shake_hands(options, &socket, gateway)?;
    streaming.store(true, Relaxed);
    let started = Instant::now();
    let drops_before = drops.and_then(|counter| counter.read());
    if options.verbosity > Verbosity::Quiet {
        tell(&format!("{gateway} is started (channel {}); waiting for data, Ctrl-C ends it", options.channel));
    }
    socket.set_read_timeout(options.idle_timeout).context("cannot set the socket's timeout")?;

    let spool = Spool::new();
    let shared = Shared::default();
    let writer = Writer { terminal, drops, drops_before, events: events.clone(), shared: &shared };
    let receiver = Receiver::new(options, &socket, &spool, &shared, events, started);
    let mut session =
        Session { options, gateway, socket: &socket, started, shared: &shared, inbox, writer_ended: false };
    let (end, stopped, tally, written) = thread::scope(|scope| {
        let writer = scope.spawn(|| writer.run(&spool));
        let receiver = scope.spawn(|| receiver.run());
        let end = session.wait_for_end();
        let to_stop = options.stop_on_exit && !matches!(end, End::StartRefused(_));
        let stopped = to_stop.then(|| session.stop_bus());
        shared.ending.store(true, Relaxed);
        // Wakes the receiver; what the kernel holds can still be read.
        let _ = SockRef::from(&socket).shutdown(Shutdown::Read);
        let tally = receiver.join().unwrap_or_default();
        spool.close();
        session.wait_for_writer();
        match writer.join().unwrap_or_default() {
            (written, Some(error)) => (end.or_failed_write(error), stopped, tally, written),
            (written, None) => (end, stopped, tally, written),
        }
    });
    let dropped = drops.and_then(|counter| counter.read()).zip(drops_before).map(|(now, before)| now - before);
    let report = Report { tally, written, dropped, handshake_frames };
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

/// The first signal while `streaming` asks for the end of the session; any other leaves the process at once.
fn handle_signals(streaming: &Arc<AtomicBool>, events: &Sender<Event>) -> Result<Terminal> {
    let (streaming, events) = (Arc::clone(streaming), events.clone());
    signal::handle(move |signal| {
        let event = match signal {
            Signal::TerminalClosed => Event::TerminalClosed,
            Signal::End if streaming.swap(false, Relaxed) => Event::Signal,
            Signal::End => process::exit(130),
        };
        let _ = events.send(event);
    })
    .context("cannot handle signals")
}

fn shake_hands(options: &Options, socket: &UdpSocket, gateway: SocketAddr) -> Result<u64> {
    let begun = Instant::now();
    let tell_step = |words: String| {
        if options.verbosity == Verbosity::Verbose {
            tell(&format!("{:.3} s: {words}", begun.elapsed().as_secs_f64()));
        }
    };
    let local = socket.local_addr().context("the socket has no address")?;
    let granted = receive_buffer(socket).unwrap_or_default();
    tell_step(format!("bound {local}, talking to {gateway}"));
    tell_step(if granted < RECEIVE_BUFFER {
        format!(
            "receive buffer of {} KiB granted, {} KiB asked for; more with: sysctl -w net.core.rmem_max={RECEIVE_BUFFER}",
            granted >> 10,
            RECEIVE_BUFFER >> 10
        )
    } else {
        format!("receive buffer of {} KiB granted", granted >> 10)
    });
    let machine = Handshake::start(begun, options.retry, options.channel, options.bit_rate, &options.filters);
    let frames = drive(machine, socket, gateway, |step| match step {
        Step::Sent(command, copy) => tell_step(format!("sent {command} (attempt {copy})")),
        Step::Heard(line) => tell_step(format!("heard {}", printable(line))),
        Step::TakingOver(words) if options.verbosity > Verbosity::Quiet => tell(&format!(
            "the gateway refused INIT ({words}), so its controller probably still runs: stopping it, then INIT again"
        )),
        Step::TakingOver(_) => {}
    })?;
    Ok(frames)
}

/// News for the thread that decides.
enum Event {
    /// To be written to stderr.
    Notice(String),
    /// Ctrl-C or the like.
    Signal,
    /// The terminal has closed, and `nohup` wants that ignored.
    TerminalClosed,
    /// As many datagrams were printed as asked for.
    CountReached,
    /// Nothing has arrived for the time given.
    Idle,
    /// The gateway refused `START`, in these words.
    StartRefused(String),
    /// While the bus is being stopped: a reply came. `None` is `R ok`.
    Reply(Option<Vec<u8>>),
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
    /// `START` was answered with `R ok`.
    start_answered: AtomicBool,
    /// Something has arrived that is more than the answer to `START`.
    data_arrived: AtomicBool,
    /// How many notices wait for stderr.
    notices: AtomicUsize,
}

/// Why a session ended.
enum End {
    Signal,
    Count,
    ReaderGone,
    Idle(Duration),
    StartRefused(String),
    Stdout(io::Error),
}

impl End {
    /// This end, unless stdout failed on the way to it. A reader that went away is no failure.
    fn or_failed_write(self, error: io::Error) -> End {
        if error.kind() == io::ErrorKind::BrokenPipe { self } else { End::Stdout(error) }
    }

    fn into_result(self, options: &Options, gateway: SocketAddr) -> Result<()> {
        match self {
            End::Signal | End::Count | End::ReaderGone => Ok(()),
            End::Idle(timeout) => Err(anyhow!(
                "nothing has arrived from {gateway} for {} s (--idle-timeout); has it lost power, or START got lost?",
                timeout.as_secs_f64()
            )),
            End::StartRefused(words) => {
                let command = Command::Start { channel: options.channel };
                Err(anyhow!("the gateway refused {command}: {words} ({gateway})"))
            }
            End::Stdout(error) if error.kind() == io::ErrorKind::StorageFull => {
                Err(anyhow!("cannot write to stdout: {error}; make room there, or write to another disk"))
            }
            End::Stdout(error) => Err(anyhow!("cannot write to stdout: {error}; check where it is redirected to")),
        }
    }
}

/// The thread that decides.
struct Session<'a> {
    options: &'a Options,
    gateway: SocketAddr,
    socket: &'a UdpSocket,
    started: Instant,
    shared: &'a Shared,
    inbox: Inbox<Event>,
    writer_ended: bool,
}

impl Session<'_> {
    /// The next event that is no notice, if one comes before `until`. Notices are shown on the way.
    fn next_event(&mut self, until: Option<Instant>) -> Option<Event> {
        loop {
            let event = match until {
                None => self.inbox.recv().ok()?,
                Some(until) => match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
                },
            };
            match event {
                Event::Notice(words) => {
                    self.shared.notices.fetch_sub(1, Relaxed);
                    tell(&words);
                }
                event => {
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
                Some(Event::Idle) => return End::Idle(self.options.idle_timeout.unwrap_or_default()),
                Some(Event::StartRefused(words)) => return End::StartRefused(words),
                // The spool is still open, so the writer has failed; how, it tells itself.
                Some(Event::WriterEnded) => return End::ReaderGone,
                Some(Event::TerminalClosed) => tell(
                    "the terminal has closed; going on, since SIGHUP was ignored from the start (nohup). \
                     The next signal ends it",
                ),
                Some(Event::Reply(_) | Event::Notice(_)) => {}
            }
        }
    }

    fn tell_silence(&self) {
        if self.shared.data_arrived.load(Relaxed) || self.options.verbosity == Verbosity::Quiet {
            return;
        }
        let lost = if self.shared.start_answered.load(Relaxed) {
            ""
        } else {
            ", START was lost (it was not answered; run again)"
        };
        tell(&format!(
            "nothing has arrived for {} s: the bus is silent, --bitrate {} is wrong{lost}, or its frames have 29-bit \
             identifiers and the filter does not pass them (--filter EXT:0:0)",
            SILENCE.as_secs(),
            self.options.bit_rate
        ));
    }

    /// Sends `STOP` until it is confirmed or the attempts are used up, while the stream goes on.
    fn stop_bus(&mut self) -> Result<()> {
        self.shared.stopping.store(true, Relaxed);
        let mut machine = Handshake::stop(Instant::now(), self.options.retry, self.options.channel);
        let mut network = None;
        loop {
            match machine.poll(Instant::now()) {
                Ok(Action::Done) => return Ok(()),
                Ok(Action::Send { command, .. }) => network = send(self.socket, &command).err().or(network),
                Ok(Action::TakeOver(_)) => {}
                Ok(Action::Wait(until)) => match self.next_event(Some(until)) {
                    Some(Event::Reply(None)) => machine.handle_reply(Instant::now(), Reply::Ok),
                    Some(Event::Reply(Some(words))) => machine.handle_reply(Instant::now(), Reply::Refused(&words)),
                    _ => {}
                },
                Err(failure) => {
                    let (gateway, retry) = (self.gateway, machine.retry());
                    return Err(ExchangeError { failure, gateway, retry, network }.into());
                }
            }
        }
    }

    fn wait_for_writer(&mut self) {
        let mut patience = Some(Instant::now() + READER_PATIENCE);
        while !self.writer_ended {
            match self.next_event(patience) {
                Some(_) => {}
                None => {
                    patience = None;
                    tell("waiting for the reader of stdout to take the rest; Ctrl-C again leaves at once, without it");
                }
            }
        }
        while self.next_event(Some(Instant::now())).is_some() {}
    }
}

/// The thread that writes the spool to stdout.
struct Writer<'a> {
    terminal: Terminal,
    drops: Option<DropCounter>,
    drops_before: Option<u64>,
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
                if now >= next_look {
                    next_look = now + LOOK_EVERY;
                    self.terminal.look();
                    self.look_up_drops();
                }
            })
        });
        let _ = self.events.send(Event::WriterEnded);
        (written, result.err())
    }

    /// Looks only as long as nothing is lost: what matters then is that the user knows; the report has the number.
    fn look_up_drops(&mut self) {
        let Some((counter, before)) = self.drops.zip(self.drops_before) else { return };
        if counter.read().is_some_and(|now| now > before) {
            self.drops = None;
            self.shared.notify(
                &self.events,
                format!(
                    "datagrams are being lost: they come faster than this machine takes them from the socket's queue; \
                     a larger one helps (sysctl -w net.core.rmem_max={RECEIVE_BUFFER}, then start again)"
                ),
            );
        }
    }
}

/// The thread that takes datagrams from the socket.
struct Receiver<'a> {
    socket: &'a UdpSocket,
    spool: &'a Spool,
    shared: &'a Shared,
    events: Sender<Event>,
    formatter: Formatter,
    idle_timeout: Option<Duration>,
    /// Until when the first reply is that to `START`.
    start_reply_until: Option<Instant>,
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
    /// Datagrams that came when stdout had failed.
    too_late: u64,
    malformed: u64,
    notices_skipped: u64,
    network_errors: u64,
}

impl Shared {
    /// Has words shown on stderr; `false` if too many wait already.
    fn notify(&self, events: &Sender<Event>, words: String) -> bool {
        if self.notices.fetch_add(1, Relaxed) >= NOTICES_MAX {
            self.notices.fetch_sub(1, Relaxed);
            return false;
        }
        events.send(Event::Notice(words)).is_ok()
    }
}

impl<'a> Receiver<'a> {
    fn new(
        options: &Options,
        socket: &'a UdpSocket,
        spool: &'a Spool,
        shared: &'a Shared,
        events: Sender<Event>,
        started: Instant,
    ) -> Receiver<'a> {
        Receiver {
            socket,
            spool,
            shared,
            events,
            formatter: Formatter::new(options.format, &options.target.to_string(), io::stdout().is_terminal()),
            idle_timeout: options.idle_timeout,
            start_reply_until: Some(started + options.retry.timeout),
            remaining: options.count.map(NonZeroU64::get),
            failing_since: None,
            tally: Tally::default(),
        }
    }

    fn run(mut self) -> Tally {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let mut line = Vec::new();
        // Until when, and up to which datagram, at most.
        let mut drain: Option<(Instant, u64)> = None;
        loop {
            if drain.is_none() && self.shared.ending.load(Relaxed) {
                let _ = self.socket.set_nonblocking(true);
                drain = Some((Instant::now() + DRAIN, self.tally.datagrams + QUEUED_MAX));
            }
            match self.socket.recv(&mut buffer) {
                // What woke us, not a datagram.
                Ok(0) if self.shared.ending.load(Relaxed) => {}
                Ok(length) => self.take(&buffer[..length], &mut line),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock if drain.is_some() => break,
                    io::ErrorKind::WouldBlock => self.report(Event::Idle),
                    _ => self.take_error(&error),
                },
            }
            if drain.is_some_and(|(until, last)| self.tally.datagrams >= last && Instant::now() >= until) {
                break;
            }
        }
        self.tally
    }

    fn take(&mut self, datagram: &[u8], line: &mut Vec<u8>) {
        self.tally.datagrams += 1;
        self.tally.bytes += datagram.len() as u64;
        self.failing_since = None;
        let only_start_reply = self.take_replies(datagram);
        if !only_start_reply && self.tally.datagrams <= 2 {
            self.shared.data_arrived.store(true, Relaxed);
        }
        line.clear();
        let (shared, events, tally) = (self.shared, &self.events, &mut self.tally);
        self.formatter.write(datagram, since_1970, line, |aside| {
            let words = match aside {
                // It ends the session, which says so.
                Aside::Refusal(_) if only_start_reply => return,
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
            tally.notices_skipped += u64::from(!shared.notify(events, words));
        });
        if !line.is_empty() && self.remaining != Some(0) {
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
            Err(Rejected::Closed) => self.tally.too_late += 1,
            Err(Rejected::Full) => {
                self.tally.overflowed += 1;
                if self.tally.overflowed == 1 {
                    self.shared.notify(
                        &self.events,
                        "datagrams are being lost: whoever reads stdout is too slow, 32 MiB wait for it already; \
                         a faster reader or a file keeps them all"
                            .to_owned(),
                    );
                }
            }
        }
    }

    /// Hands on the replies that somebody waits for. `true` if the datagram is the reply to `START` and nothing else.
    fn take_replies(&mut self, datagram: &[u8]) -> bool {
        let mut only_start_reply = false;
        if self.start_reply_until.is_none() && !self.shared.stopping.load(Relaxed) {
            return only_start_reply;
        }
        if self.start_reply_until.is_some_and(|until| Instant::now() > until) {
            self.start_reply_until = None;
        }
        for reply in replies(datagram) {
            if self.start_reply_until.take().is_some() {
                only_start_reply = lines(datagram).count() == 1;
                match reply {
                    Reply::Ok => self.shared.start_answered.store(true, Relaxed),
                    Reply::Refused(words) => self.report(Event::StartRefused(printable(words))),
                }
            } else if self.shared.stopping.load(Relaxed) {
                self.report(Event::Reply(match reply {
                    Reply::Ok => None,
                    Reply::Refused(words) => Some(words.to_vec()),
                }));
            }
        }
        only_start_reply
    }

    /// An error of the network's passes; it must be neither fatal nor keep a processor busy.
    fn take_error(&mut self, error: &io::Error) {
        self.tally.network_errors += 1;
        if self.tally.network_errors == 1 {
            self.shared.notify(&self.events, format!("network error, still listening: {error}"));
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
            End::Stdout(_) => self.tally.spooled + self.tally.too_late - self.written,
            _ => 0,
        }
    }

    fn something_is_missing(&self, end: &End) -> bool {
        self.dropped.unwrap_or(0) + self.tally.overflowed + self.tally.malformed + self.unwritten(end) > 0
    }

    fn line(&self, options: &Options, end: &End, stopped: Option<&Result<()>>, duration: Duration) -> String {
        let tally = &self.tally;
        let dropped = self.dropped.map_or("unknown (no /proc/net/udp)".to_owned(), |count| count.to_string());
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
        line += &match (stopped, end) {
            (Some(Ok(())), _) => "; the bus is stopped".to_owned(),
            (_, End::StartRefused(_)) => "; the bus was not started".to_owned(),
            _ => format!("; the bus still runs, halt it with: {}", stop_command(options)),
        };
        line
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
