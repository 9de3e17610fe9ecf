//! What `can-listen` costs and what it loses, beside other programs that do the same, on this machine.
//!
//! ```text
//! cargo bench                                       everything, about six minutes
//! cargo bench --bench listen -- --quick             everything in about 45 seconds, to see that it works
//! cargo bench --bench listen -- latency flat-out    the cases whose names contain one of the words
//! cargo bench --bench listen -- --rounds 9 load     more rounds than 5
//! ```
//!
//! Cases: `load-N` and `stock-N` with N of 5000, 100000, 300000, flat-out; `pausing-reader`; `formats-300000`,
//! `formats-flat-out`; `latency`; `memory`.
//!
//! A ratio means something only between things that were measured side by side: in each round every program gets the
//! same load, one after the other, and the ratios are taken within the round. The yardstick is the plainest loop there
//! is: in C if there is a `cc` to build it, else in Rust.

mod machine;
mod programs;

use std::borrow::Borrow;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::iter;
use std::process::{self, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use machine::{RestoreRmemMax, rmem_max, set_rmem_max, unlinked_file};
use programs::{
    BUFFER, C_IN_BATCHES, C_ONE_BY_ONE, CAN_LISTEN, DATAGRAM, Listener, Load, PLAIN_LOOP, Program, RUST_LOOP,
    can_listen, pace,
};

/// The receive buffer that a stock Linux grants.
const STOCK_BUFFER: usize = 212_992;

const LOADS: [Load; 4] = [
    Load { name: "5,000/s", per_second: Some(5_000) },
    Load { name: "100,000/s", per_second: Some(100_000) },
    HEAVY,
    FLAT_OUT,
];
const MODERATE: Load = Load { name: "20,000/s", per_second: Some(20_000) };
const HEAVY: Load = Load { name: "300,000/s", per_second: Some(300_000) };
const FLAT_OUT: Load = Load { name: "flat out", per_second: None };

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == PLAIN_LOOP) {
        let port = arguments.last().and_then(|port| port.parse().ok()).expect("a port");
        panic!("the plain loop failed: {:?}", programs::plain_loop(port));
    }
    // So it is when `cargo test --all-targets` runs everything.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing is measured but by cargo bench");
        return;
    }
    let plan = Plan::from_arguments(arguments);
    ctrlc::set_handler(|| {
        programs::kill_running();
        machine::restore_rmem_max();
        process::exit(130);
    })
    .expect("a handler for Ctrl-C");
    let _restore = RestoreRmemMax;
    let programs = programs::all();
    let begun = Instant::now();

    if rmem_max() < BUFFER {
        // If that is not allowed, the heading says what there is.
        let _ = set_rmem_max(BUFFER);
    }
    println!("{}\n", plan.prose());
    println!("## Receive buffer of {} KiB (net.core.rmem_max = {})\n", rmem_max().min(BUFFER) >> 10, rmem_max());
    loads("load", &plan, &programs);
    pausing_reader(&plan, &programs);
    formats(&plan);
    latency(&plan, &programs);
    memory(&plan);
    if plan.wants_any("stock", &LOADS) {
        println!("## Receive buffer of a stock system (net.core.rmem_max = {STOCK_BUFFER})\n");
        match set_rmem_max(STOCK_BUFFER) {
            Ok(()) => loads("stock", &plan, &programs),
            Err(error) => println!("Left out: it is {} and cannot be changed ({error}).\n", rmem_max()),
        }
    }
    println!("All of it took {:.0} s.", begun.elapsed().as_secs_f64());
}

/// What is measured, and for how long.
struct Plan {
    rounds: usize,
    /// How long one program gets one load in one round.
    span: Duration,
    pause: Duration,
    quiet_samples: usize,
    idle: Duration,
    words: Vec<String>,
}

