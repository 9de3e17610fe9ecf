//! Promise: when a session ends, everything that had reached the machine is written, however it ends and whatever stdout,
//! stderr, the terminal and the network do meanwhile.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::programs;
use crate::programs::{
    DEFAULT_SIGNALS, Running, can_listen, can_listen_plain, can_stop, command_line, frame, free_port, numbers,
    reported_lost, run, send_at_the_pace_of, start, start_uncollected, start_unread, start_with, terminal, wait_until,
};
use crate::simulator::{Gateway, Reaction};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::PtyMaster;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe, write};

/// A session that has printed the answer to START, and its address.
fn session(gateway: &Gateway, options: &[&str]) -> (Running, SocketAddr) {
    let listener = start(can_listen(["--target", &gateway.target()]).args(options));
    listener.wait_for_lines(1);
    (listener, gateway.wait_for_command("CAN 1 START\n").from)
}

#[test]
fn signals_end_a_session_with_everything_written() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let gateway =
            Gateway::builder().frames_per_second(20_000.0).stop_after_frames(300).frame_maker(numbered).start();
        let (listener, _) = session(&gateway, &[]);
        gateway.wait_until_streamed(300);
        listener.signal(signal);
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(0), "{signal}: {ended:?}");
        assert!(numbers(&ended.stdout).into_iter().eq(0..300), "{signal}: {ended:?}");
        assert_eq!(reported_lost(&ended.stderr), (0, 0), "{signal}");
    }
}

fn numbered(number: u64) -> Vec<u8> {
    frame(number as u32)
}

#[test]
fn signals_end_a_session_with_the_queue_written() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let gateway = Gateway::start();
        let (listener, _) = session(&gateway, &[]);
        listener.freeze();
        (0..300).for_each(|number| gateway.send(frame(number)));
        listener.signal(signal);
        listener.thaw();
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(0), "{signal}: {ended:?}");
        assert!(numbers(&ended.stdout).into_iter().eq(0..300), "{signal}: {ended:?}");
    }
}

#[test]
fn signal_in_a_flood_loses_no_earlier_frame() {
    let gateway = Gateway::start();
    let (listener, address) = session(&gateway, &[]);
    let (sent, end) = (AtomicU32::new(0), AtomicU32::new(u32::MAX));
    let (before_signal, ended) = thread::scope(|scope| {
        scope.spawn(|| {
            let flood = (0..).map(frame).take_while(|_| sent.load(SeqCst) < end.load(SeqCst));
            send_at_the_pace_of(address, flood, |datagram| {
                gateway.send_to(address, datagram);
                sent.fetch_add(1, SeqCst);
            });
        });
        wait_until("a flood", || sent.load(SeqCst) > 10_000);
        let before_signal = sent.load(SeqCst);
        listener.signal(Signal::SIGINT);
        let ended = listener.wait();
        // Ends the flood.
        end.store(0, SeqCst);
        (before_signal, ended)
    });
    let printed = numbers(&ended.stdout);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(printed.iter().copied().eq(0..printed.len() as u32), "frames are missing or out of order");
    assert!(printed.len() >= before_signal as usize, "{} of {before_signal}: {}", printed.len(), ended.stderr);
}

#[test]
fn shutdown_waits_for_a_reader_that_pauses() {
    let gateway = Gateway::start();
    let (mut listener, unread) = start_unread(&mut can_listen(["--target", &gateway.target()]));
    let address = gateway.wait_for_command("CAN 1 START\n").from;
    listener.wait_for_stderr("START sent");
    send_at_the_pace_of(address, (0..10_000).map(frame), |datagram| gateway.send(datagram));
    listener.signal(Signal::SIGTERM);
    listener.wait_for_stderr("waiting for the process reading stdout");
    assert!(!listener.has_ended());
    listener.read_on(unread);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(numbers(&ended.stdout).into_iter().eq(0..10_000), "frames are missing or out of order");
    assert_eq!(reported_lost(&ended.stderr), (0, 0));
}

