//! Promise: a refusal is believed only when it cannot come from an earlier copy or state; it ends a session only where
//! nothing better can be done; and its error number decides what is advised.

use crate::programs::wait_until_shared;
use crate::programs::{can_listen, can_listen_plain, can_stop, free_port, is_in_doubt, only_line, run, start};
use crate::simulator::{ControllerState, Gateway, Reaction};
use nix::sys::signal::Signal;

const INIT: &str = "CAN 1 INIT STD 250\n";
const CLEAR: &str = "CAN 1 FILTER CLEAR\n";
const ADD: &str = "CAN 1 FILTER ADD STD 000 000\n";
const START: &str = "CAN 1 START\n";
const STATUS: &str = "CAN 1 STATUS\n";
const STOP: &str = "CAN 1 STOP\n";

/// Options for a can-stop from a free port.
fn confirm(gateway: &Gateway) -> [String; 5] {
    ["--confirm", "--bind", "127.0.0.1:0", "--target", &gateway.target()].map(str::to_owned)
}

#[test]
fn confirm_on_a_stopped_bus_says_halted() {
    let gateway = Gateway::builder().state(ControllerState::Stopped).start();
    let finished = run(&mut can_stop(confirm(&gateway)));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(only_line(&finished, "can-stop").contains("halted"), "{finished:?}");
    assert_eq!(gateway.commands(), [STOP, STATUS]);
}

#[test]
fn refused_stop_of_a_running_bus_fails_with_the_gateways_text() {
    let gateway = Gateway::builder().running(true).refuse("CAN 1 STOP", "R ERR 2 stop failed").start();
    let finished = run(&mut can_stop(confirm(&gateway)));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    let line = only_line(&finished, "can-stop");
    assert!(line.contains("R ERR 2 stop failed") && line.contains(&gateway.target()), "{line}");
    assert!(!line.contains("halted"), "{line}");
    assert_eq!(gateway.commands(), [STOP, STATUS]);

    let gateway = Gateway::builder().frames_per_second(100.0).refuse("CAN 1 STOP", "R ERR 2 stop failed").start();
    let options = ["--stop-on-exit", "-n", "3", "--target", &gateway.target()];
    let finished = run(&mut can_listen(options));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("R ERR 2 stop failed"), "{finished:?}");
    assert!(!finished.stderr.contains("halted"), "{finished:?}");
}

#[test]
fn refused_stop_without_status_is_in_doubt() {
    let refusing = || Gateway::builder().running(true).refuse("CAN 1 STOP", "R ERR 2 stop failed");
    let silent = |command: &str, _| if command == STATUS { Reaction::LoseRequest } else { Reaction::Answer };
    for gateway in [refusing().without_status().start(), refusing().script(silent).start()] {
        let finished = run(can_stop(confirm(&gateway)).args(["--timeout", "0.1"]));
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        assert!(finished.stderr.contains("R ERR 2 stop failed") && is_in_doubt(&finished.stderr), "{finished:?}");
    }
}

#[test]
fn status_reply_that_decides_on_stop_is_not_printed() {
    let gateway = Gateway::builder().frames_per_second(100.0).script(lose_first_reply_to_stop).start();
    let options = ["--stop-on-exit", "--timeout", "0.2", "-n", "5", "--target", &gateway.target()];
    let finished = run(&mut can_listen(options));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stderr.contains("the bus is halted"), "{finished:?}");
    assert!(!finished.text().contains("R CAN"), "{finished:?}");
    assert_eq!(gateway.commands()[4..], [STOP, STOP, STATUS]);
}

fn lose_first_reply_to_stop(command: &str, copy: u32) -> Reaction {
    if (command, copy) == (STOP, 1) { Reaction::LoseReply } else { Reaction::Answer }
}

