//! Runs one of the programs and plays the gateway that streams to it.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::load::{Load, Sent, pace};
use crate::machine::proc_file;
use crate::programs::Program;

/// A frame with 8 data bytes, as the vendor's guide writes it.
pub const DATAGRAM: &[u8] = b"M 1 CSD 100 55 AA 55 AA 00 11 22 33\n";

/// How long the benchmark waits for anything that should happen at once.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A program that listens, and the gateway that streams to it.
pub struct Listener {
    child: Child,
    port: u16,
    pub gateway: UdpSocket,
    cpu_before: Duration,
}

/// What a stream cost a program. Shutdown is not included.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// The CPU time of start-up.
    pub startup: Duration,
    /// The CPU time since then.
    pub cpu: Duration,
    pub memory_kib: u64,
}

/// Waits until start-up is over; the measurement begins then.
pub fn settle<'a>(listeners: impl IntoIterator<Item = &'a mut Listener>) {
    thread::sleep(Duration::from_millis(50));
    for listener in listeners {
        listener.cpu_before = listener.cpu();
    }
}

/// Waits until the programs have read and written what is on its way.
pub fn finish_writing<'a>(listeners: impl IntoIterator<Item = &'a Listener>) {
    for listener in listeners {
        wait_until(|| listener.queued().unwrap_or(0) == 0, "the listener reads no more datagrams");
    }
    // They may still have to write what they have just read; can-listen writes a file every 100 ms.
    thread::sleep(Duration::from_millis(130));
}

impl Listener {
    /// Starts the program and waits until its start-up is over.
    pub fn start(program: &Program, stdout: Stdio) -> Listener {
        let mut listener = Listener::launch(program, stdout);
        settle([&mut listener]);
        listener
    }

    /// Starts the program and waits until it listens. [`settle`] comes before the measurement.
    pub fn launch(program: &Program, stdout: Stdio) -> Listener {
        let gateway = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the gateway");
        // Held until the program runs: until then a child holds copies of all sockets, also of one that tries a port.
        let mut running = running();
        let (port, gateway_port) = (free_port(), port_of(&gateway));
        let mut arguments = program.command.iter().map(|argument| {
            argument.replace("{port}", &port.to_string()).replace("{gateway}", &gateway_port.to_string())
        });
        let mut command = Command::new(arguments.next().expect("a program"));
        command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
        // With it, Python would write each line by itself.
        command.env_remove("PYTHONUNBUFFERED");
        let child = command.spawn().expect("a program that can be started");
        running.push(pid(&child));
        drop(running);

        let listener = Listener { child, port, gateway, cpu_before: Duration::ZERO };
        if program.needs_handshake() {
            listener.answer_handshake();
        }
        wait_until(|| listener.queued().is_some(), &format!("{} does not listen", program.name));
        listener.gateway.connect((Ipv4Addr::LOCALHOST, port)).expect("a connected gateway");
        // The kernel cuts what is sent into datagrams of this length (UDP_SEGMENT).
        setsockopt(&listener.gateway, UdpGsoSegment, &(DATAGRAM.len() as i32)).expect("a socket that sends in bursts");
        listener
    }

    /// Answers every command, until START.
    fn answer_handshake(&self) {
        self.gateway.set_read_timeout(Some(TIMEOUT)).expect("a read timeout");
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = self.gateway.recv_from(&mut buffer).expect("a command from can-listen");
            let command = &buffer[..length];
            if command.starts_with(b"CAN") {
                self.gateway.send_to(b"R ok\n", from).expect("an answer that can be sent");
            }
            if command.ends_with(b"START\n") {
                return;
            }
        }
    }

    /// Sends one datagram or several, each as long as [`DATAGRAM`].
    pub fn send(&self, datagrams: &[u8]) {
        self.gateway.send(datagrams).expect("a listener that still runs");
    }

    pub fn stream(&self, load: &Load, span: Duration) -> Sent {
        let datagrams = DATAGRAM.repeat(load.burst);
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

    /// CPU time of all threads since the program was started, user and system.
    fn cpu(&self) -> Duration {
        let clock = clock_getcpuclockid(pid(&self.child)).expect("a program that still runs");
        clock.now().expect("the CPU time of the program").into()
    }

    pub fn context_switches(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let statuses = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
        statuses.filter_map(|text| field(&text, "voluntary_ctxt_switches")).sum()
    }

    /// A size in KiB from `/proc/PID/status`.
    pub fn kib(&self, name: &str) -> u64 {
        field(&proc_file(&format!("/proc/{}/status", self.child.id())), name).unwrap_or_default()
    }

    /// The program's part of the memory that it shares with others, and all that it does not share, in KiB.
    pub fn proportional_kib(&self) -> u64 {
        field(&proc_file(&format!("/proc/{}/smaps_rollup", self.child.id())), "Pss").unwrap_or_default()
    }

    /// Waits until the program has read and written what is on its way, then ends it.
    pub fn end(self) -> Cost {
        finish_writing([&self]);
        let cost = self.cost(self.kib("VmHWM"));
        self.terminate();
        cost
    }

    /// What the stream has cost up to now.
    pub fn cost(&self, memory_kib: u64) -> Cost {
        Cost { startup: self.cpu_before, cpu: self.cpu() - self.cpu_before, memory_kib }
    }

    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        self.wait();
    }

    pub fn signal(&self, signal: Signal) {
        kill(pid(&self.child), signal).expect("a listener that still runs");
    }

    pub fn wait(&mut self) {
        wait_until(|| self.has_ended(), "the listener does not exit");
    }

    fn has_ended(&mut self) -> bool {
        let mut running = running();
        let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        if ended {
            running.retain(|&running| running != pid(&self.child));
        }
        ended
    }
}

/// No program outlives a failed measurement.
impl Drop for Listener {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            running().retain(|&running| running != pid(&self.child));
        }
    }
}

/// For the handler of Ctrl-C.
pub fn kill_running() {
    for &child in &*running() {
        let _ = kill(child, Signal::SIGKILL);
    }
}

/// The children that run. They are reaped under this lock, so that no number here can belong to another process.
fn running() -> MutexGuard<'static, Vec<Pid>> {
    static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process number"))
}

/// Below those that the system gives to others; none is returned twice.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Relaxed);
        assert!(port > 0, "all ports are used up");
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
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
        assert!(begun.elapsed() < TIMEOUT, "{complaint}");
        thread::sleep(Duration::from_millis(2));
    }
}
