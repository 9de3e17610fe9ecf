//! How late things happen: a datagram on stdout, the time stamp of a frame, `STOP` after Ctrl-C.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use crate::compare::{median, sorted};
use crate::listener::{DATAGRAM, Listener};
use crate::load::{BURST_20, SINGLE_1000, SINGLE_3000, SINGLE_5000, pace};
use crate::machine::unlinked_file;
use crate::programs::Program;

const BEFORE_NUMBER: &[u8] = b"M 1 CSD 100";

/// Where a datagram is waited for.
#[derive(Clone, Copy)]
enum Sink {
    Pipe,
    /// Its reader looks for more every millisecond.
    File,
}

/// From sending a datagram until it is read from a pipe or a file.
pub fn latency(programs: &[&Program], quiet_samples: usize, span: Duration) {
    println!("### From sending a datagram until it is read from a pipe, or is in a file\n");
    println!("| datagrams | program | median | 99 % | maximum |\n| --- | --- | ---: | ---: | ---: |");
    for (sink, into) in [(Sink::Pipe, "pipe"), (Sink::File, "file")] {
        for program in programs {
            let quiet = latencies(program, sink, |send| {
                for _ in 0..quiet_samples {
                    thread::sleep(Duration::from_millis(150));
                    send(1);
                }
            });
            latency_row(&format!("{into}, after a quiet spell"), program, &quiet);
        }
        for load in [&SINGLE_1000, &SINGLE_5000, &BURST_20] {
            for program in programs {
                let latencies = latencies(program, sink, |send| {
                    pace(load, span, send);
                });
                latency_row(&format!("{into}, {}", load.name), program, &latencies);
            }
        }
    }
    println!();
}

