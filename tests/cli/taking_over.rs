//! Promise: a session takes over a bus that is already running, fails when START is refused, and is not disturbed by later
//! replies or by a `can-stop` beside it.

use std::time::Duration;

use crate::programs::{
    Output, Running, can_listen, can_listen_plain, can_stop, free_port, is_in_doubt, messages_of_stream, run, start,
    wait_until_shared,
};
use crate::simulator::{Gateway, Reaction};
use nix::sys::signal::Signal;

const INIT: &str = "CAN 1 INIT STD 250\n";
const CLEAR: &str = "CAN 1 FILTER CLEAR\n";
const ADD: &str = "CAN 1 FILTER ADD STD 000 000\n";
const START: &str = "CAN 1 START\n";
const STOP: &str = "CAN 1 STOP\n";

const TAKEN_OVER: &str = "the bus was already running; restarting it with these settings";

/// Sends a frame, waits until the listener has printed it, and ends the listener.
#[track_caller]
fn one_frame_then_end(gateway: &Gateway, listener: Running) -> Output {
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command(START);
    gateway.send("M 1 CSD 7FF EE\n");
    listener.wait_for_stdout("EE");
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    finished
}

#[test]
fn running_controller_is_stopped_and_initialised_again() {
    let gateway = Gateway::builder().running(true).start();
    let finished = one_frame_then_end(&gateway, start(&mut can_listen(["--target", &gateway.target()])));
    assert_eq!(gateway.commands(), [INIT, STOP, INIT, CLEAR, ADD, START]);
    assert_eq!(finished.text(), "R ok\nM 1 CSD 7FF EE\n");
    let messages: Vec<&str> = finished.stderr.lines().collect();
    assert!(messages[1].contains(TAKEN_OVER), "{finished:?}");
    assert!(messages[2].contains("START sent"), "{finished:?}");
    assert_eq!(messages_of_stream(&finished.stderr), [""; 0]);
}

#[test]
fn refused_stop_does_not_prevent_the_take_over() {
    let refused = |command: &str, _| match command {
        STOP => Reaction::ReplyWith(b"R ERR 10 invalid CAN state\n".to_vec()),
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().running(true).script(refused).start();
    one_frame_then_end(&gateway, start(&mut can_listen(["--target", &gateway.target()])));
    assert_eq!(gateway.commands(), [INIT, STOP, INIT, CLEAR, ADD, START]);
}

#[test]
fn second_refusal_of_init_is_final() {
    let gateway = Gateway::builder().refuse("CAN 1 INIT", "R ERR 10 invalid CAN state").start();
    let finished = run(&mut can_listen(["--target", &gateway.target()]));
    assert_eq!((finished.code(), finished.text().as_str()), (Some(1), ""), "{finished:?}");
    assert_eq!(gateway.commands(), [INIT, STOP, INIT]);
    let [_, taken_over, error] = finished.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{finished:?}") };
    assert!(taken_over.contains(TAKEN_OVER), "{finished:?}");
    for part in ["refused CAN 1 INIT STD 250: R ERR 10 invalid CAN state", &gateway.target()] {
        assert!(error.contains(part), "no {part:?}: {finished:?}");
    }
}

#[test]
fn can_listen_works_directly_after_can_stop() {
    for late in [0, 10, 20, 30, 40] {
        let local = format!("127.0.0.1:{}", free_port());
        let late = Reaction::Delay(Duration::from_millis(late));
        let script = move |command: &str, _| if command == STOP { late.clone() } else { Reaction::Answer };
        let gateway = Gateway::builder().running(true).script(script).start();
        let options = ["--bind", &local, "--target", &gateway.target()];
        assert_eq!(run(&mut can_stop(options)).code(), Some(0));
        one_frame_then_end(&gateway, start(&mut can_listen_plain(options)));
        assert_eq!(gateway.commands(), [STOP, INIT, CLEAR, ADD, START]);
        let senders = gateway.received();
        assert!(senders.iter().all(|received| received.from.to_string() == local), "{senders:?}");
    }
}

#[test]
fn answer_to_can_stop_during_init_is_not_credited_to_clear() {
    // It overtakes INIT's own answer. CLEAR is lost: a reply credited to it in error would skip it.
    let script = |command: &str, copy| match (command, copy) {
        (INIT, _) => Reaction::Before(b"R ok\n".to_vec()),
        (CLEAR, 1) => Reaction::LoseRequest,
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(script).start();
    let finished =
        one_frame_then_end(&gateway, start(&mut can_listen(["--target", &gateway.target(), "--timeout", "0.3"])));
    assert_eq!(gateway.commands(), [INIT, CLEAR, CLEAR, ADD, START]);
    assert_eq!(finished.text(), "R ok\nM 1 CSD 7FF EE\n");
}

#[test]
fn refusal_of_can_stop_during_init_costs_nothing() {
    let script = |command: &str, copy| match (command, copy) {
        (INIT, 1) => Reaction::Before(b"R ERR 6 not running\n".to_vec()),
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(script).start();
    one_frame_then_end(&gateway, start(&mut can_listen(["--target", &gateway.target()])));
    assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, START]);
}

#[test]
fn session_can_follow_a_session_on_the_same_port() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let local = format!("127.0.0.1:{}", free_port());
    for _ in 0..2 {
        let listener = start(&mut can_listen_plain(["--bind", &local, "--target", &gateway.target()]));
        listener.wait_for_lines(20);
        listener.signal(Signal::SIGINT);
        let finished = listener.wait();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
    }
    assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, START, INIT, STOP, INIT, CLEAR, ADD, START]);
}

