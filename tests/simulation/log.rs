//! One chronological log of what happened in a session and around it. The oracle reads nothing else.

use std::fmt::Write;
use std::io::ErrorKind;

/// Virtual time since the session began, in microseconds.
pub type Time = u64;

pub const MILLISECOND: Time = 1_000;
pub const SECOND: Time = 1_000_000;

/// As in `12.5`, in seconds.
pub fn seconds(time: Time) -> f64 {
    time as f64 / SECOND as f64
}

/// What a command of the session is, by its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Init,
    Clear,
    Add,
    Start,
    Stop,
    Status,
    Unknown,
}

impl Verb {
    pub fn of(line: &str) -> Verb {
        let tokens: Vec<&str> = line.split_ascii_whitespace().collect();
        match tokens.get(2..) {
            Some(["INIT", ..]) => Verb::Init,
            Some(["FILTER", "CLEAR"]) => Verb::Clear,
            Some(["FILTER", "ADD", ..]) => Verb::Add,
            Some(["START"]) => Verb::Start,
            Some(["STOP"]) => Verb::Stop,
            Some(["STATUS"]) => Verb::Status,
            _ => Verb::Unknown,
        }
    }
}

/// A command that the session sent, or tried to.
#[derive(Clone, Debug, PartialEq)]
pub struct Transmission {
    pub line: String,
    pub verb: Verb,
    pub at: Time,
    pub left: bool,
}

/// Why a datagram was sent to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It answers this transmission.
    Answer(usize),
    /// The stream.
    Stream,
    /// Anything else that the gateway says by itself.
    Text,
    /// It answers somebody else's command.
    Foreign,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub origin: Origin,
    /// The well-formed frames of any port in it.
    pub frames: u64,
}

/// Who did something to the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Us,
    Other,
}

/// What is true of the world when a sentence is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Truth {
    pub power: bool,
    /// Nothing passes in either direction, without a word.
    pub cut: bool,
    /// Nothing of the gateway arrives.
    pub muted: bool,
    pub port_closed: bool,
    pub firewall: bool,
    pub send_fails: bool,
    pub address_lost: bool,
    /// The controller: 0 uninitialised, 1 stopped, 2 running.
    pub controller: u8,
    /// Whether the stream goes to the session.
    pub stream_is_ours: bool,
    /// The bit rate is not that of the bus.
    pub wrong_rate: bool,
    /// When a frame of this port was last on the bus while the controller ran, and passed the filter.
    pub passed: Option<Time>,
    /// The same for 11-bit and 29-bit frames that the filter did not pass.
    pub blocked: [Option<Time>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Accepted,
    Full,
    Closed,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Code(u8),
    /// A second signal ended the process at once, with this text.
    Quit,
    Panic(String),
    Livelock,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A command was sent, or could not be.
    Sent(usize),
    /// A copy of it reached the gateway.
    CarriedOut {
        transmission: usize,
        reply: String,
        runs: Option<By>,
    },
    /// Somebody else, or the power supply, did something to the controller.
    Happened {
        what: String,
        runs: Option<By>,
    },
    /// A datagram came into the socket's queue, or found it full.
    Arrived(usize),
    Dropped(usize),
    Read(usize),
    /// Reads found the queue empty, from the fact's time until `until`.
    Empty {
        until: Time,
    },
    ReadError(ErrorKind),
    /// The process stood still from the fact's time until `until`.
    Stalled {
        until: Time,
    },
    Signal,
    Shared(bool),
    /// A look at the local address.
    Look {
        lost: bool,
    },
    Pushed {
        bytes: Vec<u8>,
        datagrams: u64,
        result: Pushed,
    },
    Closed,
    /// So many datagrams were written in all.
    Written(u64),
    WriteFailed(ErrorKind),
    /// What is true when STATUS is answered, STOP is sent or stdout is closed.
    Truth(Truth),
    /// A line on stderr, and what was true then. It may hold several lines.
    Said(String, Truth),
    NotShown(String),
    Ended(Ending),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    pub facts: Vec<(Time, Fact)>,
    pub packets: Vec<Packet>,
    pub transmissions: Vec<Transmission>,
}

impl Log {
    pub fn add(&mut self, at: Time, fact: Fact) {
        self.facts.push((at, fact));
    }

    /// A read found nothing. Many in a row are one fact.
    pub fn add_empty(&mut self, at: Time) {
        match self.facts.last_mut() {
            Some((_, Fact::Empty { until })) => *until = at,
            _ => self.add(at, Fact::Empty { until: at }),
        }
    }

    /// For people: what matters, a fact a line.
    pub fn trace(&self) -> String {
        let mut text = String::new();
        let shown = |bytes: &[u8]| {
            bytes.iter().take(70).flat_map(|&byte| byte.escape_ascii()).map(char::from).collect::<String>()
        };
        for (at, fact) in &self.facts {
            let packet = |index: &usize| {
                let packet = &self.packets[*index];
                format!("#{index} {:?} \"{}\"", packet.origin, shown(&packet.bytes))
            };
            let line = match fact {
                Fact::Sent(index) => {
                    let Transmission { line, left, .. } = &self.transmissions[*index];
                    format!("-> {line} [{index}]{}", if *left { "" } else { " FAILED LOCALLY" })
                }
                Fact::CarriedOut { transmission, reply, runs } => {
                    let line = &self.transmissions[*transmission].line;
                    format!("        gateway: {line} [{transmission}] => {reply} (runs: {runs:?})")
                }
                Fact::Happened { what, runs } => format!("        {what} (runs: {runs:?})"),
                Fact::Arrived(index) => format!("        arrived {}", packet(index)),
                Fact::Dropped(index) => format!("        DROPPED {}", packet(index)),
                Fact::Read(index) => format!("<- {}", packet(index)),
                Fact::Empty { until } => format!("   queue empty until {:.6}", seconds(*until)),
                Fact::ReadError(kind) => format!("<- error {kind:?}"),
                Fact::Stalled { until } => format!("   stands still until {:.6}", seconds(*until)),
                Fact::Signal => "   SIGNAL".to_owned(),
                Fact::Shared(on) => format!("   port shared: {on}"),
                Fact::Look { lost } => format!("   looks at the local address: lost {lost}"),
                Fact::Pushed { bytes, datagrams, result } => {
                    format!("   stdout {result:?} ({datagrams}): \"{}\"", shown(bytes))
                }
                Fact::Closed => "   stdout closed".to_owned(),
                Fact::Written(count) => format!("   {count} datagrams are written"),
                Fact::WriteFailed(kind) => format!("   writing fails: {kind:?}"),
                Fact::Said(line, _) => format!("   SAYS {}", line.trim_end()),
                Fact::Truth(_) => continue,
                Fact::NotShown(line) => format!("   (not shown) {}", line.trim_end()),
                Fact::Ended(ending) => format!("   ENDED {ending:?}"),
            };
            let _ = writeln!(text, "{:>12.6} {line}", seconds(*at));
        }
        text
    }
}
