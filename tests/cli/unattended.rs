//! Promise: an unattended listener ends when the stream dries up, halts the bus if asked to, works again when a service manager
//! restarts it, and prints why it ended.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::programs::{TEST_TIMEOUT, can_listen, can_listen_plain, reported_lost, run, start, start_with, wait_until};
use crate::simulator::{Gateway, Reaction};
use nix::sys::signal::Signal;

#[test]
fn idle_timeout_fails_with_one_line() {
    let gateway = Gateway::builder().frames_per_second(1000.0).stop_after_frames(20).start();
    let ended =
        run(&mut can_listen(["--target", &gateway.target(), "-q", "--idle-timeout", "0.3", "--status-after", "0"]));
    assert_eq!(ended.code(), Some(1));
    assert_eq!(ended.text().lines().count(), 21, "20 frames and the answer to START: {ended:?}");
    let expected =
        format!("can-listen: no data from {} for 0.3 s (--idle-timeout): the bus is silent", gateway.target());
    assert!(ended.stderr.starts_with(&expected) && ended.stderr.lines().count() == 1, "{ended:?}");
    assert!(ended.stderr.contains("the gateway has lost power"), "{ended:?}");
}

#[test]
fn idle_timeout_applies_after_a_lost_start() {
    let gateway = Gateway::builder()
        .frames_per_second(1000.0)
        .script(|command, _| if command.ends_with("START\n") { Reaction::LoseRequest } else { Reaction::Answer })
        .start();
    let ended = run(&mut can_listen(["--target", &gateway.target(), "-q", "--idle-timeout", "0.3"]));
    assert_eq!((ended.code(), ended.text().as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("START was not answered") && ended.stderr.contains("--filter EXT:0:0"), "{ended:?}");
}

#[test]
fn idle_timeout_ignores_a_slow_stream() {
    let gateway = Gateway::builder().frames_per_second(10.0).stop_after_frames(6).start();
    let ended = run(&mut can_listen(["--target", &gateway.target(), "--idle-timeout", "0.5"]));
    assert_eq!(ended.text().lines().count(), 7, "{ended:?}");
}

#[test]
fn stop_on_exit_halts_the_bus_at_a_signal() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let listener = start(&mut can_listen(["--target", &gateway.target(), "--stop-on-exit"]));
    listener.wait_for_lines(10);
    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the bus is halted"), "{ended:?}");
    assert_eq!(gateway.commands()[4..], ["CAN 1 STOP\n"]);
    assert!(!gateway.is_running());
}

#[test]
fn stop_on_exit_applies_to_every_way_to_end() {
    for (arguments, reader_stays, code) in
        [(["-n", "3"], true, 0), (["-n", "1000000"], false, 0), (["--idle-timeout", "0.2"], true, 1)]
    {
        let frames = if arguments[0] == "--idle-timeout" { 5 } else { u64::MAX };
        let gateway = Gateway::builder().frames_per_second(1000.0).stop_after_frames(frames).start();
        let mut command = can_listen(["--target", &gateway.target(), "--stop-on-exit"]);
        command.args(arguments);
        let listener = if reader_stays {
            start(&mut command)
        } else {
            let (reader, writer) = UnixStream::pair().expect("a pair of sockets");
            drop(reader);
            start_with(&mut command, Stdio::from(OwnedFd::from(writer)))
        };
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(code), "{arguments:?}: {ended:?}");
        let commands = gateway.commands();
        assert_eq!(commands.iter().filter(|command| *command == "CAN 1 STOP\n").count(), 1, "{arguments:?}");
        if code == 0 && reader_stays {
            assert_eq!(ended.text().lines().count(), 3, "{ended:?}");
        }
    }
}

