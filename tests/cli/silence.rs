//! Promise: every silence of the bus is explained, from the gateway's STATUS as far as it answers; a lost START is sent
//! again, once.

use std::thread;

use nix::sys::signal::Signal;

use crate::programs::{
    Output, Running, can_listen, can_listen_plain, can_stop, free_port, run, start, wait_until_shared,
};
use crate::simulator::{Gateway, GatewayBuilder, Reaction};

const START: &str = "CAN 1 START\n";
const STATUS: &str = "CAN 1 STATUS\n";

/// A gateway that knows STATUS, on a bus with so many frames.
fn gateway(frames: u64) -> GatewayBuilder {
    Gateway::builder().status("----").frames_per_second(1000.0).stop_after_frames(frames)
}

/// A listener that requests STATUS after 0.2 s of silence.
fn listener(gateway: &Gateway, options: &[&str]) -> Running {
    start(can_listen(["--target", &gateway.target(), "--status-after", "0.2", "--timeout", "0.3"]).args(options))
}

#[track_caller]
fn end(listener: Running) -> Output {
    listener.signal(Signal::SIGTERM);
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    finished
}

fn count(gateway: &Gateway, command: &str) -> usize {
    gateway.commands().iter().filter(|sent| *sent == command).count()
}

#[test]
fn silence_from_the_start_names_filter_and_listeners() {
    let gateway = gateway(0).start();
    let listener = listener(&gateway, &[]);
    listener.wait_for_stderr("the controller is running: the bus is silent, or ");
    let finished = end(listener);
    assert!(finished.stderr.contains("29-bit identifiers (--filter EXT:0:0)"), "{finished:?}");
    assert!(finished.stderr.contains("or another listener has the stream"), "{finished:?}");
    assert!(finished.stderr.contains("the bus still runs"), "{finished:?}");
    // Replies to STATUS are neither printed nor counted.
    assert_eq!(finished.text(), "R ok\n");
    assert!(finished.stderr.contains(" 1 datagram (5 bytes) "), "{finished:?}");
    assert_eq!(gateway.commands()[3..], [START, STATUS]);
}

#[test]
fn silence_after_frames_names_other_listeners_only() {
    let gateway = gateway(10).start();
    let listener = listener(&gateway, &[]);
    listener.wait_for_stderr("the controller is running: the bus is silent, or another listener has the stream");
    assert_eq!(end(listener).text().lines().count(), 11);
}

#[test]
fn bus_off_without_frames_names_bitrate_and_wiring() {
    for (flags, state) in [("B---", "bus off"), ("-E--", "at its error warning level"), ("BE--", "bus off")] {
        let gateway = gateway(0).status(flags).start();
        let listener = listener(&gateway, &["--quiet", "--bitrate", "500"]);
        listener.wait_for_stderr(&format!("the controller is {state}: check --bitrate (500) and the wiring"));
        end(listener);
    }
}

#[test]
fn overrun_means_that_the_gateway_lost_frames() {
    let gateway = gateway(10).status("--O-").start();
    let listener = listener(&gateway, &["-q"]);
    listener.wait_for_stderr("the gateway itself lost frames (data overrun)");
    end(listener);
}

#[test]
fn bus_off_after_frames_does_not_blame_the_bit_rate() {
    let gateway = gateway(10).status("B---").start();
    let listener = listener(&gateway, &["-q"]);
    listener.wait_for_lines(11);
    listener.wait_for_stderr("the controller is bus off");
    let finished = end(listener);
    assert!(!finished.stderr.contains("--bitrate"), "{finished:?}");
    assert!(finished.stderr.contains("wiring"), "{finished:?}");
}

