//! The program's sentences, recognised. The only place of the simulation that knows how they are worded.

use super::log::{SECOND, Time};

/// What a line on stderr says.
#[derive(Clone, Debug, PartialEq)]
pub enum Sentence {
    Connecting,
    /// START has left.
    StartSent,
    /// INIT was refused, the bus is restarted; whether the sentence is sure that it ran.
    Restarting {
        is_certain: bool,
    },
    NoData {
        seconds: f64,
        why: String,
    },
    Resumed {
        seconds: f64,
    },
    /// START is sent again; what else is said.
    StartAgain,
    Unreachable,
    AddressLost,
    /// `--idle-timeout` ends the session.
    Idle {
        seconds: f64,
        why: String,
    },
    KernelLoss {
        count: Option<u64>,
    },
    BufferLoss {
        count: Option<u64>,
    },
    /// A line of the gateway's that does not belong onto stdout.
    GatewayReports(String),
    RefusedCommand(String),
    Malformed,
    Summary(u64),
    Report {
        datagrams: u64,
        frames: Option<u64>,
        bytes: u64,
        seconds: f64,
    },
    Lost {
        kernel: Option<u64>,
        is_lower_bound: bool,
        buffer: u64,
    },
    NotRead(u64),
    NotWritten(u64),
    MessagesNotShown(u64),
    MalformedLines(u64),
    NetworkErrors(u64),
    HandshakeFrames(u64),
    /// What the report says of the bus.
    Bus,
    /// A command has failed for want of an answer.
    NoReply {
        command: String,
        attempts: u64,
        timeout: Option<f64>,
    },
    CanStop,
    Debug,
    Other,
}

/// What a line says of the bus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Claim {
    Runs,
    MayRun,
    /// The last frame came so many seconds ago.
    LastFrame(f64),
    Halted,
    NotStarted,
    ReportedStopped(f64),
}

const PROGRAMS: [&str; 2] = ["can-listen: ", "can-stop: "];

/// The lines of a message, without the program's name.
pub fn lines(message: &str) -> impl Iterator<Item = &str> {
    message.lines().map(|line| PROGRAMS.iter().find_map(|name| line.strip_prefix(name)).unwrap_or(line))
}

/// The number before `after`, in a text that begins with `before`.
fn number_between(line: &str, before: &str, after: &str) -> Option<f64> {
    let rest = &line[line.find(before)? + before.len()..];
    rest[..rest.find(after)?].trim().parse().ok()
}

/// The number that a text begins with, if `after` follows.
fn leading(line: &str, after: &str) -> Option<u64> {
    let (number, rest) = line.split_once(' ')?;
    let number = number.parse().ok()?;
    let plural = rest.strip_prefix(after)?;
    plural
        .is_empty()
        .then_some(number)
        .or_else(|| (plural.starts_with('s') || plural.starts_with(' ')).then_some(number))
}

pub fn recognise(line: &str) -> Sentence {
    type S = Sentence;
    let is_debug = line.split_once(" s: ").is_some_and(|(number, _)| number.parse::<f64>().is_ok());
    if is_debug {
        return S::Debug;
    }
    if line.starts_with("can-stop --confirm") {
        return S::CanStop;
    }
    if line.starts_with("connecting to") {
        return S::Connecting;
    }
    if line.starts_with("START sent to") {
        return S::StartSent;
    }
    if line.contains("already running; restarting") || line.contains("may have been running; restarting") {
        return S::Restarting { is_certain: !line.contains("may have been") };
    }
    if let Some(seconds) = number_between(line, "no data for ", " s: ").filter(|_| line.starts_with("no data for")) {
        let why = line.split_once(" s: ").map_or("", |(_, why)| why).to_owned();
        return S::NoData { seconds, why };
    }
    if line.starts_with("no data from") {
        let seconds = number_between(line, " for ", " s (--idle-timeout)").unwrap_or(-1.0);
        let why = line.split_once("(--idle-timeout): ").map_or("", |(_, why)| why).to_owned();
        return S::Idle { seconds, why };
    }
    if let Some(seconds) = number_between(line, "data resumed after ", " s") {
        return S::Resumed { seconds };
    }
    if line.contains("sending START again") {
        return S::StartAgain;
    }
    if line.contains("unreachable (") && line.contains("still listening") {
        return S::Unreachable;
    }
    if line.contains("no longer has the local address") {
        return S::AddressLost;
    }
    if line.contains("datagrams are being lost") || line.contains("datagrams lost") || line.contains("more datagrams") {
        let is_buffer = line.contains("32 MiB");
        let count = line.split_once('(').and_then(|(_, rest)| rest.split_once(' ')?.0.parse().ok());
        return if is_buffer { S::BufferLoss { count } } else { S::KernelLoss { count } };
    }
    if let Some((_, text)) = line.split_once("the gateway reports: ") {
        return S::GatewayReports(text.to_owned());
    }
    if let Some(text) = line.strip_prefix("the gateway refused a command: ") {
        return S::RefusedCommand(text.to_owned());
    }
    if line.starts_with("malformed line") {
        return S::Malformed;
    }
    if line.contains("not shown in the last") {
        return S::Summary(line.split(' ').filter_map(|word| word.parse().ok()).max().unwrap_or(0));
    }
    if let Some(report) = report(line) {
        return report;
    }
    if let Some((what, rest)) = line.strip_prefix("no reply to ").and_then(|rest| rest.split_once(" from ")) {
        // None of them left, otherwise.
        let attempts = number_between(rest, " in ", " attempt").unwrap_or(0.0) as u64;
        let timeout = number_between(rest, " of ", " s").filter(|_| attempts > 0);
        return S::NoReply { command: what.to_owned(), attempts, timeout };
    }
    if claims(line).next().is_some() && !line.contains("CAN ") {
        return S::Bus;
    }
    S::Other
}

