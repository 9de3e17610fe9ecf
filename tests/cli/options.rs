//! Promise: both programs accept exactly the documented option values, and print as much on stderr as was asked for.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::Command;

use crate::programs;
use crate::programs::{
    can_listen, can_listen_plain, can_stop, closed_port, free_port, only_line, run, start, wait_until_shared,
};
use crate::simulator::{Gateway, Reaction};
use nix::sys::signal::Signal;

const NOTHING: [&str; 0] = [];

/// Runs a program with these arguments, which must be refused as bad usage, naming `named`. If they were accepted, the
/// program would find a closed port.
#[track_caller]
fn refused(program: fn(&[&str]) -> Command, arguments: &[&str], named: &str) {
    let closed = closed_port();
    let target = closed.local_addr().expect("it has one").to_string();
    let finished = run(program(arguments).env("CAN_TARGET", target).env("CAN_BIND", "127.0.0.1:0"));
    assert_eq!(finished.code(), Some(2), "{arguments:?}: {}", finished.stderr);
    assert_eq!(finished.text(), "", "{arguments:?}");
    assert!(finished.stderr.contains(named), "{arguments:?}: no {named:?} in {}", finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{arguments:?}: {}", finished.stderr);
}

fn listen_with(arguments: &[&str]) -> Command {
    can_listen_plain(arguments)
}

fn stop_with(arguments: &[&str]) -> Command {
    can_stop(arguments)
}

#[track_caller]
fn both_refuse(option: &str, values: &[&str]) {
    for value in values {
        for program in [listen_with, stop_with] {
            // This form accepts values that begin with a dash.
            refused(program, &[&format!("{option}={value}")], option);
        }
    }
}

#[track_caller]
fn can_listen_refuses(option: &str, values: &[&str]) {
    for value in values {
        refused(listen_with, &[&format!("{option}={value}")], option);
    }
}

/// Values that are no time span for any option.
const NO_SECONDS: [&str; 16] = [
    "0",
    "-0",
    "0.0009",
    "1e-9",
    "-1",
    "-0.5",
    "86400.001",
    "86401",
    "1e30",
    "1e999",
    "inf",
    "-inf",
    "nan",
    "",
    "1s",
    "one",
];

#[test]
fn timeouts_range_from_a_millisecond_to_a_day() {
    both_refuse("--timeout", &NO_SECONDS);
    can_listen_refuses("--idle-timeout", &NO_SECONDS);
}

#[test]
fn attempts_range_from_1_to_100() {
    both_refuse("--attempts", &["0", "101", "-1", "1.5", "4294967297", "99999999999999999999", "", "three"]);
}

#[test]
fn channels_range_from_1_to_4() {
    both_refuse("--channel", &["0", "5", "-1", "255", "257", "1.0", "99999999999999999999", "", "one"]);
}

#[test]
fn bit_rates_are_those_of_the_vendors_list() {
    can_listen_refuses("--bitrate", &["251", "0", "-250", "250.0", "250k", "250000", "65786", "1e3", "", "fast"]);
}

#[test]
fn filters_outside_their_range_or_syntax_are_refused() {
    let beyond = ["STD:800:000", "STD:000:800", "EXT:20000000:0", "EXT:0:20000000", "EXT:FFFFFFFF:0", "STD:18FE0201:0"];
    can_listen_refuses("--filter", &beyond);
    let malformed = [
        "",
        "STD",
        "STD:1",
        "STD:1:",
        "STD::1",
        "STD:1:2:3",
        "CAN:1:2",
        ":1:2",
        "STD:xyz:0",
        "STD:-1:0",
        "STD:+1:0",
        "STD:0x:0",
        "STD:x1:0",
        "STD:0x0x1:0",
        "STD:1:2 ",
        "EXT:100000000:0",
        "EXT:000000000:0",
        "STD:1 :2",
    ];
    can_listen_refuses("--filter", &malformed);
    refused(listen_with, &["--filter", "STD:0:0", "--filter", "STD:800:0"], "--filter");
}

#[test]
fn target_is_a_host_with_an_optional_port() {
    both_refuse(
        "--target",
        &[
            "",
            ":",
            ":5000",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "127.0.0.1:-1",
            "127.0.0.1:+5",
            "127.0.0.1:x",
            "127.0.0.1:5000:1",
            "127.0.0.1 5000",
            "a b",
            "udp://127.0.0.1",
            "127.0.0.1/8",
            "[::1",
            "::1]",
            "[::1]5000",
            "[::1]:",
            "[::1]:0",
            "[]",
            "[]:5000",
            "a,b",
            "a\nb",
            "a;b",
        ],
    );
}

#[test]
fn malformed_targets_are_refused_with_a_hint() {
    for program in [listen_with, stop_with] {
        refused(program, &["--target", "::1"], "in brackets, as in [fd00::1]");
        // The system would read it as 10.8.0.0, and ask a name server for the other.
        refused(program, &["--target", "10.8.0"], "an IPv4 address is four numbers from 0 to 255");
        refused(program, &["--target", "300.1.1.1:5000"], "an IPv4 address is four numbers from 0 to 255");
        refused(program, &["--target", "010.008.000.109"], "without leading zeros");
        refused(program, &["--channel", "5"], "the gateway knows these CAN ports: 1 2 3 4");
        refused(program, &["--target", "fd00::1:5000"], "in brackets");
    }
}

#[test]
fn local_address_is_an_ip_with_an_optional_port() {
    both_refuse(
        "--bind",
        &[
            "",
            ":",
            ":5000",
            "5000",
            "0",
            "localhost",
            "localhost:0",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:-1",
            "127.0.0.256:0",
            "127.0.0.1:0:0",
            "[::1",
            "[127.0.0.1]",
            "[127.0.0.1]:0",
            "*:0",
            "127.0.0.1 :0",
        ],
    );
}

#[test]
fn bad_usage_is_refused_with_exit_code_2() {
    can_listen_refuses("--count", &["0", "-1", "1.5", "18446744073709551616", "", "all"]);
    refused(listen_with, &["-n", "0"], "--count");
    refused(listen_with, &["--format", "xml"], "--format");
    for program in [listen_with, stop_with] {
        refused(program, &["--no-such-option"], "--no-such-option");
        refused(program, &["10.8.0.109"], "10.8.0.109");
        refused(program, &["--channel"], "--channel");
        refused(program, &["--channel", "1", "--channel", "1"], "--channel");
    }
    refused(listen_with, &["--quiet", "--verbose"], "--quiet");
    refused(stop_with, &["--bitrate", "250"], "--bitrate");
}

#[test]
fn gateway_without_its_option_is_answered_with_the_option() {
    for program in [listen_with, stop_with] {
        let arguments = [&["10.8.0.109"][..], &["-target", "10.8.0.109"], &["-q", "10.8.0.109", "--channel", "2"]];
        for arguments in arguments {
            refused(program, arguments, "--target 10.8.0.109\n");
        }
        refused(program, &["[fd00::1]:19228"], "--target '[fd00::1]:19228'\n");
        for no_gateway in ["--no-such-option", "-1", "2", "a b"] {
            let finished = run(&mut program(&[no_gateway]));
            assert_eq!(finished.code(), Some(2), "{}", finished.stderr);
            assert!(!finished.stderr.contains("--target"), "{}", finished.stderr);
        }
    }
}

#[test]
fn negative_values_are_answered_with_the_range() {
    refused(listen_with, &["--status-after", "-1"], "from 0.001 to 86400, or 0 for never");
    refused(listen_with, &["--idle-timeout", "-0.5"], "from 0.001 to 86400");
    for program in [listen_with, stop_with] {
        refused(program, &["--timeout", "-1"], "from 0.001 to 86400");
        refused(program, &["--attempts", "-1"], "1..=100");
    }
}

#[test]
fn usage_errors_require_no_option_that_a_variable_sets() {
    for mut command in [can_stop(["--timeout", "1"]), can_listen_plain(["--quiet", "--verbose"])] {
        let finished = run(command.env("CAN_TARGET", "127.0.0.1:9").env("CAN_CHANNEL", "1").env("CAN_BITRATE", "250"));
        assert_eq!(finished.code(), Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains("\nUsage: can-"), "{}", finished.stderr);
        for option in ["--target", "--channel", "--bitrate"] {
            assert!(!finished.stderr.contains(option), "{}", finished.stderr);
        }
    }
}

#[test]
fn bad_values_in_the_environment_are_refused() {
    let both =
        [("CAN_TARGET", "127.0.0.1:0"), ("CAN_TARGET", "::1"), ("CAN_BIND", "localhost:0"), ("CAN_CHANNEL", "5")];
    let can_listen_only = [("CAN_BITRATE", "251"), ("CAN_BITRATE", "250 kbit/s")];
    for (program, variables) in
        [(listen_with as fn(&[&str]) -> _, &can_listen_only[..]), (listen_with, &both), (stop_with, &both)]
    {
        for (name, value) in variables {
            let finished = run(program(&[]).env("CAN_TARGET", "127.0.0.1:9").env(name, value));
            assert_eq!(finished.code(), Some(2), "{name}={value}: {}", finished.stderr);
            for part in [*value, &format!("from the variable {name}")] {
                assert!(finished.stderr.contains(part), "{name}={value}: {}", finished.stderr);
            }
        }
    }
}

#[test]
fn bit_rate_and_channel_can_come_from_the_environment() {
    for (bit_rate, channel, init, stop) in [
        ("500", "2", "CAN 2 INIT STD 500\n", "CAN 2 STOP\n"),
        (" 125\r", "3\r\n", "CAN 3 INIT STD 125\n", "CAN 3 STOP\n"),
        ("", "", "CAN 1 INIT STD 250\n", "CAN 1 STOP\n"),
        (" ", "\r", "CAN 1 INIT STD 250\n", "CAN 1 STOP\n"),
    ] {
        let gateway = Gateway::start();
        let mut listener = can_listen(["--target", &gateway.target(), "--count", "1"]);
        let finished = run(listener.env("CAN_BITRATE", bit_rate).env("CAN_CHANNEL", channel));
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let mut stopper = can_stop(["--target", &gateway.target(), "--bind", "127.0.0.1:0", "--confirm"]);
        let finished = run(stopper.env("CAN_BITRATE", "no rate").env("CAN_CHANNEL", channel));
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let commands = gateway.commands();
        assert_eq!((&*commands[0], &**commands.last().expect("a command")), (init, stop));
    }
    // Options take precedence, also over a bad value.
    let gateway = Gateway::start();
    let arguments = ["--target", &gateway.target(), "--count", "1", "--bitrate", "800", "--channel", "4"];
    let finished = run(can_listen(arguments).env("CAN_BITRATE", "fast").env("CAN_CHANNEL", "2"));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(gateway.commands()[0], "CAN 4 INIT STD 800\n");
}

#[test]
fn can_stop_line_stops_this_bus_whatever_variables_are_set() {
    let gateway = Gateway::start();
    let bind = format!("127.0.0.1:{}", free_port());
    let variables = [("CAN_TARGET", "127.0.0.1:9"), ("CAN_BIND", "127.0.0.1:0"), ("CAN_CHANNEL", "2")];
    let arguments = ["--target", &gateway.target(), "--bind", &bind, "--channel", "1", "-n", "1"];
    let finished = run(can_listen_plain(arguments).envs(variables));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let line = finished.stderr.lines().last().expect("a report");
    let arguments = line.strip_prefix("can-stop ").expect("a command line").split(' ');
    let finished = run(can_stop(arguments).envs(variables));
    assert_eq!(finished.code(), Some(0), "{line}: {finished:?}");
    assert_eq!(gateway.wait_for_command("CAN 1 STOP\n").from.to_string(), bind);
}

#[test]
fn extremes_of_every_range_are_accepted() {
    let sessions = [
        "--timeout=86400 --attempts=100 --channel=4 --bitrate=1000 --count=18446744073709551615 --idle-timeout=86400",
        "--timeout=8.64e4 --attempts=1 --channel=1 --bitrate=5 --count=1 --filter=STD:7FF:7FF --filter=EXT:1FFFFFFF:0",
    ];
    for options in sessions {
        let gateway = Gateway::builder()
            .script(|command, _| match command.ends_with("START\n") {
                true => Reaction::LoseReply,
                false => Reaction::Answer,
            })
            .start();
        let listener = start(can_listen(["--target", &gateway.target()]).args(options.split(' ')));
        listener.wait_for_stderr("START sent");
        listener.signal(Signal::SIGINT);
        let finished = listener.wait();
        assert_eq!(finished.code(), Some(0), "{options}: {}", finished.stderr);
    }
    // A millisecond is too short for a reply, so the session fails, but not as bad usage.
    let gateway = Gateway::builder().silent(true).start();
    let options = ["--timeout", "0.001", "--attempts", "100"];
    let finished = run(can_listen(["--target", &gateway.target()]).args(options));
    assert_eq!(finished.code(), Some(1), "{}", finished.stderr);
    gateway.wait_for(programs::TEST_TIMEOUT, |received| received.len() == 100);
}

#[test]
fn can_listen_options_override_the_environment() {
    let (gateway, other, port) = (Gateway::start(), Gateway::start(), free_port());
    let (bind, other_bind) = (format!("127.0.0.1:{port}"), "127.0.0.1:0");
    {
        let mut command = can_listen_plain(NOTHING);
        let _listener = start(command.env("CAN_TARGET", gateway.target()).env("CAN_BIND", &bind));
        assert_eq!(gateway.wait_for_command("CAN 1 START\n").from.to_string(), bind);
    }
    // Both values of the environment are ignored.
    let mut command = can_listen_plain(["--target", &other.target(), "--bind", other_bind]);
    let _listener = start(command.env("CAN_TARGET", gateway.target()).env("CAN_BIND", &bind));
    assert_ne!(other.wait_for_command("CAN 1 START\n").from.to_string(), bind);
    assert_eq!(gateway.commands().len(), 4);
}

#[test]
fn can_stop_options_override_the_environment() {
    let (gateway, other, port) = (Gateway::start(), Gateway::start(), free_port());
    let (bind, other_bind) = (format!("127.0.0.1:{port}"), "127.0.0.1:0");
    let finished = run(can_stop(NOTHING).env("CAN_TARGET", gateway.target()).env("CAN_BIND", &bind));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert_eq!(gateway.wait_for_command("CAN 1 STOP\n").from.to_string(), bind);

    let mut command = can_stop(["--target", &other.target(), "--bind", other_bind]);
    let finished = run(command.env("CAN_TARGET", gateway.target()).env("CAN_BIND", &bind));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert_ne!(other.wait_for_command("CAN 1 STOP\n").from.to_string(), bind);
    assert_eq!(gateway.commands().len(), 1);
}

#[test]
fn target_can_be_an_ipv6_address_in_brackets() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let gateway = Gateway::builder().bind("[::1]:0").start();
    let port = free_port();
    // The same port number of IPv4 is another port.
    let _other = UdpSocket::bind(("0.0.0.0", port)).expect("a free port");
    let listener = start(&mut can_listen_plain(["--target", &gateway.target(), "--bind", &format!("[::]:{port}")]));
    let ours = gateway.wait_for_command("CAN 1 START\n").from;
    assert_eq!(ours.port(), port);
    gateway.send("M 1 CSD 100 55\n");
    listener.wait_for_stdout("M 1 CSD 100 55\n");
    wait_until_shared(ours);
    let finished = run(&mut can_stop(["--target", &gateway.target(), "--bind", &format!("[::]:{port}")]));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    assert_eq!(gateway.wait_for_command("CAN 1 STOP\n").from.port(), port);
    assert!(only_line(&finished, "can-stop").contains(&gateway.target()));
}

