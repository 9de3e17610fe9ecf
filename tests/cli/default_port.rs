//! Promise: both programs use local port 5000 by default. Only these tests use that port, outside network namespaces; they
//! take turns over processes, see [`port_5000`].

use std::io;
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::programs::{TEST_TIMEOUT, can_listen_plain, can_stop, only_line, run, start, wait_until_shared};
use crate::simulator::Gateway;

/// Waits until no other test uses port 5000, in this process or another, and no other program either. Until the value
/// returned is dropped, other tests wait: its name, in the abstract namespace of unix sockets, can be bound once for each
/// network namespace, like the port.
#[track_caller]
fn port_5000() -> UnixListener {
    let name = SocketAddr::from_abstract_name("can-udp tests that use UDP port 5000").expect("a valid name");
    let turn = bind_when_free(|| UnixListener::bind_addr(&name));
    bind_when_free(|| UdpSocket::bind("0.0.0.0:5000"));
    turn
}

#[track_caller]
fn bind_when_free<T>(bind: impl Fn() -> io::Result<T>) -> T {
    // Several tests may be waiting, each of which takes a few seconds.
    let deadline = Instant::now() + 2 * TEST_TIMEOUT;
    loop {
        match bind() {
            Ok(bound) => return bound,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {}
            Err(error) => panic!("this test needs UDP port 5000: {error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
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
    gateway.wait_for_command("CAN 1 START\n");
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
            [in_use, sent] => {
                assert!(in_use.starts_with("can-stop: ") && in_use.contains("port 5000 is already in use"), "{in_use}");
                assert!(sent.starts_with("can-stop: ") && sent.contains("CAN 1 STOP"), "{sent}");
            }
            _ => panic!("{options:?}: {}", finished.stderr),
        }
    }
    // Halting the bus has priority over the port, even if the port was given.
    let by_option = run(&mut can_stop(["--target", &target, "--bind", "0.0.0.0:5000"]));
    let by_environment = run(can_stop(["--target", &target]).env("CAN_BIND", "127.0.0.1:5000"));
    for finished in [by_option, by_environment] {
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        assert!(finished.stderr.contains("port 5000 is already in use"), "{}", finished.stderr);
    }
    let received = gateway.wait_for(TEST_TIMEOUT, |received| received.len() == 5);
    assert!(received.iter().all(|stop| stop.from.port() != 5000), "{received:?}");
}

#[test]
fn empty_can_bind_counts_as_unset() {
    let _turn = port_5000();
    for empty in ["", "\r"] {
        let gateway = Gateway::start();
        let finished = run(can_stop(["--target", &gateway.target()]).env("CAN_BIND", empty));
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert_eq!(gateway.wait_for_command("CAN 1 STOP\n").from.port(), 5000);
    }
}
