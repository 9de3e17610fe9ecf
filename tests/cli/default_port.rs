//! Both programs use local port 5000 unless told otherwise. The only file that uses that port
//! outside of namespaces of its own.

use std::io;
use std::net::UdpSocket;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::programs::{TEST_TIMEOUT, can_listen_plain, can_stop, only_line, run, start, wait_until_shared};
use crate::simulator::Gateway;

/// Whose turn it is to use port 5000 among the tests of this file.
static PORT_5000: Mutex<()> = Mutex::new(());

/// Waits until nobody here uses port 5000 and nobody else has it either.
#[track_caller]
fn port_5000() -> MutexGuard<'static, ()> {
    let turn = PORT_5000.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + TEST_TIMEOUT;
    while let Err(error) = UdpSocket::bind("0.0.0.0:5000") {
        let taken = error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline;
        assert!(taken, "this test needs UDP port 5000, which another program has: {error}");
        thread::sleep(Duration::from_millis(20));
    }
    turn
}

fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

#[test]
fn both_programs_use_port_5000_by_default() {
    let _turn = port_5000();
    let targets = ["127.0.0.1:0", "[::1]:0"];
    for target in &targets[..if has_ipv6() { 2 } else { 1 }] {
        let gateway = Gateway::builder().bind(target).start();
        let target = gateway.target();
        let listener = start(&mut can_listen_plain(["--target", &target]));
        gateway.wait_for_command("CAN 1 START\n");
        listener.wait_for_stderr("START sent");
        wait_until_shared(gateway.wait_for_command("CAN 1 START\n").from);

        let second = run(&mut can_listen_plain(["--target", &target]));
        assert_eq!(second.code(), Some(1), "{}", second.stderr);
        let line = only_line(&second, "can-listen");
        assert!(line.contains("port 5000 is already in use"), "{line}");

        let finished = run(&mut can_stop(["--target", &target]));
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        only_line(&finished, "can-stop");
        gateway.wait_for_command("CAN 1 STOP\n");
        let received = gateway.received();
        assert_eq!(received.len(), 5);
        assert!(received.iter().all(|datagram| datagram.from.port() == 5000), "{received:?}");
    }
}

#[test]
fn confirm_beside_a_listener_uses_a_free_port() {
    let _turn = port_5000();
    let gateway = Gateway::start();
    let listener = start(&mut can_listen_plain(["--target", &gateway.target()]));
    listener.wait_for_stderr("START sent");
    let finished = run(&mut can_stop(["--target", &gateway.target(), "--confirm"]));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("port 5000 is already in use"), "{}", finished.stderr);
    assert!(finished.stderr.contains("confirmed"), "{}", finished.stderr);
    assert_ne!(gateway.wait_for_command("CAN 1 STOP\n").from.port(), 5000);
}

#[test]
fn local_address_without_port_means_port_5000() {
    let _turn = port_5000();
    let gateway = Gateway::start();
    let arguments = ["--target", &gateway.target(), "--bind", "127.0.0.1"];
    let finished = run(&mut can_stop(arguments));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert_eq!(gateway.wait_for_command("CAN 1 STOP\n").from.to_string(), "127.0.0.1:5000");
    let _listener = start(&mut can_listen_plain(arguments));
    assert_eq!(gateway.wait_for_command("CAN 1 START\n").from.to_string(), "127.0.0.1:5000");
}

#[test]
fn can_stop_uses_a_free_port_when_5000_is_in_use() {
    let _turn = port_5000();
    let gateway = Gateway::start();
    let target = gateway.target();
    let _foreign = UdpSocket::bind("0.0.0.0:5000").expect("the port is free");
    for (sent, options) in [(1, &[][..]), (2, &["--bind", "127.0.0.1"]), (3, &["--quiet"])] {
        let finished = run(can_stop(["--target", &target]).args(options));
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        let received = gateway.wait_for(TEST_TIMEOUT, |received| received.len() == sent);
        assert_eq!(received[sent - 1].text(), "CAN 1 STOP\n");
        assert_ne!(received[sent - 1].from.port(), 5000);
        let lines: Vec<&str> = finished.stderr.lines().collect();
        match lines[..] {
            [] => assert_eq!(options, ["--quiet"]),
            [taken, sent] => {
                assert!(taken.starts_with("can-stop: ") && taken.contains("port 5000 is already in use"), "{taken}");
                assert!(sent.starts_with("can-stop: ") && sent.contains("CAN 1 STOP"), "{sent}");
            }
            _ => panic!("{options:?}: {}", finished.stderr),
        }
    }
    // Halting the bus matters more than the port, whoever asked for it.
    let by_option = run(&mut can_stop(["--target", &target, "--bind", "0.0.0.0:5000"]));
    let by_environment = run(can_stop(["--target", &target]).env("CAN_BIND", "127.0.0.1:5000"));
    for finished in [by_option, by_environment] {
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        assert!(finished.stderr.contains("port 5000 is already in use"), "{}", finished.stderr);
    }
    let received = gateway.wait_for(TEST_TIMEOUT, |received| received.len() == 5);
    assert!(received.iter().all(|stop| stop.from.port() != 5000), "{received:?}");
}
