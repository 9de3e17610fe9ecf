//! Promise: a slow reader costs no datagram until the output buffer is full, every loss is counted and reported, memory
//! stays bounded, and an idle session does not use the processor.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::programs::{
    Running, TEST_TIMEOUT, can_listen, can_listen_plain, command_line, frame, numbers, queued, reported_lost, run,
    send_at_the_pace_of, start, start_unread, wait_until, wait_until_shared,
};
use crate::simulator::Gateway;
use nix::sys::signal::Signal;

/// A session whose stdout is not read yet, and its address.
fn unread_session(gateway: &Gateway) -> (Running, ChildStdout, SocketAddr) {
    let (listener, unread) = start_unread(&mut can_listen(["--target", &gateway.target()]));
    listener.wait_for_stderr("START sent");
    (listener, unread, gateway.wait_for_command("CAN 1 START\n").from)
}

#[test]
fn reader_that_pauses_loses_nothing() {
    let gateway = Gateway::start();
    let (mut listener, unread, address) = unread_session(&gateway);
    // A program that waited for its reader would never read them all.
    send_at_the_pace_of(address, (0..20_000).map(frame), |datagram| gateway.send(datagram));
    listener.read_on(unread);
    listener.wait_for_lines(20_001);
    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    assert!(numbers(&ended.stdout).into_iter().eq(0..20_000), "frames are missing or out of order");
    assert_eq!(reported_lost(&ended.stderr), (0, 0));
}

/// The size of a large frame, with which the output buffer is full soon.
const LARGE: usize = 60_000;

fn large_frame(number: u32) -> Vec<u8> {
    let mut frame = format!("M 1 FSD 100 {number:08}").into_bytes();
    frame.resize(LARGE - 1, b'5');
    frame.push(b'\n');
    frame
}

/// Reads large frames, which must be complete, in a thread and sends their numbers over a channel without a buffer.
fn read_large_frames(stdout: ChildStdout) -> Receiver<u32> {
    let (numbers, received) = mpsc::sync_channel(0);
    let mut stdout = BufReader::new(stdout);
    thread::spawn(move || {
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            if line != b"R ok\n" {
                let number = line.get(12..20).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                let number = number.filter(|&number| line == large_frame(number));
                // An incomplete line closes the channel, which fails the test.
                let Some(number) = number else { return };
                let _ = numbers.send(number);
            }
            line.clear();
        }
    });
    received
}