#[test]
fn bad_bit_rate_leaves_a_running_bus_alone() {
    let gateway = Gateway::builder().running(true).refuse("CAN 1 INIT", "R ERR 1 baud rate not found").start();
    let finished = run(&mut can_listen(["--bitrate", "5", "--target", &gateway.target()]));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    let line = only_line(&finished, "can-listen");
    assert!(line.contains("R ERR 1 baud rate not found") && line.contains("--bitrate"), "{line}");
    assert_eq!(gateway.commands(), ["CAN 1 INIT STD 5\n"]);
    assert!(gateway.is_running());
}

#[test]
fn bad_channel_leaves_a_running_bus_alone() {
    let gateway = Gateway::builder().ports(1).running(true).start();
    let finished = run(&mut can_listen(["--channel", "2", "--target", &gateway.target()]));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    let line = only_line(&finished, "can-listen");
    assert!(line.contains("R ERR 12") && line.contains("--channel"), "{line}");
    assert_eq!(gateway.commands(), ["CAN 2 INIT STD 250\n"]);
    assert!(gateway.is_running());

    let finished = run(can_stop(confirm(&gateway)).args(["--channel", "2"]));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("--channel"), "{finished:?}");
}

#[test]
fn failed_handshake_says_that_it_stopped_the_bus() {
    for (running, says_so) in [(true, true), (false, false)] {
        let gateway = Gateway::builder().running(running).refuse("CAN 1 FILTER CLEAR", "R ERR 8 is busy").start();
        let finished = run(&mut can_listen(["--target", &gateway.target()]));
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        let error = finished.stderr.lines().last().expect("an error");
        assert_eq!(error.contains("stopped"), says_so, "{finished:?}");
    }
}

#[test]
fn filter_refused_for_good_ends_in_doubt_and_without_start() {
    for (refusal, hint) in [("R ERR 6 standard filter is full", "too many filters"), ("R ERR 5 set twice", "--filter")]
    {
        let gateway = Gateway::builder().refuse("CAN 1 FILTER ADD", refusal).start();
        let finished = run(&mut can_listen(["--attempts", "2", "--target", &gateway.target()]));
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        let line = only_line(&finished, "can-listen");
        assert!(line.contains(refusal) && line.contains(hint) && line.contains("the bus was not started"), "{line}");
        assert!(
            !line.contains("the gateway refused"),
            "a doubled request whose answer was lost looks the same: {line}"
        );
        // Four rounds, whatever --attempts says.
        assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, CLEAR, ADD, CLEAR, ADD, CLEAR, ADD]);
        assert!(!gateway.is_running());
    }
}

#[test]
fn refused_start_of_a_running_bus_is_success() {
    let doubled = |command: &str, _| match command {
        // The answer to the first copy is lost.
        START => Reaction::ReplyWith(b"R ERR 10 invalid CAN state\n".to_vec()),
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().frames_per_second(100.0).script(doubled).start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    gateway.wait_for_command(STATUS);
    let frames = gateway.frames_sent();
    listener.wait_for_lines(frames as usize + 20);
    listener.signal(Signal::SIGTERM);
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stderr.contains("the bus still runs"), "{finished:?}");
    assert_eq!(gateway.commands()[3..], [START, STATUS]);
}

#[test]
fn refused_start_without_status_is_in_doubt() {
    let gateway = Gateway::builder().without_status().refuse("CAN 1 START", "R ERR 3 start failed").start();
    let finished = run(&mut can_listen(["--target", &gateway.target()]));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("R ERR 3 start failed") && is_in_doubt(&finished.stderr), "{finished:?}");
    assert!(!finished.stderr.contains("the bus was not started"), "{finished:?}");
}

#[test]
fn no_reply_error_names_what_came_instead() {
    let event = |command: &str, _| match command {
        CLEAR => Reaction::ReplyWith(b"M 1 CSD 1 01\nE 1 BUSOFF\n".to_vec()),
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(event).start();
    let options = ["--attempts", "1", "--timeout", "0.2", "--target", &gateway.target()];
    let finished = run(&mut can_listen(options));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("no reply to CAN 1 FILTER CLEAR"), "{finished:?}");
    assert!(finished.stderr.contains("E 1 BUSOFF"), "{finished:?}");
}