/// Milliseconds, sorted.
fn latency_row(datagrams: &str, program: &Program, latencies: &[f64]) {
    let [median, most, maximum] = [0.5, 0.99, 1.0].map(|part| quantile(latencies, part));
    println!("| {datagrams} | {} | {median:.2} ms | {most:.2} ms | {maximum:.2} ms |", program.name);
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

/// How long each datagram took, in milliseconds, sorted. The datagrams carry their numbers as data.
fn latencies(program: &Program, sink: Sink, stream: impl FnOnce(&mut dyn FnMut(usize))) -> Vec<f64> {
    let has_ended = Arc::new(AtomicBool::new(false));
    let (listener, source): (Listener, Box<dyn Read + Send>) = match sink {
        Sink::Pipe => {
            let mut listener = Listener::start(program, Stdio::piped());
            let pipe = listener.stdout();
            (listener, Box::new(pipe))
        }
        Sink::File => {
            let file = unlinked_file();
            let stdout = file.try_clone().expect("a second handle of the file");
            let tail = Tail { file, position: 0, has_ended: Arc::clone(&has_ended) };
            (Listener::start(program, stdout.into()), Box::new(tail))
        }
    };
    let reader = thread::spawn(move || numbered_arrivals(source));
    let mut sent = Vec::new();
    stream(&mut |count| {
        let datagrams: Vec<u8> = (sent.len()..).take(count).flat_map(numbered).collect();
        sent.extend(std::iter::repeat_n(Instant::now(), count));
        listener.send(&datagrams);
    });
    listener.end();
    has_ended.store(true, SeqCst);
    let arrivals = reader.join().expect("the reader's arrivals");
    assert!(!arrivals.is_empty(), "nothing arrived from {}", program.name);
    sorted(arrivals.into_iter().map(|(number, at)| (at - sent[number]).as_secs_f64() * 1e3))
}

/// Reads a file as it grows, like `tail -f`.
struct Tail {
    file: File,
    position: u64,
    has_ended: Arc<AtomicBool>,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let has_ended = self.has_ended.load(SeqCst);
            let count = self.file.read_at(buffer, self.position)?;
            self.position += count as u64;
            if count > 0 || has_ended {
                return Ok(count);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

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

fn numbered_arrivals(mut source: impl Read) -> Vec<(usize, Instant)> {
    let (mut arrivals, mut unread, mut chunk) = (Vec::new(), Vec::new(), vec![0; 1 << 16]);
    loop {
        let count = source.read(&mut chunk).expect("what the program wrote");
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

/// How far the stamps of `--format candump` lie behind the sending of their datagrams.
pub fn stamps(programs: &[&Program], rounds: usize, span: Duration) {
    println!("### From sending a datagram until its time stamp in candump, at {}\n", SINGLE_5000.name);
    println!("| program | median | 90 % | 99 % |\n| --- | ---: | ---: | ---: |");
    let mut delays = vec![Vec::new(); programs.len()];
    for _ in 0..rounds {
        for (delays, program) in delays.iter_mut().zip(programs) {
            delays.extend(stamp_delays(program, span));
        }
    }
    for (delays, program) in delays.into_iter().zip(programs) {
        let delays = sorted(delays.into_iter());
        let [median, most, nearly_all] = [0.5, 0.9, 0.99].map(|part| quantile(&delays, part));
        println!("| {} | {median:.0} µs | {most:.0} µs | {nearly_all:.0} µs |", program.name);
    }
    println!();
}

/// In microseconds.
fn stamp_delays(program: &Program, span: Duration) -> Vec<f64> {
    let mut sink = unlinked_file();
    let stdout = sink.try_clone().expect("a second handle of the sink");
    let listener = Listener::start(&program.with(&["--format=candump"]), stdout.into());
    let mut sent = Vec::new();
    pace(&SINGLE_5000, span, &mut |_| {
        let datagram = numbered(sent.len());
        sent.push(unix_time());
        listener.send(&datagram);
    });
    listener.end();
    sink.rewind().expect("a sink that can be read");
    let lines = BufReader::new(sink).lines().map(|line| line.expect("a line of candump"));
    let delays: Vec<f64> = lines.filter_map(|line| stamp_and_number(&line)).map(|(at, n)| at - sent[n]).collect();
    assert_eq!(delays.len(), sent.len(), "datagrams were lost");
    delays
}

/// Microseconds since 1970.
fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_secs_f64() * 1e6
}

/// Of a line such as `(1700000000.000001) can1 100#0000000000000001`.
fn stamp_and_number(line: &str) -> Option<(f64, usize)> {
    let (stamp, frame) = line.strip_prefix('(')?.split_once(')')?;
    let (_, data) = frame.split_once('#')?;
    Some((stamp.parse::<f64>().ok()? * 1e6, usize::from_str_radix(data.trim(), 16).ok()?))
}

/// How long after SIGINT the `STOP` of `--stop-on-exit` arrives at the gateway, in a stream into a file.
pub fn stop(programs: &[&Program], samples: usize) {
    println!("### From SIGINT until STOP arrives, in a stream of {}\n", SINGLE_3000.name);
    println!("| program | median | maximum |\n| --- | ---: | ---: |");
    for program in programs {
        let program = program.with(&["--stop-on-exit"]);
        let delays = sorted((0..samples).map(|sample| stop_delay(&program, sample)));
        println!("| {} | {:.1} ms | {:.1} ms |", program.name, median(&delays), delays[delays.len() - 1]);
    }
    println!();
}

/// In milliseconds. The signal comes at another moment of the loop in each sample.
fn stop_delay(program: &Program, sample: usize) -> f64 {
    let mut listener = Listener::start(program, unlinked_file().into());
    let gateway = listener.gateway.try_clone().expect("a second handle of the gateway");
    let stopped = AtomicBool::new(false);
    let delay = thread::scope(|scope| {
        let stop_arrives = scope.spawn(|| {
            let mut command = [0; 2048];
            let length = gateway.recv(&mut command).expect("STOP within the timeout");
            let at = Instant::now();
            assert!(command[..length].ends_with(b"STOP\n"), "STOP is the only command of a session that ends");
            stopped.store(true, SeqCst);
            gateway.send(b"R ok\n").expect("an answer that can be sent");
            at
        });
        listener.stream(&SINGLE_3000, Duration::from_millis(100));
        thread::sleep(Duration::from_micros(37 * sample as u64));
        let signalled_at = Instant::now();
        listener.signal(Signal::SIGINT);
        while !stopped.load(SeqCst) && !stop_arrives.is_finished() {
            listener.send(DATAGRAM);
            thread::sleep(Duration::from_micros(333));
        }
        (stop_arrives.join().expect("the arrival of STOP") - signalled_at).as_secs_f64() * 1e3
    });
    listener.wait();
    delay
}
