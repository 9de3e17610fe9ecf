//! Exhaustive schedules of the conversation with the gateway.
//!
//! The real sequencer talks to a gateway with a state across a network that loses, delays and doubles requests and
//! replies, for a caller that stops or gives up at any time. A schedule is a list of choices (`choices`): the fate of each
//! transmission (`network`), what the caller and a neighbour do and when (`caller`, `case`). Every list with at most one
//! fault is replayed, and after each schedule the promises in `promises` must have held. A fault is a fate other than an
//! answer in time, or a pause of the program; what the caller and the neighbour do counts as none.
//!
//! Two faults and random schedules are run by hand:
//!
//! ```text
//! CAN_FAULTS=2 cargo test --release --test schedules -- --nocapture
//! CAN_RANDOM=1000000 cargo test --release --test schedules random -- --nocapture
//! ```

mod caller;
mod case;
mod choices;
#[path = "../support/simulator/device.rs"]
mod device;
mod network;
mod promises;
mod reports;
mod session;
mod world;

use std::str::FromStr;
use std::time::Instant;

use case::{Before, Case, Plan, Refusal};
use choices::Choices;
use session::Session;
use world::World;

fn from_environment<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs the schedule that `choices` stands at; panics with what happened if a promise is broken.
fn run(case: &Case, world: &World, choices: &mut Choices, epoch: Instant) {
    if Session::run(case, world, choices, epoch, false).broken.is_some() {
        choices.replay();
        let promises = Session::run(case, world, choices, epoch, true);
        let trace = promises.trace.unwrap_or_default().join("\n");
        panic!("broken: {}\n{case:?}\n{trace}", promises.broken.unwrap_or_default());
    }
}

/// Replays every schedule of these cases with at most `CAN_FAULTS` faults, 1 if that is not set.
fn exhaust(name: &str, cases: &[Case]) {
    let began = Instant::now();
    let mut schedules = 0_u64;
    for case in cases {
        let (world, mut choices) = (case.world(), Choices::exhaustive(from_environment("CAN_FAULTS", 1)));
        loop {
            run(case, &world, &mut choices, began);
            schedules += 1;
            if !choices.advance() {
                break;
            }
        }
    }
    eprintln!("{name}: {schedules} schedules in {:.1} s", began.elapsed().as_secs_f64());
}

/// The case at gateways in each state.
fn in_each_state(case: &Case) -> Vec<Case> {
    [Before::Uninitialised, Before::Stopped, Before::Running].map(|before| Case { before, ..case.clone() }).into()
}

#[test]
fn handshake_keeps_every_promise() {
    exhaust("handshake", &Case::new(Plan::Listen).everywhere());
}

#[test]
fn stale_answers_are_credited_to_nothing() {
    for stale in ["R ok", "R ERR 10 invalid CAN state", "R CAN 1 ----I 100"] {
        for plan in [Plan::Listen, Plan::StopOnly] {
            exhaust("stale", &in_each_state(&Case { stale: Some(stale), ..Case::new(plan) }));
        }
    }
}

#[test]
fn refused_init_stops_only_a_bus_that_may_run() {
    exhaust("no such port", &Case { channel: 2, ..Case::new(Plan::Listen) }.everywhere());
    let numbers = (0..=40).filter(|&number| number != 10).map(|number| format!("R ERR {number} invalid"));
    let mut cases = Vec::new();
    for text in numbers.chain(["R ERR".to_owned(), "R ERR init failed".to_owned()]) {
        for while_running in [false, true] {
            for knows_status in [false, true] {
                let refusal = Refusal { while_running, ..Refusal::new("INIT", &text) };
                cases.extend(in_each_state(&Case { knows_status, refusal: Some(refusal), ..Case::new(Plan::Listen) }));
            }
        }
    }
    exhaust("INIT refused", &cases);
}

#[test]
fn other_refusals_keep_every_promise() {
    let (handshake, any) = ([Plan::Listen].as_slice(), [Plan::Listen, Plan::Stop, Plan::Cancel, Plan::StopOnly]);
    let mut cases = Vec::new();
    for (command, text, times, plans) in [
        ("INIT", "R ERR 23 init failed", 1, handshake),
        ("FILTER CLEAR", "R ERR 10 invalid CAN state", u32::MAX, handshake),
        ("FILTER ADD", "R ERR 6 standard filter is full", 3, handshake),
        ("FILTER ADD", "R ERR 7 invalid identifier or mask", u32::MAX, handshake),
        ("START", "R ERR 3 start failed", u32::MAX, &any[..3]),
        ("STOP", "R ERR 2 stop failed", 1, &any[3..]),
        ("STOP", "R ERR 2 stop failed", u32::MAX, &any),
    ] {
        // No STATUS is sent about the filters.
        let gateways = if command.starts_with("FILTER") { [true].as_slice() } else { &[true, false] };
        let refusal = Some(Refusal { times, ..Refusal::new(command, text) });
        for &plan in plans {
            for before in [Before::Stopped, Before::Running] {
                for &knows_status in gateways {
                    cases.push(Case { before, knows_status, refusal: refusal.clone(), ..Case::new(plan) });
                }
            }
        }
    }
    exhaust("refused", &cases);
}

#[test]
fn stop_at_any_time_keeps_every_promise() {
    let case = Case::new(Plan::Stop);
    let mut cases = in_each_state(&case);
    cases.push(Case { attempts: 1, before: Before::Stopped, ..case.clone() });
    cases.push(Case { filters: 2, knows_status: false, before: Before::Stopped, ..case.clone() });
    exhaust("stop", &cases);
}

#[test]
fn cancel_at_any_time_keeps_every_promise() {
    exhaust("cancel", &in_each_state(&Case::new(Plan::Cancel)));
}

#[test]
fn restart_at_any_time_keeps_every_promise() {
    exhaust("restart", &in_each_state(&Case { before: Before::Stopped, ..Case::new(Plan::Restart) })[1..]);
}

#[test]
fn status_and_its_end_keep_every_promise() {
    exhaust("status", &Case { before: Before::Stopped, ..Case::new(Plan::Status) }.everywhere());
}

#[test]
fn stop_alone_keeps_every_promise() {
    exhaust("can-stop", &Case::new(Plan::StopOnly).everywhere());
}

#[test]
fn what_is_busy_changes_nothing() {
    for plan in [Plan::Listen, Plan::Stop, Plan::StopOnly] {
        exhaust("busy", &in_each_state(&Case { pesters: true, ..Case::new(plan) }));
    }
}

#[test]
fn neighbour_makes_no_report_untrue() {
    for neighbour in ["STOP", "START"] {
        for plan in [Plan::Listen, Plan::Status, Plan::StopOnly] {
            exhaust("neighbour", &in_each_state(&Case { neighbour: Some(neighbour), ..Case::new(plan) }));
        }
    }
}

#[test]
fn random_faults_break_no_promise() {
    let epoch = Instant::now();
    let schedules = from_environment("CAN_RANDOM", 2_000);
    let plans = [Plan::Listen, Plan::Stop, Plan::Cancel, Plan::Restart, Plan::Status, Plan::StopOnly];
    for (seed, plan) in (1..).zip(plans) {
        for neighbour in [None, Some("STOP"), Some("START")] {
            for case in (Case { neighbour, ..Case::new(plan) }).everywhere() {
                let (world, mut choices) = (case.world(), Choices::random(6, seed));
                for _ in 0..schedules / 648 {
                    run(&case, &world, &mut choices, epoch);
                    choices.advance();
                }
            }
        }
    }
    eprintln!("random: {schedules} schedules in {:.1} s", epoch.elapsed().as_secs_f64());
}
