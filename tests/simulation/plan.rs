//! What a session meets, as a list of items. Each item is a line of text, so that a scenario that was found can be stored,
//! read and shortened.

use std::fmt;
use std::str::FromStr;

use super::log::{SECOND, Time, seconds};

/// One copy of a request: carried out, and answered, so long after it left.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    pub carried_out: Time,
    pub answers: Vec<Time>,
}

/// What befalls one transmission.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    Copies(Vec<Copy>),
    /// It cannot be sent.
    Fails(SendError),
}

#[derive(Clone, std::marker::Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    Unreachable,
    Denied,
}

/// Frames on the bus.
#[derive(Clone, std::marker::Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 11-bit identifiers, 100 to 10F.
    Standard,
    /// 29-bit identifiers.
    Extended,
    /// Remote and CAN FD frames, 11 bits.
    Mixed,
    /// Of another CAN port of the gateway.
    OtherPort,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    Signal,
    /// The process stands still.
    Stall(Time),
    PowerOff,
    /// With its controllers as they were (`true`), or after a restart.
    PowerOn(bool),
    PortClosed(bool),
    Firewall(bool),
    /// Datagrams pass in neither direction.
    Cut(bool),
    /// Datagrams of the gateway do not arrive.
    Muted(bool),
    SendFails(Option<SendError>),
    AddressLost(bool),
    /// Another program, with a socket of its own, sends this action.
    Other(String),
    /// The same from the shared port, if it is shared: the answer comes to the session.
    Neighbour(String),
    /// Another listener takes the stream, or gives it back.
    StreamTaken(bool),
    /// The gateway sends this.
    Text(Vec<u8>),
    /// The flags of STATUS before `I`.
    Flags([u8; 4]),
    /// The reader of stdout stops reading, or goes on.
    ReaderSlow(bool),
    ReaderGone,
    DiskFull,
    FileDeleted,
    /// Lines for stderr are not accepted, or are again.
    StderrBlocked(bool),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `can-stop --confirm` in place of can-listen.
    CanStop,
    /// An option of the program with its value, as in `--count 5`.
    Option(String),
    /// What ends the gateway's lines, escaped.
    LineEnd(String),
    /// Lower case, and more spaces.
    OddText,
    Initially {
        state: u8,
        stream_is_ours: bool,
    },
    Accepting,
    /// STATUS is refused, ignored, or answered in an unknown form.
    StatusRefused,
    StatusIgnored,
    StatusForm(String),
    /// The first so many commands of this kind are refused with this text.
    Refuses {
        action: String,
        times: u32,
        text: String,
    },
    /// Each answer is that late.
    Delay(Time),
    /// A frame follows each reply in the same datagram while the bus runs.
    Packs,
    WrongRate,
    Stream {
        from: Time,
        to: Time,
        every: Time,
        pack: u32,
        kind: Kind,
    },
    At(Time, Happening),
    Fault(usize, Fate),
    /// The process stands still at its n-th call.
    Pause(u32, Time),
    /// So many datagrams fit into the socket's queue.
    Queue(usize),
    /// The kernel's drop counter cannot be read.
    NoDropCounter,
    /// So many bytes can wait for stdout.
    Buffer(usize),
    /// Stdout is a regular file, on which a sync takes that long and then fails or not.
    File {
        sync: Time,
        fails: bool,
    },
    /// Waits end early now and then.
    EarlyWakeups,
    /// The last signal.
    End(Time),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan(pub Vec<Item>);

impl Plan {
    pub fn has(&self, item: &Item) -> bool {
        self.0.contains(item)
    }

    /// The value of an option, `Some("")` for a switch.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// Whether its faults are within what the conversation assumes: a copy is carried out and answered within two timeouts,
    /// the others within 20 ms of the first answer.
    pub fn is_tame(&self) -> bool {
        let timeout: f64 = self.option("--timeout").and_then(|value| value.parse().ok()).unwrap_or(1.0);
        let latest = 2 * (timeout * SECOND as f64) as Time;
        self.0.iter().all(|item| match item {
            Item::Fault(_, Fate::Copies(copies)) => {
                let first = copies.iter().flat_map(|copy| &copy.answers).min().copied();
                let last = first.map_or(latest, |first| first + 20 * SECOND / 1000 - 1).min(latest);
                copies.iter().all(|copy| {
                    copy.carried_out <= last && copy.answers.iter().all(|&at| copy.carried_out <= at && at <= last)
                })
            }
            Item::Delay(delay) => *delay + 5_000 < latest,
            _ => true,
        })
    }

    pub fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|item| match item {
            Item::Option(text) => Some(text.split_once(' ').unwrap_or((text, ""))),
            _ => None,
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| writeln!(f, "{item}"))
    }
}

impl FromStr for Plan {
    type Err = String;

    /// Empty lines and those that begin with `#` are left out.
    fn from_str(text: &str) -> Result<Plan, String> {
        let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::parse).collect::<Result<_, _>>().map(Plan)
    }
}