#[test]
fn target_can_be_a_name() {
    let gateway = Gateway::start();
    let target = format!("localhost:{}", gateway.address().port());
    let _listener = start(&mut can_listen(["--target", &target]));
    gateway.wait_for_command("CAN 1 START\n");
    let finished = run(&mut can_stop(["--target", &target, "--bind", "127.0.0.1:0"]));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    gateway.wait_for_command("CAN 1 STOP\n");
}

/// The messages on stderr, each of which must begin with the program's name. The command line that ends the report is left
/// out.
#[track_caller]
fn lines(stderr: &str) -> Vec<&str> {
    stderr
        .lines()
        .filter(|line| !line.starts_with("can-stop "))
        .map(|line| line.strip_prefix("can-listen: ").unwrap_or_else(|| panic!("{line:?}")))
        .collect()
}

/// The stderr of a session with these options that receives two datagrams, 20 bytes in all.
#[track_caller]
fn stderr_of_a_session(gateway: &Gateway, options: &[&str]) -> String {
    let listener = start(can_listen(["--target", &gateway.target()]).args(options));
    gateway.wait_for(programs::TEST_TIMEOUT, |received| {
        received.iter().any(|datagram| datagram.text().ends_with("START\n"))
    });
    gateway.send("M 1 CSD 100 55\n");
    listener.wait_for_lines(2);
    if !options.contains(&"--quiet") {
        listener.wait_for_stderr("START sent");
    }
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    finished.stderr
}

