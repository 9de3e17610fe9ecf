//! Every way to fail ends with exit code 1 and one line on stderr that says what happened, to whom, and what to try.

use std::net::UdpSocket;
use std::process::Command;

use crate::programs::{
    Finished, can_listen, can_listen_plain, can_stop, closed_port, command_line, only_line, run, start,
};
use crate::simulator::{Gateway, Reaction};

/// The one line with which `can-listen` fails when it talks to `target` with these options.
#[track_caller]
fn failure(target: &str, options: &[&str]) -> String {
    let finished = run(can_listen(["--target", target]).args(options));
    failed(&finished, "can-listen")
}

/// The one line of a program that has failed and said nothing on stdout.
#[track_caller]
fn failed(finished: &Finished, program: &str) -> String {
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
fn no_reply_names_the_command_the_target_the_attempts_the_seconds_and_who_must_answer() {
    let gateway = Gateway::builder().silent(true).start();
    let target = gateway.target();
    let line = failure(&target, &["--timeout", "0.05", "--attempts", "3"]);
    assert_names(&line, &["no reply to CAN 1 INIT STD 250 ", &target, "3 attempts", "0.05 s"]);
    assert_names(&line, &["answers from that very address and port"]);
    assert_eq!(gateway.commands(), ["CAN 1 INIT STD 250\n"; 3]);
}

#[test]
fn no_reply_names_the_command_that_was_not_answered() {
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
fn an_answer_from_another_port_is_no_reply() {
    let gateway = Gateway::builder().silent(true).start();
    let options = ["--timeout", "0.3", "--attempts", "1"];
    let listener = start(can_listen(["--target", &gateway.target()]).args(options));
    let ours = gateway.wait_for_command("CAN 1 INIT STD 250\n").from;
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    stranger.send_to(b"R ok\n", ours).expect("the stranger can send");
    let line = failed(&listener.wait(), "can-listen");
    assert_names(&line, &["no reply to CAN 1 INIT STD 250 ", &gateway.target()]);
}

#[test]
fn a_refusal_names_the_command_the_target_and_the_gateways_own_words() {
    for (command, words) in [
        ("CAN 1 FILTER CLEAR", "R ERR 17 filter is locked"),
        ("CAN 1 FILTER ADD STD 000 000", "r err 4 No Room For 000"),
    ] {
        let gateway = Gateway::builder().refuse(command, words).line_ending("\r\n").start();
        // With attempts left: a refusal ends it at once.
        let line = failure(&gateway.target(), &["--attempts", "100"]);
        assert_names(&line, &[&format!("refused {command}: {words} "), &gateway.target()]);
        let commands = gateway.commands();
        assert_eq!(commands.last().map(String::as_str), Some(&*format!("{command}\n")));
        assert_eq!(commands.iter().filter(|sent| sent.starts_with(command)).count(), 1);
    }
}

#[test]
fn init_is_refused_for_good_only_when_a_stop_did_not_help() {
    let gateway = Gateway::builder().refuse("CAN 1 INIT", "R ERR 10 invalid CAN state").start();
    let line = failure(&gateway.target(), &["--quiet"]);
    assert_names(&line, &["refused CAN 1 INIT STD 250: R ERR 10 invalid CAN state", &gateway.target()]);
    assert_eq!(gateway.commands(), ["CAN 1 INIT STD 250\n", "CAN 1 STOP\n", "CAN 1 INIT STD 250\n"]);
}

#[test]
fn a_refused_start_ends_the_session() {
    let gateway = Gateway::builder().refuse("CAN 1 START", "R ERR 9 no bus power").start();
    let finished = run(can_listen(["--target", &gateway.target()]).arg("--quiet"));
    assert_eq!(finished.code(), Some(1));
    let line = only_line(&finished, "can-listen");
    assert_names(&line, &["refused CAN 1 START: R ERR 9 no bus power", &gateway.target()]);
}

#[test]
fn the_gateways_words_cannot_control_the_terminal_or_fill_it() {
    let words = format!("R ERR 1 \u{1B}[2J{}", "x".repeat(60_000));
    let gateway = Gateway::builder().refuse("CAN 1 FILTER CLEAR", &words).start();
    let line = failure(&gateway.target(), &[]);
    assert_names(&line, &["R ERR 1 \\x1B[2J"]);
    assert!(line.len() < 500, "{} bytes", line.len());
}

#[test]
fn a_closed_port_is_named_when_the_attempts_are_used_up() {
    let closed = closed_port();
    let target = closed.local_addr().expect("it has one").to_string();
    let line = failure(&target, &["--timeout", "0.05", "--attempts", "2"]);
    assert_names(
        &line,
        &["no reply to CAN 1 INIT STD 250 ", "2 attempts", "0.05 s", "the port is closed there", &target],
    );
}

#[test]
fn a_port_that_opens_in_time_is_no_failure() {
    let closed = closed_port();
    let target = closed.local_addr().expect("it has one").to_string();
    let options = ["--verbose", "--timeout", "0.1", "--attempts", "100"];
    let listener = start(can_listen(["--target", &target]).args(options));
    listener.wait_for_stderr("(attempt 3)");
    drop(closed);
    let gateway = Gateway::builder().bind(&target).start();
    listener.wait_for_stderr("START is sent");
    gateway.wait_for_command("CAN 1 START\n");
}

#[test]
fn a_taken_port_is_named_and_how_to_find_who_has_it() {
    let gateway = Gateway::start();
    let foreign = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let taken = foreign.local_addr().expect("it has one");
    let arguments = ["--target", &gateway.target(), "--bind", &taken.to_string()];
    let line = failed(&run(&mut can_listen_plain(arguments)), "can-listen");
    let port = taken.port();
    assert_names(&line, &[&format!("port {port} is taken"), &format!("ss -aunp sport = :{port}")]);
    assert_eq!(gateway.commands(), [""; 0]);
}

#[test]
fn a_second_listener_is_told_that_the_port_is_taken_and_leaves_the_first_alone() {
    let (first, second) = (Gateway::start(), Gateway::start());
    let listener = start(&mut can_listen(["--target", &first.target()]));
    let ours = first.wait_for_command("CAN 1 START\n").from;
    listener.wait_for_stderr("START is sent");
    for bind in [ours.to_string(), format!("0.0.0.0:{}", ours.port())] {
        let line = failed(&run(&mut can_listen_plain(["--target", &second.target(), "--bind", &bind])), "can-listen");
        assert_names(&line, &[&format!("port {} is taken", ours.port()), "another can-listen"]);
    }
    assert_eq!(second.commands(), [""; 0]);
    first.send("M 1 CSD 100 55\n");
    listener.wait_for_stdout("M 1 CSD 100 55\n");
}

#[test]
fn a_local_address_that_is_not_this_machines_is_named() {
    let arguments = ["--target", "127.0.0.1:9", "--bind", "203.0.113.1:0"];
    for (finished, program) in
        [(run(&mut can_listen_plain(arguments)), "can-listen"), (run(&mut can_stop(arguments)), "can-stop")]
    {
        assert_names(&failed(&finished, program), &["cannot bind 203.0.113.1:0", "no such address"]);
    }
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let arguments = ["--target", "no-such-gateway.invalid:5000"];
    for (mut command, program) in [(can_listen(arguments), "can-listen"), (can_stop(arguments), "can-stop")] {
        // Where no name server answers, the system's resolver shall not ask for as long as it usually does.
        let finished = run(command.env("RES_OPTIONS", "timeout:1 attempts:1"));
        assert_names(&failed(&finished, program), &["cannot resolve no-such-gateway.invalid:5000", "--target"]);
    }
}

#[test]
fn a_target_and_a_local_address_of_different_families_are_an_error() {
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
fn too_little_memory_is_an_error_before_anything_is_sent() {
    let gateway = Gateway::start();
    let listen = can_listen(["--target", &gateway.target()]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 60000; exec \"$@\"", "sh"]).args(command_line(&listen));
    let line = failed(&run(&mut limited), "can-listen");
    assert_names(&line, &["not enough memory for the spool", "ulimit -v"]);
    assert_eq!(gateway.commands(), [""; 0]);
}

#[test]
fn what_the_system_says_of_a_local_address_is_not_blamed_on_low_ports() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    // A link-local address without its interface.
    let line = failed(&run(&mut can_listen_plain(["--target", "[::1]:9", "--bind", "[fe80::1]:0"])), "can-listen");
    assert_names(&line, &["cannot bind [fe80::1]:0", "--bind"]);
    assert!(!line.contains("1024"), "{line}");
}
