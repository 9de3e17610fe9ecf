//! What `can-listen` costs and what it loses, next to other programs that do the same, on this machine.
//!
//! ```text
//! cargo bench                                       everything, about half an hour
//! cargo bench --bench listen -- --quick             one short round of everything, to see that it works
//! cargo bench --bench listen -- latency full-speed  the cases whose names contain one of the arguments
//! cargo bench --bench listen -- --rounds 9 rates    nine rounds instead of five
//! cargo bench --bench listen -- --before PATH       compare with another build of can-listen in the same rounds
//! ```
//!
//! Cases: `rates-file-KEY`, `rates-pipe-KEY`, `rates-fleet-KEY`, `rates-stock-KEY`, `peers-KEY`, `formats-KEY` and
//! `stock-KEY` with the keys in `load.rs`; `pausing-reader`; `latency`; `stamps`; `stop`; `memory`.
//!
//! A ratio is meaningful only between programs that were measured side by side: in each round every program gets the
//! same load, one after the other, and the ratios are taken within the round. The baseline is the plainest loop there is:
//! in C if there is a `cc` to build it, else in Rust.

mod compare;
mod delays;
mod listener;
mod load;
mod machine;
mod memory;
mod programs;
mod rates;

use std::env;
use std::process;
use std::time::{Duration, Instant};

use compare::{Outcome, Output, PAUSE_AFTER, baseline, compare, measure, measure_fleet, table_head, table_row};
use listener::DATAGRAM;
use load::{
    BURST_16, BURST_20, BURST_64, BURST_100, BURST_300, CYCLE_20, FLAT_OUT, FLEET, FLEET_250, FLEET_500, Load,
    SINGLE_250, SINGLE_500, SINGLE_1000, SINGLE_2000, SINGLE_5000, SINGLE_20000,
};
use machine::{RestoreRmemMax, rmem_max, set_rmem_max};
use programs::{BUFFER, Program, can_listen, can_listen_before};
use rates::Contest;

/// The receive buffer that a stock Linux grants.
const STOCK_BUFFER: usize = 212_992;

const FILE_LOADS: [Load; 9] =
    [SINGLE_250, CYCLE_20, SINGLE_500, SINGLE_1000, SINGLE_2000, SINGLE_5000, SINGLE_20000, BURST_20, BURST_16];
