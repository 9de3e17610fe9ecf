//! Promise: addresses are read as they are meant, also from an environment file; a wrong one names its option; the `can-stop`
//! line of the report stops this bus.

use std::env;
use std::net::UdpSocket;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::programs::{Output, TempDir, can_listen_plain, can_stop, free_port, run, start, wait_until};
use crate::simulator::Gateway;

const NO_ARGUMENTS: [&str; 0] = [];

fn both() -> [(Command, &'static str); 2] {
    [(can_listen_plain(["-n", "1"]), "can-listen"), (can_stop(NO_ARGUMENTS), "can-stop")]
}

fn has_ipv6() -> bool {
    let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
    if !has_ipv6 {
        eprintln!("skipped: this machine has no IPv6 loopback");
    }
    has_ipv6
}

#[track_caller]
fn failed(finished: &Output, code: i32, parts: &[&str]) {
    assert_eq!(finished.code(), Some(code), "{finished:?}");
    for part in parts {
        assert!(finished.stderr.contains(part), "no {part:?} in {finished:?}");
    }
}

#[test]
fn white_space_around_environment_values_is_ignored() {
    for (mut command, program) in both() {
        let gateway = Gateway::start();
        let target = format!(" {}\r", gateway.target());
        let bind = format!("127.0.0.1:{}\r\n", free_port());
        let finished = run(command.env("CAN_TARGET", target).env("CAN_BIND", &bind));
        assert_eq!(finished.code(), Some(0), "{program}: {finished:?}");
        wait_until("a command", || !gateway.received().is_empty());
        assert_eq!(gateway.received()[0].from.to_string(), bind.trim());
    }
}

#[test]
fn white_space_in_option_values_is_refused() {
    for (mut command, _) in both() {
        failed(&run(command.args(["--target", "127.0.0.1:9 "])), 2, &["--target"]);
    }
}

#[test]
fn empty_can_target_is_an_error_that_names_the_variable() {
    for empty in ["", " ", "\r"] {
        for (mut command, _) in both() {
            failed(&run(command.env("CAN_TARGET", empty)), 2, &["the variable CAN_TARGET is empty"]);
        }
    }
}

#[test]
fn wrong_local_address_names_bind() {
    for (mut command, _) in both() {
        let finished = run(command.args(["--target", "127.0.0.1:9", "--bind", "203.0.113.1:0"]));
        failed(&finished, 1, &["cannot bind 203.0.113.1:0", "no such address", "--bind"]);
    }
    // An address of this machine that cannot speak to the gateway.
    let finished = run(can_listen_plain(["--target", "192.0.2.1:9", "--bind", "127.0.0.1:0"]).arg("--quiet"));
    failed(&finished, 1, &["192.0.2.1:9", "--bind"]);
}

#[test]
fn link_local_address_without_zone_is_named() {
    if has_ipv6() {
        let finished = run(&mut can_listen_plain(["--target", "[fe80::1]:9", "--bind", "[::]:0"]));
        failed(&finished, 1, &["zone", "--target"]);
        let finished = run(&mut can_listen_plain(["--target", "[::1]:9", "--bind", "[fe80::1]:0"]));
        failed(&finished, 1, &["zone", "--bind"]);
    }
}

#[test]
fn unknown_zone_is_named_as_that() {
    for (mut command, program) in both() {
        let finished = run(command.args(["--target", "[fe80::1%nowhere7]", "--bind", "[::]:0"]));
        failed(&finished, 1, &[program, "[fe80::1%nowhere7]", "no network interface nowhere7", "ip link"]);
    }
    for (mut command, program) in both() {
        let finished = run(command.args(["--target", "[::1]:9", "--bind", "[fe80::1%nowhere7]:0"]));
        failed(&finished, 1, &[program, "cannot bind [fe80::1%nowhere7]:0", "no network interface nowhere7"]);
    }
    let finished = run(&mut can_listen_plain(["--target", "[fd00::1%lo]", "--bind", "[::]:0"]));
    failed(&finished, 1, &["fd00::1 is no link-local address"]);
}

/// Runs the body of the ignored test of that name as root of network and mount namespaces of its own, which a script sets up.
/// The test's own program is executed again there.
#[track_caller]
fn in_namespaces(name: &str, set_up: &str, test: fn()) {
    const INSIDE: &str = "CAN_UDP_TEST_IN_NAMESPACES";
    if env::var_os(INSIDE).is_some() {
        return test();
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-ec", &format!("ip link set lo up; {set_up}; exec \"$@\"",), "sh"]);
    command.arg(env::current_exe().expect("the test's own program")).args([
        "--ignored",
        "--exact",
        name,
        "--nocapture",
    ]);
    let finished = run(command.env(INSIDE, "yes"));
    // A name that matches no test would pass.
    assert!(finished.code() == Some(0) && finished.text().contains("1 passed"), "{finished:?}");
}