impl Plan {
    const FULL: Plan = Plan {
        rounds: 5,
        span: Duration::from_millis(600),
        pause: Duration::from_secs(10),
        quiet_samples: 200,
        idle: Duration::from_secs(3),
        words: Vec::new(),
    };
    const QUICK: Plan = Plan {
        rounds: 1,
        span: Duration::from_millis(100),
        pause: Duration::from_millis(500),
        quiet_samples: 20,
        idle: Duration::from_secs(1),
        words: Vec::new(),
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
                option if option.starts_with('-') => usage(),
                _ => plan.words.push(argument),
            }
        }
        plan
    }

    fn wants(&self, case: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| case.contains(word))
    }

    fn wants_load(&self, kind: &str, load: &Load) -> bool {
        let load = load.per_second.map_or("flat-out".to_owned(), |rate| rate.to_string());
        self.wants(&format!("{kind}-{load}"))
    }

    fn wants_any(&self, kind: &str, loads: &[Load]) -> bool {
        loads.iter().any(|load| self.wants_load(kind, load))
    }

    fn prose(&self) -> String {
        format!(
            "{machine}. Each datagram has {size} bytes (`{text}`) and comes over loopback from a process on the same \
             machine: at 5,000/s one every 200 µs, at 20,000/s and more a burst every millisecond, the way a network card \
             hands over what a gateway sent. Under load stdout is a file in memory ({sink}) for every program, so that no \
             reader competes for the processors; a pipe would cost those more that write each datagram by itself. \
             {rounds} rounds of {span:?} for each program and load, in each round one program after the other. Received \
             (what was found in the file) and lost are sums over the rounds. CPU time (user and system, all threads, \
             without start-up) for each datagram received, and its ratio to the yardstick's (the row with the 1) in the \
             same round, are medians. Peak memory is the greatest.",
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
    eprintln!("usage: cargo bench --bench listen -- [--quick] [--rounds N] [CASE ...]");
    process::exit(2);
}

fn loads(kind: &str, plan: &Plan, programs: &[Program]) {
    if !plan.wants_any(kind, &LOADS) {
        return;
    }
    let mut notes = Vec::new();
    table_head();
    for load in LOADS.iter().filter(|load| plan.wants_load(kind, load)) {
        let best = if load.per_second.is_none() { C_IN_BATCHES } else { C_ONE_BY_ONE };
        notes.extend(compare(plan, load, programs, yardstick(programs, best)));
    }
    println!("\n{}\n", notes.join(" "));
}

/// Where this loop in C is, or the one in Rust if it could not be built.
fn yardstick(programs: &[Program], best: &str) -> usize {
    let position = |name| programs.iter().position(|program| program.name == name);
    position(best).or_else(|| position(RUST_LOOP)).expect("a yardstick")
}

fn formats(plan: &Plan) {
    let loads = [HEAVY, FLAT_OUT];
    if !plan.wants_any("formats", &loads) {
        return;
    }
    let programs = [
        can_listen("--format raw", &["--format=raw"]),
        can_listen("--format candump", &["--format=candump"]),
        can_listen("--format influx", &["--format=influx"]),
        can_listen("--format pcap", &["--format=pcap"]),
    ];
    let mut notes = Vec::new();
    println!("### Formats\n");
    table_head();
    for load in loads.iter().filter(|load| plan.wants_load("formats", load)) {
        notes.extend(compare(plan, load, &programs, 0));
    }
    println!("\n{}\n", notes.join(" "));
}

fn pausing_reader(plan: &Plan, programs: &[Program]) {
    if !plan.wants("pausing-reader") {
        return;
    }
    println!("### Through a pipe whose reader pauses for {:?}\n", plan.pause);
    table_head();
    for (row, program) in programs.iter().enumerate() {
        let span = plan.pause + 2 * PAUSE_AFTER;
        let outcome = measure(program, &MODERATE, span, Some(plan.pause));
        table_row(if row == 0 { MODERATE.name } else { "" }, program, &[outcome], "");
    }
    println!();
}

fn memory(plan: &Plan) {
    if !plan.wants("memory") {
        return;
    }
    // By default it asks after 5 s why nothing comes.
    let mut listener = Listener::start(&can_listen(CAN_LISTEN, &["--status-after=60"]), Stdio::piped());
    let mut pipe = listener.stdout();
    thread::sleep(Duration::from_secs(1));
    let idle = listener.kib("VmRSS");
    let switches_before = listener.context_switches();
    thread::sleep(plan.idle);
    let switches = listener.context_switches() - switches_before;

    // When the spool fills for the first time, the writer is blocked with little in its hands. Let go for a moment, it
    // takes all that waits, and the spool can fill again: that is as much as there can ever be.
    listener.stream(&FLAT_OUT, Duration::from_secs(3));
    pipe.read_exact(&mut vec![0; 1 << 20]).expect("a full spool");
    listener.stream(&FLAT_OUT, Duration::from_secs(3));
    let full = listener.kib("VmHWM");

    let taken = AtomicU64::new(0);
    let after = thread::scope(|scope| {
        scope.spawn(|| {
            let mut chunk = vec![0; 1 << 16];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                taken.fetch_add(count as u64, Relaxed);
            }
        });
        let mut seen = 0;
        while seen == 0 || seen < taken.load(Relaxed) {
            seen = taken.load(Relaxed);
            thread::sleep(Duration::from_millis(200));
        }
        thread::sleep(Duration::from_secs(5));
        let after = listener.kib("VmRSS");
        listener.end();
        after
    });
    println!("### Memory and idleness of can-listen\n");
    println!("| what | |\n| --- | ---: |");
    println!("| resident, 1 s after START, in silence | {} |", mib(idle));
    println!("| peak, the reader paused and the spool full | {} |", mib(full));
    println!("| resident, 5 s after the reader caught up | {} |", mib(after));
    println!("| context switches of all threads in {:?} of silence | {switches} |\n", plan.idle);
}