/// A number from `/proc/PID/status`, in KiB.
fn kibibytes(listener: &Running, field: &str) -> u64 {
    let status = listener.proc("status");
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.strip_suffix("kB"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {field} in {status}"))
}

#[test]
fn full_output_buffer_drops_whole_datagrams() {
    const MANY: u32 = 50;
    /// As many as fill one of the two buffers.
    const SPOOL: u32 = (32 << 20) / LARGE as u32;
    let gateway = Gateway::start();
    let (listener, unread, address) = unread_session(&gateway);
    let mut sent = 0;
    let mut send = |count| {
        let datagrams = (sent..sent + count).map(large_frame);
        send_at_the_pace_of(address, datagrams, |datagram| gateway.send(datagram));
        sent += count;
        sent
    };
    while !listener.stderr_so_far().contains("datagrams are being lost") {
        send(8);
    }
    // As the reader continues, the writer swaps in a full buffer, and another one fills up behind it: the maximum. How
    // much the writer held before is a matter of chance, so this may take several rounds.
    let numbers = read_large_frames(unread);
    let next = || numbers.recv_timeout(TEST_TIMEOUT).expect("whole frames come");
    let mut printed: Vec<u32> = Vec::new();
    while kibibytes(&listener, "VmHWM") < 64 << 10 {
        assert!(printed.len() < 10 * SPOOL as usize, "both buffers are never full");
        printed.extend((0..SPOOL / 4).map(|_| next()));
        send(SPOOL);
    }
    send(SPOOL);
    let full_at = send(0);
    let resumed_at = send(MANY);
    assert!(kibibytes(&listener, "VmHWM") <= 72 << 10, "{} KiB", kibibytes(&listener, "VmHWM"));

    // Datagrams are printed again when there is room; the last one shows that the reader has caught up.
    while printed.last() != Some(&(send(0) - 1)) {
        send(1);
        printed.push(next());
        while let Ok(number) = numbers.recv_timeout(Duration::from_millis(100)) {
            printed.push(number);
        }
    }
    let caught_up = Instant::now();
    wait_until("memory to be given back", || {
        let resident = kibibytes(&listener, "VmRSS");
        assert!(caught_up.elapsed() < Duration::from_secs(5), "{resident} KiB after 5 s");
        resident <= 8 << 10
    });

    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    printed.extend(numbers);
    let sent = u64::from(send(0));
    assert!(printed.is_sorted_by(|a, b| a < b), "out of order");
    assert!(!printed.iter().any(|number| (full_at..resumed_at).contains(number)), "the newest are dropped");
    assert_eq!(reported_lost(&ended.stderr), (0, sent - printed.len() as u64));
    assert_eq!(ended.stderr.matches("datagrams are being lost").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("process reading stdout is too slow"), "{}", ended.stderr);
}

#[test]
fn kernel_drops_are_announced_and_counted() {
    const FLOOD: u32 = 400;
    let gateway = Gateway::start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    listener.wait_for_lines(1);
    let address = gateway.wait_for_command("CAN 1 START\n").from;
    let overflow = || {
        // 24 MB do not fit into a queue of at most 8 MiB.
        listener.freeze();
        (0..FLOOD).for_each(|number| gateway.send(large_frame(number)));
        listener.thaw();
        wait_until("an empty queue", || queued(address) == Some(0));
    };
    overflow();
    // Drops are looked up while datagrams arrive.
    let mut later = 0;
    wait_until("the warning", || {
        gateway.send(format!("later {later}\n"));
        listener.wait_for_stdout(&format!("later {later}\n"));
        later += 1;
        listener.stderr_so_far().contains("datagrams are being lost")
    });
    overflow();
    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    let printed = ended.text().lines().filter(|line| line.starts_with("M 1")).count() as u64;
    let (in_kernel, in_spool) = reported_lost(&ended.stderr);
    assert!(in_kernel > 0 && in_spool == 0, "{}", ended.stderr);
    assert_eq!(printed + in_kernel, 2 * u64::from(FLOOD), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("datagrams are being lost").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("faster than the socket's queue is emptied ("), "{}", ended.stderr);
    assert!(!ended.stderr.contains("  "), "{}", ended.stderr);
}

#[test]
#[ignore = "needs root: mounts an empty /proc in a namespace of its own"]
fn kernel_drops_are_unknown_without_proc() {
    let gateway = Gateway::start();
    let listen = can_listen_plain(["--bind", "127.0.0.1:0", "-n", "1", "--target", &gateway.target()]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"]);
    command.args(command_line(&listen));
    let ended = run(&mut command);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("lost: unknown"), "{ended:?}");
    assert!(ended.stderr.contains("in the kernel, 0 in the output buffer"), "{ended:?}");
}

#[test]
fn count_ends_a_session_after_that_many_lines() {
    let gateway = Gateway::builder().frames_per_second(20_000.0).start();
    for count in ["1", "2", "1000"] {
        let listen = &mut can_listen(["--target", &gateway.target(), "--format", "candump", "-n", count]);
        let ended = run(listen);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(ended.text().lines().count().to_string(), count);
        assert_eq!(ended.stdout.last(), Some(&b'\n'));
    }
}

/// The number of context switches of a process's threads; `None` while one of them is running.
fn switches_of_the_idle(listener: &Running) -> Option<u64> {
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", listener.id())).expect("the process exists") {
        let status = fs::read_to_string(thread.expect("a thread").path().join("status")).expect("a thread");
        if !status.contains("State:\tS") {
            return None;
        }
        let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        switches += counts.map(|(_, count)| count.trim().parse::<u64>().expect("a number")).sum::<u64>();
    }
    Some(switches)
}

#[test]
fn threads_sleep_after_the_notice_of_a_silent_bus() {
    let gateway = Gateway::start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    listener.wait_for_stderr("no data for ");
    let mut before = None;
    wait_until("threads that sleep", || {
        before = switches_of_the_idle(&listener);
        before.is_some()
    });
    thread::sleep(Duration::from_secs(2));
    assert_eq!(switches_of_the_idle(&listener), before, "a thread woke up");
    assert!(before > Some(0));
}

#[test]
fn datagram_after_silence_is_written_at_once() {
    let gateway = Gateway::start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    listener.wait_for_lines(1);
    for number in 0..20 {
        wait_until("a quiet spell", || switches_of_the_idle(&listener).is_some());
        gateway.send(frame(number));
        listener.wait_for_lines(number as usize + 2);
    }
}

#[test]
fn threads_sleep_between_start_and_the_first_status() {
    let gateway = Gateway::start();
    let listener = start(&mut can_listen(["--target", &gateway.target(), "--status-after", "60"]));
    wait_until_shared(gateway.wait_for_command("CAN 1 START\n").from);
    // Longer than the flush interval of the writer.
    thread::sleep(Duration::from_millis(100));
    let before = switches_of_the_idle(&listener);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(switches_of_the_idle(&listener), before, "a thread woke up");
    assert!(before > Some(0));
}
