//! Exhaustive schedules of the conversation with the gateway.
//!
//! The real sequencer talks to a gateway with a state across a network that loses, delays and doubles requests and
//! replies, for a caller that stops or gives up at any time. A schedule is a list of choices (`choices`): the fate of each
//! transmission (`network`), what the caller and a neighbour do and when (`session`, `case`). Every list with at most one
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

use case::{Before, Case, InitError, Plan};
use choices::Choices;
use session::Session;

fn from_environment<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs the schedule that `choices` stands at; panics with what happened if a promise is broken.
fn run(case: &Case, choices: &mut Choices, epoch: Instant) {
    if Session::run(case, choices, epoch, false).broken.is_some() {
        choices.replay();
        let promises = Session::run(case, choices, epoch, true);
        let trace = promises.trace.unwrap_or_default().join("\n");
        panic!("broken: {}\n{case:?}\n{trace}", promises.broken.unwrap_or_default());
    }
}

/// Replays every schedule of these cases with at most `CAN_FAULTS` faults, 1 if that is not set.
fn exhaust(name: &str, cases: &[Case]) {
    let began = Instant::now();
    let mut schedules = 0_u64;
    for case in cases {
        let mut choices = Choices::exhaustive(from_environment("CAN_FAULTS", 1));
        loop {
            run(case, &mut choices, began);
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
fn handshake_ignores_stale_answers() {
    for stale in ["R ok", "R ERR 10 invalid CAN state", "R CAN 1 ----I 100"] {
        exhaust("stale", &in_each_state(&Case { stale: Some(stale), ..Case::new(Plan::Listen) }));
    }
}

#[test]
fn init_errors_1_and_12_stop_no_bus() {
    for init_error in [InitError::BitRate, InitError::Port] {
        exhaust("init error", &Case { init_error: Some(init_error), ..Case::new(Plan::Listen) }.everywhere());
    }
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
                let mut choices = Choices::random(6, seed);
                for _ in 0..schedules / 648 {
                    run(&case, &mut choices, epoch);
                    choices.advance();
                }
            }
        }
    }
    eprintln!("random: {schedules} schedules in {:.1} s", epoch.elapsed().as_secs_f64());
}