fn report(line: &str) -> Option<Sentence> {
    if let Some(rest) = line.strip_prefix("lost: ") {
        let (kernel, buffer) = rest.split_once(" in the kernel, ")?;
        let buffer = buffer.split(' ').next()?.parse().ok()?;
        let is_lower_bound = kernel.starts_with("at least ") || kernel.starts_with("unknown");
        let kernel = kernel.trim_start_matches("at least ").parse().ok();
        return Some(Sentence::Lost { kernel, is_lower_bound, buffer });
    }
    if let (Some(datagrams), Some((_, rest))) = (leading(line, "datagram"), line.split_once('(')) {
        let seconds = number_between(line, ") in ", " s")?;
        let (counts, _) = rest.split_once(')')?;
        let counts: Vec<&str> = counts.split(", ").collect();
        let frames = counts.iter().find_map(|text| leading(text, "frame"));
        let bytes = counts.iter().find_map(|text| leading(text, "byte"))?;
        return Some(Sentence::Report { datagrams, frames, bytes, seconds });
    }
    if let Some(rest) = line.strip_prefix("up to ") {
        let number = leading(rest, "datagram")?;
        return Some(if line.contains("not read") { Sentence::NotRead(number) } else { Sentence::NotWritten(number) });
    }
    if let Some(number) = leading(line, "datagram") {
        if line.contains("not written") {
            return Some(Sentence::NotWritten(number));
        }
    }
    let counted = |what| leading(line, what);
    counted("message")
        .map(Sentence::MessagesNotShown)
        .or_else(|| counted("malformed line").map(Sentence::MalformedLines))
        .or_else(|| counted("network error").map(Sentence::NetworkErrors))
        .or_else(|| counted("frame").filter(|_| line.contains("handshake")).map(Sentence::HandshakeFrames))
}

/// What a line says of the bus, each.
pub fn claims(line: &str) -> impl Iterator<Item = Claim> {
    let has = |text| line.contains(text);
    let last_frame = number_between(line, "last frame ", " s ago");
    let reported = number_between(line, "reported stopped ", " s ago");
    let may_run =
        has("bus may still run") || has("bus may be running") || has("it may be running") || has("it may still run");
    [
        has("the bus still runs").then_some(Claim::Runs),
        last_frame.map(Claim::LastFrame),
        (may_run && last_frame.is_none()).then_some(Claim::MayRun),
        has("the bus is halted").then_some(Claim::Halted),
        (has("the bus was not started")).then_some(Claim::NotStarted),
        reported.map(Claim::ReportedStopped),
    ]
    .into_iter()
    .flatten()
}

/// The name of a kind of message, for statistics: without numbers, and without what it quotes.
pub fn kind(line: &str) -> String {
    match recognise(line) {
        Sentence::NoData { why, .. } => format!("no data: {}", shortened(&why)),
        Sentence::Idle { why, .. } => format!("idle: {}", shortened(&why)),
        Sentence::NoReply { command, .. } => format!("no reply to {}", verb(&command)),
        Sentence::Bus | Sentence::Other | Sentence::KernelLoss { .. } | Sentence::BufferLoss { .. } => shortened(line),
        other => {
            let text = format!("{other:?}");
            text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
        }
    }
}

/// `INIT` of `CAN 1 INIT STD 250`.
fn verb(command: &str) -> &str {
    command.split(' ').nth(2).unwrap_or_default()
}

fn shortened(text: &str) -> String {
    if let Some((before, command)) = text.split_once("CAN ") {
        if before.starts_with("the gateway") {
            let doubt = if text.contains("doubt") { ", in doubt" } else { "" };
            return format!("{before}{}{doubt}", verb(&format!("CAN {command}")));
        }
    }
    let text = text.split_once(" with ").map_or(text, |(before, _)| before);
    let mut short = String::new();
    for c in text.split([';', ':']).next().unwrap_or_default().chars().take(70) {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if !(c == '#' && short.ends_with('#')) {
            short.push(c);
        }
    }
    short
}

/// As a time.
pub fn micros(seconds: f64) -> Time {
    (seconds * SECOND as f64) as Time
}