#[test]
fn second_signal_exits_at_once_with_130() {
    let gateway = Gateway::start();
    let (listener, _unread) = start_unread(&mut can_listen(["--target", &gateway.target()]));
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command("CAN 1 START\n");
    // More than a pipe holds.
    (0..5).for_each(|_| gateway.send([b'5'; 60_000]));
    listener.signal(Signal::SIGINT);
    listener.wait_for_stderr("waiting for the process reading stdout");
    listener.signal(Signal::SIGINT);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(130));
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(
        ended.stderr.contains("exited; any unwritten output was discarded")
            && last.contains("can-stop --confirm --target"),
        "{ended:?}"
    );
}

#[test]
fn second_signal_after_the_count_exits_at_once() {
    let gateway = Gateway::start();
    let (mut listener, _unread) = start_unread(&mut can_listen(["-n", "4", "--target", &gateway.target()]));
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command("CAN 1 START\n");
    (0..5).for_each(|_| gateway.send([b'5'; 60_000]));
    listener.wait_for_stderr("waiting for the process reading stdout");
    listener.signal(Signal::SIGINT);
    listener.wait_for_stderr("shutting down; press Ctrl-C again to quit now");
    wait_until("its end", || {
        listener.signal(Signal::SIGINT);
        listener.has_ended()
    });
    assert_eq!(listener.wait().code(), Some(130));
}

#[test]
fn datagrams_after_the_count_are_not_losses() {
    let gateway = Gateway::start();
    let (mut listener, unread) = start_unread(&mut can_listen(["-n", "4", "--target", &gateway.target()]));
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command("CAN 1 START\n");
    (0..5).for_each(|_| gateway.send([b'5'; 60_000]));
    listener.wait_for_stderr("waiting for the process reading stdout");
    // More than the socket's queue holds.
    (0..400).for_each(|_| gateway.send([b'6'; 60_000]));
    listener.read_on(unread);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(reported_lost(&ended.stderr), (0, 0));
    assert!(ended.stderr.contains(" 4 datagrams ("), "{}", ended.stderr);
}

#[test]
fn closed_pipe_ends_a_session_with_0() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let (listener, unread) = start_unread(&mut can_listen(["--quiet", "--target", &gateway.target()]));
    let (has_read, read) = mpsc::channel();
    thread::spawn(move || has_read.send(BufReader::new(unread).lines().take(3).count()));
    assert_eq!(read.recv_timeout(programs::TEST_TIMEOUT), Ok(3));
    let ended = listener.wait();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn full_disk_ends_a_session_with_1() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let full = File::options().write(true).open("/dev/full").expect("Linux has /dev/full");
    let ended = start_with(&mut can_listen(["--target", &gateway.target()]), full.into()).wait();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let complaints = ended.stderr.lines().filter(|line| line.contains("No space left on device"));
    let complaints: Vec<&str> = complaints.collect();
    assert!(matches!(complaints[..], [line] if line.starts_with("can-listen: cannot write to stdout: ")), "{ended:?}");
}

#[test]
fn sigstop_and_sigcont_do_no_harm() {
    let gateway = Gateway::builder().script(|_, _| Reaction::Delay(Duration::from_millis(100))).start();
    // With a timeout on its socket, a read of a process that was stopped and continued fails with EINTR.
    let options = ["--timeout", "30", "--idle-timeout", "30", "--target", &gateway.target()];
    let listener = start(&mut can_listen(options));
    for command in ["CAN 1 INIT STD 250\n", "CAN 1 FILTER CLEAR\n", "CAN 1 START\n"] {
        gateway.wait_for_command(command);
        listener.freeze();
        listener.thaw();
    }
    listener.wait_for_lines(1);
    assert_eq!(gateway.commands().len(), 4, "{:?}", gateway.commands());
    for number in 0..20 {
        listener.freeze();
        gateway.send(frame(number));
        listener.thaw();
        listener.wait_for_lines(number as usize + 2);
    }
    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(numbers(&ended.stdout).into_iter().eq(0..20), "{ended:?}");
    assert!(!ended.stderr.contains("error"), "{ended:?}");
}

