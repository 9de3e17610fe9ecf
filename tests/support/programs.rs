//! Runs the real binaries for tests: collects what they print as it comes, and bounds every wait.
#![allow(dead_code)] // each test program uses a part of it

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

/// How long a test waits for anything before it fails: long enough for Python on an emulated processor.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// `can-listen` on a free local port; the caller adds the target.
pub fn can_listen<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_can-listen"));
    command.args(["--bind", "127.0.0.1:0"]).args(arguments);
    command
}

/// `can-stop` with these arguments and no others.
pub fn can_stop<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_can-stop"));
    command.args(arguments);
    command
}

/// `can-listen` with these arguments and no others.
pub fn can_listen_plain<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_can-listen"));
    command.args(arguments);
    command
}

/// A program with the environment and signal dispositions of an interactive shell, however the tests were started.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("env");
    command.arg(DEFAULT_SIGNALS).arg(program);
    for variable in ["CAN_TARGET", "CAN_BIND", "CAN_CHANNEL", "CAN_BITRATE"] {
        command.env_remove(variable);
    }
    command
}

/// Makes env(1) reset signals that were ignored when the tests were started, as under nohup(1) or in a background job.
pub const DEFAULT_SIGNALS: &str = "--default-signal=HUP,INT,QUIT,TERM";

/// The program and its arguments, without what [`DEFAULT_SIGNALS`] needs.
pub fn command_line(command: &Command) -> impl Iterator<Item = &OsStr> {
    command.get_args().skip(1)
}

/// A program that was started by a test. Dropping it kills it.
pub struct Running {
    child: Child,
    stdout: Collector,
    stderr: Collector,
}

/// The exit status of a program and everything that it printed.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    /// The exit code; a program killed by a signal has none.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it printed on stdout, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Starts a program and collects its stdout and stderr.
#[track_caller]
pub fn start(command: &mut Command) -> Running {
    start_with(command, Stdio::piped())
}

/// Starts a program with that stdout: one that is not `Stdio::piped()` is not collected.
#[track_caller]
pub fn start_with(command: &mut Command, stdout: Stdio) -> Running {
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let stdout = child.stdout.take().map(Collector::collect).unwrap_or_default();
    let stderr = child.stderr.take().map(Collector::collect).unwrap_or_default();
    Running { child, stdout, stderr }
}

/// Runs a program until it exits.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    start(command).wait()
}

