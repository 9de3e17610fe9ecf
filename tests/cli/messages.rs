//! Promise: messages on stderr are bounded and complete. A flood of the gateway's is limited in rate and counted; a stderr that
//! is full or non-blocking loses nothing; a stdout that is closed is named; a reader that resets its connection is gone.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use socket2::SockRef;

use crate::programs::{
    TempDir, can_listen, frame, queued, send_at_the_pace_of, start, start_uncollected, start_with, wait_until,
};
use crate::simulator::Gateway;

/// How many messages the report says were not shown.
fn not_shown(stderr: &str) -> u64 {
    let (before, _) = stderr.split_once(" messages not shown").unwrap_or_else(|| panic!("no count in {stderr}"));
    before.rsplit([' ', ':']).next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{stderr}"))
}

#[test]
fn flood_of_events_is_limited_and_counted_under_quiet_too() {
    for quiet in [false, true] {
        let gateway = Gateway::start();
        let options = ["--format", "candump"].into_iter().chain(quiet.then_some("--quiet"));
        let listener = start(can_listen(["--target", &gateway.target()]).args(options));
        let ours = gateway.wait_for_command("CAN 1 START\n").from;
        send_at_the_pace_of(ours, (0..3000).map(|_| b"E 1 BUSOFF\n".to_vec()), |event| gateway.send(event));
        gateway.send(frame(1));
        listener.wait_for_lines(1);
        listener.signal(Signal::SIGINT);
        let finished = listener.wait();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let shown = finished.stderr.matches("the gateway reports: E 1 BUSOFF").count();
        assert_eq!(shown, 10, "{finished:?}");
        assert!(finished.stderr.lines().count() < 100, "{finished:?}");
        assert_eq!(not_shown(&finished.stderr), 2990, "{finished:?}");
    }
}

#[test]
fn bus_off_in_a_flood_of_other_events_is_shown() {
    let gateway = Gateway::start();
    let listener = start(&mut can_listen(["--format", "candump", "--target", &gateway.target()]));
    let ours = gateway.wait_for_command("CAN 1 START\n").from;
    let warnings = (0..300).map(|number| format!("E 1 WARNING {}\n", number % 100).into_bytes());
    send_at_the_pace_of(ours, warnings, |event| gateway.send(event));
    gateway.send("E 1 BUSOFF\n");
    gateway.send("E 1 ERRORWARNING SET\nE 1 ERRORWARNING RESET\n");
    gateway.send(frame(1));
    listener.wait_for_lines(1);
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    for event in ["BUSOFF", "ERRORWARNING SET", "ERRORWARNING RESET"] {
        assert!(finished.stderr.contains(&format!("the gateway reports: E 1 {event}\n")), "{finished:?}");
    }
    assert_eq!(finished.stderr.matches("reports: E 1 WARNING").count() as u64 + not_shown(&finished.stderr), 300);
}

#[test]
fn stdout_closed_at_the_start_is_named() {
    let gateway = Gateway::start();
    for (redirection, is_named) in [(">&-", true), (">/dev/null", false), (">>/dev/null", false)] {
        let listen = can_listen(["--target", &gateway.target(), "-n", "1", "--quiet"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$@\" {redirection}"), "sh", "env"]).args(listen.get_args());
        let finished = start(&mut shell).wait();
        assert_eq!(finished.code(), Some(0), "{redirection}: {finished:?}");
        assert_eq!(finished.stderr.contains("stdout is closed"), is_named, "{redirection}: {finished:?}");
    }
}

#[test]
fn full_nonblocking_stderr_loses_no_message() {
    let folder = TempDir::new("nonblocking-stderr");
    let path = folder.0.join("stderr");
    mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
    let open = |flags: OFlag| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits())
            .open(&path)
            .expect("the pipe can be opened")
    };
    let mut reader = open(OFlag::O_NONBLOCK);
    let mut writer: File = open(OFlag::O_NONBLOCK);
    // Full, but for less than a message.
    while writer.write(&[b'.'; 4096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    let gateway = Gateway::start();
    let options = ["--format", "candump", "-n", "1", "--target", &gateway.target()];
    let mut listener = start_uncollected(&mut can_listen(options), Stdio::null(), OwnedFd::from(writer));
    let ours = gateway.wait_for_command("CAN 1 START\n").from;
    gateway.send("E 1 BUSOFF\n");
    wait_until("an event that was read", || queued(ours).is_none_or(|bytes| bytes == 0));
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let mut read_on = |text: &mut Vec<u8>| {
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
    };
    wait_until("the event on stderr", || {
        read_on(&mut text);
        String::from_utf8_lossy(&text).contains("the gateway reports: E 1 BUSOFF\n")
    });
    gateway.send(frame(1));
    wait_until("the end", || {
        read_on(&mut text);
        listener.has_ended()
    });
    read_on(&mut text);
    let text = String::from_utf8_lossy(&text);
    let messages = text.trim_start_matches('.');
    assert!(messages.starts_with("can-listen: connecting to "), "{messages}");
    assert!(messages.contains("\ncan-listen: the bus still runs, stop it with:\ncan-stop "), "{messages}");
}

#[test]
fn stderr_that_stays_full_does_not_delay_the_exit() {
    let folder = TempDir::new("full-stderr");
    let path = folder.0.join("stderr");
    mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
    let open = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path);
    let mut pipe = open.expect("the pipe can be opened");
    while pipe.write(&[b'.'; 4096]).is_ok() {}
    let gateway = Gateway::start();
    let mut listener = start_uncollected(
        &mut can_listen(["--target", &gateway.target(), "-n", "1"]),
        Stdio::null(),
        OwnedFd::from(pipe),
    );
    wait_until("the end", || listener.has_ended());
    assert_eq!(listener.wait().code(), Some(0));
}

#[test]
fn reader_that_resets_its_connection_ends_the_session_with_0() {
    let gateway = Gateway::builder().frames_per_second(200.0).start();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let stdout = TcpStream::connect(server.local_addr().expect("it has one")).expect("a connection");
    let (mut reader, _) = server.accept().expect("a connection");
    let listener = start_with(&mut can_listen(["--target", &gateway.target()]), Stdio::from(OwnedFd::from(stdout)));
    reader.read_exact(&mut [0; 100]).expect("datagrams");
    // Closing sends a reset.
    SockRef::from(&reader).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(reader);
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(!finished.stderr.contains("cannot write"), "{finished:?}");
}