#[test]
fn signal_during_the_handshake_exits_with_130() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let gateway = Gateway::builder().silent(true).start();
        let listener = start(&mut can_listen(["--target", &gateway.target()]));
        gateway.wait_for_command("CAN 1 INIT STD 250\n");
        listener.signal(signal);
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(130));
        assert!(ended.stderr.contains("the bus may be running, stop it with:\n"), "{}", ended.stderr);
    }
}

#[test]
fn signal_after_init_was_confirmed_leaves_no_doubt() {
    let script = |command: &str, _| {
        if command.contains("FILTER CLEAR") { Reaction::LoseRequest } else { Reaction::Answer }
    };
    for running in [false, true] {
        let gateway = Gateway::builder().running(running).script(script).start();
        let listener = start(&mut can_listen(["--target", &gateway.target()]));
        gateway.wait_for_command("CAN 1 FILTER CLEAR\n");
        listener.signal(Signal::SIGINT);
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(130));
        let bus = if running { "the bus was running and is stopped now" } else { "the bus was not started" };
        let last = format!("can-listen: exited during the handshake; {bus}");
        assert_eq!(ended.stderr.lines().last(), Some(&*last), "{}", ended.stderr);
    }
}

#[test]
#[ignore = "needs root: takes port 53 of a loopback address, and mounts a resolv.conf in a namespace of its own"]
fn signal_during_name_resolution_exits_with_130() {
    let name_server = UdpSocket::bind("127.99.0.53:53").expect("root may take this port");
    let settings = std::env::temp_dir().join(format!("resolv.conf.{}", std::process::id()));
    fs::write(&settings, "nameserver 127.99.0.53\noptions timeout:30 attempts:5\n").expect("a writable directory");
    let listen = can_listen_plain(["--bind", "127.0.0.1:0", "--target", "gateway.invalid"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(&settings);
    command.args(command_line(&listen));
    let listener = start(&mut command);
    name_server.set_read_timeout(Some(programs::TEST_TIMEOUT)).expect("a timeout can be set");
    name_server.recv(&mut [0; 512]).expect("the name is asked for");
    fs::remove_file(&settings).expect("the file is there");
    listener.signal(Signal::SIGINT);
    assert_eq!(listener.wait().code(), Some(130));
}

/// Starts a session under that wrapper, in a terminal of its own, with stdout and stderr elsewhere. Dropping the first
/// value closes the terminal.
fn session_in_a_terminal(gateway: &Gateway, wrapper: &[&str]) -> (PtyMaster, Running) {
    // If the test fails, the process does not stay behind for long.
    let listen = can_listen(["--idle-timeout", "30", "--target", &gateway.target()]);
    let (master, listener) = start_in_a_terminal(&listen, wrapper);
    listener.wait_for_lines(1);
    assert_ne!(controlling_terminal(&listener.proc("stat")), "0");
    (master, listener)
}

/// Starts a program under that wrapper, in a terminal of its own.
fn start_in_a_terminal(program: &Command, wrapper: &[&str]) -> (PtyMaster, Running) {
    let (master, name) = terminal();
    let mut command = Command::new("bash");
    command.args(["-c", "exec env \"$1\" setsid -c \"${@:2}\" <\"$0\""]).arg(name).arg(DEFAULT_SIGNALS);
    command.args(wrapper).args(command_line(program));
    let program = start(&mut command);
    (master, program)
}

/// The number of its controlling terminal, 0 for none.
fn controlling_terminal(stat: &str) -> String {
    let (_, after_name) = stat.rsplit_once(')').expect("the name is in brackets");
    after_name.split_ascii_whitespace().nth(4).expect("a field").to_owned()
}

#[test]
fn closing_the_terminal_ends_a_session_in_order() {
    let gateway = Gateway::start();
    let (terminal, listener) = session_in_a_terminal(&gateway, &["env"]);
    (0..100).for_each(|number| gateway.send(frame(number)));
    drop(terminal);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(numbers(&ended.stdout).into_iter().eq(0..100), "{ended:?}");
    assert_eq!(reported_lost(&ended.stderr), (0, 0));
}

#[test]
fn nohup_session_survives_its_terminal_until_sigterm() {
    let gateway = Gateway::builder().frames_per_second(100.0).start();
    let (terminal, listener) = session_in_a_terminal(&gateway, &["nohup"]);
    drop(terminal);
    wait_until("the terminal to be gone", || controlling_terminal(&listener.proc("stat")) == "0");
    // Half a second later it still runs.
    let frames = gateway.frames_sent();
    gateway.wait_until_streamed(frames + 50);
    listener.wait_for_lines(frames as usize + 50);
    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(reported_lost(&ended.stderr), (0, 0));
}

/// The process ID that a shell printed with `echo "its number: $!." >&2`.
#[track_caller]
fn number_printed_by(shell: &Running) -> i32 {
    let stderr = shell.stderr_so_far();
    let (_, number) = stderr.split_once("its number: ").expect("the shell prints it");
    number.split_once('.').and_then(|(number, _)| number.parse().ok()).expect("a number")
}

#[test]
fn sigterm_ends_a_background_session_in_order() {
    let gateway = Gateway::start();
    // If the test fails, the process does not stay behind for long.
    let listen = can_listen(["--idle-timeout", "30", "--target", &gateway.target()]);
    let mut script = Command::new("sh");
    script.args(["-c", "\"$@\" & echo \"its number: $!.\" >&2; wait $!; echo \"exit code: $?.\" >&2", "sh"]);
    let script = start(script.args(command_line(&listen)));
    script.wait_for_lines(1);
    let number = number_printed_by(&script);
    (0..100).for_each(|n| gateway.send(frame(n)));
    kill(Pid::from_raw(number), Signal::SIGTERM).expect("it can be signalled");
    let ended = script.wait();
    assert!(ended.stderr.contains("exit code: 0."), "{ended:?}");
    assert!(numbers(&ended.stdout).into_iter().eq(0..100), "{ended:?}");
    assert_eq!(reported_lost(&ended.stderr), (0, 0));
}

#[test]
fn closed_port_is_reported_once_and_survived() {
    // Not on 127.0.0.1, where another test might be given the port while it is free.
    let gateway = UdpSocket::bind("127.99.0.1:0").expect("a free port");
    let address = gateway.local_addr().expect("it is bound");
    let port = free_port();
    let bind = format!("0.0.0.0:{port}");
    let options = ["--target", &address.to_string(), "--bind", &bind, "--status-after", "1"];
    let listener = start(&mut can_listen_plain(options));
    gateway.set_read_timeout(Some(programs::TEST_TIMEOUT)).expect("a timeout can be set");
    let mut client = address;
    for _ in 0..3 {
        (_, client) = gateway.recv_from(&mut [0; 64]).expect("a command of the handshake");
        gateway.send_to(b"R ok\n", client).expect("an answer");
    }
    // START comes 20 ms later, and finds the port closed.
    drop(gateway);
    listener.wait_for_stderr("unreachable (port closed), still listening; is it restarting?");
    // So do the datagrams that are sent from the shared port.
    for _ in 0..3 {
        let stopped = run(&mut can_stop(["--target", &address.to_string(), "--bind", &bind]));
        assert_eq!(stopped.code(), Some(0), "{stopped:?}");
    }
    // It must sleep until then.
    listener.wait_for_stderr("no data for ");
    let stat = listener.proc("stat");
    let after_name = stat.rsplit_once(')').expect("the name is in brackets").1.split_ascii_whitespace();
    let ticks: Vec<u64> = after_name.skip(11).take(2).map(|ticks| ticks.parse().expect("a number")).collect();
    assert!(ticks.iter().sum::<u64>() < 100, "{ticks:?} hundredths of a second of processor time");

    let mut bound = None;
    wait_until("the port to be free again", || {
        bound = UdpSocket::bind(address).ok();
        bound.is_some()
    });
    let gateway = bound.expect("it is bound");
    for number in 0..100 {
        gateway.send_to(&frame(number), client).expect("the listener is there");
    }
    listener.wait_for_lines(100);
    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(numbers(&ended.stdout).into_iter().eq(0..100), "{ended:?}");
    assert_eq!(ended.stderr.matches("still listening").count(), 1, "{ended:?}");
    // At least two: the kernel keeps one at a time, so some may fall together.
    assert!(ended.stderr.contains(" network errors (recovered)"), "{ended:?}");
}

#[test]
fn closed_or_broken_stderr_is_no_failure() {
    let gateway = Gateway::start();
    let listen = can_listen(["--target", &gateway.target()]);
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" \"$@\" 2>&-"]).args(command_line(&listen));
    let listener = start(&mut closed);
    listener.wait_for_lines(1);
    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    assert_eq!((ended.code(), ended.text().as_str()), (Some(0), "R ok\n"));

    let (stderr, reader) = UnixStream::pair().expect("a pair of sockets");
    drop(reader);
    let (stdout, read) = UnixStream::pair().expect("a pair of sockets");
    let listen = &mut can_listen(["--target", &gateway.target(), "--count", "1"]);
    let mut listener = start_uncollected(listen, OwnedFd::from(stdout), OwnedFd::from(stderr));
    *listen = Command::new("true");
    listener.read_on(read);
    let ended = listener.wait();
    assert_eq!((ended.code(), ended.text().as_str()), (Some(0), "R ok\n"));
}