#[test]
fn stderr_shows_the_start_and_the_report_by_default() {
    let gateway = Gateway::start();
    let target = gateway.target();
    let stderr = stderr_of_a_session(&gateway, &["--channel", "3"]);
    let [connecting, started, report, lost, bus] = lines(&stderr)[..] else { panic!("not five messages: {stderr}") };
    assert_eq!(connecting, format!("connecting to {target} (channel 3, 250 kbit/s)"));
    assert_eq!(started, format!("START sent to {target}; waiting for data (Ctrl-C to stop)"));
    let of_an_ipv4_gateway = |line: &str| format!("can-listen: {}", line.replace(&target, "10.8.0.109:5000"));
    assert!([connecting, started].into_iter().all(|line| of_an_ipv4_gateway(line).len() <= 80), "{stderr}");
    assert!(report.starts_with("2 datagrams (20 bytes) in "), "{report}");
    assert_eq!(lost, "lost: 0 in the kernel, 0 in the output buffer");
    assert_eq!(bus, "the bus still runs, stop it with:");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("can-stop --confirm --target {target} --channel 3")), "{last}");
}

#[test]
fn report_names_the_command_that_stops_this_bus() {
    let gateway = Gateway::start();
    let stderr = stderr_of_a_session(&gateway, &["--channel", "2"]);
    let (_, command) = stderr.trim_end().rsplit_once("can-stop ").expect("a command");
    // Without --bind it would use the default port.
    let mut arguments: Vec<&str> = command.split(' ').collect();
    if !arguments.contains(&"--bind") {
        arguments.extend(["--bind", "127.0.0.1:0"]);
    }
    let finished = run(&mut can_stop(arguments));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    gateway.wait_for_command("CAN 2 STOP\n");
}

