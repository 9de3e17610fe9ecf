//! Promise: `can-stop --confirm` reports success only if the gateway has confirmed that the bus is halted; without it, one
//! datagram is sent and no reply awaited.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use crate::programs::{
    can_listen, can_listen_plain, can_stop, closed_port, frame, free_port, numbers, only_line, reported_lost, run,
    start,
};
use crate::simulator::{Gateway, Reaction};
use nix::sys::signal::Signal;

const STOP: &str = "CAN 1 STOP\n";
const STATUS: &str = "CAN 1 STATUS\n";

/// Options for a can-stop from a free port.
fn confirm(gateway: &Gateway) -> [String; 5] {
    ["--confirm", "--bind", "127.0.0.1:0", "--target", &gateway.target()].map(str::to_owned)
}

#[test]
fn confirm_succeeds_when_the_gateway_answers_ok() {
    let gateway = Gateway::builder().running(true).start();
    let finished = run(&mut can_stop(confirm(&gateway)));
    assert_eq!((finished.code(), finished.text().as_str()), (Some(0), ""), "{finished:?}");
    let line = only_line(&finished, "can-stop");
    assert!(line.contains("CAN 1 STOP") && line.contains(&gateway.target()) && line.contains("confirmed"), "{line}");
    assert_eq!(gateway.commands(), [STOP]);
    assert!(!gateway.is_running());
}

#[test]
fn confirm_stops_the_given_channel() {
    let gateway = Gateway::builder().running(true).start();
    let finished = run(can_stop(confirm(&gateway)).args(["--channel", "3", "--quiet"]));
    assert_eq!((finished.code(), finished.stderr.as_str()), (Some(0), ""));
    assert_eq!(gateway.commands(), ["CAN 3 STOP\n"]);
}

#[test]
fn confirm_fails_after_the_given_attempts() {
    for (attempts, tried) in [("1", "1 attempt of 0.1 s"), ("3", "3 attempts of 0.1 s")] {
        let gateway = Gateway::builder().running(true).silent(true).start();
        let finished = run(can_stop(confirm(&gateway)).args(["--timeout", "0.1", "--attempts", attempts]));
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        let expected = format!("no reply to CAN 1 STOP from {} in {tried}", gateway.target());
        assert!(only_line(&finished, "can-stop").starts_with(&expected), "{finished:?}");
        assert_eq!(gateway.commands().concat(), STOP.repeat(attempts.parse().expect("a number")));
    }
}

#[test]
fn confirm_reports_a_closed_port() {
    let closed = closed_port();
    let target = closed.local_addr().expect("an address").to_string();
    let options = ["--confirm", "--bind", "127.0.0.1:0", "--target", &target, "--timeout", "0.1"];
    let finished = run(&mut can_stop(options));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(only_line(&finished, "can-stop").contains("nothing listens on UDP port"), "{finished:?}");
}

#[test]
fn confirm_retries_a_lost_stop_and_a_lost_reply() {
    // A second STOP of a stopped controller is refused, and STATUS decides.
    for (fate, expected) in [(Reaction::LoseRequest, &[STOP, STOP][..]), (Reaction::LoseReply, &[STOP, STOP, STATUS])] {
        let first = fate.clone();
        let script = move |command: &str, copy| match (command, copy) {
            (STOP, 1) => first.clone(),
            _ => Reaction::Answer,
        };
        let gateway = Gateway::builder().running(true).script(script).start();
        let finished = run(can_stop(confirm(&gateway)).args(["--timeout", "0.3"]));
        assert_eq!(finished.code(), Some(0), "{fate:?}: {finished:?}");
        assert_eq!(gateway.commands(), expected, "{fate:?}");
        assert!(!gateway.is_running());
    }
}

