//! Promise: the handshake succeeds on a bad network, where commands and replies are lost, late or doubled, and where old
//! streams and other senders interfere.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::programs::{
    Output, Running, can_listen, can_listen_plain, can_stop, closed_port, free_port, messages_of_stream, reported_lost,
    run, start,
};
use crate::simulator::{Gateway, Reaction};
use nix::sys::signal::Signal;

const INIT: &str = "CAN 1 INIT STD 250\n";
const CLEAR: &str = "CAN 1 FILTER CLEAR\n";
const ADD: &str = "CAN 1 FILTER ADD STD 000 000\n";
const START: &str = "CAN 1 START\n";
const STOP: &str = "CAN 1 STOP\n";

/// Long enough for a busy machine to answer in time.
const TIMEOUT: Duration = Duration::from_millis(400);

fn retrying_listener(gateway: &Gateway) -> Running {
    start(&mut can_listen(["--target", &gateway.target(), "--timeout", "0.4"]))
}

/// Waits for the stream, sends a frame, waits until it is printed, and ends the listener.
#[track_caller]
fn one_frame_then_end(gateway: &Gateway, listener: Running) -> Output {
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command(START);
    gateway.send("M 1 CSD 7FF EE\n");
    listener.wait_for_stdout("M 1 CSD 7FF EE\n");
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    finished
}

/// One session for each command that awaits a reply: its first `copies` transmissions have this fate, all else goes well.
/// `added_twice`: the gateway carries out both copies of FILTER ADD and refuses the second, so the filter is set anew.
#[track_caller]
fn each_command_must_be_sent_twice(copies: u32, fate: &Reaction, added_twice: bool) {
    let sessions = [INIT, CLEAR, ADD].map(|unlucky| {
        let fate = fate.clone();
        let script = move |command: &str, copy| match command == unlucky && copy <= copies {
            true => fate.clone(),
            false => Reaction::Answer,
        };
        let gateway = Gateway::builder().script(script).start();
        let listener = retrying_listener(&gateway);
        (gateway, listener)
    });
    let new_round: &[&str] = if added_twice { &[CLEAR, ADD] } else { &[] };
    let expected = [
        vec![INIT, INIT, CLEAR, ADD, START],
        vec![INIT, CLEAR, CLEAR, ADD, START],
        [&[INIT, CLEAR, ADD, ADD], new_round, &[START]].concat(),
    ];
    for ((gateway, listener), expected) in sessions.into_iter().zip(expected) {
        let finished = one_frame_then_end(&gateway, listener);
        assert_eq!(gateway.commands(), expected);
        assert_eq!(gateway.filters(), ["STD 0 0"]);
        // No reply but that to START is left over.
        assert_eq!(finished.text(), "R ok\nM 1 CSD 7FF EE\n");
    }
}

#[test]
fn lost_command_is_sent_again() {
    each_command_must_be_sent_twice(1, &Reaction::LoseRequest, false);
}

#[test]
fn lost_reply_makes_the_command_be_sent_again() {
    each_command_must_be_sent_twice(1, &Reaction::LoseReply, true);
}

#[test]
fn replies_late_by_half_a_timeout_still_count() {
    each_command_must_be_sent_twice(2, &Reaction::Delay(TIMEOUT * 3 / 2), false);
}

#[test]
fn late_reply_is_not_credited_to_the_next_command() {
    let gateway = Gateway::builder()
        .script(|command, copy| match (command, copy) {
            (INIT, _) => Reaction::Delay(TIMEOUT * 3 / 2),
            (CLEAR, 1) => Reaction::LoseRequest,
            _ => Reaction::Answer,
        })
        .start();
    let finished = one_frame_then_end(&gateway, retrying_listener(&gateway));
    assert_eq!(gateway.commands(), [INIT, INIT, CLEAR, CLEAR, ADD, START]);
    assert_eq!(finished.text(), "R ok\nM 1 CSD 7FF EE\n");
}

#[test]
fn repeated_replies_do_not_advance_the_handshake() {
    let gateway = Gateway::builder().script(|_, _| Reaction::Repeat(3)).start();
    let finished = one_frame_then_end(&gateway, retrying_listener(&gateway));
    assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, START]);
    // START's reply and its copies: those of the earlier commands are not printed.
    assert_eq!(finished.text(), "R ok\nR ok\nR ok\nM 1 CSD 7FF EE\n");
}