#[test]
fn quiet_prints_nothing_but_errors() {
    for gateway in [Gateway::start(), Gateway::builder().running(true).start()] {
        assert_eq!(stderr_of_a_session(&gateway, &["--quiet"]), "");
        let arguments = ["-q", "--target", &gateway.target(), "--bind", "127.0.0.1:0"];
        assert_eq!(run(&mut can_stop(arguments)).stderr, "");
        gateway.wait_for_command("CAN 1 STOP\n");
    }
    let gateway = Gateway::builder().silent(true).start();
    let options = ["-q", "--timeout", "0.05", "--attempts", "1"];
    let finished = run(can_listen(["--target", &gateway.target()]).args(options));
    assert!(only_line(&finished, "can-listen").contains("no reply"), "{}", finished.stderr);
}

#[test]
fn verbose_shows_each_step_with_its_time() {
    let lose_first_clear = |command: &str, copy| match (command, copy) {
        ("CAN 1 FILTER CLEAR\n", 1) => Reaction::LoseRequest,
        _ => Reaction::Answer,
    };
    let gateway = Gateway::builder().script(lose_first_clear).start();
    let stderr = stderr_of_a_session(&gateway, &["-v", "--timeout", "0.5"]);
    let steps: Vec<&str> = lines(&stderr)
        .iter()
        .filter_map(|line| {
            let (seconds, step) = line.split_once(" s: ")?;
            seconds.parse::<f64>().is_ok().then_some(step)
        })
        .collect();
    let exchange: Vec<&str> =
        steps.iter().copied().filter(|step| step.starts_with("sent ") || step.starts_with("received ")).collect();
    assert_eq!(
        exchange,
        [
            "sent CAN 1 INIT STD 250 (attempt 1)",
            "received R ok",
            "sent CAN 1 FILTER CLEAR (attempt 1)",
            "sent CAN 1 FILTER CLEAR (attempt 2)",
            "received R ok",
            "sent CAN 1 FILTER ADD STD 000 000 (attempt 1)",
            "received R ok",
            "sent CAN 1 START (attempt 1)",
        ]
    );
    assert!(steps[0].contains("sending from 127.0.0.1:"), "{stderr}");
    assert!(stderr.contains("receive buffer"), "{stderr}");
}