#[test]
fn blocked_stderr_holds_up_neither_stream_nor_signal() {
    const EVENT: &[u8] = b"E 1 ERRORWARNING SET\n";
    for forced in [false, true] {
        let gateway = Gateway::start();
        let (both, unread) = UnixStream::pair().expect("a pair of sockets");
        let stderr = both.try_clone().expect("a second one");
        // Events go to stderr.
        let mut listen = can_listen(["--format", "candump", "--target", &gateway.target()]);
        let mut listener = start_uncollected(&mut listen, OwnedFd::from(both), OwnedFd::from(stderr));
        drop(listen);
        let address = gateway.wait_for_command("CAN 1 START\n").from;
        // A signal during the handshake has another meaning.
        unread.set_read_timeout(Some(programs::TEST_TIMEOUT)).expect("a timeout can be set");
        let mut first_line = BufReader::new(unread.try_clone().expect("a second one"));
        first_line.read_line(&mut String::new()).expect("a line comes");
        let datagrams = (0..20_000).map(|n| if n % 10 == 0 { [EVENT, &frame(n)].concat() } else { frame(n) });
        send_at_the_pace_of(address, datagrams, |datagram| gateway.send(datagram));
        listener.signal(Signal::SIGINT);
        if forced {
            wait_until("its end", || {
                listener.signal(Signal::SIGINT);
                listener.has_ended()
            });
            assert_eq!(listener.wait().code(), Some(130));
            continue;
        }
        listener.read_on(unread);
        let ended = listener.wait();
        let text = ended.text();
        assert_eq!(ended.code(), Some(0), "{}", text.lines().last().unwrap_or_default());
        // Both go to one place, so a message may stand in the middle of a frame that was written in two parts.
        let is_frame = |line: &&str| line.contains("can1 100#") || line.ends_with("can1 100");
        assert!(text.contains("the gateway reports: E 1 ERRORWARNING SET\n"));
        assert!(text.lines().filter(is_frame).count() >= 19_900, "frames are missing");
        assert_eq!(reported_lost(&text), (0, 0));
    }
}

