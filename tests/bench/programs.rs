//! The programs that are measured, and how one of them is run and streamed to.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

use crate::machine::proc_file;

/// A frame with 8 data bytes, as the vendor's guide writes it.
pub const DATAGRAM: &[u8] = b"M 1 CSD 100 55 AA 55 AA 00 11 22 33\n";

/// The receive buffer that every program asks for.
pub const BUFFER: usize = 4 << 20;

/// The hidden argument that makes the benchmark itself the yardstick.
pub const PLAIN_LOOP: &str = "--plain-loop";

pub const CAN_LISTEN: &str = "can-listen";
pub const C_ONE_BY_ONE: &str = "C recv+write";
pub const C_IN_BATCHES: &str = "C recvmmsg+write";
pub const RUST_LOOP: &str = "Rust recv+write";

/// How many datagrams are sent with one system call. With one, the sender would be slower than most listeners and no
/// flood would come about; with 64, which is what Linux takes, it would outrun every one of them.
const AT_ONCE: usize = 8;

/// How long anything that should come at once may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The loop of the scripts that can-listen replaces, with the buffer of all the others. What it prints stays buffered,
/// as always when Python's stdout is no terminal; so it must be let end in order.
const PYTHON_LOOP: &str = r#"
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(sys.argv[2]))
udp.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    data, sender = udp.recvfrom(2048)
    print(data.decode("ascii", errors="ignore").strip())
"#;

pub struct Program {
    pub name: &'static str,
    /// `{port}` stands for the port to listen on, `{gateway}` for that of the gateway.
    command: Vec<String>,
}

impl Program {
    fn new(name: &'static str, command: &[&str]) -> Program {
        Program { name, command: command.iter().map(|&word| word.to_owned()).collect() }
    }

    fn shakes_hands(&self) -> bool {
        self.command.iter().any(|word| word.contains("{gateway}"))
    }
}

pub fn can_listen(name: &'static str, options: &[&str]) -> Program {
    let command = [env!("CARGO_BIN_EXE_can-listen"), "--target=127.0.0.1:{gateway}", "--bind=127.0.0.1:{port}"];
    Program::new(name, &[&command, options].concat())
}

/// can-listen, the yardsticks, and the peers that are installed.
pub fn all() -> Vec<Program> {
    let buffer = BUFFER.to_string();
    let mut programs = vec![can_listen(CAN_LISTEN, &[])];
    if let Some(yardstick) = build_yardstick() {
        let yardstick = yardstick.to_string_lossy();
        programs.push(Program::new(C_ONE_BY_ONE, &[&yardstick, "recv", "{port}", &buffer]));
        programs.push(Program::new(C_IN_BATCHES, &[&yardstick, "recvmmsg", "{port}", &buffer]));
    }
    let own = env::current_exe().expect("the path of this program");
    programs.push(Program::new(RUST_LOOP, &[&own.to_string_lossy(), PLAIN_LOOP, "{port}"]));
    if output_of("socat", &["-V"]).is_some() {
        let from = format!("UDP4-RECV:{{port}},bind=127.0.0.1,rcvbuf={buffer}");
        programs.push(Program::new("socat", &["socat", "-u", &from, "STDOUT"]));
    }
    // The one of OpenBSD, whose -I sets the receive buffer; others have other options.
    if output_of("nc", &["-h"]).is_some_and(|help| help.contains("OpenBSD")) {
        programs.push(Program::new("nc", &["nc", "-u", "-l", "-d", "-I", &buffer, "127.0.0.1", "{port}"]));
    }
    // What is found first may be a wrapper, whose own start would be measured too.
    if let Some(python) = output_of("python3", &["-c", "import sys; print(sys.executable)"]) {
        programs.push(Program::new("Python", &[python.trim(), "-c", PYTHON_LOOP, "{port}", &buffer]));
    }
    programs
}

/// What a program says on stdout and stderr; `None` if it cannot be started.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn build_yardstick() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/yardstick.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("yardstick");
    let built = Command::new("cc").args(["-O2", "-Wall", "-o"]).args([&program, &source]).status();
    built.is_ok_and(|status| status.success()).then_some(program)
}

/// The yardstick where there is no C compiler. Ends only by an error.
pub fn plain_loop(port: u16) -> io::Result<()> {
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    udp.set_recv_buffer_size(BUFFER)?;
    udp.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    let udp = UdpSocket::from(udp);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut datagram = [0; 2048];
    loop {
        let length = udp.recv(&mut datagram)?;
        stdout.write_all(&datagram[..length])?;
    }
}

#[derive(Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    /// Flat out without one.
    pub per_second: Option<u32>,
}

/// What was sent, and in what time.
pub struct Sent {
    pub datagrams: u64,
    pub per_second: f64,
}

/// Has datagrams sent at the load's pace, not too many in one go.
pub fn pace(load: &Load, span: Duration, send: &mut dyn FnMut(usize)) -> Sent {
    let (burst, period) = match load.per_second {
        None => (AT_ONCE, Duration::ZERO),
        Some(rate @ ..10_000) => (1, Duration::from_secs(1) / rate),
        Some(rate) => (rate as usize / 1000, Duration::from_millis(1)),
    };
    let (begun, mut due, mut sent) = (Instant::now(), Duration::ZERO, 0);
    while due < span && begun.elapsed() < span {
        thread::sleep(due.saturating_sub(begun.elapsed()));
        for first in (0..burst).step_by(AT_ONCE) {
            send(AT_ONCE.min(burst - first));
        }
        sent += burst;
        due += period;
    }
    Sent { datagrams: sent as u64, per_second: sent as f64 / begun.elapsed().max(due).as_secs_f64() }
}