#[test]
fn ipv4_mapped_local_address_works_for_an_ipv4_target() {
    let gateway = Gateway::start();
    let arguments = ["--bind", "[::ffff:127.0.0.1]:0", "--target", &gateway.target(), "-n", "1"];
    let finished = run(&mut can_listen_plain(arguments));
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
}

#[test]
fn bad_targets_and_counts_are_explained() {
    for program in [listen_with, stop_with] {
        refused(program, &["--target", "fe80::1%lo"], "in brackets");
    }
    for count in ["0", "-1", "1.5", "", "many", "99999999999999999999"] {
        refused(listen_with, &[&format!("-n={count}")], "a whole number, 1 or more");
        refused(listen_with, &["-n", count], "a whole number, 1 or more");
    }
}

#[test]
fn filters_can_be_written_with_0x() {
    let gateway = Gateway::start();
    let arguments = ["--filter", "STD:0x100:7FF", "--filter", "ext:0X18FE0201:0x1fffffff", "-n", "1"];
    assert_eq!(run(can_listen(["--target", &gateway.target()]).args(arguments)).code(), Some(0));
    let commands = gateway.commands();
    assert_eq!(commands[2..4], ["CAN 1 FILTER ADD STD 100 7FF\n", "CAN 1 FILTER ADD EXT 18FE0201 1FFFFFFF\n"]);
}