#[test]
fn three_lost_replies_end_the_session() {
    let script = |command: &str, _| if command == ADD { Reaction::LoseReply } else { Reaction::Answer };
    let gateway = Gateway::builder().script(script).start();
    let finished = start(&mut can_listen(["--target", &gateway.target(), "--timeout", "0.2"])).wait();
    assert_eq!((finished.code(), finished.text().as_str()), (Some(1), ""), "{finished:?}");
    assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, ADD, ADD]);
    let expected = format!(
        "\ncan-listen: no reply to CAN 1 FILTER ADD STD 000 000 from {} in 3 attempts of 0.2 s (0.8 s in all); something has \
         come from it",
        gateway.target()
    );
    assert!(finished.stderr.contains(&expected), "{finished:?}");
}

#[test]
fn leftover_stream_does_not_disturb_the_handshake() {
    let gateway = Gateway::builder().frames_per_second(5000.0).start();
    let local = format!("127.0.0.1:{}", free_port());
    let earlier = UdpSocket::bind(&local).expect("a free port");
    for command in [INIT, ADD, START] {
        earlier.send_to(command.as_bytes(), gateway.address()).expect("the gateway listens");
    }
    gateway.wait_until_streamed(100);
    drop(earlier);

    let listener = start(&mut can_listen_plain(["--bind", &local, "--target", &gateway.target()]));
    listener.wait_for_stderr("START sent");
    listener.wait_for_lines(100);
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(gateway.commands(), [INIT, ADD, START, INIT, STOP, INIT, CLEAR, ADD, START]);
    assert!(finished.stderr.contains(" frames received during the handshake, not printed"), "{finished:?}");
    let text = finished.text();
    let mut printed = text.lines();
    assert_eq!(printed.next(), Some("R ok"), "START's reply comes before the first frame");
    assert!(printed.all(|line| line.starts_with("M 1 CSD ")), "{text}");
}

#[test]
fn frames_during_the_handshake_are_no_replies() {
    // The first reply is lost, and a stream from an earlier session continues.
    let lost = |command: &str, copy| if (command, copy) == (INIT, 1) { Reaction::LoseReply } else { Reaction::Answer };
    let gateway = Arc::new(Gateway::builder().script(lost).start());
    let local = format!("127.0.0.1:{}", free_port());
    let to = local.parse().expect("an address");
    let source = Arc::clone(&gateway);
    let stream = Flood::start(5, move || source.send_to(to, b"M 1 CSD 100 01 02\r\n"));

    let listener = start(&mut can_listen_plain(["--bind", &local, "--target", &gateway.target(), "--timeout", "0.3"]));
    listener.wait_for_stderr("START sent");
    listener.wait_for_stdout("M 1 CSD 100 01 02\r\n");
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    assert!(stream.end() > 1000);
    assert_eq!(gateway.commands(), [INIT, INIT, CLEAR, ADD, START]);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stderr.contains(" frames received during the handshake, not printed"), "{finished:?}");
    let text = finished.text();
    assert_eq!(text.lines().filter(|&line| line != "M 1 CSD 100 01 02").collect::<Vec<_>>(), ["R ok"]);
}

#[test]
fn gateway_that_starts_late_is_waited_for() {
    let address = format!("127.0.0.1:{}", free_port());
    let options = ["--timeout", "0.3", "--attempts", "50", "-v"];
    let listener = start(can_listen(["--target", &address]).args(options));
    // The port was closed at the first attempts.
    listener.wait_for_stderr("sent CAN 1 INIT STD 250 (attempt 3)");
    let gateway = Gateway::builder().bind(&address).start();
    let finished = one_frame_then_end(&gateway, listener);
    assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, START]);
    assert_eq!(finished.text(), "R ok\nM 1 CSD 7FF EE\n");
}

