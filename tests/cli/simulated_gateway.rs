//! Promise: the simulated gateway answers as the vendor's does, and its random network is the one that the programs assume.

use std::time::Duration;

use crate::simulator::{ControllerState, Device, Reaction, random_faults};

/// Carries out each command and compares the reply.
#[track_caller]
fn conversation(device: &mut Device, lines: &[(&str, &str)]) {
    for (command, reply) in lines {
        let answered = device.handle(format!("{command}\n").as_bytes());
        let expected = if reply.starts_with("R CAN") || *reply == "R ok" {
            format!("{reply}\n")
        } else {
            format!("R ERR {reply}")
        };
        let answered = String::from_utf8_lossy(&answered);
        assert!(answered.starts_with(&expected), "{command:?} was answered {answered:?}, not {expected:?}");
    }
}

#[test]
fn device_refuses_what_its_state_forbids() {
    let mut device = Device::new();
    conversation(
        &mut device,
        &[
            ("CAN 1 STATUS", "10 "),
            ("CAN 1 START", "10 "),
            ("CAN 1 STOP", "10 "),
            ("CAN 1 FILTER CLEAR", "10 "),
            ("CAN 1 INIT STD 251", "1 "),
            ("CAN 1 INIT STD 250", "R ok"),
            ("CAN 1 STATUS", "R CAN 1 ----I 100"),
            ("CAN 1 STOP", "10 "),
            ("CAN 1 START", "R ok"),
            ("CAN 1 START", "10 "),
            ("CAN 1 INIT STD 250", "10 "),
            ("CAN 1 FILTER ADD STD 0 0", "10 "),
            ("CAN 1 STATUS", "R CAN 1 ----- 100"),
            ("CAN 2 STATUS", "10 "),
            ("CAN 1 STOP", "R ok"),
            ("CAN 5 STOP", "12 "),
            ("STOP", "0 "),
        ],
    );
    device.lose_power();
    assert_eq!(device.state(1), ControllerState::Uninitialised);
}

#[test]
fn device_has_five_filters_of_each_kind_and_none_twice() {
    let mut device = Device::new();
    conversation(&mut device, &[("CAN 1 INIT STD 250", "R ok"), ("CAN 1 FILTER ADD STD 001 7FF", "R ok")]);
    conversation(
        &mut device,
        &[("CAN 1 FILTER ADD type=STD id=1 mask=7ff", "5 "), ("can  1 filter  add std 0 0", "R ok")],
    );
    conversation(&mut device, &[("CAN 1 FILTER ADD STD 800 0", "7 "), ("CAN 1 FILTER ADD CAN 1 0", "9 ")]);
    for n in 2..5 {
        conversation(&mut device, &[(&*format!("CAN 1 FILTER ADD STD {n} 7FF"), "R ok")]);
    }
    conversation(&mut device, &[("CAN 1 FILTER ADD STD 5 7FF", "6 "), ("CAN 1 FILTER ADD EXT 5 7FF", "R ok")]);
    for n in 6..10 {
        conversation(&mut device, &[(&*format!("CAN 1 FILTER ADD EXT {n} 7FF"), "R ok")]);
    }
    conversation(&mut device, &[("CAN 1 FILTER ADD EXT 10 7FF", "4 ")]);
    assert_eq!(device.filters(1).len(), 10);
    conversation(&mut device, &[("CAN 1 FILTER CLEAR", "R ok")]);
    assert_eq!(device.filters(1), []);
}

#[test]
fn device_answers_each_line_with_its_line_ending() {
    for line_ending in ["\n", "\r", "\r\n", "\\n", "\\r", "\\r\\n"] {
        let mut device = Device::new();
        device.line_ending = line_ending;
        let reply = device.handle(b"CAN 1 INIT mode=LISTEN baudA=500 baudD=2000 iso=ISO\nCAN 1 START\n");
        assert_eq!(String::from_utf8_lossy(&reply), format!("R ok{line_ending}R ok{line_ending}"));
    }
}

#[test]
fn accepting_device_refuses_only_init_while_running() {
    let mut device = Device::new();
    device.accepting = true;
    conversation(
        &mut device,
        &[
            ("CAN 1 STOP", "R ok"),
            ("CAN 1 FILTER ADD STD 0 0", "R ok"),
            ("CAN 1 FILTER ADD STD 0 0", "R ok"),
            ("CAN 1 START", "R ok"),
            ("CAN 1 START", "R ok"),
            ("CAN 1 INIT STD 250", "10 "),
        ],
    );
}

#[test]
fn random_faults_are_those_of_the_assumed_network() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let mut faults = 0;
    for seed in 0..200 {
        let mut script = random_faults(seed, 50, TIMEOUT);
        for _ in 0..50 {
            let Reaction::Fate(copies) = script("CAN 1 STOP\n", 1) else { continue };
            faults += 1;
            let answers = || copies.iter().flat_map(|copy| copy.answers.iter().copied());
            let all = || copies.iter().map(|copy| copy.carried_out).chain(answers());
            assert!(all().all(|time| time < 2 * TIMEOUT), "too late: {copies:?}");
            assert!(
                copies.iter().all(|copy| copy.answers.iter().all(|&answer| answer >= copy.carried_out)),
                "{copies:?}"
            );
            if let Some(first) = answers().min() {
                assert!(
                    all().all(|time| time < first + Duration::from_millis(20)),
                    "after its first answer: {copies:?}"
                );
            }
        }
    }
    assert!(faults > 4000, "only {faults} faults");
}