impl Running {
    /// The process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().try_into().expect("a process ID"));
        kill(pid, signal).expect("the process can be signalled");
    }

    /// What it has printed on stdout so far.
    pub fn stdout_so_far(&self) -> Vec<u8> {
        self.stdout.state.0.lock().expect("no reader panics").bytes.clone()
    }

    /// What it has printed on stderr so far.
    pub fn stderr_so_far(&self) -> String {
        let bytes = self.stderr.state.0.lock().expect("no reader panics").bytes.clone();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until stderr contains `text`.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) {
        let found = self.stderr.wait(|bytes| String::from_utf8_lossy(bytes).contains(text));
        assert!(found, "no {text:?} on stderr, only {:?}", self.stderr_so_far());
    }

    /// Waits until stdout contains `text`.
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) {
        let found = self.stdout.wait(|bytes| String::from_utf8_lossy(bytes).contains(text));
        assert!(found, "no {text:?} on stdout; on stderr {:?}", self.stderr_so_far());
    }

    /// Waits until stdout has so many lines.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize) {
        let found = self.stdout.wait(|bytes| bytes.iter().filter(|&&byte| byte == b'\n').count() >= count);
        assert!(found, "not {count} lines on stdout; on stderr {:?}", self.stderr_so_far());
    }

    /// Whether it has exited.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_some()
    }

    /// Waits until it exits.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let deadline = Instant::now() + TEST_TIMEOUT;
        // std cannot wait with a timeout.
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                break status;
            }
            if Instant::now() >= deadline {
                panic!("the program does not exit; on stderr {:?}", self.stderr_so_far());
            }
            thread::sleep(Duration::from_millis(2));
        };
        assert!(
            self.stdout.wait_for_end() && self.stderr.wait_for_end(),
            "another process holds the program's output open"
        );
        let stdout = self.stdout_so_far();
        let stderr = self.stderr_so_far();
        Output { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program prints, collected by a thread.
#[derive(Default)]
struct Collector {
    state: Arc<(Mutex<Collected>, Condvar)>,
}

struct Collected {
    bytes: Vec<u8>,
    ended: bool,
}

impl Default for Collected {
    fn default() -> Self {
        Collected { bytes: Vec::new(), ended: true }
    }
}

impl Collector {
    fn collect(mut from: impl Read + Send + 'static) -> Collector {
        let output = Collector::default();
        output.state.0.lock().expect("no reader panics").ended = false;
        let state = Arc::clone(&output.state);
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = from.read(&mut buffer).unwrap_or(0);
                let mut collected = state.0.lock().expect("no test panics while it looks");
                collected.bytes.extend_from_slice(&buffer[..count]);
                collected.ended = count == 0;
                state.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        output
    }

    /// Waits until `condition` holds; `false` if the output ended or the wait timed out without it.
    fn wait(&self, condition: impl Fn(&[u8]) -> bool) -> bool {
        let collected = self.state.0.lock().expect("no reader panics");
        let waiting = |collected: &mut Collected| !condition(&collected.bytes) && !collected.ended;
        let (collected, _) =
            self.state.1.wait_timeout_while(collected, TEST_TIMEOUT, waiting).expect("no reader panics");
        condition(&collected.bytes)
    }

    fn wait_for_end(&self) -> bool {
        let collected = self.state.0.lock().expect("no reader panics");
        let (collected, _) = self
            .state
            .1
            .wait_timeout_while(collected, TEST_TIMEOUT, |collected| !collected.ended)
            .expect("no reader panics");
        collected.ended
    }
}

/// Waits until no command of the listener bound to this address is in flight, not even `START`: from then on it shares
/// its port.
#[track_caller]
pub fn wait_until_shared(listener: SocketAddr) {
    let wildcard = match listener.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, listener.port())),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, listener.port())),
    };
    wait_until("a port that is shared", || {
        let socket = Socket::new(Domain::for_address(wildcard), Type::DGRAM, None).expect("a socket");
        if wildcard.is_ipv6() {
            socket.set_only_v6(true).expect("it is not bound yet");
        }
        socket.set_reuse_port(true).expect("a socket can share its port");
        socket.bind(&wildcard.into()).is_ok()
    });
}

/// A UDP port that is free now, outside the range that Linux assigns to port 0 (32768 and up).
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..12_000 {
        // Each process begins elsewhere, so that two that run at the same time do not collide.
        let tried = TRIED.fetch_add(1, Relaxed).wrapping_add(std::process::id().wrapping_mul(97));
        let port = 20_000 + (tried % 12_000) as u16;
        if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Keeps a port of 127.0.0.1 closed until it is dropped: it is in use, by a socket that receives from no test.
pub fn closed_port() -> UdpSocket {
    // A program that another thread is starting holds copies of the open sockets until it is executed.
    let bound = (0..100).find_map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, free_port())).ok());
    let socket = bound.expect("a free port");
    socket.connect("127.0.0.1:1").expect("a socket can be connected");
    socket
}

/// The only line on stderr after the one that says where `can-listen` connects to, without the program's name.
#[track_caller]
pub fn only_line(finished: &Output, program: &str) -> String {
    let stderr = finished.stderr.split_once(" kbit/s)\n").map_or(finished.stderr.as_str(), |(_, rest)| rest);
    let line = stderr.strip_prefix(&format!("{program}: ")).and_then(|line| line.strip_suffix('\n'));
    let line = line.filter(|line| !line.contains('\n') && !line.is_empty());
    line.unwrap_or_else(|| panic!("not one line of {program}'s on stderr: {:?}", finished.stderr)).to_owned()
}

/// Starts a program whose stdout stays unread until the test reads it or passes it to [`Running::read_on`].
#[track_caller]
pub fn start_unread(command: &mut Command) -> (Running, ChildStdout) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let unread = child.stdout.take().expect("a pipe was requested");
    let stderr = child.stderr.take().map(Collector::collect).unwrap_or_default();
    (Running { child, stdout: Collector::default(), stderr }, unread)
}

/// Starts a program that writes to these two, collecting nothing.
#[track_caller]
pub fn start_uncollected(command: &mut Command, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Running {
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
    let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    Running { child, stdout: Collector::default(), stderr: Collector::default() }
}

impl Running {
    /// Collects what comes from there as its stdout from now on.
    pub fn read_on(&mut self, from: impl Read + Send + 'static) {
        self.stdout = Collector::collect(from);
    }

    /// A file of its folder in `/proc`, see proc(5): `status`, `stat`.
    pub fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.id())).expect("the process exists")
    }

    /// Stops it with SIGSTOP and waits until it has stopped.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("a stopped process", || self.proc("status").contains("State:\tT"));
    }

    /// Continues it with SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }
}