#[test]
fn stop_on_exit_repeats_stop_and_writes_what_arrives() {
    let gateway = Gateway::builder()
        .frames_per_second(2000.0)
        .script(|command, copy| match (command, copy) {
            ("CAN 1 STOP\n", 1) => Reaction::LoseRequest,
            _ => Reaction::Answer,
        })
        .start();
    let listener = start(&mut can_listen(["--target", &gateway.target(), "--stop-on-exit", "--timeout", "0.3"]));
    listener.wait_for_lines(10);
    listener.signal(Signal::SIGINT);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(gateway.commands()[4..], ["CAN 1 STOP\n", "CAN 1 STOP\n"]);
    let frames = ended.text().lines().filter(|line| line.starts_with("M ")).count();
    assert_eq!(frames as u64, gateway.frames_sent(), "a frame that came before STOP was carried out is missing");
}

#[test]
fn stop_is_confirmed_anew_while_start_is_in_flight() {
    let gateway = Gateway::builder()
        .frames_per_second(1000.0)
        .script(|command, _| if command.ends_with("START\n") { Reaction::LoseReply } else { Reaction::Answer })
        .start();
    let arguments = ["--target", &gateway.target(), "--stop-on-exit", "--timeout", "0.5", "--attempts", "1", "-n", "3"];
    let ended = run(&mut can_listen(arguments));
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    // The answer to the first STOP may be that to START, so it is sent anew; refused then, and STATUS decides.
    assert_eq!(gateway.commands()[4..], ["CAN 1 STOP\n", "CAN 1 STOP\n", "CAN 1 STATUS\n"]);
    assert!(ended.stderr.contains("the bus is halted"), "{ended:?}");
}

#[test]
fn unconfirmed_stop_on_exit_fails() {
    let gateway = Gateway::builder()
        .frames_per_second(1000.0)
        .script(|command, _| if command.ends_with("STOP\n") { Reaction::LoseReply } else { Reaction::Answer })
        .start();
    let arguments = ["--target", &gateway.target(), "--stop-on-exit", "--timeout", "0.1", "--attempts", "2", "-n", "3"];
    let ended = run(&mut can_listen(arguments));
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert_eq!(gateway.commands()[4..], ["CAN 1 STOP\n", "CAN 1 STOP\n"]);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("no reply to CAN 1 STOP"), "{last}");
    assert!(ended.stderr.contains("the bus may still run"), "{ended:?}");
}

/// The exit code of each run of a service, and its stderr.
type Runs = Vec<(Option<i32>, String)>;

/// The command of the unit in the README, with an environment that its `EnvironmentFile` could set.
fn exec_start(environment: &[(&str, &str)]) -> Command {
    let unit = include_str!("../../README.md");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart in the README");
    let mut tokens = line.split(' ');
    assert_eq!(tokens.next(), Some("/usr/local/bin/can-listen"));
    let mut arguments = Vec::new();
    for token in tokens {
        match token.strip_prefix('$') {
            None => arguments.push(token),
            Some(name) => {
                let (_, value) = environment.iter().find(|(known, _)| *known == name).expect("a known variable");
                arguments.extend(value.split(' '));
            }
        }
    }
    let mut command = can_listen_plain(arguments);
    command.envs(environment.iter().copied());
    command
}

/// A service manager with that unit: appends stdout to a file, and restarts the program shortly after it failed.
struct Service {
    log: PathBuf,
    ending: Arc<AtomicBool>,
    process: Arc<Mutex<Option<u32>>>,
    manager: Option<thread::JoinHandle<Runs>>,
}

impl Service {
    fn start(name: &str, target: &str) -> Service {
        let log = std::env::temp_dir().join(format!("can-listen-{name}-{}.log", std::process::id()));
        let _ = fs::remove_file(&log);
        let ending = Arc::new(AtomicBool::new(false));
        let process = Arc::new(Mutex::new(None));
        let manager = thread::spawn({
            let (log, ending, process, target) = (log.clone(), ending.clone(), process.clone(), target.to_owned());
            move || {
                let mut runs = Vec::new();
                while !ending.load(SeqCst) {
                    let file = File::options().append(true).create(true).open(&log).expect("a log file");
                    let mut command = exec_start(&[
                        ("CAN_TARGET", &target),
                        ("CAN_BIND", "127.0.0.1:0"),
                        ("CAN_OPTIONS", "--idle-timeout 0.5 --timeout 0.2"),
                    ]);
                    let running = {
                        let mut process = process.lock().expect("no panic");
                        let running = start_with(&mut command, Stdio::from(file));
                        *process = Some(running.id());
                        running
                    };
                    let ended = running.wait();
                    *process.lock().expect("no panic") = None;
                    let code = ended.code();
                    runs.push((code, ended.stderr));
                    if code == Some(0) || code == Some(2) {
                        break;
                    }
                    thread::sleep(Duration::from_millis(100));
                }
                runs
            }
        });
        Service { log, ending, process, manager: Some(manager) }
    }

