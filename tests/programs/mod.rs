//! Runs the real binaries for tests: what they print is collected as it comes, and every wait has an end.
#![allow(dead_code)] // each test uses a part of it

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// `can-listen` on a free local port, to be given a target and started.
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

fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove("CAN_TARGET").env_remove("CAN_BIND");
    command
}

/// A program that was started by a test. Dropping it kills it.
pub struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// How a program ended, and all that it printed.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// The exit code; a program killed by a signal has none.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it printed on stdout, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Starts a program, collecting its stdout (unless the command says where it goes) and stderr.
#[track_caller]
pub fn start(command: &mut Command) -> Running {
    start_with(command, Stdio::piped())
}

/// Starts a program with that stdout: one that is not `Stdio::piped()` is not collected.
#[track_caller]
pub fn start_with(command: &mut Command, stdout: Stdio) -> Running {
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let stdout = child.stdout.take().map(Output::collect).unwrap_or_default();
    let stderr = child.stderr.take().map(Output::collect).unwrap_or_default();
    Running { child, stdout, stderr }
}

/// Runs a program to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    start(command).wait()
}

impl Running {
    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its stdin, if it was given one.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().try_into().expect("a process number"));
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

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        // std cannot wait with a timeout.
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                break status;
            }
            if Instant::now() >= deadline {
                panic!("the program does not end; on stderr {:?}", self.stderr_so_far());
            }
            thread::sleep(Duration::from_millis(2));
        };
        assert!(self.stdout.wait_for_end() && self.stderr.wait_for_end(), "somebody else holds the program's output");
        let stdout = self.stdout_so_far();
        let stderr = self.stderr_so_far();
        Finished { status, stdout, stderr }
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
struct Output {
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

impl Output {
    fn collect(mut from: impl Read + Send + 'static) -> Output {
        let output = Output::default();
        output.state.0.lock().expect("nobody has panicked").ended = false;
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

    /// Waits until `condition` holds; `false` if the output ended or the time was up without it.
    fn wait(&self, condition: impl Fn(&[u8]) -> bool) -> bool {
        let collected = self.state.0.lock().expect("no reader panics");
        let waiting = |collected: &mut Collected| !condition(&collected.bytes) && !collected.ended;
        let (collected, _) = self.state.1.wait_timeout_while(collected, PATIENCE, waiting).expect("no reader panics");
        condition(&collected.bytes)
    }

    fn wait_for_end(&self) -> bool {
        let collected = self.state.0.lock().expect("no reader panics");
        let (collected, _) = self
            .state
            .1
            .wait_timeout_while(collected, PATIENCE, |collected| !collected.ended)
            .expect("no reader panics");
        collected.ended
    }
}
