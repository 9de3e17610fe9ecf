//! The programs that are measured.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use socket2::{Domain, Socket, Type};

/// The receive buffer that every program asks for, in bytes.
pub const BUFFER: usize = 4 << 20;

/// The hidden argument that makes the benchmark itself the baseline.
pub const PLAIN_LOOP: &str = "--plain-loop";

pub const CAN_LISTEN: &str = "can-listen";
pub const CAN_LISTEN_BEFORE: &str = "can-listen before";
pub const C_ONE_BY_ONE: &str = "C recv+write";
pub const C_IN_BATCHES: &str = "C recvmmsg+write";
pub const RUST_LOOP: &str = "Rust recv+write";

pub fn position(programs: &[Program], name: &str) -> Option<usize> {
    programs.iter().position(|program| program.name == name)
}

/// The loop of the scripts that can-listen replaces, with the receive buffer of the others. Its output stays buffered, as
/// always when Python's stdout is no terminal, so it must exit in order.
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

#[derive(Clone)]
pub struct Program {
    pub name: &'static str,
    /// `{port}` stands for the port to listen on, `{gateway}` for the gateway's.
    pub command: Vec<String>,
}

impl Program {
    fn new(name: &'static str, command: &[&str]) -> Program {
        Program { name, command: command.iter().map(|&argument| argument.to_owned()).collect() }
    }

    /// Whether it expects answers to its commands.
    pub fn needs_handshake(&self) -> bool {
        self.command.iter().any(|argument| argument.contains("{gateway}"))
    }

    /// The same program with more arguments.
    pub fn with(&self, arguments: &[&str]) -> Program {
        let mut program = self.clone();
        program.command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        program
    }
}

/// The can-listen of this build.
pub fn can_listen() -> Program {
    can_listen_at(CAN_LISTEN, env!("CARGO_BIN_EXE_can-listen"))
}

/// Another build of can-listen.
pub fn can_listen_before(path: &str) -> Program {
    can_listen_at(CAN_LISTEN_BEFORE, path)
}

fn can_listen_at(name: &'static str, path: &str) -> Program {
    Program::new(name, &[path, "--target=127.0.0.1:{gateway}", "--bind=127.0.0.1:{port}"])
}

/// The plain loops in C, or the one in Rust if there is no C compiler.
pub fn baselines() -> Vec<Program> {
    let buffer = BUFFER.to_string();
    if let Some(baseline) = build_baseline() {
        let baseline = baseline.to_string_lossy();
        return vec![
            Program::new(C_ONE_BY_ONE, &[&baseline, "recv", "{port}", &buffer]),
            Program::new(C_IN_BATCHES, &[&baseline, "recvmmsg", "{port}", &buffer]),
        ];
    }
    let own = env::current_exe().expect("the path of this program");
    vec![Program::new(RUST_LOOP, &[&own.to_string_lossy(), PLAIN_LOOP, "{port}"])]
}

/// The other programs that are installed and can do the same.
pub fn peers() -> Vec<Program> {
    let buffer = BUFFER.to_string();
    let mut programs = Vec::new();
    if output_of("socat", &["-V"]).is_some() {
        let from = format!("UDP4-RECV:{{port}},bind=127.0.0.1,rcvbuf={buffer}");
        programs.push(Program::new("socat", &["socat", "-u", &from, "STDOUT"]));
    }
    // Only OpenBSD's -I sets the receive buffer.
    if output_of("nc", &["-h"]).is_some_and(|help| help.contains("OpenBSD")) {
        programs.push(Program::new("nc", &["nc", "-u", "-l", "-d", "-I", &buffer, "127.0.0.1", "{port}"]));
    }
    // `python3` may be a wrapper, whose start would be measured too.
    if let Some(python) = output_of("python3", &["-c", "import sys; print(sys.executable)"]) {
        programs.push(Program::new("Python", &[python.trim(), "-c", PYTHON_LOOP, "{port}", &buffer]));
    }
    programs
}

/// What a program prints on stdout and stderr; `None` if it cannot be started.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn build_baseline() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/baseline.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("baseline");
    let built = Command::new("cc").args(["-O2", "-Wall", "-o"]).args([&program, &source]).status();
    built.is_ok_and(|status| status.success()).then_some(program)
}

/// The baseline where there is no C compiler. Returns only on an error.
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
