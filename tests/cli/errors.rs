//! Promise: every failure ends with exit code 1 and one line on stderr that names what failed, the address, and a remedy.

use std::net::UdpSocket;
use std::process::Command;

use crate::programs::{
    Output, can_listen, can_listen_plain, can_stop, closed_port, command_line, free_port, only_line, run, start,
};
use crate::simulator::{Gateway, Reaction};

/// The only line of a `can-listen` that fails with this target and these options.
#[track_caller]
fn failure(target: &str, options: &[&str]) -> String {
    let finished = run(can_listen(["--target", target]).args(options));
    failed(&finished, "can-listen")
}

/// The only line of a program that has failed and printed nothing on stdout.
#[track_caller]
fn failed(finished: &Output, program: &str) -> String {
    assert_eq!((finished.code(), finished.text().as_str()), (Some(1), ""), "{}", finished.stderr);
    only_line(finished, program)
}

#[track_caller]
fn assert_names(line: &str, all: &[&str]) {
    for part in all {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn no_reply_error_names_command_target_and_attempts() {
    let gateway = Gateway::builder().silent(true).start();
    let target = gateway.target();
    let line = failure(&target, &["--timeout", "0.05", "--attempts", "3"]);
    assert_names(&line, &["no reply to CAN 1 INIT STD 250 ", &target, "3 attempts", "0.05 s"]);
    assert_names(&line, &["that address and port"]);
    assert_eq!(gateway.commands(), ["CAN 1 INIT STD 250\n"; 3]);
}

#[test]
fn no_reply_error_names_the_unanswered_command() {
    for (command, named) in [
        ("CAN 2 FILTER CLEAR\n", "no reply to CAN 2 FILTER CLEAR "),
        ("CAN 2 FILTER ADD EXT 0 0\n", "no reply to CAN 2 FILTER ADD EXT 0 0 "),
    ] {
        let gateway = Gateway::builder()
            .script(move |received, _| match received == command {
                true => Reaction::LoseReply,
                false => Reaction::Answer,
            })
            .start();
        let options = ["--channel", "2", "--filter", "EXT:0:0", "--timeout", "0.5", "--attempts", "1"];
        let line = failure(&gateway.target(), &options);
        assert_names(&line, &[named, &gateway.target(), "1 attempt of"]);
        assert!(gateway.commands().iter().all(|sent| !sent.contains("START")), "{:?}", gateway.commands());
    }
}

#[test]
fn answer_from_another_port_is_no_reply() {
    let gateway = Gateway::builder().silent(true).start();
    let options = ["--timeout", "0.3", "--attempts", "1"];
    let listener = start(can_listen(["--target", &gateway.target()]).args(options));
    let ours = gateway.wait_for_command("CAN 1 INIT STD 250\n").from;
    let other = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    other.send_to(b"R ok\n", ours).expect("the other can send");
    let line = failed(&listener.wait(), "can-listen");
    assert_names(&line, &["no reply to CAN 1 INIT STD 250 ", &gateway.target()]);
}

#[test]
fn refusal_error_names_command_target_and_text() {
    let (command, text) = ("CAN 1 FILTER CLEAR", "r err 17 Filter Is Locked");
    let gateway = Gateway::builder().refuse(command, text).line_ending("\r\n").start();
    // With attempts left: this refusal is final.
    let line = failure(&gateway.target(), &["--attempts", "100"]);
    assert_names(&line, &[&format!("refused {command}: {text}"), &gateway.target()]);
    assert_eq!(gateway.commands(), ["CAN 1 INIT STD 250\n", "CAN 1 FILTER CLEAR\n"]);
}

#[test]
fn closed_port_is_named_after_the_last_attempt() {
    let closed = closed_port();
    let target = closed.local_addr().expect("it has one").to_string();
    let line = failure(&target, &["--timeout", "0.05", "--attempts", "2"]);
    assert_names(
        &line,
        &["no reply to CAN 1 INIT STD 250 ", "2 attempts", "0.05 s", "nothing listens on UDP port", &target],
    );
}

#[test]
fn port_that_opens_during_the_attempts_is_no_failure() {
    let closed = closed_port();
    let target = closed.local_addr().expect("it has one").to_string();
    let options = ["--verbose", "--timeout", "0.1", "--attempts", "100"];
    let listener = start(can_listen(["--target", &target]).args(options));
    listener.wait_for_stderr("(attempt 3)");
    drop(closed);
    let gateway = Gateway::builder().bind(&target).start();
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command("CAN 1 START\n");
}

#[test]
fn port_in_use_error_shows_how_to_find_the_owner() {
    let gateway = Gateway::start();
    let foreign = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let in_use = foreign.local_addr().expect("it has one");
    let arguments = ["--target", &gateway.target(), "--bind", &in_use.to_string()];
    let line = failed(&run(&mut can_listen_plain(arguments)), "can-listen");
    let port = in_use.port();
    assert_names(&line, &[&format!("port {port} is already in use"), &format!("ss -aunp sport = :{port}")]);
    assert_eq!(gateway.commands(), [""; 0]);
}

#[test]
fn second_listener_fails_and_leaves_the_first_alone() {
    let (first, second) = (Gateway::start(), Gateway::start());
    let listener = start(&mut can_listen(["--target", &first.target()]));
    let ours = first.wait_for_command("CAN 1 START\n").from;
    listener.wait_for_stderr("START sent");
    for bind in [ours.to_string(), format!("0.0.0.0:{}", ours.port())] {
        let line = failed(&run(&mut can_listen_plain(["--target", &second.target(), "--bind", &bind])), "can-listen");
        assert_names(&line, &[&format!("port {} is already in use", ours.port()), "another can-listen"]);
    }
    assert_eq!(second.commands(), [""; 0]);
    first.send("M 1 CSD 100 55\n");
    listener.wait_for_stdout("M 1 CSD 100 55\n");
}

#[test]
fn foreign_local_address_is_named() {
    let arguments = ["--target", "127.0.0.1:9", "--bind", "203.0.113.1:0"];
    for (finished, program) in
        [(run(&mut can_listen_plain(arguments)), "can-listen"), (run(&mut can_stop(arguments)), "can-stop")]
    {
        assert_names(&failed(&finished, program), &["cannot bind 203.0.113.1:0", "no such address"]);
    }
}

#[test]
fn unresolvable_name_is_named() {
    let arguments = ["--target", "no-such-gateway.invalid:5000"];
    for (mut command, program) in [(can_listen(arguments), "can-listen"), (can_stop(arguments), "can-stop")] {
        // Shortens the wait of the system's resolver where no name server answers.
        let finished = run(command.env("RES_OPTIONS", "timeout:1 attempts:1"));
        assert_names(&failed(&finished, program), &["cannot resolve no-such-gateway.invalid:5000", "--target"]);
    }
}

#[test]
fn mixed_address_families_are_an_error() {
    for (target, bind) in [("127.0.0.1:9", "[::1]:0"), ("[::1]:9", "127.0.0.1:0")] {
        let arguments = ["--target", target, "--bind", bind];
        for (finished, program) in
            [(run(&mut can_listen_plain(arguments)), "can-listen"), (run(&mut can_stop(arguments)), "can-stop")]
        {
            assert_names(&failed(&finished, program), &[target, "the local address"]);
        }
    }
}

#[test]
fn lack_of_memory_is_an_error_before_init() {
    let gateway = Gateway::start();
    let listen = can_listen(["--target", &gateway.target()]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 60000; exec \"$@\"", "sh"]).args(command_line(&listen));
    let line = failed(&run(&mut limited), "can-listen");
    assert_names(&line, &["not enough memory", "ulimit -v"]);
    assert_eq!(gateway.commands(), [""; 0]);
}

#[test]
fn bind_error_of_link_local_address_ignores_low_ports() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    // A link-local address without its interface.
    let line = failed(&run(&mut can_listen_plain(["--target", "[::1]:9", "--bind", "[fe80::1]:0"])), "can-listen");
    assert_names(&line, &["cannot bind [fe80::1]:0", "--bind"]);
    assert!(!line.contains("1024"), "{line}");
}

#[test]
fn own_address_as_target_is_an_error_before_init() {
    for bind in ["127.0.0.1", "0.0.0.0"] {
        let port = free_port();
        let arguments = ["--target", &format!("127.0.0.1:{port}"), "--bind", &format!("{bind}:{port}")];
        for (mut command, program) in [(can_listen_plain(arguments), "can-listen"), (can_stop(arguments), "can-stop")] {
            let line = failed(&run(&mut command), program);
            assert_names(
                &line,
                &[&format!("127.0.0.1:{port} is the address of this program's own socket"), "--target"],
            );
            assert_names(&line, &[&format!("--bind {bind}:{}", port + 1)]);
        }
    }
}

#[test]
fn can_stop_reaches_a_gateway_on_its_own_port() {
    let gateway = Gateway::builder().running(true).start();
    let bind = format!("0.0.0.0:{}", gateway.address().port());
    let finished = run(&mut can_stop(["--target", &gateway.target(), "--bind", &bind, "--confirm"]));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
}
