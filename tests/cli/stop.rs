//! Promise: `can-stop` sends one datagram, from the port that it should use, and receives nothing of the stream of a
//! `can-listen` beside it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::programs::{
    Running, TEST_TIMEOUT, can_listen_plain, can_stop, free_port, only_line, reported_lost, run, start,
    wait_until_shared,
};
use crate::simulator::{Gateway, Reaction};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

const STOP: &str = "CAN 1 STOP\n";

#[test]
fn can_stop_sends_one_datagram_and_prints_one_line() {
    let gateway = Gateway::builder().silent(true).start();
    for (channel, command) in [("1", "CAN 1 STOP\n"), ("4", "CAN 4 STOP\n")] {
        let port = free_port();
        let bind = format!("0.0.0.0:{port}");
        let arguments = ["--target", &gateway.target(), "--bind", &bind, "--channel", channel];
        let finished = run(&mut can_stop(arguments));
        assert_eq!((finished.code(), finished.text().as_str()), (Some(0), ""), "{}", finished.stderr);
        let line = only_line(&finished, "can-stop");
        for part in [command.trim_end(), &gateway.target(), "not confirmed (use --confirm)"] {
            assert!(line.contains(part), "no {part:?} in {line:?}");
        }
        assert_eq!(gateway.wait_for_command(command).from.port(), port);
    }
    // Everything that was sent before this has arrived before it.
    let last = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    last.send_to(b"the last", gateway.address()).expect("the test can send");
    gateway.wait_for_command("the last");
    assert_eq!(gateway.commands(), [STOP, "CAN 4 STOP\n", "the last"]);
}

#[test]
fn can_stop_halts_the_bus() {
    let gateway = Gateway::builder().running(true).start();
    let finished = run(&mut can_stop(["--target", &gateway.target(), "--bind", "127.0.0.1:0"]));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    gateway.wait_for_command(STOP);
    assert!(!gateway.is_running());
}

/// Streams 5,000 frames a second from the first START on. Commands for another channel than the first get lost.
fn streaming_gateway() -> Gateway {
    Gateway::builder()
        .frames_per_second(5000.0)
        .script(|command, _| match command.starts_with("CAN 1 ") {
            true => Reaction::Answer,
            false => Reaction::LoseRequest,
        })
        .start()
}

#[track_caller]
fn listener_on(bind: SocketAddr, gateway: &Gateway) -> Running {
    let listener = start(&mut can_listen_plain(["--target", &gateway.target(), "--bind", &bind.to_string()]));
    gateway.wait_until_streamed(1000);
    wait_until_shared(gateway.wait_for_command("CAN 1 START\n").from);
    listener
}

/// Ends a listener whose gateway has been stopped, and compares what it printed with what the gateway sent.
#[track_caller]
fn assert_has_every_frame(listener: Running, gateway: &Gateway) {
    gateway.wait_for_command(STOP);
    assert!(!gateway.is_running());
    let sent = gateway.frames_sent();
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert_eq!(reported_lost(&finished.stderr), (0, 0));
    let text = finished.text();
    let (frames, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("M "));
    // The four bytes that the gateway numbers its frames with.
    let number = |line: &&str| u64::from_str_radix(&line[12..23].replace(' ', ""), 16).expect("a frame's number");
    let missing = (0..sent).find(|n| frames.get(*n as usize).map(number) != Some(*n));
    assert_eq!((frames.len() as u64, missing), (sent, None), "frames printed, first one missing");
    assert!(others.iter().all(|line| *line == "R ok"), "{others:?}");
}

#[test]
fn can_stop_on_the_shared_port_receives_no_stream() {
    let (gateway, wildcard) = (streaming_gateway(), SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_port())));
    let listener = listener_on(wildcard, &gateway);
    let bind = wildcard.to_string();
    // A STOP for the second channel is lost, so the stream continues while its socket shares the port.
    let arguments = ["--target", &gateway.target(), "--bind", &bind, "--channel"];
    for channel in ["2"; 20].into_iter().chain(["1"]) {
        let finished = run(can_stop(arguments).arg(channel));
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        only_line(&finished, "can-stop");
    }
    assert_eq!(gateway.wait_for_command(STOP).from.port(), wildcard.port());
    assert_has_every_frame(listener, &gateway);
}

#[test]
fn socket_on_the_shared_port_receives_no_stream() {
    let (gateway, wildcard) = (streaming_gateway(), SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_port())));
    let listener = listener_on(wildcard, &gateway);
    let sharing = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    sharing.set_reuse_port(true).expect("a socket can share its port");
    sharing.bind(&wildcard.into()).expect("the listener shares its port");
    gateway.wait_until_streamed(gateway.frames_sent() + 2000);
    let finished = run(&mut can_stop(["--target", &gateway.target(), "--bind", &wildcard.to_string()]));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert_has_every_frame(listener, &gateway);
    sharing.set_nonblocking(true).expect("a socket need not block");
    let heard = UdpSocket::from(sharing).recv(&mut [0; 100]);
    assert_eq!(heard.map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
}

#[test]
fn specific_local_address_is_never_shared() {
    for listens_on in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST] {
        let (gateway, local) = (streaming_gateway(), SocketAddr::from((listens_on, free_port())));
        let listener = listener_on(local, &gateway);
        let target = gateway.target();
        let specific = format!("127.0.0.1:{}", local.port());
        let finished = run(&mut can_stop(["--target", &target, "--bind", &specific]));
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        assert!(finished.stderr.contains(&format!("port {} is already in use", local.port())), "{}", finished.stderr);
        assert_ne!(gateway.wait_for_command(STOP).from.port(), local.port());
        assert_has_every_frame(listener, &gateway);
    }
}

#[test]
fn port_in_use_does_not_hold_up_can_stop() {
    let gateway = Gateway::start();
    let foreign = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let port = foreign.local_addr().expect("it has one").port();
    for bind in [format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}")] {
        let by_option = run(&mut can_stop(["--target", &gateway.target(), "--bind", &bind]));
        let by_environment = run(can_stop(["--target", &gateway.target()]).env("CAN_BIND", &bind));
        for finished in [by_option, by_environment] {
            assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
            assert!(finished.stderr.contains(&format!("port {port} is already in use")), "{}", finished.stderr);
        }
    }
    let received = gateway.wait_for(TEST_TIMEOUT, |received| received.len() == 4);
    assert!(received.iter().all(|stop| stop.text() == STOP && stop.from.port() != port), "{received:?}");
}

#[test]
fn port_is_not_shared_during_the_handshake() {
    let unanswered = |command: &str, _| match command {
        "CAN 1 FILTER CLEAR\n" => Reaction::LoseReply,
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(unanswered).start();
    let bind = format!("0.0.0.0:{}", free_port());
    let options = ["--target", &gateway.target(), "--bind", &bind, "--timeout", "2", "--attempts", "1"];
    let listener = start(&mut can_listen_plain(options));
    let ours = gateway.wait_for_command("CAN 1 FILTER CLEAR\n").from;
    let finished = run(&mut can_stop(["--target", &gateway.target(), "--bind", &bind]));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains(&format!("port {} is already in use", ours.port())), "{}", finished.stderr);
    assert_ne!(gateway.wait_for_command(STOP).from.port(), ours.port());
    // Its answer is not credited to the listener's command.
    let ended = listener.wait();
    assert!(ended.stderr.contains("no reply to CAN 1 FILTER CLEAR"), "{ended:?}");
    assert!(!gateway.commands().contains(&"CAN 1 START\n".to_owned()));
}