    fn frames(&self) -> usize {
        let log = fs::read(&self.log).unwrap_or_default();
        log.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"M ")).count()
    }

    #[track_caller]
    fn wait_for_frames(&self, count: usize) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while self.frames() < count {
            assert!(Instant::now() < deadline, "only {} frames of {count}", self.frames());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it as the service manager does; returns how each run ended.
    fn stop(&mut self) -> Runs {
        self.ending.store(true, SeqCst);
        if let Some(id) = *self.process.lock().expect("no panic") {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id as i32), Signal::SIGTERM);
        }
        self.manager.take().map(|manager| manager.join().expect("no panic")).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_file(&self.log);
    }
}

#[test]
fn restarted_service_takes_over_a_silent_gateway() {
    let gateway = Gateway::builder().frames_per_second(1000.0).stop_after_frames(50).start();
    let mut service = Service::start("silent", &gateway.target());
    service.wait_for_frames(120);
    let runs = service.stop();
    assert!(runs.len() >= 3, "{runs:?}");
    assert_eq!(runs[0].0, Some(1));
    assert!(runs[0].1.contains("no data from"), "{runs:?}");
    assert!(runs[1].1.contains("the bus was already running"), "{runs:?}");
}

#[test]
fn restarted_service_takes_over_a_running_gateway() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let address = gateway.address();
    let mut service = Service::start("restarted", &gateway.target());
    service.wait_for_frames(20);
    gateway.stop();
    let before = service.frames();
    let gateway = Gateway::builder().bind(address).running(true).frames_per_second(1000.0).start();
    // More than the first run can hold back.
    service.wait_for_frames(before + 2000);
    let runs = service.stop();
    assert_eq!(runs.last().expect("a run").0, Some(0), "stopped in order: {runs:?}");
    assert!(runs[1].1.contains("the bus was already running"), "{runs:?}");
    drop(gateway);
}

#[test]
fn restarted_service_survives_a_closed_port() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let address = gateway.address();
    let mut service = Service::start("closed", &gateway.target());
    service.wait_for_frames(20);
    gateway.stop();
    // The outage.
    thread::sleep(Duration::from_secs(10));
    let before = service.frames();
    let gateway = Gateway::builder().bind(address).frames_per_second(1000.0).start();
    service.wait_for_frames(before + 20);
    let runs = service.stop();
    assert!(runs.iter().any(|(code, stderr)| *code == Some(1) && stderr.contains("closed")), "{runs:?}");
    assert_eq!(runs.last().expect("a run").0, Some(0), "{runs:?}");
    drop(gateway);
}

#[test]
fn full_disk_ends_a_service_with_1() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let full = File::options().append(true).open("/dev/full").expect("/dev/full");
    let target = gateway.target();
    let environment = [("CAN_TARGET", target.as_str()), ("CAN_BIND", "127.0.0.1:0"), ("CAN_OPTIONS", "--timeout 0.5")];
    let ended = start_with(&mut exec_start(&environment), Stdio::from(full)).wait();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("can-listen: cannot write to stdout: No space left on device"), "{last}");
}

