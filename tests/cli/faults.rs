//! Promise: a single fault of the network at any command leaves a running session with exactly the wanted filters, and a STOP
//! that the network loses or doubles is confirmed all the same.

use std::time::Duration;

use crate::programs::{can_listen, can_stop, run, start};
use crate::simulator::{ControllerState, Gateway, Reaction, RequestCopy};
use nix::sys::signal::Signal;

const INIT: &str = "CAN 1 INIT STD 250\n";
const CLEAR: &str = "CAN 1 FILTER CLEAR\n";
const START: &str = "CAN 1 START\n";
const STOP: &str = "CAN 1 STOP\n";

/// Filters as they are given, sent, and shown by the simulator.
struct Filters {
    options: &'static [&'static str],
    added: &'static [&'static str],
    wanted: &'static [&'static str],
}

const ONE: Filters = Filters { options: &[], added: &["CAN 1 FILTER ADD STD 000 000\n"], wanted: &["STD 0 0"] };
const TWO: Filters = Filters {
    options: &["--filter", "STD:100:700", "--filter", "EXT:0:0"],
    added: &["CAN 1 FILTER ADD STD 100 700\n", "CAN 1 FILTER ADD EXT 0 0\n"],
    wanted: &["STD 100 700", "EXT 0 0"],
};

/// Sessions with `--timeout 0.3`: in each, the first transmission of one command suffers `fault`. The gateway begins in
/// each state once.
#[track_caller]
fn each_command_survives(fault: &Reaction) {
    for filters in [ONE, TWO] {
        let handshake = [&[INIT, CLEAR], filters.added, &[START]].concat();
        // Only STATUS can repair a lost START, see `silence`.
        let unlucky = handshake.into_iter().filter(|&command| (command, fault) != (START, &Reaction::LoseRequest));
        let states = [ControllerState::Uninitialised, ControllerState::Stopped, ControllerState::Running];
        let begin = |(command, state): (&'static str, ControllerState)| {
            let fault = fault.clone();
            let script = move |received: &str, copy| match (received == command, copy) {
                (true, 1) => fault.clone(),
                _ => Reaction::Answer,
            };
            let gateway = Gateway::builder().state(state).frames_per_second(100.0).script(script).start();
            let options = ["--timeout", "0.3", "--target", &gateway.target()];
            let listener = start(can_listen(options).args(filters.options));
            (command, gateway, listener)
        };
        let sessions: Vec<_> = unlucky.zip(states.into_iter().cycle()).map(begin).collect();
        for (command, gateway, listener) in sessions {
            listener.wait_for_stdout("M 1 CSD 1");
            assert_eq!(gateway.filters(), filters.wanted, "{fault:?} at {command:?}: {:?}", gateway.commands());
            assert!(gateway.is_running(), "{fault:?} at {command:?}");
            let starts = gateway.commands().iter().filter(|command| *command == START).count();
            assert_eq!(starts, 1, "{fault:?} at {command:?}: {:?}", gateway.commands());
            listener.signal(Signal::SIGTERM);
            let finished = listener.wait();
            assert_eq!(finished.code(), Some(0), "{fault:?} at {command:?}: {finished:?}");
            assert!(finished.stderr.contains("the bus still runs"), "{fault:?} at {command:?}: {finished:?}");
        }
    }
}

#[test]
fn lost_request_leaves_the_wanted_filters() {
    each_command_survives(&Reaction::LoseRequest);
}

#[test]
fn lost_reply_leaves_the_wanted_filters() {
    each_command_survives(&Reaction::LoseReply);
}

#[test]
fn doubled_request_leaves_the_wanted_filters() {
    each_command_survives(&Reaction::DoubleRequest(Duration::ZERO));
    each_command_survives(&Reaction::DoubleRequest(Duration::from_millis(8)));
}

#[test]
fn doubled_request_with_swapped_answers_leaves_the_filters() {
    each_command_survives(&swapped_answers());
}

#[test]
fn late_reply_leaves_the_wanted_filters() {
    each_command_survives(&Reaction::Delay(Duration::from_millis(360)));
}

#[test]
fn late_request_leaves_the_wanted_filters() {
    each_command_survives(&Reaction::DelayRequest(Duration::from_millis(360)));
}

/// The request is doubled, and the refusal of the second copy overtakes the answer to the first.
fn swapped_answers() -> Reaction {
    let at = Duration::from_millis;
    let first = RequestCopy { carried_out: at(0), answers: vec![at(6)] };
    let second = RequestCopy { carried_out: at(1), answers: vec![at(2)] };
    Reaction::Fate(vec![first, second])
}

#[test]
fn doubled_stop_is_confirmed() {
    let doubled = [Reaction::DoubleRequest(Duration::ZERO), Reaction::DoubleRequest(Duration::from_millis(8))];
    for fault in doubled.into_iter().chain([swapped_answers()]) {
        let script = fault.clone();
        let gateway = Gateway::builder().running(true).script(move |_, _| script.clone()).start();
        let finished = run(&mut can_stop(["--confirm", "--bind", "127.0.0.1:0", "--target", &gateway.target()]));
        assert_eq!(finished.code(), Some(0), "{fault:?}: {finished:?}");
        assert!(finished.stderr.contains("halted"), "{fault:?}: {finished:?}");
        assert_eq!(gateway.commands(), [STOP], "{fault:?}");
        assert!(!gateway.is_running());
    }
}

#[test]
fn faulty_stop_on_exit_is_confirmed() {
    let late = Duration::from_millis(360);
    for fault in [
        Reaction::LoseRequest,
        Reaction::LoseReply,
        Reaction::DoubleRequest(Duration::from_millis(8)),
        Reaction::Delay(late),
        Reaction::DelayRequest(late),
        swapped_answers(),
    ] {
        let at_stop = fault.clone();
        let script = move |command: &str, copy| match (command, copy) {
            (STOP, 1) => at_stop.clone(),
            _ => Reaction::Answer,
        };
        let gateway = Gateway::builder().frames_per_second(100.0).script(script).start();
        let options = ["--timeout", "0.3", "--stop-on-exit", "-n", "3", "--target", &gateway.target()];
        let finished = run(&mut can_listen(options));
        assert_eq!(finished.code(), Some(0), "{fault:?}: {finished:?}");
        assert!(finished.stderr.contains("the bus is halted"), "{fault:?}: {finished:?}");
        assert!(!gateway.is_running(), "{fault:?}");
    }
}