#[test]
fn filter_hint_never_advises_what_was_given() {
    for (filters, advised) in [
        (&["--filter", "EXT:0:0"][..], Some("--filter STD:0:0")),
        (&["--filter", "STD:0:0"], Some("--filter EXT:0:0")),
        (&["--filter", "EXT:0:0", "--filter", "STD:0:0"], None),
    ] {
        let gateway = gateway(0).start();
        let listener = listener(&gateway, filters);
        listener.wait_for_stderr("the controller is running");
        let finished = end(listener);
        for hint in ["--filter STD:0:0", "--filter EXT:0:0"] {
            assert_eq!(finished.stderr.contains(hint), advised == Some(hint), "{filters:?}: {finished:?}");
        }
    }
}

#[test]
fn status_flags_are_all_named_stopped_first() {
    let gateway = gateway(10).status("BEO-").start();
    let listener = listener(&gateway, &[]);
    listener.wait_for_lines(11);
    gateway.halt();
    listener.wait_for_stderr("the controller is stopped");
    let finished = end(listener);
    let message = finished.stderr.lines().find(|line| line.contains("is stopped")).expect("it was explained");
    let places = ["is stopped", "bus off", "data overrun"].map(|part| message.find(part).expect(message));
    assert!(places.is_sorted(), "{message}");
}

#[test]
fn lost_start_is_sent_again_and_the_stream_flows() {
    let gateway = gateway(u64::MAX)
        .script(|command, copy| if (command, copy) == (START, 1) { Reaction::LoseRequest } else { Reaction::Answer })
        .start();
    let listener = listener(&gateway, &[]);
    listener.wait_for_stderr("START was not answered and the controller is stopped; sending START again");
    listener.wait_for_lines(20);
    let finished = end(listener);
    assert!(finished.stderr.contains("data resumed after 0."), "{finished:?}");
    assert_eq!(gateway.commands()[3..], [START, STATUS, START]);
}

#[test]
fn repeated_start_is_stopped_on_exit() {
    let gateway = gateway(0)
        .script(|command, copy| if (command, copy) == (START, 1) { Reaction::LoseRequest } else { Reaction::Answer })
        .start();
    let listener = listener(&gateway, &["--stop-on-exit"]);
    // The answer to the second START.
    listener.wait_for_stdout("R ok\n");
    let finished = end(listener);
    assert_eq!(gateway.commands()[3..], [START, STATUS, START, "CAN 1 STOP\n"]);
    assert!(finished.stderr.ends_with("the bus is halted\n"), "{finished:?}");
}

#[test]
fn unrequested_replies_are_printed_after_a_status() {
    let gateway = gateway(0).start();
    let listener = listener(&gateway, &[]);
    listener.wait_for_stderr("the controller is running");
    for datagram in [" \n", "R ok\n", "R ERR 5 busy\n", "M 1 CSD 100 55\n"] {
        gateway.send(datagram);
    }
    listener.wait_for_stdout("CSD 100 55");
    assert_eq!(end(listener).text(), "R ok\n \nR ok\nR ERR 5 busy\nM 1 CSD 100 55\n");
}

#[test]
fn idle_timeout_ignores_status_replies() {
    let odd = |command: &str, _| match command {
        STATUS => Reaction::ReplyWith(b"R CAN 1 ------ 100\n".to_vec()),
        _ => Reaction::Answer,
    };
    let gateway = gateway(0).script(odd).start();
    let options = ["--idle-timeout", "1", "--timeout", "0.2", "--attempts", "1", "--target", &gateway.target()];
    let finished = run(&mut can_listen(options));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("for 1 s (--idle-timeout)"), "{finished:?}");
    assert_eq!(count(&gateway, STATUS), 1);
}

#[test]
fn unanswered_start_is_not_repeated_after_data() {
    let gateway = gateway(u64::MAX)
        .script(|command, _| if command == START { Reaction::LoseReply } else { Reaction::Answer })
        .start();
    gateway.set_limit(0);
    let listener = listener(&gateway, &[]);
    // It is running, though START was not answered.
    listener.wait_for_stderr("the controller is running");
    gateway.set_limit(u64::MAX);
    listener.wait_for_stderr("data resumed");
    gateway.halt();
    end(listener);
    assert_eq!(count(&gateway, START), 1);
}

