//! Promise: without options the wire carries exactly the four commands of the handshake; options change only what they
//! name; only the gateway's replies advance it; every datagram after it reaches stdout.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::programs;
use crate::programs::{can_listen, can_listen_plain, free_port, run, start, wait_until_shared};
use crate::simulator::{Gateway, Reaction};
use nix::sys::signal::Signal;

/// The commands of a session with default options.
const DEFAULT: [&str; 4] =
    ["CAN 1 INIT STD 250\n", "CAN 1 FILTER CLEAR\n", "CAN 1 FILTER ADD STD 000 000\n", "CAN 1 START\n"];

/// The commands that a session with these options sends to a healthy gateway.
#[track_caller]
fn commands_with(options: &[&str]) -> Vec<String> {
    let gateway = Gateway::start();
    let listener = start(can_listen(["--target", &gateway.target()]).args(options));
    listener.wait_for_stderr("START sent");
    gateway.wait_for(programs::TEST_TIMEOUT, |received| {
        received.iter().any(|datagram| datagram.text().ends_with("START\n"))
    });
    gateway.commands()
}

#[test]
fn handshake_sends_each_command_after_the_last_reply() {
    const LATE: Duration = Duration::from_millis(60);
    let gateway = Gateway::builder().script(|_, _| Reaction::Delay(LATE)).start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    gateway.wait_for_command("CAN 1 START\n");
    listener.wait_for_stderr("START sent");
    assert_eq!(gateway.commands(), DEFAULT);
    for pair in gateway.received().windows(2) {
        assert!(pair[1].at - pair[0].at >= LATE, "{:?} did not wait for the reply", pair[1].text());
        assert_eq!(pair[0].from, pair[1].from, "all come from one port");
    }
}

#[test]
fn start_is_sent_once_and_needs_no_reply() {
    let gateway = Gateway::builder()
        .script(|command, _| match command {
            "CAN 1 START\n" => Reaction::LoseReply,
            _ => Reaction::Before(b"M 1 CSD 100 55 AA\n".to_vec()),
        })
        .start();
    // Five timeouts: a program that waited for the reply to START would have sent it again.
    let options = ["--timeout", "0.2", "--idle-timeout", "1", "--status-after", "0"];
    let finished = start(can_listen(["--target", &gateway.target()]).args(options)).wait();
    assert!(finished.stderr.contains("START sent"), "{}", finished.stderr);
    assert_eq!(gateway.commands(), DEFAULT);
    assert_eq!(finished.text(), "");
    assert!(finished.stderr.contains("3 frames received during the handshake, not printed"), "{}", finished.stderr);
}

#[test]
fn channel_is_in_every_command() {
    for channel in ["1", "2", "3", "4"] {
        let expected = DEFAULT.map(|command| command.replace("CAN 1", &format!("CAN {channel}")));
        assert_eq!(commands_with(&["--channel", channel]), expected);
    }
}

#[test]
fn init_carries_every_bit_rate_of_the_vendors_list() {
    for rate in ["5", "10", "20", "50", "100", "125", "250", "500", "800", "1000"] {
        let commands = commands_with(&["--bitrate", rate]);
        assert_eq!(commands[0], format!("CAN 1 INIT STD {rate}\n"));
        assert_eq!(commands[1..], DEFAULT[1..]);
    }
}

#[test]
fn filters_replace_the_default_and_keep_their_order() {
    let filters = ["STD:7FF:7ff", "EXT:0:0", "std:1:0", "EXT:1fffffff:1FFFFFFF", "EXT:18FE0201:00FFFF00"];
    let options: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
    assert_eq!(
        commands_with(&options),
        [
            "CAN 1 INIT STD 250\n",
            "CAN 1 FILTER CLEAR\n",
            "CAN 1 FILTER ADD STD 7FF 7FF\n",
            "CAN 1 FILTER ADD EXT 0 0\n",
            "CAN 1 FILTER ADD STD 001 000\n",
            "CAN 1 FILTER ADD EXT 1FFFFFFF 1FFFFFFF\n",
            "CAN 1 FILTER ADD EXT 18FE0201 FFFF00\n",
            "CAN 1 START\n",
        ]
    );
}