fn latency(plan: &Plan, programs: &[Program]) {
    if !plan.wants("latency") {
        return;
    }
    println!("### From sending a datagram until it is read from a pipe\n");
    println!("| datagrams | program | median | 99 % | greatest |\n| --- | --- | ---: | ---: | ---: |");
    let compared = [&programs[0], &programs[yardstick(programs, C_ONE_BY_ONE)]];
    for program in compared {
        let quiet = latencies(program, |send| {
            for _ in 0..plan.quiet_samples {
                thread::sleep(Duration::from_millis(50));
                send(1);
            }
        });
        latency_row("one every 50 ms", program, quiet);
    }
    for program in compared {
        let loaded = latencies(program, |send| {
            pace(&MODERATE, 5 * plan.span, send);
        });
        latency_row(MODERATE.name, program, loaded);
    }
    println!();
}

fn latency_row(datagrams: &str, program: &Program, mut latencies: Vec<Duration>) {
    latencies.sort();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part).round() as usize].as_secs_f64() * 1e3;
    println!("| {datagrams} | {} | {:.2} ms | {:.2} ms | {:.2} ms |", program.name, at(0.5), at(0.99), at(1.0));
}

/// How long each datagram took. They carry their numbers as data.
fn latencies(program: &Program, stream: impl FnOnce(&mut dyn FnMut(usize))) -> Vec<Duration> {
    let mut listener = Listener::start(program, Stdio::piped());
    let pipe = listener.stdout();
    let reader = thread::spawn(move || numbered_arrivals(pipe));
    let mut sent = Vec::new();
    stream(&mut |count| {
        let datagrams: Vec<u8> = (sent.len()..).take(count).flat_map(numbered).collect();
        sent.extend(iter::repeat_n(Instant::now(), count));
        listener.send(&datagrams);
    });
    listener.end();
    let arrivals = reader.join().expect("the reader's arrivals");
    assert!(!arrivals.is_empty(), "nothing arrived from {}", program.name);
    arrivals.into_iter().map(|(number, at)| at - sent[number]).collect()
}

const BEFORE_NUMBER: &[u8] = b"M 1 CSD 100";

fn numbered(number: usize) -> Vec<u8> {
    let mut datagram = BEFORE_NUMBER.to_vec();
    for byte in (number as u64).to_be_bytes() {
        let _ = write!(datagram, " {byte:02X}");
    }
    datagram.push(b'\n');
    datagram
}

fn number(line: &[u8]) -> Option<usize> {
    let digits = String::from_utf8_lossy(line.strip_prefix(BEFORE_NUMBER)?).replace(' ', "");
    usize::from_str_radix(digits.trim_end(), 16).ok()
}

fn numbered_arrivals(mut pipe: ChildStdout) -> Vec<(usize, Instant)> {
    let (mut arrivals, mut unread, mut chunk) = (Vec::new(), Vec::new(), vec![0; 1 << 16]);
    loop {
        let count = pipe.read(&mut chunk).expect("a pipe that can be read");
        let at = Instant::now();
        if count == 0 {
            return arrivals;
        }
        unread.extend_from_slice(&chunk[..count]);
        let complete = unread.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        arrivals.extend(unread[..complete].split_inclusive(|&byte| byte == b'\n').filter_map(number).map(|n| (n, at)));
        unread.drain(..complete);
    }
}

/// What came of one program under one load.
struct Outcome {
    sent: u64,
    sent_per_second: f64,
    received: u64,
    cpu: Duration,
    peak_kib: u64,
}

impl Outcome {
    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.received.max(1) as f64
    }
}