#[test]
fn refused_start_fails_with_the_gateways_text() {
    for (format, printed) in [
        ("raw", "M 1 CSD 100 55\nR ERR 7 bus\x1b fault\n"),
        ("candump", "can1 100#55\n"),
        ("influx", "dlc=1i,data=\"55\",b0=85i\n"),
    ] {
        // A frame comes first: it is the first reply that counts, not the first line.
        let frame_first = |command: &str, _| match command {
            START => Reaction::Before(b"M 1 CSD 100 55\n".to_vec()),
            _ => Reaction::Answer,
        };
        let gateway = Gateway::builder().script(frame_first).refuse(START.trim_end(), "R ERR 7 bus\x1b fault").start();
        let finished = run(&mut can_listen(["--target", &gateway.target(), "--format", format]));
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        assert_eq!(without_time(&finished.text()), printed);
        let error = finished.stderr.lines().last().expect("an error");
        for part in ["refused CAN 1 START: R ERR 7 bus\\x1B fault", &gateway.target()] {
            assert!(error.contains(part), "no {part:?}: {finished:?}");
        }
        // STATUS decides that it was not started.
        assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, START, "CAN 1 STATUS\n"]);
    }
}

#[test]
fn start_refused_within_two_timeouts_fails() {
    let late = |command: &str, _| match command {
        START => Reaction::Delay(Duration::from_millis(900)),
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(late).refuse("CAN 1 START", "R ERR 7 no power").start();
    let finished = run(&mut can_listen(["--target", &gateway.target(), "--timeout", "0.6"]));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(!finished.stderr.contains("is started"), "{finished:?}");
    assert!(finished.stderr.contains("the bus was not started"), "{finished:?}");
    assert!(finished.stderr.contains("the gateway refused CAN 1 START: R ERR 7 no power"), "{finished:?}");
}

#[test]
fn start_refused_during_shutdown_is_in_doubt() {
    let lost = |command: &str, _| if command == START { Reaction::LoseReply } else { Reaction::Answer };
    let gateway = Gateway::builder().script(lost).start();
    let listener = start(&mut can_listen(["--target", &gateway.target(), "--timeout", "5"]));
    listener.wait_for_stderr("START sent");
    listener.freeze();
    gateway.send("R ERR 7 no power\n");
    listener.signal(Signal::SIGTERM);
    listener.thaw();
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("R ERR 7 no power"), "{finished:?}");
    assert!(is_in_doubt(&finished.stderr), "{finished:?}");
    assert!(!finished.stderr.contains("the bus was not started"), "{finished:?}");
}

#[test]
fn start_refused_after_two_timeouts_ends_nothing() {
    let late = |command: &str, _| match command {
        START => Reaction::Delay(Duration::from_millis(900)),
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(late).refuse("CAN 1 START", "R ERR 7 too late").start();
    let listener = start(&mut can_listen(["--target", &gateway.target(), "--timeout", "0.3"]));
    listener.wait_for_stdout("R ERR 7 too late\n");
    let finished = one_frame_then_end(&gateway, listener);
    assert_eq!(finished.text(), "R ERR 7 too late\nM 1 CSD 7FF EE\n");
}

#[test]
fn later_refusals_are_printed_and_end_nothing() {
    for (format, printed, count) in [
        ("raw", "R ok\nR ERR 9 later\nR ok\nM 1 CSD 7FF EE\n", 0),
        ("candump", "can1 7FF#EE\n", 1),
        ("influx", "dlc=1i,data=\"EE\",b0=238i\n", 1),
    ] {
        let gateway = Gateway::start();
        let listener = start(&mut can_listen(["--target", &gateway.target(), "--format", format]));
        wait_until_shared(gateway.wait_for_command(START).from);
        gateway.send("R ERR 9 later\n");
        gateway.send("R ok\n");
        let finished = one_frame_then_end(&gateway, listener);
        assert_eq!(without_time(&finished.text()), printed);
        let messages = messages_of_stream(&finished.stderr);
        let shown = messages.iter().filter(|line| line.ends_with("the gateway refused a command: R ERR 9 later"));
        assert_eq!(shown.count(), count, "{finished:?}");
    }
}

#[test]
fn answer_to_can_stop_on_the_shared_port_ends_nothing() {
    let gateway = Gateway::builder().refuse("CAN 1 STOP", "R ERR 9 must not stop").start();
    let port = free_port();
    let local = format!("127.0.0.1:{port}");
    let listener = start(&mut can_listen_plain(["--bind", &local, "--target", &gateway.target(), "-f", "candump"]));
    wait_until_shared(gateway.wait_for_command(START).from);
    let shared = format!("0.0.0.0:{port}");
    assert_eq!(run(&mut can_stop(["--bind", &shared, "--target", &gateway.target()])).code(), Some(0));
    assert_eq!(gateway.wait_for_command(STOP).from.to_string(), local);
    listener.wait_for_stderr("the gateway refused a command: R ERR 9 must not stop\n");
    let finished = one_frame_then_end(&gateway, listener);
    assert_eq!(without_time(&finished.text()), "can1 7FF#EE\n");
}

/// The text after the time of a candump line, the fields of an influx point, any other line unchanged.
fn without_time(printed: &str) -> String {
    let strip = |line: &str| match line.split_once(' ') {
        Some((time, rest)) if time.starts_with('(') => rest.to_owned() + "\n",
        Some((tags, rest)) if tags.starts_with("can,channel=") => {
            rest.split_once(' ').map_or(rest, |(fields, _)| fields).to_owned() + "\n"
        }
        _ => line.to_owned() + "\n",
    };
    printed.lines().map(strip).collect()
}