const PIPE_LOADS: [Load; 6] = [SINGLE_250, CYCLE_20, SINGLE_500, SINGLE_1000, SINGLE_2000, SINGLE_5000];
const FLEET_LOADS: [Load; 2] = [FLEET_250, FLEET_500];
const STOCK_RATES: [Load; 6] = PIPE_LOADS;
/// With all programs.
const PEER_LOADS: [Load; 4] = [SINGLE_5000, BURST_100, BURST_300, FLAT_OUT];
const STOCK_LOADS: [Load; 4] = [BURST_64, BURST_16, BURST_300, FLAT_OUT];
const FORMAT_LOADS: [Load; 3] = [SINGLE_5000, BURST_300, FLAT_OUT];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == programs::PLAIN_LOOP) {
        let port = arguments.last().and_then(|port| port.parse().ok()).expect("a port");
        panic!("the plain loop failed: {:?}", programs::plain_loop(port));
    }
    // `cargo test --all-targets` runs this program without the option.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing is measured except by cargo bench");
        return;
    }
    let plan = Plan::from_arguments(arguments);
    ctrlc::set_handler(|| {
        listener::kill_running();
        machine::restore_rmem_max();
        process::exit(130);
    })
    .expect("a handler for Ctrl-C");
    let _restore = RestoreRmemMax;
    let begun = Instant::now();

    let ours: Vec<Program> = [can_listen()].into_iter().chain(plan.before.as_deref().map(can_listen_before)).collect();
    let baselines = programs::baselines();
    let pairs: Vec<Program> = ours.iter().chain(&baselines[..1]).cloned().collect();
    let all: Vec<Program> = ours.iter().chain(&baselines).chain(&programs::peers()).cloned().collect();

    if rmem_max() < BUFFER {
        // If that is not allowed, the heading shows what there is.
        let _ = set_rmem_max(BUFFER);
    }
    println!("{}\n", plan.description());
    println!("## Receive buffer of {} KiB (net.core.rmem_max = {})\n", rmem_max().min(BUFFER) >> 10, rmem_max());
    let contest = Contest::new(&ours[0], ours.get(1), &baselines[0]);
    let into_file = |program: &Program, load: &Load, span| measure(program, load, span, Output::File);
    let into_pipe =
        |program: &Program, load: &Load, span| measure(program, load, span, Output::Pipe { pause: Duration::ZERO });
    let fleet = |program: &Program, load: &Load, span| measure_fleet(program, FLEET, load, 4 * span);
    plan.rates("file", "Into a file", &FILE_LOADS, &contest, into_file);
    plan.rates("pipe", "Into a pipe", &PIPE_LOADS, &contest, into_pipe);
    plan.rates("fleet", "Many gateways, each with a process that writes into a file", &FLEET_LOADS, &contest, fleet);
    plan.loads("peers", &PEER_LOADS, &all);
    if plan.wants("pausing-reader") {
        pausing_reader(&plan, &all);
    }
    formats(&plan);
    let with_baseline: Vec<&Program> = pairs.iter().collect();
    let ours: Vec<&Program> = ours.iter().collect();
    if plan.wants("latency") {
        delays::latency(&with_baseline, plan.samples * 5, 2 * plan.span);
    }
    if plan.wants("stamps") {
        delays::stamps(&ours, plan.rounds, plan.span);
    }
    if plan.wants("stop") {
        delays::stop(&ours, plan.samples);
    }
    if plan.wants("memory") {
        memory::memory(plan.silence);
    }
    let stock_rates = STOCK_RATES.iter().any(|load| plan.wants_load("rates-stock", load));
    if stock_rates || STOCK_LOADS.iter().any(|load| plan.wants_load("stock", load)) {
        println!("## Receive buffer of a stock system (net.core.rmem_max = {STOCK_BUFFER})\n");
        match set_rmem_max(STOCK_BUFFER) {
            Ok(()) => {
                plan.rates("stock", "Into a file", &STOCK_RATES, &contest, into_file);
                plan.loads("stock", &STOCK_LOADS, &[&pairs, &baselines[1..]].concat());
            }
            Err(error) => println!("Not measured: it is {} and cannot be changed ({error}).\n", rmem_max()),
        }
    }
    println!("All of it took {:.0} s.", begun.elapsed().as_secs_f64());
}

/// What is measured, and for how long.
struct Plan {
    is_quick: bool,
    rounds: usize,
    /// How long one program gets one load in one round.
    span: Duration,
    pause: Duration,
    samples: usize,
    silence: Duration,
    /// Another build of can-listen.
    before: Option<String>,
    cases: Vec<String>,
}

impl Plan {
    const FULL: Plan = Plan {
        is_quick: false,
        rounds: 5,
        span: Duration::from_millis(1000),
        pause: Duration::from_secs(10),
        samples: 20,
        silence: Duration::from_secs(3),
        before: None,
        cases: Vec::new(),
    };
    const QUICK: Plan = Plan {
        is_quick: true,
        rounds: 1,
        span: Duration::from_millis(100),
        pause: Duration::from_millis(500),
        samples: 2,
        silence: Duration::from_secs(1),
        before: None,
        cases: Vec::new(),
    };