fn time(text: &str) -> Result<Time, String> {
    let parsed: f64 = text.parse().map_err(|_| format!("{text}: no time"))?;
    Ok((parsed * SECOND as f64).round() as Time)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text}: no number"))
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'x') => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or(0)
            }
            other => other.unwrap_or(b'\\'),
        });
    }
    bytes
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Fails(SendError::Unreachable) => f.write_str("unreachable"),
            Fate::Fails(SendError::Denied) => f.write_str("denied"),
            Fate::Copies(copies) if copies.is_empty() => f.write_str("lost"),
            Fate::Copies(copies) => {
                for (index, Copy { carried_out, answers }) in copies.iter().enumerate() {
                    let answers: Vec<String> = answers.iter().map(|&at| seconds(at).to_string()).collect();
                    let space = if index == 0 { "" } else { " " };
                    write!(f, "{space}{}:{}", seconds(*carried_out), answers.join(","))?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Fate {
    type Err = String;

    fn from_str(text: &str) -> Result<Fate, String> {
        Ok(match text {
            "unreachable" => Fate::Fails(SendError::Unreachable),
            "denied" => Fate::Fails(SendError::Denied),
            "lost" => Fate::Copies(Vec::new()),
            _ => {
                let copy = |text: &str| {
                    let (carried_out, answers) = text.split_once(':').ok_or("no copy")?;
                    let answers =
                        answers.split(',').filter(|text| !text.is_empty()).map(time).collect::<Result<_, _>>()?;
                    Ok::<Copy, String>(Copy { carried_out: time(carried_out)?, answers })
                };
                Fate::Copies(text.split(' ').map(copy).collect::<Result<_, _>>()?)
            }
        })
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::Signal => f.write_str("signal"),
            Happening::Stall(time) => write!(f, "stall {}", seconds(*time)),
            Happening::PowerOff => f.write_str("power off"),
            Happening::PowerOn(true) => f.write_str("power kept"),
            Happening::PowerOn(false) => f.write_str("power on"),
            Happening::PortClosed(on) => write!(f, "port-closed {}", on_off(*on)),
            Happening::Firewall(on) => write!(f, "firewall {}", on_off(*on)),
            Happening::Cut(on) => write!(f, "cut {}", on_off(*on)),
            Happening::Muted(on) => write!(f, "muted {}", on_off(*on)),
            Happening::SendFails(None) => f.write_str("send works"),
            Happening::SendFails(Some(SendError::Unreachable)) => f.write_str("send unreachable"),
            Happening::SendFails(Some(SendError::Denied)) => f.write_str("send denied"),
            Happening::AddressLost(on) => write!(f, "address-lost {}", on_off(*on)),
            Happening::Other(action) => write!(f, "other {action}"),
            Happening::Neighbour(action) => write!(f, "neighbour {action}"),
            Happening::StreamTaken(on) => write!(f, "stream-taken {}", on_off(*on)),
            Happening::Text(bytes) => write!(f, "text {}", escaped(bytes)),
            Happening::Flags(flags) => write!(f, "flags {}", String::from_utf8_lossy(flags)),
            Happening::ReaderSlow(on) => write!(f, "reader-slow {}", on_off(*on)),
            Happening::ReaderGone => f.write_str("reader gone"),
            Happening::DiskFull => f.write_str("disk full"),
            Happening::FileDeleted => f.write_str("file deleted"),
            Happening::StderrBlocked(on) => write!(f, "stderr-blocked {}", on_off(*on)),
        }
    }
}

impl FromStr for Happening {
    type Err = String;

    fn from_str(text: &str) -> Result<Happening, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let on = rest == "on";
        Ok(match (word, rest) {
            ("signal", _) => Happening::Signal,
            ("stall", _) => Happening::Stall(time(rest)?),
            ("power", "off") => Happening::PowerOff,
            ("power", "kept") => Happening::PowerOn(true),
            ("power", "on") => Happening::PowerOn(false),
            ("port-closed", _) => Happening::PortClosed(on),
            ("firewall", _) => Happening::Firewall(on),
            ("cut", _) => Happening::Cut(on),
            ("muted", _) => Happening::Muted(on),
            ("send", "works") => Happening::SendFails(None),
            ("send", "unreachable") => Happening::SendFails(Some(SendError::Unreachable)),
            ("send", "denied") => Happening::SendFails(Some(SendError::Denied)),
            ("address-lost", _) => Happening::AddressLost(on),
            ("other", _) => Happening::Other(rest.to_owned()),
            ("neighbour", _) => Happening::Neighbour(rest.to_owned()),
            ("stream-taken", _) => Happening::StreamTaken(on),
            ("text", _) => Happening::Text(unescaped(rest)),
            ("flags", _) => Happening::Flags(rest.as_bytes().try_into().map_err(|_| "four flags")?),
            ("reader-slow", _) => Happening::ReaderSlow(on),
            ("reader", "gone") => Happening::ReaderGone,
            ("disk", "full") => Happening::DiskFull,
            ("file", "deleted") => Happening::FileDeleted,
            ("stderr-blocked", _) => Happening::StderrBlocked(on),
            _ => return Err(format!("{text}: nothing that happens")),
        })
    }
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Standard, "standard"),
    (Kind::Extended, "extended"),
    (Kind::Mixed, "mixed"),
    (Kind::OtherPort, "other-port"),
];

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::CanStop => f.write_str("can-stop"),
            Item::Option(text) => f.write_str(text),
            Item::LineEnd(text) => write!(f, "line-end {}", escaped(text.as_bytes())),
            Item::OddText => f.write_str("odd-text"),
            Item::Initially { state, stream_is_ours } => {
                write!(
                    f,
                    "initially {} {}",
                    ["uninitialised", "stopped", "running"][usize::from(*state)],
                    on_off(*stream_is_ours)
                )
            }
            Item::Accepting => f.write_str("accepting"),
            Item::StatusRefused => f.write_str("status refused"),
            Item::StatusIgnored => f.write_str("status ignored"),
            Item::StatusForm(text) => write!(f, "status-form {text}"),
            Item::Refuses { action, times, text } => write!(f, "refuses {times} {} {text}", action.replace(' ', "-")),
            Item::Delay(time) => write!(f, "delay {}", seconds(*time)),
            Item::Packs => f.write_str("packs"),
            Item::WrongRate => f.write_str("wrong-rate"),
            Item::Stream { from, to, every, pack, kind } => {
                let name = KINDS.iter().find(|(known, _)| known == kind).map_or("", |(_, name)| name);
                write!(f, "stream {} {} {} {pack} {name}", seconds(*from), seconds(*to), seconds(*every))
            }
            Item::At(at, happening) => write!(f, "at {} {happening}", seconds(*at)),
            Item::Fault(index, fate) => write!(f, "fault {index} {fate}"),
            Item::Pause(call, time) => write!(f, "pause {call} {}", seconds(*time)),
            Item::Queue(size) => write!(f, "queue {size}"),
            Item::NoDropCounter => f.write_str("no-drop-counter"),
            Item::Buffer(size) => write!(f, "buffer {size}"),
            Item::File { sync, fails } => {
                write!(f, "file {} {}", seconds(*sync), if *fails { "fails" } else { "works" })
            }
            Item::EarlyWakeups => f.write_str("early-wakeups"),
            Item::End(at) => write!(f, "end {}", seconds(*at)),
        }
    }
}