/// Measures all programs in pairs, prints their rows, and tells what there is to be said of the sender.
fn compare(plan: &Plan, load: &Load, programs: &[Program], yardstick: usize) -> Option<String> {
    let rounds: Vec<Vec<Outcome>> = (0..plan.rounds)
        .map(|_| programs.iter().map(|program| measure(program, load, plan.span, None)).collect())
        .collect();
    for (column, program) in programs.iter().enumerate() {
        let ratios = sorted(rounds.iter().map(|round| round[column].cpu_us() / round[yardstick].cpu_us()));
        let ratio = match column == yardstick {
            true => "1".to_owned(),
            false => format!("{:.2} ({:.2}–{:.2})", median(&ratios), ratios[0], ratios[ratios.len() - 1]),
        };
        let outcomes: Vec<&Outcome> = rounds.iter().map(|round| &round[column]).collect();
        table_row(if column == 0 { load.name } else { "" }, program, &outcomes, &ratio);
    }
    let rates = sorted(rounds.iter().flatten().map(|outcome| outcome.sent_per_second));
    match load.per_second {
        None => Some(format!(
            "Flat out the sender reached {} to {} datagrams a second.",
            thousands(rates[0]),
            thousands(rates[rates.len() - 1])
        )),
        Some(rate) if median(&rates) < 0.98 * f64::from(rate) => {
            Some(format!("Of {} the sender reached only {}.", load.name, thousands(median(&rates))))
        }
        Some(_) => None,
    }
}

/// How long a reader that is to pause reads at first.
const PAUSE_AFTER: Duration = Duration::from_millis(500);

/// Stdout is a file, or if the reader is to pause, a pipe.
fn measure(program: &Program, load: &Load, span: Duration, pause: Option<Duration>) -> Outcome {
    let (listener, count): (Listener, Box<dyn FnOnce() -> u64>) = match pause {
        None => {
            let mut sink = unlinked_file();
            let stdout = sink.try_clone().expect("a second handle of the sink");
            let count = move || {
                sink.rewind().expect("a sink that can be read");
                count_datagrams(sink)
            };
            (Listener::start(program, stdout.into()), Box::new(count))
        }
        Some(pause) => {
            let mut listener = Listener::start(program, Stdio::piped());
            let pipe = PausingPipe { pipe: listener.stdout(), at: Instant::now() + PAUSE_AFTER, pause };
            let reader = thread::spawn(move || count_datagrams(pipe));
            (listener, Box::new(|| reader.join().expect("the reader's count")))
        }
    };
    let sent = listener.stream(load, span);
    let (cpu, peak_kib) = listener.end();
    Outcome { sent: sent.datagrams, sent_per_second: sent.per_second, received: count(), cpu, peak_kib }
}

struct PausingPipe {
    pipe: ChildStdout,
    at: Instant,
    pause: Duration,
}

impl Read for PausingPipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.at {
            thread::sleep(std::mem::take(&mut self.pause));
        }
        self.pipe.read(buffer)
    }
}

/// Every line is one datagram of the stream, but for the answer to START; of pcap every record is one, behind a header.
fn count_datagrams(source: impl Read) -> u64 {
    const HEADER: u64 = 24;
    /// Of a frame with 8 bytes.
    const RECORD: u64 = 16 + 8 + 8;
    let mut source = BufReader::with_capacity(1 << 20, source);
    if source.fill_buf().expect("what the program wrote").starts_with(b"\x4D\x3C\xB2\xA1") {
        return (io::copy(&mut source, &mut io::sink()).expect("what the program wrote") - HEADER) / RECORD;
    }
    let (mut count, mut line) = (0, Vec::new());
    while source.read_until(b'\n', &mut line).expect("what the program wrote") > 0 {
        count += u64::from(line != b"R ok\n");
        line.clear();
    }
    count
}

fn table_head() {
    println!("| load | program | received | lost | CPU per datagram | CPU ratio (min–max) | peak memory |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
}

fn table_row(load: &str, program: &Program, outcomes: &[impl Borrow<Outcome>], ratio: &str) {
    let outcomes = || outcomes.iter().map(Borrow::borrow);
    let sent: u64 = outcomes().map(|outcome: &Outcome| outcome.sent).sum();
    let received: u64 = outcomes().map(|outcome| outcome.received).sum();
    let lost = match sent.saturating_sub(received) {
        0 => "0".to_owned(),
        lost => format!("{} ({:.2} %)", thousands(lost as f64), 100.0 * lost as f64 / sent as f64),
    };
    println!(
        "| {load} | {} | {} | {lost} | {:.2} µs | {ratio} | {} |",
        program.name,
        thousands(received as f64),
        median(&sorted(outcomes().map(Outcome::cpu_us))),
        mib(outcomes().map(|outcome| outcome.peak_kib).max().unwrap_or_default()),
    );
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