#[test]
fn bus_halted_by_another_program_is_explained() {
    let gateway = gateway(u64::MAX).start();
    let port = free_port();
    let bind = format!("0.0.0.0:{port}");
    let options = ["--bind", &bind, "--status-after", "0.2", "--stop-on-exit"];
    let listener = start(can_listen_plain(["--target", &gateway.target()]).args(options));
    wait_until_shared(gateway.wait_for_command(START).from);
    listener.wait_for_lines(5);
    let stopped = run(&mut can_stop(["--bind", &bind, "--target", &gateway.target()]));
    assert_eq!(stopped.code(), Some(0), "{stopped:?}");
    listener.wait_for_stderr("the controller is stopped");
    let finished = end(listener);
    assert!(finished.stderr.ends_with("the bus is halted\n"), "{finished:?}");
    // STOP is sent all the same, since the answer to STATUS may be out of date; it is refused, and STATUS decides.
    assert_eq!(gateway.commands()[3..], [START, "CAN 1 STOP\n", STATUS, "CAN 1 STOP\n", STATUS]);
}

#[test]
fn power_loss_and_restart_are_told_apart() {
    let gateway = gateway(u64::MAX).start();
    let listener = listener(&gateway, &["--attempts", "2", "-q"]);
    listener.wait_for_lines(5);
    gateway.set_power(false);
    listener.wait_for_stderr("no answer to STATUS: ");
    gateway.set_power(true);
    let finished = end(listener);
    assert!(count(&gateway, STATUS) == 2 && count(&gateway, START) == 1, "{:?}", gateway.commands());
    assert!(!finished.stderr.contains("still runs"), "{finished:?}");

    let gateway = self::gateway(u64::MAX).start();
    let listener = self::listener(&gateway, &["-q"]);
    listener.wait_for_lines(5);
    gateway.set_power(false);
    gateway.set_power(true);
    listener.wait_for_stderr("R ERR 10 invalid CAN state");
    end(listener);
}

#[test]
fn silent_gateway_may_still_run_the_bus() {
    let gateway = gateway(u64::MAX).start();
    let listener = listener(&gateway, &["--attempts", "1"]);
    listener.wait_for_lines(5);
    gateway.set_power(false);
    listener.wait_for_stderr("no answer to STATUS");
    let finished = end(listener);
    assert!(finished.stderr.contains("the bus may still run"), "{finished:?}");
}

#[test]
fn ok_to_status_names_the_possible_reasons() {
    let odd = |command: &str, _| match command {
        STATUS => Reaction::ReplyWith(b"R ok\n".to_vec()),
        _ => Reaction::Answer,
    };
    let gateway = gateway(0).script(odd).start();
    let listener = listener(&gateway, &["--bitrate", "125"]);
    listener.wait_for_stderr("the bus is silent, or --bitrate 125 is wrong, or its frames have 29-bit identifiers");
    // It is not printed either.
    assert_eq!(end(listener).text(), "R ok\n");
}

#[test]
fn malformed_and_foreign_status_is_quoted() {
    let lines = [
        "R CAN 1 ---- 100",
        "R CAN 1 ------ 100",
        "R CAN 1 X---- 100",
        "R CAN 1 I---- 100",
        "R CAN 1 -----",
        "R CAN 1 ----- 1000000",
        "R CAN 1 ----- x",
        "R CAN 2 ----- 100",
        "R CAN",
    ];
    let quotes = |line: &'static str| {
        let odd = move |command: &str, _| match command {
            STATUS => Reaction::ReplyWith(format!("{line}\n").into_bytes()),
            _ => Reaction::Answer,
        };
        let gateway = gateway(0).script(odd).start();
        let listener = listener(&gateway, &["--attempts", "1"]);
        // It ends no silence either.
        listener.wait_for_stderr("the gateway answers STATUS with R CAN");
        listener.wait_for_stdout(line);
        end(listener);
    };
    // Most of each session is waiting.
    thread::scope(|scope| lines.iter().for_each(|line| drop(scope.spawn(|| quotes(line)))));
}

