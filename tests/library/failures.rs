//! Promise: a failure holds the facts, and no configuration makes a session that floods the gateway or never ends.

use std::time::{Duration, Instant};

use can_udp::gateway::{CommandError, Failure, NetworkError, Outcome};
use can_udp::{Channel, Connection, Setup};

use crate::simulator::{Gateway, Reaction};
use crate::{count, failed, open, setup, wait_for};

#[track_caller]
fn failure(gateway: &Gateway, setup: &Setup) -> Failure {
    match open(gateway).start(setup) {
        Err(CommandError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_reply_names_gateway_attempts_and_what_came_instead() {
    let gateway = Gateway::builder().script(|_, _| Reaction::ReplyWith(b"PONG\n".to_vec())).start();
    let expected = format!(
        "no reply to CAN 1 INIT STD 250 from {} in 2 attempts of 0.2 s (0.6 s in all); only this came: PONG",
        gateway.address()
    );
    assert_eq!(failure(&gateway, &setup(200, 2)).to_string(), expected);
}

#[test]
fn refusal_names_its_number_and_the_bus_that_was_stopped() {
    let gateway = Gateway::builder().running(true).refuse("CAN 1 FILTER CLEAR", "R ERR 9 invalid type").start();
    let failure = failure(&gateway, &setup(500, 3));
    let takeover = failure.takeover.expect("STOP was sent");
    assert!(takeover.was_running && takeover.is_stopped, "{takeover:?}");
    assert_eq!(failure.error_number(), Some(9));
    let expected = format!("the gateway refused CAN 1 FILTER CLEAR: R ERR 9 invalid type ({})", gateway.address());
    assert_eq!(failure.to_string(), expected);
}

#[test]
fn addresses_of_two_families_are_both_named() {
    let (local, gateway) = ("0.0.0.0:0".parse().expect("IPv4"), "[::1]:5000".parse().expect("IPv6"));
    let error = Connection::open(local, gateway, Channel::DEFAULT).expect_err("they do not match");
    assert!(matches!(error, NetworkError::Connect(..)), "{error:?}");
    let expected = "cannot reach [::1]:5000: the local address 0.0.0.0:0 is not of the same family (IPv4, IPv6)";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn zero_timeout_counts_as_one_millisecond() {
    const ATTEMPTS: u32 = 200;
    let gateway = Gateway::builder().silent(true).start();
    let began = Instant::now();
    let failure = failure(&gateway, &setup(0, ATTEMPTS));
    assert!(began.elapsed() > Duration::from_millis(ATTEMPTS.into()), "{:?}", began.elapsed());
    assert!(matches!(failure.outcome, Outcome::NoReply(_)), "{failure:?}");
    assert_eq!(failure.transmissions, ATTEMPTS);
}

#[test]
fn refused_filter_ends_after_four_rounds_whatever_the_attempts() {
    let gateway = Gateway::builder().refuse("CAN 1 FILTER ADD", "R ERR 7 invalid identifier").start();
    let mut bus = open(&gateway);
    bus.begin_start(&setup(500, u32::MAX)).expect("it is idle");
    let failure = wait_for(&mut bus, failed);
    assert!(matches!(failure.outcome, Outcome::Refused(_)) && failure.in_doubt, "{failure:?}");
    assert_eq!(count(&gateway, "CAN 1 FILTER ADD"), 4);
}
