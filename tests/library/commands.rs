//! Promise: what is under way is never replaced silently, and a refusal that comes late is a failure.

use std::time::{Duration, Instant};

use can_udp::gateway::{Busy, Outcome, Verb};
use can_udp::{Connection, Event};

use crate::simulator::{Gateway, Reaction};
use crate::{TEST_TIMEOUT, count, failed, open, open_channel, setup, wait_for};

/// Streams before the answer to START arrives.
fn data_before_the_answer() -> Gateway {
    let late = |command: &str, _| match command {
        "CAN 1 START\n" => Reaction::Delay(Duration::from_millis(150)),
        _ => Reaction::Answer,
    };
    Gateway::builder().frames_per_second(500.0).script(late).start()
}

#[track_caller]
fn completed(bus: &mut Connection, verb: Verb) -> Outcome {
    wait_for(bus, |event| match event {
        Event::Completed(command, outcome) if command.verb == verb => Some(outcome),
        _ => None,
    })
}

#[test]
fn second_start_sends_a_handshake_of_its_own() {
    let gateway = data_before_the_answer();
    let mut bus = open(&gateway);
    bus.start(&setup(200, 3)).expect("data has come");
    bus.start(&setup(200, 3)).expect("a running bus is taken over");
    assert_eq!(count(&gateway, "CAN 1 START"), 2, "{:?}", gateway.commands());
}

#[test]
fn stop_under_way_is_replaced_by_nothing() {
    let gateway = Gateway::start();
    let mut bus = open(&gateway);
    bus.start(&setup(500, 3)).expect("the gateway accepts it");
    bus.begin_stop();
    assert_eq!(bus.request_status(), Err(Busy));
    assert_eq!(bus.start_again(), Err(Busy));
    assert_eq!(bus.begin_start(&setup(500, 3)), Err(Busy));
    assert_eq!(completed(&mut bus, Verb::Stop), Outcome::Ok);
    assert!(!gateway.is_running());
}

#[test]
fn handshake_under_way_is_replaced_by_no_status() {
    let gateway = Gateway::start();
    let mut bus = open(&gateway);
    assert_eq!(bus.begin_start(&setup(500, 3)), Ok(()));
    assert_eq!(bus.request_status(), Err(Busy));
    assert_eq!(completed(&mut bus, Verb::Start), Outcome::Ok);
    assert!(gateway.is_running());
}

#[test]
fn status_is_busy_while_start_settles_and_answered_later() {
    let gateway = data_before_the_answer();
    let mut bus = open(&gateway);
    bus.start(&setup(500, 3)).expect("data has come");
    assert_eq!(bus.request_status(), Err(Busy));
    assert_eq!(completed(&mut bus, Verb::Start), Outcome::Ok);
    assert_eq!(bus.request_status(), Ok(()));
    assert!(matches!(completed(&mut bus, Verb::Status), Outcome::Status(_)));
}

#[test]
fn two_ports_of_one_gateway_are_stopped_both() {
    let gateway = Gateway::start();
    let [mut first, mut second] = [1, 2].map(|channel| open_channel(&gateway, channel));
    for bus in [&mut first, &mut second] {
        bus.start(&setup(500, 3)).expect("the gateway accepts it");
        bus.begin_stop();
    }
    for bus in [&mut first, &mut second] {
        completed(bus, Verb::Stop);
    }
    assert_eq!([1, 2].map(|port| gateway.device().is_running(port)), [false, false]);
}

/// Sends data before it refuses START.
fn refusing(status: Reaction) -> Gateway {
    let script = move |command: &str, _| match command {
        "CAN 1 START\n" => Reaction::Before(b"M 1 CSD 100 55\n".to_vec()),
        "CAN 1 STATUS\n" => status.clone(),
        _ => Reaction::Answer,
    };
    Gateway::builder().refuse("CAN 1 START", "R ERR 3 start failed").script(script).start()
}

#[test]
fn start_refused_after_data_is_a_failure() {
    let gateway = refusing(Reaction::Answer);
    let mut bus = open(&gateway);
    bus.start(&setup(200, 3)).expect("data has come");
    let deadline = Some(Instant::now() + TEST_TIMEOUT);
    assert!(matches!(bus.next_event(deadline), Event::Datagram(b"M 1 CSD 100 55\n")));
    let failure = wait_for(&mut bus, failed);
    assert_eq!(failure.command.verb, Verb::Start);
    assert_eq!(failure.outcome, Outcome::Refused("R ERR 3 start failed".to_owned()));
    assert!(!failure.in_doubt);
}

#[test]
fn refused_start_that_stop_overtakes_is_a_failure() {
    let gateway = refusing(Reaction::LoseRequest);
    let mut bus = open(&gateway);
    bus.start(&setup(200, 3)).expect("data has come");
    wait_for(&mut bus, |event| match event {
        Event::Sent { command, .. } if command.verb == Verb::Status => Some(()),
        _ => None,
    });
    bus.begin_stop();
    let failure = wait_for(&mut bus, failed);
    assert_eq!(failure.command.verb, Verb::Start);
    assert_eq!(failure.outcome, Outcome::Refused("R ERR 3 start failed".to_owned()));
    assert!(failure.in_doubt);
}