#[test]
fn unrequested_status_does_not_disturb_the_handshake() {
    let odd = |command: &str, _| match command {
        START => Reaction::Answer,
        _ => Reaction::Before(b"R CAN 1 ----I 100\n".to_vec()),
    };
    let gateway = gateway(0).script(odd).start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    listener.wait_for_lines(1);
    gateway.send("R CAN 1 ----- 100\n");
    listener.wait_for_lines(2);
    assert_eq!(end(listener).text(), "R ok\nR CAN 1 ----- 100\n");
    assert_eq!(gateway.commands().len(), 4);
}

#[test]
fn doubled_status_reply_is_not_printed() {
    let gateway = gateway(0).start();
    let listener = listener(&gateway, &[]);
    listener.wait_for_stderr("the controller is running");
    gateway.send("R CAN 1 ----- 100\n");
    gateway.send("R CAN 1 ----- 100\nM 1 CSD 100 55\n");
    listener.wait_for_stdout("CSD 100 55");
    assert_eq!(end(listener).text(), "R ok\nR CAN 1 ----- 100\nM 1 CSD 100 55\n");
}

#[test]
fn status_is_not_requested_while_data_flows() {
    let gateway = Gateway::builder().status("----").frames_per_second(10.0).start();
    let listener = start(&mut can_listen(["--target", &gateway.target(), "--status-after", "1"]));
    // Twice as long as --status-after.
    listener.wait_for_lines(21);
    end(listener);
    assert_eq!(gateway.commands().len(), 4, "{:?}", gateway.commands());
}

#[test]
fn status_after_0_never_requests_status() {
    let gateway = gateway(0).start();
    let options = ["--target", &gateway.target(), "--status-after", "0", "--idle-timeout", "1", "--timeout", "0.2"];
    let finished = run(&mut can_listen(options));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    assert_eq!(count(&gateway, STATUS), 0);
    assert!(finished.stderr.contains("the bus is silent"), "{finished:?}");
}

#[test]
fn idle_timeout_error_carries_the_status() {
    let gateway = gateway(5).start();
    // The default of --status-after, 5 s, would be too late.
    let options = ["--target", &gateway.target(), "--idle-timeout", "0.6"];
    let finished = run(&mut can_listen(options));
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    let last = finished.stderr.lines().last().expect("an error");
    assert!(last.contains("for 0.6 s (--idle-timeout): the controller is running: the bus is silent"), "{finished:?}");
    assert_eq!(count(&gateway, STATUS), 1);
}

#[test]
fn status_is_requested_once_a_minute() {
    let gateway = gateway(5).start();
    let listener = listener(&gateway, &[]);
    listener.wait_for_stderr("the controller is running");
    gateway.send("M 1 CSD 100 55\n");
    listener.wait_for_stderr("data resumed");
    let finished = end(listener);
    assert_eq!(finished.stderr.matches("no data for").count(), 1, "{finished:?}");
    // At most once a minute.
    assert_eq!(count(&gateway, STATUS), 1);
}

#[test]
fn status_during_shutdown_starts_nothing_again() {
    let late = |command: &str, _| match command {
        START => Reaction::LoseRequest,
        STATUS => Reaction::LoseReply,
        _ => Reaction::Answer,
    };
    let gateway = gateway(0).script(late).start();
    let listener = listener(&gateway, &[]);
    gateway.wait_for_command(STATUS);
    listener.freeze();
    gateway.send("R CAN 1 ----I 100\n");
    listener.signal(Signal::SIGTERM);
    listener.thaw();
    let finished = listener.wait();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(count(&gateway, START), 1);
}
