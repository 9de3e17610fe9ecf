//! Measures programs side by side under one load.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::listener::{Cost, DATAGRAM, Listener, finish_writing, settle};
use crate::load::{FLAT_OUT, Load, pace};
use crate::machine::unlinked_file;
use crate::programs::{C_IN_BATCHES, C_ONE_BY_ONE, CAN_LISTEN, CAN_LISTEN_BEFORE, Program, RUST_LOOP, position};

/// One program under one load.
pub struct Outcome {
    pub sent: u64,
    pub sent_per_second: f64,
    pub received: u64,
    pub cost: Cost,
}

/// Where a program writes.
#[derive(Clone, Copy)]
pub enum Output {
    File,
    /// Its reader pauses once, for this long.
    Pipe {
        pause: Duration,
    },
}

/// All programs in each round, one after the other.
pub struct Rounds<'a> {
    load: &'a Load,
    rounds: Vec<Vec<Outcome>>,
}

impl Outcome {
    pub fn cpu_us(&self) -> f64 {
        self.cost.cpu.as_secs_f64() * 1e6 / self.received.max(1) as f64
    }
}

/// The position of the plain loop that ratios are taken to: the faster of the two in C at full speed, else the one that
/// reads one datagram at a time.
pub fn baseline(programs: &[Program], load: &Load) -> usize {
    let best = if load.key == FLAT_OUT.key { C_IN_BATCHES } else { C_ONE_BY_ONE };
    position(programs, best).or_else(|| position(programs, RUST_LOOP)).expect("a baseline")
}

impl<'a> Rounds<'a> {
    pub fn measure(count: usize, programs: &[Program], load: &'a Load, measure: impl Fn(&Program) -> Outcome) -> Self {
        let rounds = (0..count).map(|_| programs.iter().map(&measure).collect()).collect();
        Rounds { load, rounds }
    }

    /// The median of what this says of a program's outcomes.
    pub fn median(&self, of: usize, value: impl Fn(&Outcome) -> f64) -> f64 {
        median(&sorted(self.outcomes(of).map(value)))
    }

    /// The ratio of two programs' CPU time, taken within each round.
    pub fn ratio(&self, of: usize, to: usize) -> String {
        let ratios = sorted(self.rounds.iter().map(|round| round[of].cpu_us() / round[to].cpu_us()));
        format!("{:.2} ({:.2}–{:.2})", median(&ratios), ratios[0], ratios[ratios.len() - 1])
    }

    pub fn outcomes(&self, of: usize) -> impl Iterator<Item = &Outcome> {
        self.rounds.iter().map(move |round| &round[of])
    }

    /// What keeps the figures from meaning what they seem to.
    pub fn remark(&self) -> Option<String> {
        let Load { name, per_second, .. } = self.load;
        let rates = sorted(self.rounds.iter().flatten().map(|outcome| outcome.sent_per_second));
        match per_second {
            None => Some(format!(
                "At full speed the sender reached {} to {} datagrams a second.",
                thousands(rates[0]),
                thousands(rates[rates.len() - 1])
            )),
            Some(rate) if median(&rates) < 0.98 * f64::from(*rate) => {
                Some(format!("Of {name} the sender reached only {}.", thousands(median(&rates))))
            }
            Some(_) => None,
        }
    }
}

/// Measures programs under one load, prints a row for each, and returns remarks.
pub fn compare(rounds: usize, span: Duration, load: &Load, programs: &[Program], baseline: usize) -> Vec<String> {
    let span = load.span(span);
    let rounds = Rounds::measure(rounds, programs, load, |program| measure(program, load, span, Output::File));
    for (column, program) in programs.iter().enumerate() {
        let ratio = if column == baseline { "1".to_owned() } else { rounds.ratio(column, baseline) };
        let outcomes: Vec<&Outcome> = rounds.outcomes(column).collect();
        table_row(if column == 0 { load.name } else { "" }, program, &outcomes, &ratio);
    }
    let now_and_before = position(programs, CAN_LISTEN).zip(position(programs, CAN_LISTEN_BEFORE));
    let compared = now_and_before.map(|(now, before)| {
        format!("{}: {CAN_LISTEN} to {CAN_LISTEN_BEFORE} {}.", load.name, rounds.ratio(now, before))
    });
    compared.into_iter().chain(rounds.remark()).collect()
}

/// How long a reader that is to pause reads at first.
pub const PAUSE_AFTER: Duration = Duration::from_millis(500);

pub fn measure(program: &Program, load: &Load, span: Duration, output: Output) -> Outcome {
    let (mut listener, count): (Listener, Box<dyn FnOnce() -> u64>) = match output {
        Output::File => {
            let file = unlinked_file();
            (into(&file, program), Box::new(|| count_in(file)))
        }
        Output::Pipe { pause } => {
            let mut listener = Listener::launch(program, Stdio::piped());
            let pipe = PausingPipe { pipe: listener.stdout(), at: Instant::now() + PAUSE_AFTER, pause };
            let reader = thread::spawn(move || count_datagrams(pipe));
            (listener, Box::new(|| reader.join().expect("the reader's count")))
        }
    };
    settle([&mut listener]);
    let sent = listener.stream(load, span);
    let cost = listener.end();
    Outcome { sent: sent.datagrams, sent_per_second: sent.per_second, received: count(), cost }
}

/// So many processes of a program, each with its gateway and its file, share the load. The outcome is their sum.
pub fn measure_fleet(program: &Program, size: u32, load: &Load, span: Duration) -> Outcome {
    let files: Vec<File> = (0..size).map(|_| unlinked_file()).collect();
    let mut listeners: Vec<Listener> = thread::scope(|scope| {
        let launches = files.iter().map(|file| scope.spawn(|| into(file, program)));
        let launches: Vec<_> = launches.collect();
        launches.into_iter().map(|launch| launch.join().expect("a listener")).collect()
    });
    settle(&mut listeners);
    let mut turns = listeners.iter().cycle();
    let sent = pace(load, span, &mut |_| turns.next().expect("a fleet of one at least").send(DATAGRAM));
    finish_writing(&listeners);
    let costs: Vec<Cost> = listeners.iter().map(|listener| listener.cost(listener.proportional_kib())).collect();
    listeners.into_iter().for_each(Listener::terminate);
    Outcome {
        sent: sent.datagrams,
        sent_per_second: sent.per_second,
        received: files.into_iter().map(count_in).sum(),
        cost: Cost {
            startup: costs.iter().map(|cost| cost.startup).sum(),
            cpu: costs.iter().map(|cost| cost.cpu).sum(),
            memory_kib: costs.iter().map(|cost| cost.memory_kib).sum(),
        },
    }
}

fn into(file: &File, program: &Program) -> Listener {
    Listener::launch(program, file.try_clone().expect("a second handle of the file").into())
}

fn count_in(mut file: File) -> u64 {
    file.rewind().expect("a file that can be read");
    count_datagrams(file)
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
        mib(outcomes.iter().map(|outcome| outcome.cost.memory_kib).max().unwrap_or_default()),
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

pub fn thousands(number: f64) -> String {
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