#[test]
fn reply_counts_in_any_case_line_ending_and_company() {
    let replies: [&[u8]; 13] = [
        b"R ok\n",
        b"R ok\r",
        b"R ok\r\n",
        b"R ok\\n",
        b"R ok",
        b"r OK\n",
        b"R OK\\n\n",
        b"R   ok  \r\n",
        b"M 1 CSD 100 55 AA\nR ok\n",
        b"R ok\r\nM 1 CSD 100 55 AA\r\n",
        b"E 1 ERRORWARNING SET\rR ok\rM 1 CED 18FE0201 01\r",
        b"M 1 CSD 100 55\\nR ok\\nE 1 BUSOFF\\n",
        b"\xFF\x00rubbish\nR ok\n",
    ];
    // One attempt: a reply that did not count would end the program.
    let sessions = replies.map(|reply| {
        let gateway = Gateway::builder().script(move |_, _| Reaction::ReplyWith(reply.to_vec())).start();
        let options = ["--attempts", "1", "--timeout", "10"];
        let listener = start(can_listen(["--target", &gateway.target()]).args(options));
        (gateway, listener, String::from_utf8_lossy(reply))
    });
    for (gateway, listener, reply) in sessions {
        listener.wait_for_stderr("START sent");
        gateway.wait_for_command("CAN 1 START\n");
        assert_eq!(gateway.commands(), DEFAULT, "after {reply:?}");
    }
}

#[test]
fn frames_events_and_garbage_are_no_reply() {
    let others =
        ["M 1 CSD 100 55\n", "E 1 BUSOFF\n", "R okay\n", "R ok ok\n", "ok\n", "Rok\n", "", "\n", "\u{0}\u{7F}"];
    let sessions = ["CAN 1 INIT STD 250\n", "CAN 1 FILTER CLEAR\n", "CAN 1 FILTER ADD STD 000 000\n"].map(|command| {
        let gateway = Gateway::builder()
            .script(move |received, copy| match others.get(copy as usize - 1) {
                Some(other) if received == command => Reaction::ReplyWith(other.as_bytes().to_vec()),
                _ => Reaction::Answer,
            })
            .start();
        let options = ["--timeout", "0.05", "--attempts", "100"];
        let listener = start(can_listen(["--target", &gateway.target()]).args(options));
        (gateway, listener, command)
    });
    for (gateway, listener, command) in sessions {
        listener.wait_for_stderr("START sent");
        gateway.wait_for_command("CAN 1 START\n");
        let copies = gateway.commands().iter().filter(|received| *received == command).count();
        assert!(copies > others.len(), "{command:?} was sent {copies} times");
    }
}

#[test]
fn commands_come_from_the_given_local_port() {
    let (gateway, port) = (Gateway::start(), free_port());
    let bind = format!("0.0.0.0:{port}");
    let _listener = start(&mut can_listen_plain(["--target", &gateway.target(), "--bind", &bind]));
    gateway.wait_for_command("CAN 1 START\n");
    let received = gateway.received();
    assert_eq!(received.len(), 4);
    assert!(received.iter().all(|datagram| datagram.from.port() == port), "{received:?}");
}

