//! Runs one of the programs and plays the gateway that streams to it.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
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

impl Listener {
    pub fn start(program: &Program, stdout: Stdio) -> Listener {
        let gateway = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the gateway");
        let (port, gateway_port) = (free_port(), port_of(&gateway));
        let mut arguments = program.command.iter().map(|argument| {
            argument.replace("{port}", &port.to_string()).replace("{gateway}", &gateway_port.to_string())
        });
        let mut command = Command::new(arguments.next().expect("a program"));
        command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
        // With it, Python would write each line by itself.
        command.env_remove("PYTHONUNBUFFERED");
        let child = command.spawn().expect("a program that can be started");
        *running() = Some(pid(&child));

        let mut listener = Listener { child, port, gateway, cpu_before: Duration::ZERO };
        if program.needs_handshake() {
            listener.answer_handshake();
        }
        wait_until(|| listener.queued().is_some(), &format!("{} does not listen", program.name));
        // Start-up is over before the measurement begins.
        thread::sleep(Duration::from_millis(50));
        listener.gateway.connect((Ipv4Addr::LOCALHOST, port)).expect("a connected gateway");
        // The kernel cuts what is sent into datagrams of this length (UDP_SEGMENT).
        setsockopt(&listener.gateway, UdpGsoSegment, &(DATAGRAM.len() as i32)).expect("a socket that sends in bursts");
        listener.cpu_before = listener.cpu();
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

    /// Waits until the program has read and written what is on its way, then ends it. Returns the CPU time of the stream
    /// (without start-up and shutdown) and the peak of its memory in KiB.
    pub fn end(mut self) -> (Duration, u64) {
        wait_until(|| self.queued().unwrap_or(0) == 0, "the listener reads no more datagrams");
        // It may still have to write what it has just read.
        thread::sleep(Duration::from_millis(30));
        let result = (self.cpu() - self.cpu_before, self.kib("VmHWM"));
        self.signal(Signal::SIGTERM);
        self.wait();
        result
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
            *running = None;
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

/// The child that runs. It is reaped under this lock, so that its process number cannot belong to another process.
fn running() -> MutexGuard<'static, Option<Pid>> {
    static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process number"))
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
        assert!(begun.elapsed() < TIMEOUT, "{complaint}");
        thread::sleep(Duration::from_millis(2));
    }
}
