//! Promise: nothing that the gateway sends can control a terminal; pipes and files receive it unchanged.

use std::fs::File;

use crate::programs::{Output, can_listen, start, start_with, terminal, wait_until_shared};
use crate::simulator::{Gateway, Reaction};
use nix::sys::signal::Signal;

/// Every byte value once, newline last. Carriage return is followed by another byte, so it is no line end.
fn all_bytes() -> Vec<u8> {
    let but_newline = (0..=255).filter(|&byte| byte != b'\n');
    but_newline.chain([b'\n']).collect()
}

/// The output of a session that receives these datagrams, to a terminal or into a pipe.
#[track_caller]
fn printed(datagrams: &[&[u8]], to_a_terminal: bool) -> Vec<u8> {
    let gateway = Gateway::start();
    let mut listen = can_listen(["--target", &gateway.target()]);
    let listener = if to_a_terminal {
        let (master, name) = terminal();
        let screen = File::options().write(true).open(name).expect("the terminal can be opened");
        let mut listener = start_with(&mut listen, screen.into());
        listener.read_on(master);
        listener
    } else {
        start(&mut listen)
    };
    // It would keep the terminal open.
    drop(listen);
    listener.wait_for_stdout("R ok");
    datagrams.iter().for_each(|datagram| gateway.send(datagram));
    gateway.send("the end\n");
    listener.wait_for_stdout("the end");
    listener.signal(Signal::SIGINT);
    listener.wait().stdout
}

#[test]
fn terminal_shows_control_bytes_in_hexadecimal() {
    let shown = printed(&[b"\x1B[2J\x1B]0;title\x07\n", &all_bytes()], true);
    // The terminal's driver writes a newline as CR LF.
    let shown = String::from_utf8(shown).expect("nothing but ASCII").replace("\r\n", "\n");
    let escaped = |range: std::ops::RangeInclusive<u8>| {
        let bytes = range.filter(|&byte| byte != b'\n');
        bytes.map(|byte| format!("\\x{byte:02X}")).collect::<String>()
    };
    let graphic = (b' '..=b'~').map(char::from).collect::<String>();
    let all = [escaped(0..=0x1F), graphic, escaped(0x7F..=0xFF)].concat();
    assert_eq!(shown, format!("R ok\n\\x1B[2J\\x1B]0;title\\x07\n{all}\nthe end\n"));
}

#[test]
fn crlf_is_a_line_end_on_a_terminal() {
    let shown = printed(&[b"M 1 CSD 100 55\r\nM 1 CSD 100 66\r\n", b"cut\rhere\r\n"], true);
    let shown = String::from_utf8(shown).expect("nothing but ASCII").replace("\r\n", "\n");
    assert_eq!(shown, "R ok\nM 1 CSD 100 55\nM 1 CSD 100 66\ncut\\x0Dhere\nthe end\n");
}

#[test]
fn pipe_receives_every_byte_unchanged() {
    let expected = [b"R ok\n\x1B[2J\r\n", &all_bytes()[..], b"the end\n"].concat();
    assert_eq!(printed(&[b"\x1B[2J\r\n", &all_bytes()], false), expected);
}

#[test]
fn datagrams_get_their_missing_final_newline() {
    for to_a_terminal in [false, true] {
        let printed = printed(&[b"one", b"", b"two\nthree", b"four\n"], to_a_terminal);
        let printed = String::from_utf8(printed).expect("nothing but ASCII").replace("\r\n", "\n");
        assert_eq!(printed, "R ok\none\ntwo\nthree\nfour\nthe end\n");
    }
}

/// 12 bytes of a line that clear a terminal, and how they are shown.
const CLEAR: (&str, &str) = ("R ERR 5 \x1B[2J", "R ERR 5 \\x1B[2J");

#[track_caller]
fn assert_harmless(ended: &Output) {
    let harmless = |byte: u8| byte == b'\n' || (b' '..=b'~').contains(&byte);
    assert!(ended.stderr.bytes().all(harmless), "{:?}", ended.stderr);
}

#[test]
fn gateway_text_on_stderr_is_escaped_and_cut() {
    let text = CLEAR.0.to_owned() + &"x".repeat(300);
    let shown = CLEAR.1.to_owned() + &"x".repeat(188);
    for command in ["CAN 1 INIT STD 250\n", "CAN 1 FILTER CLEAR\n", "CAN 1 FILTER ADD STD 000 000\n", "CAN 1 START\n"] {
        let gateway = Gateway::builder().refuse(command, &text).start();
        let listener = start(&mut can_listen(["--verbose", "--target", &gateway.target()]));
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        assert_harmless(&ended);
        assert!(ended.stderr.contains(&shown), "{}", ended.stderr);
        assert!(!ended.stderr.contains(&"x".repeat(189)), "{}", ended.stderr);
    }
}

#[test]
fn events_and_malformed_lines_are_escaped_and_cut() {
    let long = "x".repeat(300);
    let gateway = Gateway::builder().script(|_, _| Reaction::Answer).start();
    let listen = &mut can_listen(["--format", "candump", "--target", &gateway.target()]);
    let listener = start(listen);
    // Until START is settled, a refusal is taken for its own.
    wait_until_shared(gateway.wait_for_command("CAN 1 START\n").from);
    for kind in ["E 1", "R ERR 7", "M 1 CSD"] {
        gateway.send(format!("{kind} \x1B[2J\u{9B}{long}\n"));
    }
    gateway.send("M 1 CSD 100 55\n");
    listener.wait_for_stdout("can1 100#55\n");
    listener.signal(Signal::SIGTERM);
    let ended = listener.wait();
    assert_harmless(&ended);
    for kind in ["E 1", "R ERR 7", "M 1 CSD"] {
        assert!(ended.stderr.contains(&format!("{kind} \\x1B[2J\\xC2\\x9Bx")), "{}", ended.stderr);
    }
    assert!(!ended.stderr.contains(&"x".repeat(200)), "{}", ended.stderr);
}
