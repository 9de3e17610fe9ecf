//! Measures programs side by side under one load and prints a table.

use std::io::{self, BufRead, BufReader, Read, Seek};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::listener::Listener;
use crate::load::{FLAT_OUT, Load};
use crate::machine::unlinked_file;
use crate::programs::{C_IN_BATCHES, C_ONE_BY_ONE, CAN_LISTEN, CAN_LISTEN_BEFORE, Program, RUST_LOOP};

/// One program under one load.
pub struct Outcome {
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

/// The position of the plain loop that ratios are taken to: the faster of the two in C at full speed, else the one that
/// reads one datagram at a time.
pub fn baseline(programs: &[Program], load: &Load) -> usize {
    let position = |name| programs.iter().position(|program| program.name == name);
    let best = if load.key == FLAT_OUT.key { C_IN_BATCHES } else { C_ONE_BY_ONE };
    position(best).or_else(|| position(RUST_LOOP)).expect("a baseline")
}

/// Measures all programs in each round, one after the other, prints their rows, and returns remarks.
pub fn compare(rounds: usize, span: Duration, load: &Load, programs: &[Program], baseline: usize) -> Vec<String> {
    let rounds: Vec<Vec<Outcome>> =
        (0..rounds).map(|_| programs.iter().map(|program| measure(program, load, span, None)).collect()).collect();
    let ratios = |of: usize, to: usize| {
        let ratios = sorted(rounds.iter().map(|round| round[of].cpu_us() / round[to].cpu_us()));
        format!("{:.2} ({:.2}–{:.2})", median(&ratios), ratios[0], ratios[ratios.len() - 1])
    };
    for (column, program) in programs.iter().enumerate() {
        let ratio = if column == baseline { "1".to_owned() } else { ratios(column, baseline) };
        let outcomes: Vec<&Outcome> = rounds.iter().map(|round| &round[column]).collect();
        table_row(if column == 0 { load.name } else { "" }, program, &outcomes, &ratio);
    }
    let mut remarks = Vec::new();
    let position = |name| programs.iter().position(|program| program.name == name);
    if let (Some(now), Some(before)) = (position(CAN_LISTEN), position(CAN_LISTEN_BEFORE)) {
        remarks.push(format!("{}: {CAN_LISTEN} to {CAN_LISTEN_BEFORE} {}.", load.name, ratios(now, before)));
    }
    let rates = sorted(rounds.iter().flatten().map(|outcome| outcome.sent_per_second));
    match load.per_second {
        None => remarks.push(format!(
            "At full speed the sender reached {} to {} datagrams a second.",
            thousands(rates[0]),
            thousands(rates[rates.len() - 1])
        )),
        Some(rate) if median(&rates) < 0.98 * f64::from(rate) => {
            remarks.push(format!("Of {} the sender reached only {}.", load.name, thousands(median(&rates))));
        }
        Some(_) => {}
    }
    remarks
}

/// How long a reader that is to pause reads at first.
pub const PAUSE_AFTER: Duration = Duration::from_millis(500);

/// Stdout is a file, or if the reader is to pause, a pipe.
pub fn measure(program: &Program, load: &Load, span: Duration, pause: Option<Duration>) -> Outcome {
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

struct PausingPipe<R> {
    pipe: R,
    at: Instant,
    pause: Duration,
}

impl<R: Read> Read for PausingPipe<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.at {
            thread::sleep(std::mem::take(&mut self.pause));
        }
        self.pipe.read(buffer)
    }
}

/// Every line is one datagram of the stream, except the answer to START; in pcap every record is one, after a header.
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

pub fn table_head() {
    println!("| load | program | received | lost | CPU per datagram | CPU ratio (min–max) | peak memory |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
}

pub fn table_row(load: &str, program: &Program, outcomes: &[&Outcome], ratio: &str) {
    let sent: u64 = outcomes.iter().map(|outcome| outcome.sent).sum();
    let received: u64 = outcomes.iter().map(|outcome| outcome.received).sum();
    let lost = match sent.saturating_sub(received) {
        0 => "0".to_owned(),
        lost => format!("{} ({:.2} %)", thousands(lost as f64), 100.0 * lost as f64 / sent as f64),
    };
    println!(
        "| {load} | {} | {} | {lost} | {:.2} µs | {ratio} | {} |",
        program.name,
        thousands(received as f64),
        median(&sorted(outcomes.iter().map(|outcome| outcome.cpu_us()))),
        mib(outcomes.iter().map(|outcome| outcome.peak_kib).max().unwrap_or_default()),
    );
}

pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

pub fn median(sorted: &[f64]) -> f64 {
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

pub fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