#[test]
fn reply_to_a_neighbour_on_the_shared_port_confirms_nothing() {
    // START and STOP of the first channel are lost, so the bus never runs; the second channel's STOP is answered.
    let lost = |command: &str, _| if let START | STOP = command { Reaction::LoseRequest } else { Reaction::Answer };
    let gateway = Gateway::builder().accepting().script(lost).start();
    let bind = format!("0.0.0.0:{}", free_port());
    let options = ["--bind", &bind, "--timeout", "0.2", "--status-after", "0", "--target", &gateway.target()];
    for (more, code, state) in
        [(&[][..], 0, "the bus may still run"), (&["--stop-on-exit"], 1, "no reply to CAN 1 STOP")]
    {
        let mut listener = start(can_listen_plain(options).args(more));
        listener.wait_for_stderr("START sent");
        let local = gateway.received().last().expect("a command").from;
        wait_until_shared(local);
        let stopped = run(&mut can_stop(["--bind", &bind, "--channel", "2", "--target", &gateway.target()]));
        assert_eq!(stopped.code(), Some(0), "{stopped:?}");
        // The answer is delivered to the listener, which has asked for none.
        listener.wait_for_stdout("R ok");
        assert!(!listener.has_ended());
        listener.signal(Signal::SIGTERM);
        let finished = listener.wait();
        assert_eq!(finished.code(), Some(code), "{finished:?}");
        assert!(finished.stderr.contains(state), "no {state:?}: {finished:?}");
        assert!(!finished.stderr.contains("still runs") && !finished.stderr.contains("halted"), "{finished:?}");
    }
}

#[test]
fn filter_given_twice_is_sent_once() {
    let gateway = Gateway::start();
    let options = ["--filter", "STD:0:0", "--filter", "std:000:0x0", "-n", "1", "--target", &gateway.target()];
    let finished = run(&mut can_listen(options));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(gateway.commands(), [INIT, CLEAR, ADD, START]);
}

#[test]
fn more_than_five_filters_are_sent_and_a_refusal_names_the_limit() {
    let filters: Vec<String> = (0..6).flat_map(|n| ["--filter".to_owned(), format!("STD:{n}:7FF")]).collect();
    // A larger model may have more entries.
    let gateway = Gateway::builder().accepting().start();
    let finished = run(can_listen(["-q", "-n", "1", "--target", &gateway.target()]).args(&filters));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(gateway.commands().iter().filter(|command| command.contains("FILTER ADD")).count(), 6);

    let gateway = Gateway::start();
    let finished = run(can_listen(["--attempts", "1", "--target", &gateway.target()]).args(&filters));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("R ERR 6") && finished.stderr.contains("too many filters"), "{finished:?}");
    assert!(finished.stderr.contains(" 5 "), "no limit is named: {finished:?}");
}

#[test]
fn every_line_ending_of_a_gateway_is_understood() {
    let endings = ["\n", "\r", "\r\n", "\\n", "\\r", "\\r\\n"];
    let sessions = endings.map(|ending| {
        let gateway = Gateway::builder().running(true).line_ending(ending).frames_per_second(100.0).start();
        // One attempt: a reply that did not count would end the program.
        let options = ["--attempts", "1", "--timeout", "5", "--stop-on-exit", "-n", "5", "--format", "candump"];
        let listener = start(can_listen(options).args(["--target", &gateway.target()]));
        (ending, gateway, listener)
    });
    for (ending, gateway, listener) in sessions {
        let finished = listener.wait();
        assert_eq!(finished.code(), Some(0), "{ending:?}: {finished:?}");
        assert_eq!(finished.text().lines().count(), 5, "{ending:?}: {finished:?}");
        assert!(!finished.stderr.contains("malformed"), "{ending:?}: {finished:?}");
        assert!(!gateway.is_running(), "{ending:?}");
    }
}