impl FromStr for Item {
    type Err = String;

    fn from_str(line: &str) -> Result<Item, String> {
        if line.starts_with("--") {
            return Ok(Item::Option(line.to_owned()));
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        let fault = |text: &str| {
            let (index, rest) = text.split_once(' ').ok_or("a number and a text")?;
            Ok::<_, String>((index.to_owned(), rest.to_owned()))
        };
        Ok(match (word, words.as_slice()) {
            ("can-stop", _) => Item::CanStop,
            ("line-end", _) => Item::LineEnd(String::from_utf8_lossy(&unescaped(rest)).into_owned()),
            ("odd-text", _) => Item::OddText,
            ("initially", [state, ours]) => {
                let state = ["uninitialised", "stopped", "running"].iter().position(|name| name == state);
                Item::Initially { state: state.ok_or("no state")? as u8, stream_is_ours: *ours == "on" }
            }
            ("accepting", _) => Item::Accepting,
            ("status", ["refused"]) => Item::StatusRefused,
            ("status", ["ignored"]) => Item::StatusIgnored,
            ("status-form", _) => Item::StatusForm(rest.to_owned()),
            ("refuses", [times, action, text @ ..]) => {
                Item::Refuses { action: action.replace('-', " "), times: number(times)?, text: text.join(" ") }
            }
            ("delay", [at]) => Item::Delay(time(at)?),
            ("packs", _) => Item::Packs,
            ("wrong-rate", _) => Item::WrongRate,
            ("stream", [from, to, every, pack, name]) => Item::Stream {
                from: time(from)?,
                to: time(to)?,
                every: time(every)?,
                pack: number(pack)?,
                kind: KINDS.iter().find(|(_, known)| known == name).ok_or("no kind of frames")?.0,
            },
            ("at", _) => {
                let (at, happening) = fault(rest)?;
                Item::At(time(&at)?, happening.parse()?)
            }
            ("fault", _) => {
                let (index, fate) = fault(rest)?;
                Item::Fault(number(&index)?, fate.parse()?)
            }
            ("pause", [call, at]) => Item::Pause(number(call)?, time(at)?),
            ("queue", [size]) => Item::Queue(number(size)?),
            ("no-drop-counter", _) => Item::NoDropCounter,
            ("buffer", [size]) => Item::Buffer(number(size)?),
            ("file", [at, fails]) => Item::File { sync: time(at)?, fails: *fails == "fails" },
            ("early-wakeups", _) => Item::EarlyWakeups,
            ("end", [at]) => Item::End(time(at)?),
            _ => return Err(format!("{line}: no item")),
        })
    }
}