#[test]
fn simultaneous_signals_count_as_one() {
    for _ in 0..10 {
        let gateway = Gateway::start();
        let (listener, _) = session(&gateway, &[]);
        gateway.send(frame(0));
        listener.signal(Signal::SIGHUP);
        // Another signal number, or the two would fall together.
        listener.signal(Signal::SIGTERM);
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(numbers(&ended.stdout), [0]);
    }
}

/// A full pipe, and the reading end that keeps it open.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (unread, full) = pipe().expect("a pipe");
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe need not block");
    while write(&full, &[b'x'; 4096]).is_ok() {}
    while write(&full, b"x").is_ok() {}
    fcntl(&full, FcntlArg::F_SETFL(OFlag::empty())).expect("a pipe can block");
    (full, unread)
}

#[test]
fn full_stderr_holds_up_neither_stop_nor_shutdown() {
    let gateway = Gateway::start();
    let (full, _unread) = full_pipe();
    let listen = &mut can_listen(["--stop-on-exit", "--target", &gateway.target()]);
    let listener = start_uncollected(listen, Stdio::null(), full);
    gateway.wait_for_command("CAN 1 START\n");
    listener.signal(Signal::SIGTERM);
    gateway.wait_for_command("CAN 1 STOP\n");
    assert_eq!(listener.wait().code(), Some(0));
}

