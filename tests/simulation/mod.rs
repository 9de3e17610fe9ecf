//! Whole sessions in virtual time: the real session, connection, sequencer, printer and report against a simulated world, and
//! an oracle that judges every sentence.
//!
//! ```text
//! SESSIONS=1000000 SEED=7 cargo test --release simulation -- --nocapture   # WILD=1: beyond the assumptions
//! PLAN=file cargo test simulation::scenario_of_a_file -- --nocapture       # one stored scenario, with its trace
//! ```
//!
//! `generate` draws a plan from a seed, `world` follows it, `process` is the session's socket, clock, stdout and stderr there;
//! `oracle` reads the log. A session that violates a claim is shortened by `shrink` and shown.

mod generate;
mod log;
mod oracle;
mod plan;
mod process;
mod program;
mod protocol;
mod scenarios;
mod sentences;
mod shrink;
mod world;

#[path = "../support/simulator/device.rs"]
mod device;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use log::{Ending, Fact, Log};
use oracle::Violation;
use plan::Plan;

/// How long `cargo test` runs sessions, and how many at least.
const DEFAULT_TIME: Duration = Duration::from_secs(5);
const DEFAULT_SESSIONS: u64 = 5_000;

const THREADS: u64 = 2;

/// How many attempts are made to shorten a scenario.
const SHRINK_ATTEMPTS: u32 = 3_000;

/// Of so many sessions one is run twice.
const REPEATED: u64 = 50;

thread_local! {
    static IS_SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// Panics of a session are found by the oracle and need no text on stderr.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_SIMULATED.get() {
                hook(info);
            }
        }));
    });
}

fn run(plan: &Plan) -> Log {
    silence_panics();
    IS_SIMULATED.set(true);
    let log = program::run(plan);
    IS_SIMULATED.set(false);
    log
}

fn check(plan: &Plan, wild: bool) -> (Log, Vec<Violation>) {
    let log = run(plan);
    let violations = oracle::judge(plan, &log, wild);
    (log, violations)
}

/// What the sessions of a run showed.
#[derive(Default)]
struct Totals {
    sessions: u64,
    virtual_seconds: f64,
    /// By claim: how many sessions, and the first seed.
    violations: BTreeMap<&'static str, (u64, u64)>,
    messages: BTreeMap<String, u64>,
    endings: BTreeMap<String, u64>,
}