#[test]
fn help_fits_a_terminal_and_has_examples_and_exit_codes() {
    for program in [can_listen_plain(["--help"]), can_stop(["--help"])] {
        let mut program = program;
        let text = run(&mut program).text();
        assert!(text.contains("\nExamples:\n") && text.contains("\nExit codes:\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
    for program in [can_listen_plain(["-h"]), can_stop(["-h"])] {
        let mut program = program;
        let text = run(&mut program).text();
        // The command and the prompt after it take a line each.
        assert!(text.lines().count() <= 24 - 2 && text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("'--help'"), "{text}");
    }
}

#[test]
fn shared_options_have_the_same_help() {
    let [listen, stop] = [can_listen_plain(["--help"]), can_stop(["--help"])].map(|mut command| {
        let text = run(&mut command).text();
        let text = text.split("\nExamples:").next().expect("options");
        let mut options: BTreeMap<String, String> = BTreeMap::new();
        let mut last = String::new();
        for line in text.lines().filter(|line| line.is_empty() || line.starts_with(' ')) {
            if line.trim_start().starts_with('-') && !line.trim_start().starts_with("- ") {
                last = line.trim_start().to_owned();
            }
            options.entry(last.clone()).or_default().push_str(line.trim());
        }
        options
    });
    let shared: Vec<&String> = stop.keys().filter(|option| listen.contains_key(*option)).collect();
    assert!(shared.len() >= 8, "{shared:?}");
    for option in shared.into_iter().filter(|option| option.starts_with('-')) {
        match option.as_str() {
            // can-stop prints no gateway events.
            "-q, --quiet" => assert!(stop[option].ends_with("only warnings and errors"), "{}", stop[option]),
            _ => assert_eq!(listen[option], stop[option], "{option}"),
        }
    }
    assert!(listen["--attempts <N>"].contains("fails after(attempts + 1) x timeout"), "{}", listen["--attempts <N>"]);
    assert!(listen["-n, --count <N>"].contains("the answer to START counts"), "{}", listen["-n, --count <N>"]);
}

#[test]
fn help_of_can_stop_says_what_needs_confirm() {
    let text = run(&mut can_stop(["--help"])).text();
    let (_, after) = text.split_once("\nWith --confirm:\n").expect("a heading");
    let listed: Vec<&str> = after.lines().filter(|line| line.trim_start().starts_with("--")).map(str::trim).collect();
    assert_eq!(listed, ["--timeout <SECONDS>", "--attempts <N>"]);
}

/// cargo before 1.71 knows numbers only there, and would complain of that instead of the edition.
#[test]
fn debug_information_is_configured_as_a_number() {
    let manifest = include_str!("../../Cargo.toml");
    let values: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("debug = ")).collect();
    assert!(values.iter().all(|value| value.parse::<u8>().is_ok()) && values.len() == 1, "{values:?}");
}
