//! Promise: what the programs know, a program can know, without the programs' dependencies.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use can_udp::{Channel, Connection, Event};

use crate::simulator::Gateway;
use crate::{open, setup, wait_for};

#[test]
fn received_at_moves_only_when_something_was_received() {
    let gateway = Gateway::start();
    let mut bus = open(&gateway);
    bus.start(&setup(500, 3)).expect("the gateway accepts it");
    while !bus.is_idle() {
        let _ = bus.next_event(Some(Instant::now() + Duration::from_millis(10)));
    }
    let received_at = bus.received_at();
    let until = Instant::now() + Duration::from_millis(30);
    assert!(matches!(bus.next_event(Some(until)), Event::Timeout));
    assert_eq!(bus.received_at(), received_at);
    assert!(bus.now() >= until);
    gateway.send("M 1 CSD 100 55\n");
    wait_for(&mut bus, |event| matches!(event, Event::Datagram(_)).then_some(()));
    assert!(bus.received_at() >= until);
}

#[test]
fn drops_of_the_kernel_and_what_was_read_add_up() {
    const SIZE: usize = 1000;
    let gateway = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = gateway.local_addr().expect("it is bound");
    let mut bus =
        Connection::open("127.0.0.1:0".parse().expect("an address"), address, Channel::DEFAULT).expect("a port");
    let local = bus.local_addr().expect("it is bound");
    // Linux counts against twice what is asked for.
    let fitting = 2 * bus.receive_buffer() / SIZE;
    let sent = fitting + 1000;
    for _ in 0..sent {
        gateway.send_to(&[b'x'; SIZE], local).expect("loopback");
    }
    let dropped = bus.drops();
    let (everything, mut read) = (Some(Instant::now()), 0);
    while !matches!(bus.next_event(everything), Event::Timeout) {
        read += 1;
    }
    assert!(dropped.count >= 1000 && !dropped.is_lower_bound, "{dropped:?}");
    assert_eq!(dropped.count, (sent - read) as u64);
}

#[test]
fn library_alone_needs_nothing_but_socket2() {
    let arguments =
        ["tree", "--offline", "-e", "normal", "--no-default-features", "--prefix", "none", "--format", "{lib}"];
    let tree = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let tree = tree.expect("cargo runs");
    let text = String::from_utf8_lossy(&tree.stdout);
    assert_eq!(text.lines().collect::<Vec<_>>(), ["can_udp", "socket2", "libc"], "{tree:?}");
}