#[test]
fn raw_output_adds_only_missing_newlines() {
    let gateway = Gateway::start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    wait_until_shared(gateway.wait_for_command("CAN 1 START\n").from);
    let datagrams: [(&[u8], &[u8]); 10] = [
        (b"M 1 CSD 100 55 AA\n", b"M 1 CSD 100 55 AA\n"),
        (b"no newline", b"no newline\n"),
        (b"", b""),
        (b"two\r\nlines\r\n", b"two\r\nlines\r\n"),
        (b"\n", b"\n"),
        (b"ends in CR\r", b"ends in CR\r\n"),
        (b"R ERR 7 not for us\n", b"R ERR 7 not for us\n"),
        (b"\x00\x1B[2J\x80\xFF no text", b"\x00\x1B[2J\x80\xFF no text\n"),
        (b"ends in a literal\\n", b"ends in a literal\\n\n"),
        (b"E 1 BUSOFF\r\n", b"E 1 BUSOFF\r\n"),
    ];
    // The answer to START comes first.
    let mut expected = b"R ok\n".to_vec();
    for (datagram, printed) in datagrams {
        gateway.send(datagram);
        expected.extend_from_slice(printed);
    }
    listener.wait_for_stdout("BUSOFF");
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    assert_eq!(finished.stdout.escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert_eq!(finished.code(), Some(0));
}

#[test]
fn largest_datagram_arrives_whole() {
    let gateway = Gateway::builder().script(|_, _| Reaction::Answer).start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    gateway.wait_for_command("CAN 1 START\n");
    let largest: Vec<u8> = (0..65_507).map(|n| b'a' + (n % 26) as u8).collect();
    gateway.send(&largest);
    gateway.send("the next one");
    listener.wait_for_stdout("the next one\n");
    let expected = [b"R ok\n", &largest[..], b"\nthe next one\n"].concat();
    assert!(listener.stdout_so_far() == expected, "the datagram is cut or changed");
}

#[test]
fn datagrams_of_other_senders_are_not_printed() {
    let gateway = Gateway::start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    let ours = gateway.wait_for_command("CAN 1 START\n").from;
    // It is sent after START, so only the connected socket can reject it.
    let other = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    other.send_to(b"M 1 CSD 666 00\n", ours).expect("the other can send");
    gateway.send("M 1 CSD 100 55\n");
    listener.wait_for_stdout("100 55");
    assert_eq!(String::from_utf8_lossy(&listener.stdout_so_far()), "R ok\nM 1 CSD 100 55\n");
}

#[test]
fn listen_only_and_can_fd_use_the_long_init() {
    for (options, init) in [
        (&["--listen-only"][..], "CAN 1 INIT mode=LISTEN baudA=250\n"),
        (&["--bitrate", "500", "--data-bitrate", "2000"], "CAN 1 INIT mode=STD baudA=500 baudD=2000 iso=ISO\n"),
        (
            &["--listen-only", "--bitrate", "1000", "--data-bitrate", "8000"],
            "CAN 1 INIT mode=LISTEN baudA=1000 baudD=8000 iso=ISO\n",
        ),
    ] {
        let gateway = Gateway::start();
        let finished = run(can_listen(["--target", &gateway.target(), "-n", "1"]).args(options));
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert_eq!(gateway.commands()[0], init);
        assert_eq!(gateway.commands()[1..], DEFAULT[1..]);
    }
}

#[test]
fn refused_long_init_names_the_option() {
    let gateway = Gateway::builder().refuse("CAN 1 INIT mode=", "R ERR 9 invalid parameter type").start();
    let finished = run(can_listen(["--target", &gateway.target(), "--listen-only"]).arg("-q"));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    let refusal = "the gateway refused CAN 1 INIT mode=LISTEN baudA=250: R ERR 9 invalid parameter type";
    assert!(finished.stderr.contains(refusal), "{finished:?}");
    assert!(finished.stderr.contains("--listen-only"), "{finished:?}");
}

#[test]
fn handshake_without_faults_takes_under_half_a_second() {
    // A quarter of the timeout, and 20 ms after each of three replies: 310 ms. Of several sessions the fastest counts, since
    // the machine may be busy.
    let session = || {
        let gateway = Gateway::start();
        let started = Instant::now();
        let _listener = start(&mut can_listen(["--target", &gateway.target()]));
        gateway.wait_for_command("CAN 1 START\n").at - started
    };
    let took = (0..5).map(|_| session()).min().expect("several sessions");
    assert!((Duration::from_millis(310)..Duration::from_millis(500)).contains(&took), "{took:?} from exec to START");
}