/// A program that listens, and the gateway that streams to it.
pub struct Listener {
    child: Child,
    port: u16,
    gateway: UdpSocket,
    cpu_before: Duration,
}

impl Listener {
    pub fn start(program: &Program, stdout: Stdio) -> Listener {
        let gateway = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the gateway");
        let (port, gateway_port) = (free_port(), port_of(&gateway));
        let mut words = program
            .command
            .iter()
            .map(|word| word.replace("{port}", &port.to_string()).replace("{gateway}", &gateway_port.to_string()));
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
        // With it, Python would write each line by itself.
        command.env_remove("PYTHONUNBUFFERED");
        let child = command.spawn().expect("a program that can be started");
        *running() = Some(pid(&child));

        let mut listener = Listener { child, port, gateway, cpu_before: Duration::ZERO };
        if program.shakes_hands() {
            listener.answer_handshake();
        }
        wait_until(|| listener.queued().is_some(), &format!("{} does not listen", program.name));
        // Start-up is to be over before the counting begins.
        thread::sleep(Duration::from_millis(50));
        listener.gateway.connect((Ipv4Addr::LOCALHOST, port)).expect("a way to the listener");
        // The kernel shall cut what is sent into datagrams of this length (UDP_SEGMENT).
        setsockopt(&listener.gateway, UdpGsoSegment, &(DATAGRAM.len() as i32)).expect("a socket that sends in bursts");
        listener.cpu_before = listener.cpu();
        listener
    }

    /// Answers every command, until START.
    fn answer_handshake(&self) {
        self.gateway.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = self.gateway.recv_from(&mut buffer).expect("a command from can-listen");
            let command = &buffer[..length];
            if command.starts_with(b"CAN") {
                self.gateway.send_to(b"R ok\n", from).expect("a way to can-listen");
            }
            if command.ends_with(b"START\n") {
                return;
            }
        }
    }

    /// Sends one datagram or several, each as long as [`DATAGRAM`].
    pub fn send(&self, datagrams: &[u8]) {
        self.gateway.send(datagrams).expect("the listener is still there");
    }

    pub fn stream(&self, load: &Load, span: Duration) -> Sent {
        let datagrams = DATAGRAM.repeat(AT_ONCE);
        pace(load, span, &mut |count| self.send(&datagrams[..count * DATAGRAM.len()]))
    }

    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("a pipe")
    }

    /// How many bytes wait in the program's socket; `None` if it has none yet. From `/proc/net/udp`, see proc(5).
    fn queued(&self) -> Option<u64> {
        let local = format!("0100007F:{:04X}", self.port);
        proc_file("/proc/net/udp").lines().find_map(|line| {
            let mut columns = line.split_ascii_whitespace().skip(1);
            (columns.next()? == local).then_some(())?;
            let (_to_be_sent, received) = columns.nth(2)?.split_once(':')?;
            u64::from_str_radix(received, 16).ok()
        })
    }

    /// What all threads have used so far, to the nanosecond; nothing where the kernel does not keep it.
    fn cpu(&self) -> Duration {
        let first_number = |text: String| text.split(' ').next()?.parse::<u64>().ok();
        Duration::from_nanos(self.threads("schedstat").filter_map(first_number).sum())
    }

    pub fn context_switches(&self) -> u64 {
        self.threads("status").filter_map(|text| field(&text, "voluntary_ctxt_switches")).sum()
    }

    /// A size in KiB from `/proc/PID/status`.
    pub fn kib(&self, name: &str) -> u64 {
        field(&proc_file(&format!("/proc/{}/status", self.child.id())), name).unwrap_or_default()
    }

    /// This file of every thread.
    fn threads(&self, file: &str) -> impl Iterator<Item = String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        threads.filter_map(move |thread| fs::read_to_string(thread.path().join(file)).ok())
    }

    /// Lets the program take what is under way and ends it. Tells the CPU time since the start and the peak of its
    /// memory in KiB.
    pub fn end(mut self) -> (Duration, u64) {
        wait_until(|| self.queued().unwrap_or(0) == 0, "the listener takes no more datagrams");
        // What it has just taken it may still have to write.
        thread::sleep(Duration::from_millis(20));
        let peak_kib = self.kib("VmHWM");
        let others = cpu_of_ended_children();
        kill(pid(&self.child), Signal::SIGTERM).expect("the listener is still there");
        wait_until(|| self.has_ended(), "the listener does not end");
        ((cpu_of_ended_children() - others).saturating_sub(self.cpu_before), peak_kib)
    }

    fn has_ended(&mut self) -> bool {
        let mut running = running();
        let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        if ended {
            *running = None;
        }
        ended
    }
}

/// Whatever went wrong, nothing is left behind.
impl Drop for Listener {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            *running() = None;
        }
    }
}

/// For the handler of Ctrl-C.
pub fn kill_running() {
    if let Some(child) = *running() {
        let _ = kill(child, Signal::SIGKILL);
    }
}

/// The child that runs. It is reaped under this lock, so that its number is never another's.
fn running() -> MutexGuard<'static, Option<Pid>> {
    static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process number"))
}

fn cpu_of_ended_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the children's usage");
    let microseconds = |time: TimeVal| (time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs();
    Duration::from_micros(microseconds(usage.user_time()) + microseconds(usage.system_time()))
}

fn free_port() -> u16 {
    port_of(&UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
}

fn port_of(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("the socket's address").port()
}

/// The number after `name:`, as in `/proc/PID/status`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

fn wait_until(mut condition: impl FnMut() -> bool, complaint: &str) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{complaint}");
        thread::sleep(Duration::from_millis(2));
    }
}