#[test]
fn frames_and_events_confirm_nothing() {
    let script = |_: &str, copy| match copy {
        1 => Reaction::ReplyWith(b"M 1 CSD 100 55\nE 1 BUSOFF\nR okay\n".to_vec()),
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().accepting().script(script).start();
    let finished = run(can_stop(confirm(&gateway)).args(["--timeout", "0.3"]));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(gateway.commands(), [STOP, STOP]);
}

#[test]
fn replies_of_other_senders_confirm_nothing() {
    let local = format!("127.0.0.1:{}", free_port());
    let gateway = Gateway::builder().silent(true).start();
    let options = ["--confirm", "--bind", &local, "--target", &gateway.target(), "--timeout", "0.3", "--attempts", "2"];
    let mut stop = start(&mut can_stop(options));
    let strangers = ["127.0.0.2:0", "127.0.0.1:0"].map(|address| UdpSocket::bind(address).expect("a loopback address"));
    while !stop.has_ended() {
        for stranger in &strangers {
            let _ = stranger.send_to(b"R ok\n", &local);
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(stop.wait().code(), Some(1));
    assert_eq!(gateway.commands(), [STOP, STOP]);
}

#[test]
fn stop_without_confirm_sends_one_datagram_and_exits() {
    let gateway = Gateway::builder().silent(true).start();
    let finished = run(&mut can_stop(["--bind", "127.0.0.1:0", "--target", &gateway.target()]));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let expected = format!("sent CAN 1 STOP to {}; not confirmed (use --confirm)", gateway.target());
    assert_eq!(only_line(&finished, "can-stop"), expected);
    assert_eq!(commands_until_now(&gateway), [STOP]);
}

#[test]
fn stop_without_confirm_ignores_a_closed_port() {
    let closed = closed_port();
    let target = closed.local_addr().expect("an address").to_string();
    let finished = run(&mut can_stop(["--bind", "127.0.0.1:0", "--target", &target]));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
}

#[test]
fn confirm_beside_a_listener_costs_it_no_datagram() {
    let gateway = Gateway::builder()
        .frames_per_second(5000.0)
        .frame_maker(|n| frame(n.try_into().expect("a short test")))
        .refuse("CAN 2 STOP", "R ERR 8 no such channel")
        .start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    listener.wait_for_lines(500);
    // A refused STOP leaves the stream running.
    for _ in 0..5 {
        let finished = run(can_stop(confirm(&gateway)).args(["--channel", "2"]));
        assert_eq!(finished.code(), Some(1), "{finished:?}");
    }
    let finished = run(&mut can_stop(confirm(&gateway)));
    assert_eq!(finished.code(), Some(0), "{finished:?}");

    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    assert_eq!(finished.text().lines().filter(|&line| line == "R ok").count(), 1, "the answer to START only");
    let numbers = numbers(&finished.stdout);
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    // A busy machine may drop some, which the listener reports.
    let (kernel, spool) = reported_lost(&finished.stderr);
    assert_eq!(numbers.len() as u64 + kernel + spool, gateway.frames_sent());
}

#[test]
fn confirm_avoids_the_port_of_a_listener() {
    let gateway = Gateway::start();
    let port = free_port();
    let local = format!("127.0.0.1:{port}");
    let listener = start(&mut can_listen_plain(["--bind", &local, "--target", &gateway.target()]));
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command("CAN 1 START\n");
    for bind in [local, format!("0.0.0.0:{port}")] {
        let finished = run(&mut can_stop(["--confirm", "--bind", &bind, "--target", &gateway.target()]));
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let [in_use, confirmed] = finished.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{finished:?}") };
        assert!(in_use.starts_with(&format!("can-stop: UDP port {port} is already in use")), "{finished:?}");
        // The second STOP finds the bus halted.
        assert!(confirmed.contains("confirmed") || confirmed.contains("halted"), "{finished:?}");
    }
    let stops = gateway.received().into_iter().filter(|received| received.text() == STOP);
    assert!(stops.clone().count() == 2 && stops.map(|stop| stop.from.port()).all(|from| from != port));
}

/// Everything that the gateway received before a datagram that this sends.
fn commands_until_now(gateway: &Gateway) -> Vec<String> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.send_to(b"until now", gateway.address()).expect("the gateway listens");
    gateway.wait_for_command("until now");
    let mut commands = gateway.commands();
    commands.pop();
    commands
}

#[test]
fn timeout_and_attempts_need_confirm() {
    for option in ["--timeout", "--attempts"] {
        let finished = run(&mut can_stop(["--target", "127.0.0.1:1", option, "2"]));
        assert_eq!(finished.code(), Some(2), "{option}: {}", finished.stderr);
        assert!(finished.stderr.contains("--confirm"), "{option}: {}", finished.stderr);
    }
}