#[test]
fn full_stderr_holds_up_no_idle_timeout() {
    let gateway = Gateway::start();
    let (full, _unread) = full_pipe();
    let listen = &mut can_listen(["-q", "--idle-timeout", "1", "--target", &gateway.target()]);
    assert_eq!(start_uncollected(listen, Stdio::null(), full).wait().code(), Some(1));
}

#[test]
fn full_stderr_and_events_hold_up_no_shutdown() {
    let gateway = Gateway::builder().script(|_, _| Reaction::Answer).start();
    let (full, _unread) = full_pipe();
    let listen = &mut can_listen(["--format", "candump", "--stop-on-exit", "--target", &gateway.target()]);
    let listener = start_uncollected(listen, Stdio::null(), full);
    let address = gateway.wait_for_command("CAN 1 START\n").from;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                // A queue that is full would lose the answer to STOP too.
                let events = (0..100).map(|_| b"E 1 ERRORWARNING SET\nE 1 ERRORWARNING RESET\n".to_vec());
                send_at_the_pace_of(address, events, |event| gateway.send_to(address, event));
            }
        });
        listener.signal(Signal::SIGTERM);
        let stopped = panic::catch_unwind(AssertUnwindSafe(|| {
            gateway.wait_for_command("CAN 1 STOP\n");
            listener.wait().code()
        }));
        over.store(true, SeqCst);
        assert_eq!(stopped.expect("it ends"), Some(0));
    });
}

#[test]
fn report_counts_what_a_dead_reader_did_not_read() {
    let gateway = Gateway::start();
    let (listener, unread) = start_unread(&mut can_listen(["--target", &gateway.target()]));
    let mut reader = BufReader::new(unread);
    assert_eq!(reader.by_ref().lines().next().expect("a line").expect("text"), "R ok");
    // More than a pipe holds.
    listener.freeze();
    (0..5).for_each(|_| gateway.send([b'5'; 60_000]));
    listener.thaw();
    wait_until("a writer that waits for the reader", || {
        let address = gateway.wait_for_command("CAN 1 START\n").from;
        programs::queued(address) == Some(0)
    });
    drop(reader);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let taken: u32 =
        ended.stderr.split_once(": up to ").and_then(|(_, rest)| rest.split_once(' ')?.0.parse().ok()).unwrap_or(0);
    // The first of them may have fitted into the pipe.
    assert!((4..=5).contains(&taken), "{ended:?}");
    assert!(ended.stderr.contains(" datagrams not read by the reader"), "{ended:?}");
}

#[test]
fn report_counts_the_pcap_frame_a_reader_did_not_read() {
    let gateway = Gateway::start();
    let listen = &mut can_listen(["--quiet", "--format", "pcap", "--target", &gateway.target()]);
    let (listener, mut unread) = start_unread(listen);
    unread.read_exact(&mut [0; 24]).expect("the header");
    drop(unread);
    gateway.send(frame(0));
    let ended = listener.wait();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));

    let listen = &mut can_listen(["--format", "pcap", "--target", &gateway.target()]);
    let (listener, mut unread) = start_unread(listen);
    unread.read_exact(&mut [0; 24]).expect("the header");
    drop(unread);
    gateway.send(frame(0));
    let ended = listener.wait();
    assert!(ended.stderr.contains("up to 1 datagram not read by the reader"), "{ended:?}");
}

#[test]
fn second_signal_after_a_confirmed_stop_says_halted() {
    let gateway = Gateway::start();
    let (listener, _unread) = start_unread(&mut can_listen(["--stop-on-exit", "--target", &gateway.target()]));
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command("CAN 1 START\n");
    (0..5).for_each(|_| gateway.send([b'5'; 60_000]));
    listener.signal(Signal::SIGINT);
    listener.wait_for_stderr("waiting for the process reading stdout");
    listener.signal(Signal::SIGINT);
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(130));
    assert!(ended.stderr.ends_with("the bus is halted\n"), "{ended:?}");
}