#[test]
fn floods_of_other_senders_change_nothing() {
    let local = format!("127.0.0.1:{}", free_port());
    let senders = ["127.0.0.2:0", "127.0.0.1:0"].map(|address| {
        let socket = UdpSocket::bind(address).expect("a loopback address");
        let datagrams: [&[u8]; 3] = [b"R ok\n", b"R ERR 99 x\n", b"M 1 CSD 666 66\nR ERR 99 x\n"];
        let mut turn = datagrams.into_iter().cycle();
        let to = local.clone();
        Flood::start(10, move || {
            let _ = socket.send_to(turn.next().expect("a cycle does not end"), &to);
        })
    });
    // A reply of theirs, if it were accepted, would replace the gateway's.
    let lost = |command: &str, copy| match (command, copy) {
        (START, _) => Reaction::LoseReply,
        (CLEAR, 1) => Reaction::LoseRequest,
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(lost).start();
    let listener = start(&mut can_listen_plain(["--bind", &local, "--target", &gateway.target(), "--timeout", "0.3"]));
    let finished = one_frame_then_end(&gateway, listener);
    for sender in senders {
        assert!(sender.end() > 1000);
    }
    assert_eq!(gateway.commands(), [INIT, CLEAR, CLEAR, ADD, START]);
    assert_eq!(finished.text(), "M 1 CSD 7FF EE\n");
    assert_eq!(messages_of_stream(&finished.stderr), [""; 0]);
    assert!(finished.stderr.contains("can-listen: 1 datagram (15 bytes) in "), "{finished:?}");
    assert_eq!(reported_lost(&finished.stderr), (0, 0));
    assert!(finished.stderr.contains("the bus still runs"), "{finished:?}");
}

/// Repeats an action so many times a millisecond, until it is dropped.
struct Flood {
    ending: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Returns when it is under way.
    fn start(per_millisecond: u32, mut act: impl FnMut() + Send + 'static) -> Flood {
        let (ending, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (Arc::clone(&ending), Arc::clone(&done));
        let thread = thread::spawn(move || {
            while !stop.load(Relaxed) {
                for _ in 0..per_millisecond {
                    act();
                }
                count.fetch_add(per_millisecond.into(), Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        while done.load(Relaxed) < 100 && !thread.is_finished() {
            thread::yield_now();
        }
        Flood { ending, done, thread: Some(thread) }
    }

    /// Ends it and returns the number of repetitions.
    fn end(self) -> u64 {
        self.done.load(Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            assert!(thread::panicking(), "the flood has failed");
        }
    }
}

#[test]
fn closed_port_that_opened_is_not_named_as_the_cause() {
    let closed = closed_port();
    let address = closed.local_addr().expect("it is bound");
    let arguments = ["-v", "--timeout", "0.3", "--attempts", "3", "--target", &address.to_string()];
    let listener = start(&mut can_listen(arguments));
    listener.wait_for_stderr("(attempt 1)");
    drop(closed);
    let silent = Gateway::builder().bind(address).silent(true).start();
    let ended = listener.wait();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("is the gateway on, and reachable"), "{ended:?}");
    assert_eq!(silent.commands().last().map(String::as_str), Some("CAN 1 INIT STD 250\n"));
}

#[test]
fn late_answer_to_can_stop_is_not_credited_to_can_listen() {
    let slow = |command: &str, _| match command {
        CLEAR => Reaction::LoseRequest,
        _ => Reaction::Delay(Duration::from_millis(60)),
    };
    let gateway = Gateway::builder().running(true).script(slow).start();
    let local = format!("127.0.0.1:{}", free_port());
    let options = ["--bind", &local, "--target", &gateway.target()];
    assert_eq!(run(&mut can_stop(options)).code(), Some(0));
    let finished = run(can_listen_plain(options).args(["--timeout", "0.5"]));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("no reply to CAN 1 FILTER CLEAR"), "{finished:?}");
    assert_eq!(gateway.commands(), [STOP, INIT, CLEAR, CLEAR, CLEAR]);
}

#[test]
fn reply_that_arrived_in_time_counts_when_read_late() {
    let script = |command: &str, _| match command {
        INIT => Reaction::Delay(Duration::from_millis(100)),
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(script).start();
    let listener = start(&mut can_listen(["--target", &gateway.target(), "--attempts", "1"]));
    gateway.wait_for_command(INIT);
    listener.freeze();
    // The program is stopped for longer than its timeout.
    thread::sleep(Duration::from_millis(1200));
    listener.thaw();
    let finished = one_frame_then_end(&gateway, listener);
    assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, START]);
    assert_eq!(finished.text(), "R ok\nM 1 CSD 7FF EE\n");
}

#[test]
fn doubled_reply_read_late_is_not_credited_to_the_next() {
    let script = |command: &str, _| match command {
        INIT => Reaction::LoseReply,
        CLEAR => Reaction::LoseRequest,
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(script).start();
    let options = ["--timeout", "0.5", "--attempts", "1", "-v"];
    let listener = start(can_listen(["--target", &gateway.target()]).args(options));
    gateway.wait_for_command(INIT);
    gateway.send("R ok\n");
    listener.wait_for_stderr("received R ok");
    listener.freeze();
    gateway.send("R ok\n");
    thread::sleep(Duration::from_millis(80));
    listener.thaw();
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert_eq!(gateway.commands(), [INIT, CLEAR]);
}
