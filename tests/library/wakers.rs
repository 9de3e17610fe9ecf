//! Promise: only the caller's own `next_event` consumes `Woken`; a waker holds no socket.

use std::thread;
use std::time::{Duration, Instant};

use can_udp::gateway::CommandError;
use can_udp::{Connection, Event, Waker};

use crate::simulator::{Gateway, Reaction};
use crate::{TEST_TIMEOUT, open, setup, wait_for};

/// Delays the answer to STOP, so that something can happen during it.
fn slow_to_stop() -> Gateway {
    let slow = |command: &str, _| match command {
        "CAN 1 STOP\n" => Reaction::Delay(Duration::from_millis(50)),
        _ => Reaction::Answer,
    };
    Gateway::builder().script(slow).start()
}

#[test]
fn waker_fired_during_stop_is_reported_afterwards() {
    let gateway = slow_to_stop();
    let mut bus = open(&gateway);
    bus.start(&setup(500, 3)).expect("the gateway accepts it");
    let waker = bus.waker();
    thread::scope(|scope| {
        scope.spawn(|| {
            gateway.wait_for_command("CAN 1 STOP\n");
            waker.wake();
        });
        bus.stop().expect("a waker does not end it");
    });
    assert!(!gateway.is_running());
    assert!(matches!(bus.next_event(Some(Instant::now() + TEST_TIMEOUT)), Event::Woken));
}

#[test]
fn start_fails_until_the_waker_was_seen() {
    let gateway = Gateway::start();
    let mut bus = open(&gateway);
    bus.waker().wake();
    for _ in 0..2 {
        assert!(matches!(bus.start(&setup(500, 3)), Err(CommandError::Woken)));
    }
    assert_eq!(gateway.commands(), [""; 0]);
    wait_for(&mut bus, |event| matches!(event, Event::Woken).then_some(()));
    bus.start(&setup(500, 3)).expect("the waker was seen");
    assert!(gateway.is_running());
}

#[test]
fn blocking_read_goes_on_after_woken_was_reported() {
    let gateway = Gateway::start();
    let mut bus = open(&gateway);
    bus.start(&setup(500, 3)).expect("the gateway accepts it");
    let waker = bus.waker();
    thread::scope(|scope| {
        scope.spawn(move || waker.wake());
        assert!(matches!(bus.next_event(None), Event::Woken | Event::Answer(..)));
    });
    gateway.send("M 1 CSD 100 55\n");
    wait_for(&mut bus, |event| matches!(event, Event::Datagram(b"M 1 CSD 100 55\n")).then_some(()));
}

#[test]
fn waker_that_outlives_its_connection_holds_no_port() {
    let gateway = Gateway::start();
    let bus = open(&gateway);
    let (waker, local) = (bus.waker(), bus.local_addr().expect("it is bound"));
    drop(bus);
    let again = Connection::open(local, gateway.address(), can_udp::Channel::DEFAULT);
    let mut again = again.expect("the port is free");
    waker.wake();
    again.start(&setup(500, 3)).expect("the old waker does nothing");
}

#[test]
fn connection_and_waker_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    fn cloned<T: Clone>() {}
    shared::<Connection>();
    shared::<Waker>();
    cloned::<Waker>();
}