#[test]
fn error_is_printed_after_a_flood_of_events() {
    const FLOOD: usize = 20;
    let gateway = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    gateway.set_read_timeout(Some(programs::TEST_TIMEOUT)).expect("a timeout can be set");
    let (read, full) = pipe().expect("a pipe");
    let target = gateway.local_addr().expect("it is bound").to_string();
    let mut listener = start_uncollected(&mut can_listen(["-v", "--target", &target]), Stdio::null(), full);
    let (_, client) = gateway.recv_from(&mut [0; 64]).expect("INIT");
    (0..FLOOD).for_each(|_| {
        let events = "E 1 ERRORWARNING SET\n".repeat(200);
        gateway.send_to(events.as_bytes(), client).expect("the listener is there");
    });
    gateway.send_to(b"R ok\n", client).expect("the listener is there");
    gateway.recv_from(&mut [0; 64]).expect("FILTER CLEAR");
    gateway.send_to(b"R ERR 4 no\n", client).expect("the listener is there");
    // stderr is read from here on.
    listener.read_on(File::from(read));
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(1));
    let (heard, last) = (ended.text().matches("heard E 1").count(), ended.text());
    assert!(heard < 200 * FLOOD, "all of it was shown, so nothing was to be left out");
    assert!(last.trim_end().ends_with("check --filter and --channel"), "{:?}", last.lines().last());
}

#[test]
fn nohup_handshake_exits_on_sigterm_without_terminal() {
    let gateway = Gateway::builder().silent(true).start();
    let leave = ["sh", "-c", "set -m; nohup \"$@\" & echo \"its number: $!.\" >&2; read gone", "sh"];
    // If the test fails, the process does not stay behind for long.
    let listen = can_listen(["--timeout", "10", "--target", &gateway.target()]);
    let (mut terminal, shell) = start_in_a_terminal(&listen, &leave);
    gateway.wait_for_command("CAN 1 INIT STD 250\n");
    let number = number_printed_by(&shell);
    terminal.write_all(b"\n").expect("the shell reads it");
    let stat = || fs::read_to_string(format!("/proc/{number}/stat")).expect("it runs");
    wait_until("the terminal to be gone", || controlling_terminal(&stat()) == "0");
    // Time in which the program polls its terminal.
    thread::sleep(Duration::from_secs(2));
    kill(Pid::from_raw(number), Signal::SIGTERM).expect("it can be signalled");
    let ended = shell.wait();
    assert!(ended.stderr.contains("exited"), "{ended:?}");
    assert!(!ended.stderr.contains("the terminal has closed"), "{ended:?}");
}

#[test]
fn full_disk_after_the_count_is_an_error() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let full = File::options().write(true).open("/dev/full").expect("Linux has /dev/full");
    let ended = start_with(&mut can_listen(["-n", "1", "--target", &gateway.target()]), full.into()).wait();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cannot write to stdout: No space left on device"), "{ended:?}");
}

#[test]
fn nohup_session_ends_on_sigterm_without_terminal() {
    let gateway = Gateway::start();
    let leave = ["sh", "-c", "set -m; nohup \"$@\" & echo \"its number: $!.\" >&2; read gone", "sh"];
    let (mut terminal, shell) = session_in_a_terminal(&gateway, &leave);
    let number = number_printed_by(&shell);
    terminal.write_all(b"\n").expect("the shell reads it");
    let stat = || fs::read_to_string(format!("/proc/{number}/stat")).expect("it runs");
    wait_until("the terminal to be gone", || controlling_terminal(&stat()) == "0");
    // Time in which the program polls its terminal.
    thread::sleep(Duration::from_secs(3));
    kill(Pid::from_raw(number), Signal::SIGTERM).expect("it can be signalled");
    let ended = shell.wait();
    assert_eq!(reported_lost(&ended.stderr), (0, 0), "{ended:?}");
    assert!(!ended.stderr.contains("the terminal has closed"), "{ended:?}");
}