    fn from_arguments(arguments: Vec<String>) -> Plan {
        let mut plan = if arguments.iter().any(|argument| argument == "--quick") { Plan::QUICK } else { Plan::FULL };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" | "--quick" => {}
                "--rounds" => {
                    let rounds = arguments.next().and_then(|number| number.parse().ok());
                    plan.rounds = rounds.filter(|&rounds| rounds > 0).unwrap_or_else(|| usage());
                }
                "--before" => plan.before = Some(arguments.next().unwrap_or_else(|| usage())),
                option if option.starts_with('-') => usage(),
                _ => plan.cases.push(argument),
            }
        }
        plan
    }

    fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| case.contains(wanted))
    }

    fn wants_load(&self, kind: &str, load: &Load) -> bool {
        self.wants(&format!("{kind}-{}", load.key))
    }

    /// A table with one row for each load. A quick round has two.
    fn rates(
        &self,
        kind: &str,
        title: &str,
        loads: &[Load],
        contest: &Contest,
        measure: impl Fn(&Program, &Load, Duration) -> Outcome,
    ) {
        let wanted = loads.iter().filter(|load| self.wants_load(&format!("rates-{kind}"), load)).copied();
        let loads: Vec<Load> = wanted.take(if self.is_quick { 2 } else { loads.len() }).collect();
        if !loads.is_empty() {
            println!("### {title}\n");
            contest.table(self.rounds, self.span, &loads, measure);
        }
    }

    /// A table with one group of rows for each load.
    fn loads(&self, kind: &str, loads: &[Load], programs: &[Program]) {
        let loads: Vec<&Load> = loads.iter().filter(|load| self.wants_load(kind, load)).collect();
        if loads.is_empty() {
            return;
        }
        table_head();
        let remarks: Vec<String> = loads
            .into_iter()
            .flat_map(|load| compare(self.rounds, self.span, load, programs, baseline(programs, load)))
            .collect();
        println!("\n{}\n", remarks.join(" "));
    }

    fn description(&self) -> String {
        let caution = match self.is_quick {
            true => "**One short round: this shows that the benchmark works. Its ratios mean nothing.** ",
            false => "",
        };
        format!(
            "{caution}{machine}. Each datagram has {size} bytes (`{text}`) and comes over loopback from a process on the \
             same machine, one by one or in bursts, at equal intervals. Where no pipe is named, stdout is a file in memory \
             ({sink}) for every program, so that no reader competes for the processors. {rounds} rounds of {span:?} (up to \
             four times as long where few wake-ups come in a second) for each program and load, in each round one program \
             after the other. Received (what was found in the file) and lost are sums over the rounds. CPU time (user and \
             system, all threads, without start-up and shutdown) for each datagram received, and its ratio to the \
             baseline's (the row with the 1) in the same round, are medians. Peak memory is the maximum.",
            machine = machine::describe(),
            size = DATAGRAM.len(),
            text = String::from_utf8_lossy(DATAGRAM).trim(),
            sink = machine::sink_folder().display(),
            rounds = self.rounds,
            span = self.span,
        )
    }
}

fn usage() -> ! {
    eprintln!("usage: cargo bench --bench listen -- [--quick] [--rounds N] [--before PATH] [CASE ...]");
    process::exit(2);
}

fn formats(plan: &Plan) {
    if !FORMAT_LOADS.iter().any(|load| plan.wants_load("formats", load)) {
        return;
    }
    let programs = [
        Program { name: "--format raw", ..can_listen().with(&["--format=raw"]) },
        Program { name: "--format candump", ..can_listen().with(&["--format=candump"]) },
        Program { name: "--format influx", ..can_listen().with(&["--format=influx"]) },
        Program { name: "--format pcap", ..can_listen().with(&["--format=pcap"]) },
    ];
    println!("### Formats\n");
    table_head();
    let mut remarks = Vec::new();
    for load in FORMAT_LOADS.iter().filter(|load| plan.wants_load("formats", load)) {
        remarks.extend(compare(plan.rounds, plan.span, load, &programs, 0));
    }
    println!("\n{}\n", remarks.join(" "));
}

fn pausing_reader(plan: &Plan, programs: &[Program]) {
    println!("### Through a pipe whose reader pauses for {:?}\n", plan.pause);
    table_head();
    for (row, program) in programs.iter().enumerate() {
        let span = plan.pause + 2 * PAUSE_AFTER;
        let outcome = measure(program, &BURST_20, span, Output::Pipe { pause: plan.pause });
        table_row(if row == 0 { BURST_20.name } else { "" }, program, &[&outcome], "");
    }
    println!();
}