/// Polls until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The memory in bytes that is used by the receive queue of the socket bound to this address, if there is one. Looks more
/// than once: the kernel can leave a line out when another socket is closed.
pub fn queued(address: SocketAddr) -> Option<u64> {
    (0..10).find_map(|_| queued_by_table(address))
}

fn queued_by_table(address: SocketAddr) -> Option<u64> {
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is in another table") };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
    let table = fs::read_to_string("/proc/net/udp").expect("proc is mounted");
    let mut rows = table.lines().map(|line| line.split_ascii_whitespace());
    let mut row = rows.find(|row| row.clone().nth(1) == Some(&local))?;
    let (_, receive) = row.nth(4)?.split_once(':')?;
    u64::from_str_radix(receive, 16).ok()
}

/// Sends as fast as the socket bound to `to` is read, so that the kernel drops nothing even with the small buffer of a
/// stock system; returns when all of it has been read.
#[track_caller]
pub fn send_at_the_pace_of(to: SocketAddr, datagrams: impl IntoIterator<Item = Vec<u8>>, send: impl Fn(&[u8])) {
    const AT_ONCE: usize = 64 << 10;
    // Empty: the kernel gives room back late, up to a quarter of the buffer, and does not show it in the table.
    let wait_until_read =
        || wait_until("the receiver to read its queue", || queued(to).is_none_or(|waiting| waiting == 0));
    let mut on_the_way = 0;
    for datagram in datagrams {
        send(&datagram);
        on_the_way += datagram.len() + 1024;
        if on_the_way >= AT_ONCE {
            on_the_way = 0;
            wait_until_read();
        }
    }
    wait_until_read();
}

/// A frame that carries its number.
pub fn frame(number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.to_be_bytes();
    format!("M 1 CSD 100 {a:02X} {b:02X} {c:02X} {d:02X}\n").into_bytes()
}

/// The numbers of the frames among these lines, each of which must be complete.
#[track_caller]
pub fn numbers(lines: &[u8]) -> Vec<u32> {
    let text = String::from_utf8_lossy(lines);
    let frames = text.split_inclusive('\n').filter_map(|line| Some((line, line.strip_prefix("M 1 CSD 100 ")?)));
    let number = |(line, data): (&str, &str)| {
        let number = u32::from_str_radix(&data.trim_end().replace(' ', ""), 16).unwrap_or(0);
        assert_eq!(line.as_bytes(), frame(number), "a frame that was never sent");
        number
    };
    frames.map(number).collect()
}

/// The numbers of lost datagrams in the report: in the kernel and in the output buffer.
#[track_caller]
pub fn reported_lost(stderr: &str) -> (u64, u64) {
    let counts = stderr.split_once(" in the kernel, ").and_then(|(before, after)| {
        let (_, kernel) = before.rsplit_once("lost: ")?;
        let (buffer, _) = after.split_once(" in the ")?;
        Some((kernel.parse().ok()?, buffer.parse().ok()?))
    });
    counts.unwrap_or_else(|| panic!("no report on stderr: {stderr:?}"))
}

/// The lines of stderr between the one that says that START was sent and the report, which begins with the datagrams and seconds.
pub fn messages_of_stream(stderr: &str) -> Vec<&str> {
    let lines = stderr.lines().skip_while(|line| !line.contains("START sent")).skip(1);
    lines.take_while(|line| !(line.contains(" datagram") && line.contains(") in "))).collect()
}

/// Whether a failure is reported as one whose effect is unknown.
pub fn is_in_doubt(stderr: &str) -> bool {
    ["may be running", "may still run", "may still be running", "in doubt"].iter().any(|doubt| stderr.contains(doubt))
}

/// A terminal that closes when its master is dropped, and the path of its slave.
pub fn terminal() -> (PtyMaster, String) {
    // Unlike that of openpty(3), this master is not inherited by the programs that tests start.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other side can be opened");
    let name = ptsname_r(&master).expect("it has a name");
    (master, name)
}

/// A folder of a test's own that other users can enter. Dropping it removes the folder.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new(name: &str) -> TempDir {
        let path = env::temp_dir().join(format!("can-udp-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a folder that others may enter");
        TempDir(path)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect("a file")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
