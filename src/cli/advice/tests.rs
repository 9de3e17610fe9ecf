use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use super::*;
use crate::gateway::{Channel, Command, Failure, Outcome, Verb};

/// The loopback interface has number 1.
fn link_local(port: u16) -> SocketAddr {
    SocketAddrV6::new(Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 1), port, 0, 1).into()
}

#[test]
fn advice_about_a_link_local_address_keeps_its_zone() {
    let gateway = link_local(5000);
    assert_eq!(host(gateway), "fe80::1%lo");
    assert!(vendor_port(gateway).ends_with("--target [fe80::1%lo]:19228"));
    let unreachable = NetworkError::Connect(gateway, ErrorKind::NetworkUnreachable.into());
    assert!(network_error(gateway, &unreachable, false).ends_with("ip route get fe80::1 oif lo"));
    let in_use = NetworkError::Bind(gateway, ErrorKind::AddrInUse.into());
    assert!(network_error(gateway, &in_use, false).ends_with("--bind [fe80::1%lo]:5001"));
}

#[test]
fn only_ports_below_1024_are_said_to_need_root() {
    let gateway = link_local(5000);
    for (port, is_low) in [(0, false), (80, true), (1023, true), (1024, false), (5000, false)] {
        let denied = NetworkError::Bind(([0, 0, 0, 0], port).into(), io::Error::from(ErrorKind::PermissionDenied));
        let message = network_error(gateway, &denied, false);
        assert_eq!(message.contains("below 1024"), is_low, "{message}");
    }
}

#[test]
fn other_addresses_of_a_name_are_named_after_no_reply() {
    let target = crate::cli::address::parse_target("gw1:5000").expect("a target");
    let others = [SocketAddr::from(([10, 8, 0, 109], 5000)), link_local(5000)];
    let failure = |outcome| Failure {
        command: Command { channel: Channel::DEFAULT, verb: Verb::Stop },
        outcome,
        in_doubt: false,
        transmissions: 3,
        attempts: 3,
        timeout: Duration::from_secs(1),
        takeover: None,
        gateway: None,
        network_error: None,
        has_answered: false,
    };
    let no_reply = failure(Outcome::NoReply(None));
    let named = |failure: &Failure, others: &[SocketAddr]| first_failure(failure, &target, others);
    assert!(named(&no_reply, &others).ends_with("; gw1 also has 10.8.0.109, fe80::1%lo"));
    assert!(!named(&no_reply, &[]).contains("also has"));
    assert!(!named(&Failure { has_answered: true, ..no_reply }, &others).contains("also has"));
    assert!(!named(&failure(Outcome::Refused("R ERR 10".into())), &others).contains("also has"));
}