#[test]
#[ignore = "needs root, unshare (Debian: util-linux) and iproute2"]
fn link_local_session_keeps_its_zone() {
    let name = "addresses::link_local_session_keeps_its_zone";
    in_namespaces(name, "ip address add fe80::1/64 dev lo nodad", || {
        let gateway = Gateway::builder().bind("[fe80::1%1]:0").start();
        let target = gateway.target().replace("%1]", "%lo]");
        let bind = "[fe80::1%lo]:5001";
        let finished = run(&mut can_listen_plain(["--target", &target, "--bind", bind, "-n", "1"]));
        let line = format!("can-stop --confirm --target '{target}' --bind '{bind}'");
        failed(&finished, 0, &[&line]);
        assert_eq!(gateway.wait_for_command("CAN 1 START\n").from.to_string(), bind.replace("%lo", "%1"));
        failed(&run(&mut can_stop(["--confirm", "--target", &target, "--bind", bind])), 0, &["confirmed"]);

        // Advice.
        let options = ["--timeout", "0.05", "--attempts", "1", "--bind", bind, "--target"];
        let finished = run(can_listen_plain(options).arg("[fe80::1%lo]:9"));
        failed(&finished, 1, &["--target [fe80::1%lo]:19228"]);
        let _foreign = UdpSocket::bind("[fe80::1%1]:5001").expect("the namespace's ports are free");
        failed(&run(can_listen_plain(options).arg(&target)), 1, &["--bind [fe80::1%lo]:5002"]);
    });
}

#[test]
#[ignore = "needs root, unshare (Debian: util-linux) and iproute2"]
fn no_reply_error_names_the_other_addresses_of_a_name() {
    let set_up = "h=$(mktemp); printf '127.0.0.2 gw1\n127.0.0.3 gw1\n' > $h; mount --bind $h /etc/hosts; rm $h";
    in_namespaces("addresses::no_reply_error_names_the_other_addresses_of_a_name", set_up, || {
        let arguments = ["--target", "gw1:9", "--timeout", "0.05", "--attempts", "1"];
        for mut command in [can_listen_plain(arguments), can_stop([&["--confirm"], &arguments[..]].concat())] {
            let finished = run(&mut command);
            failed(&finished, 1, &["no reply to CAN 1 ", "from 127.0.0.2:9 ", "; gw1 also has 127.0.0.3"]);
        }
    });
}

#[test]
fn can_stop_line_of_the_report_works_as_it_stands() {
    let addresses = if has_ipv6() { vec!["127.0.0.1", "[::1]"] } else { vec!["127.0.0.1"] };
    for address in addresses {
        let gateway = Gateway::builder().bind(format!("{address}:0")).start();
        let port = free_port();
        let bind = format!("{address}:{port}");
        let arguments = ["--target", &gateway.target(), "--bind", &bind, "--channel", "2"];
        let listener = start(&mut can_listen_plain(arguments));
        listener.wait_for_stderr("START sent");
        listener.signal(Signal::SIGINT);
        let finished = listener.wait();
        let line = finished.stderr.lines().last().expect("a report");
        assert!(line.starts_with("can-stop "), "{finished:?}");
        // A shell would replace an unquoted [::1]:PORT by the name of such a file.
        let folder = TempDir::new("can-stop-line");
        for name in ["1", ":"] {
            folder.write(name, "");
            for port in [gateway.address().port(), port] {
                folder.write(&format!("{name}:{port}"), "");
            }
        }
        let program = can_stop(NO_ARGUMENTS).get_args().last().map(std::ffi::OsStr::to_owned).expect("a program");
        let mut shell = Command::new("sh");
        let script = format!("can-stop() {{ \"$program\" \"$@\"; }}; {line}").replace("can-stop", "can_stop");
        let stopped = run(shell.args(["-c", &script]).env("program", program).current_dir(&folder.0));
        assert_eq!(stopped.code(), Some(0), "{line}: {stopped:?}");
        assert_eq!(gateway.wait_for_command("CAN 2 STOP\n").from.to_string(), bind);
    }
}