#[test]
fn sigterm_in_a_flood_loses_nothing_sent_before() {
    let gateway = Gateway::builder().frames_per_second(50_000.0).start();
    let mut service = Service::start("flood", &gateway.target());
    service.wait_for_frames(20_000);
    let sent = gateway.frames_sent() as usize;
    let runs = service.stop();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0].0, Some(0), "{runs:?}");
    assert_eq!(reported_lost(&runs[0].1), (0, 0));
    assert!(service.frames() >= sent, "{} of {sent}", service.frames());
    let log = fs::read_to_string(&service.log).expect("the log");
    let frames: Vec<&str> = log.lines().filter(|line| line.starts_with("M ")).collect();
    for (number, frame) in frames.iter().enumerate() {
        let [.., a, b, c, d] = (number as u64).to_be_bytes();
        assert!(frame.contains(&format!(" {a:02X} {b:02X} {c:02X} {d:02X} ")), "a gap before {frame}");
    }
}

#[test]
fn stop_overtakes_an_unanswered_start() {
    let lost = |command: &str, _| match command {
        "CAN 1 START\n" | "CAN 1 STOP\n" => Reaction::LoseReply,
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(lost).start();
    let options = ["--stop-on-exit", "--timeout", "1", "--attempts", "1"];
    let listener = start(can_listen(["--target", &gateway.target()]).args(options));
    listener.wait_for_stderr("START sent");
    let signalled = Instant::now();
    listener.signal(Signal::SIGINT);
    let stop = gateway.wait_for_command("CAN 1 STOP\n");
    // A timeout is 1 s, and START's answer is owed for two.
    assert!(stop.at - signalled < Duration::from_millis(500), "{:?}", stop.at - signalled);
    gateway.send("R ok\n");
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no reply to CAN 1 STOP"), "{ended:?}");
    assert!(ended.stderr.contains("the bus may still run"), "{ended:?}");
}

#[test]
fn stop_on_exit_after_one_datagram_sends_one_stop() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let ended = run(&mut can_listen(["--target", &gateway.target(), "-n", "1", "--stop-on-exit"]));
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(gateway.commands()[4..], ["CAN 1 STOP\n"]);
}

#[test]
fn second_signal_exits_while_stop_is_unconfirmed() {
    let lost = |command: &str, _| match command {
        "CAN 1 STOP\n" => Reaction::LoseReply,
        _ => Reaction::Answer,
    };
    for option in [["-n", "1"], ["--idle-timeout", "0.2"]] {
        let gateway = Gateway::builder().script(lost).start();
        let options = ["--stop-on-exit", "--timeout", "4", "--status-after", "0"];
        let mut listener = start(can_listen(["--target", &gateway.target()]).args(options).args(option));
        listener.wait_for_stderr("waiting for the gateway to confirm STOP; ");
        listener.signal(Signal::SIGINT);
        listener.wait_for_stderr("shutting down; press Ctrl-C again to quit now");
        assert!(!listener.has_ended());
        wait_until("its end", || {
            listener.signal(Signal::SIGINT);
            listener.has_ended()
        });
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(130), "{ended:?}");
    }
    // After a signal it takes one more.
    let gateway = Gateway::builder().script(lost).start();
    let listener = start(can_listen(["--target", &gateway.target(), "--stop-on-exit", "--timeout", "4"]).arg("-q"));
    gateway.wait_for_command("CAN 1 START\n");
    listener.wait_for_lines(1);
    listener.signal(Signal::SIGINT);
    listener.wait_for_stderr("waiting for the gateway to confirm STOP; ");
    listener.signal(Signal::SIGINT);
    assert_eq!(listener.wait().code(), Some(130));
}

#[test]
fn idle_timeout_counts_what_arrived_during_sigstop() {
    let gateway = Gateway::start();
    let listener =
        start(&mut can_listen(["--target", &gateway.target(), "--idle-timeout", "1", "--status-after", "0"]));
    listener.wait_for_lines(1);
    listener.freeze();
    gateway.send("M 1 CSD 100 55\n");
    // The program is stopped for longer than the idle timeout.
    thread::sleep(Duration::from_millis(1500));
    listener.thaw();
    listener.wait_for_stdout("CSD 100 55");
    gateway.send("M 1 CSD 100 66\n");
    listener.wait_for_stdout("CSD 100 66");
    assert_eq!(listener.wait().code(), Some(1));
}
