//! Promise: over a network with random faults the programs say nothing that is false of the gateway, never start a bus without
//! exactly the wanted filters, and fail only with "no reply" or in doubt.
//!
//! 24 sessions run by default; `CAN_SESSIONS=1000 CAN_SEED=7 cargo test --test cli random_faults` runs any number of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::programs::{Output, can_listen, can_stop, is_in_doubt, run, start};
use crate::simulator::{ControllerState, Device, Gateway, Rng, random_faults};
use nix::sys::signal::Signal;

const TIMEOUT: Duration = Duration::from_millis(200);

/// How late this machine may be to keep the simulated network's promises: see [`random_faults`].
const MAX_LATENESS: Duration = Duration::from_millis(8);

/// Sessions that are judged anew because the machine was busy.
const MAX_REPETITIONS: u32 = 10;

#[test]
fn random_faults_lead_to_no_false_statement() {
    let number = |name: &str, default| match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    };
    let (first, count) = (number("CAN_SEED", 1), number("CAN_SESSIONS", 24));
    let next = AtomicU64::new(first);
    // Most of a session is waiting.
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    judge(seed);
                }
            });
        }
    });
}

fn judge(seed: u64) {
    for _ in 0..MAX_REPETITIONS {
        let (gateway, result) = session(seed);
        let Err(fault) = result else { return };
        // The faults of a busy machine are not those of the network that the programs assume.
        if gateway.lateness() <= MAX_LATENESS {
            let executed: String =
                gateway.executed().iter().map(|e| format!("\n  {:?} -> {:?}", e.command, e.reply)).collect();
            panic!("seed {seed} (CAN_SEED={seed} CAN_SESSIONS=1): {fault}; the gateway carried out:{executed}");
        }
    }
    panic!("seed {seed}: this machine is too busy to simulate a network");
}

/// A can-listen, then a can-stop, each of whose statements is compared with the gateway.
fn session(seed: u64) -> (Gateway, Result<(), String>) {
    // Not the sequence of the faults.
    let mut rng = Rng::new(seed ^ 0x5555_5555);
    let mut device = Device::new();
    for left_over in ["INIT STD 125", "FILTER ADD STD 7 7", "FILTER ADD EXT 0 0"] {
        device.execute(&format!("CAN 1 {left_over}"));
    }
    let states = [ControllerState::Uninitialised, ControllerState::Stopped, ControllerState::Running];
    device.set_state(1, states[rng.below(3) as usize]);
    let faults = random_faults(seed, 10 + rng.below(50), TIMEOUT);
    let gateway = Gateway::builder().device(device).frames_per_second(200.0).script(faults).start();
    let result = listen(&gateway, &mut rng).and_then(|()| stop(&gateway));
    (gateway, result)
}

fn listen(gateway: &Gateway, rng: &mut Rng) -> Result<(), String> {
    let options = ["--timeout", "0.2", "--status-after", "0.5", "--idle-timeout", "5", "-n", "50"];
    let mut command = can_listen(options);
    command.args(["--target", &gateway.target()]);
    let wanted: &[&str] = if rng.below(2) == 0 {
        &["STD 0 0"]
    } else {
        command.args(["--filter", "STD:100:700", "--filter", "EXT:1:1F"]);
        &["STD 100 700", "EXT 1 1F"]
    };
    if rng.below(2) == 0 {
        command.arg("--stop-on-exit");
    }
    let listener = start(&mut command);
    let interrupt = rng.below(3) == 0;
    let after = Duration::from_millis(rng.below(1500));
    if interrupt {
        thread::sleep(after);
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(listener.id() as i32), Signal::SIGINT);
    }
    let finished = listener.wait();
    let running_at_exit = gateway.is_running();
    wait_until_the_network_is_empty();

    let check = Check { finished: &finished };
    // A signal before the program has installed its handler kills it.
    let is_allowed = match finished.code() {
        Some(0 | 1) => true,
        Some(130) | None => interrupt,
        Some(_) => false,
    };
    check.that(is_allowed, "the exit code")?;
    check.claim("the bus still runs", running_at_exit)?;
    check.claim("the bus is halted", !gateway.is_running())?;
    check.claim("is stopped now", !gateway.is_running())?;
    check.claim("the bus was not started", !gateway.is_running())?;
    if finished.code() == Some(1) {
        let is_honest = is_in_doubt(&finished.stderr) || finished.stderr.contains("no reply to");
        check.that(is_honest || finished.stderr.contains("no data from"), "how it failed")?;
    }
    let starts = gateway.commands().iter().filter(|command| *command == "CAN 1 START\n").count();
    let allowed = 1 + usize::from(finished.stderr.contains("START was lost"));
    check.that(starts <= allowed, "the number of STARTs")?;
    for execution in gateway.executed() {
        let filters: Vec<String> = execution.after.filters(1).iter().map(ToString::to_string).collect();
        let has_started = !execution.before.is_running(1) && execution.after.is_running(1);
        check.that(!has_started || filters == wanted, &format!("filters {filters:?} while it runs"))?;
    }
    Ok(())
}

fn stop(gateway: &Gateway) -> Result<(), String> {
    let options = ["--confirm", "--timeout", "0.2", "--bind", "127.0.0.1:0", "--target", &gateway.target()];
    let finished = run(&mut can_stop(options));
    wait_until_the_network_is_empty();
    let check = Check { finished: &finished };
    check.that(matches!(finished.code(), Some(0 | 1)), "the exit code")?;
    check.claim("halted", !gateway.is_running())?;
    check.that(finished.code() != Some(0) || !gateway.is_running(), "success")?;
    let is_honest = is_in_doubt(&finished.stderr) || finished.stderr.contains("no reply to");
    check.that(finished.code() == Some(0) || is_honest, "how it failed")
}

/// Until then a request can still be carried out.
fn wait_until_the_network_is_empty() {
    thread::sleep(2 * TIMEOUT);
}

struct Check<'a> {
    finished: &'a Output,
}

impl Check<'_> {
    fn that(&self, holds: bool, what: &str) -> Result<(), String> {
        if holds {
            Ok(())
        } else {
            Err(format!("{what} is wrong: exit code {:?}, {:?}", self.finished.code(), self.finished.stderr))
        }
    }

    /// What is said must be true.
    fn claim(&self, statement: &str, is_true: bool) -> Result<(), String> {
        self.that(is_true || !self.finished.stderr.contains(statement), &format!("{statement:?}"))
    }
}