impl Totals {
    fn add(&mut self, seed: u64, log: &Log, violations: &[Violation]) {
        self.sessions += 1;
        self.virtual_seconds += log.facts.last().map_or(0.0, |(at, _)| log::seconds(*at));
        for violation in violations {
            let (count, first) = self.violations.entry(violation.claim).or_insert((0, seed));
            (*count, *first) = (*count + 1, seed.min(*first));
        }
        for (_, fact) in &log.facts {
            match fact {
                Fact::Said(message, _) => {
                    for line in sentences::lines(message) {
                        *self.messages.entry(sentences::kind(line)).or_default() += 1;
                    }
                }
                Fact::Ended(ending) => {
                    let name = match ending {
                        Ending::Panic(_) => "Panic".to_owned(),
                        other => format!("{other:?}"),
                    };
                    *self.endings.entry(name).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    fn merge(&mut self, other: Totals) {
        self.sessions += other.sessions;
        self.virtual_seconds += other.virtual_seconds;
        for (claim, (count, seed)) in other.violations {
            let (sum, first) = self.violations.entry(claim).or_insert((0, seed));
            (*sum, *first) = (*sum + count, seed.min(*first));
        }
        other.messages.into_iter().for_each(|(name, count)| *self.messages.entry(name).or_default() += count);
        other.endings.into_iter().for_each(|(name, count)| *self.endings.entry(name).or_default() += count);
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// A violation of this claim, shortened, with its trace.
fn report(claim: &str, seed: u64, wild: bool) -> String {
    let plan = generate::plan(seed, wild);
    let fails =
        |plan: &Plan| (wild || plan.is_tame()) && check(plan, wild).1.iter().any(|violation| violation.claim == claim);
    let short = shrink::shrink(&plan, SHRINK_ATTEMPTS, fails);
    let (log, violations) = check(&short, wild);
    let detail = violations.iter().find(|violation| violation.claim == claim);
    let (at, detail) = detail.map_or((0, String::new()), |violation| (violation.at, violation.detail.clone()));
    format!(
        "\n=== claim {claim} (seed {seed}), at {:.6}: {detail}\n--- plan\n{short}--- trace\n{}",
        log::seconds(at),
        log.trace()
    )
}

#[test]
fn sessions_say_only_what_is_true() {
    let wild = number("WILD").is_some_and(|wild| wild > 0);
    let first = number("SEED").unwrap_or(1).wrapping_mul(1_000_000_007);
    let wanted = number("SESSIONS");
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Totals::default());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut mine = Totals::default();
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    let is_done = match wanted {
                        Some(wanted) => index >= wanted,
                        None => index >= DEFAULT_SESSIONS && began.elapsed() >= DEFAULT_TIME,
                    };
                    if is_done {
                        break;
                    }
                    let seed = first.wrapping_add(index);
                    let plan = generate::plan(seed, wild);
                    let (log, mut violations) = check(&plan, wild);
                    if index % REPEATED == 0 && run(&plan) != log {
                        violations.push(Violation {
                            claim: "52 the same seed makes another session",
                            at: 0,
                            detail: String::new(),
                        });
                    }
                    mine.add(seed, &log, &violations);
                }
                totals.lock().expect("no thread panics").merge(mine);
            });
        }
    });
    let totals = totals.into_inner().expect("no thread panics");
    let elapsed = began.elapsed().as_secs_f64();
    println!(
        "simulation: {} sessions, {} violations, {:.0} sessions/s ({:.0} virtual seconds/s)",
        totals.sessions,
        totals.violations.values().map(|(count, _)| count).sum::<u64>(),
        totals.sessions as f64 / elapsed,
        totals.virtual_seconds / elapsed
    );
    let mut text = String::new();
    if number("QUIET").is_none() {
        for (name, count) in totals.endings.iter().chain(&totals.messages) {
            println!("{count:>9}  {name}");
        }
    }
    for (claim, (count, seed)) in &totals.violations {
        println!("{count:>9}  VIOLATED {claim} (seed {seed})");
    }
    let shown = number("SHOW").unwrap_or(5) as usize;
    let only = env::var("CLAIM").unwrap_or_default();
    for (claim, (_, seed)) in totals.violations.iter().filter(|(claim, _)| claim.starts_with(&only)).take(shown) {
        text += &report(claim, *seed, wild);
    }
    assert!(totals.violations.is_empty() || wild, "{text}");
    if wild {
        println!("{text}");
    }
}

#[test]
fn stored_scenarios_violate_nothing() {
    let mut failed = String::new();
    for (name, text) in scenarios::ALL {
        let plan: Plan = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (log, violations) = check(&plan, false);
        if !violations.is_empty() {
            failed += &format!("{name}: {violations:#?}\n{}\n", log.trace());
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

/// Shows the session of the plan in the file `PLAN`, or of the seed `TRACE`.
#[test]
fn scenario_of_a_file() {
    let plan = match (env::var("PLAN"), number("TRACE")) {
        (Ok(path), _) => fs::read_to_string(path).expect("a file").parse().expect("a plan"),
        (_, Some(seed)) => generate::plan(seed, number("WILD").is_some()),
        _ => return,
    };
    let (log, violations) = check(&plan, false);
    println!("{plan}---\n{}\n{violations:#?}", log.trace());
}

#[test]
fn plans_are_read_as_they_are_written() {
    for seed in 0..2_000 {
        let plan = generate::plan(seed, seed % 2 == 0);
        let text = plan.to_string();
        assert_eq!(text.parse::<Plan>().expect("it was written"), plan, "{text}");
    }
}

#[test]
fn plans_are_within_the_assumptions() {
    for seed in 0..5_000 {
        let plan = generate::plan(seed, false);
        assert!(plan.is_tame(), "seed {seed}:\n{plan}");
    }
}
