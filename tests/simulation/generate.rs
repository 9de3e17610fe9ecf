//! Draws a plan from a seed: options, gateway, network, bus and events, within the assumptions of the conversation about the
//! network, or beyond them (wild).

use super::log::{MILLISECOND, SECOND, Time};
use super::plan::{Copy, Fate, Happening, Item, Kind, Plan, SendError};

/// Pseudo-random numbers (xorshift64*, Vigna 2016).
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Rng {
        let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Rng((state ^ (state >> 31)) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    fn between(&mut self, from: Time, to: Time) -> Time {
        from + self.below(to.saturating_sub(from) + 1)
    }
}

struct Generator {
    rng: Rng,
    items: Vec<Item>,
    wild: bool,
    timeout: Time,
    attempts: u64,
    status_after: Time,
    port: u64,
    horizon: Time,
    stops_on_exit: bool,
    has_count: bool,
}

/// The session of this seed.
pub fn plan(seed: u64, wild: bool) -> Plan {
    let mut generator = Generator {
        rng: Rng::new(seed),
        items: Vec::new(),
        wild,
        timeout: SECOND,
        attempts: 3,
        status_after: 5 * SECOND,
        port: 1,
        horizon: 0,
        stops_on_exit: false,
        has_count: false,
    };
    generator.run();
    Plan(generator.items)
}

impl Generator {
    fn run(&mut self) {
        if self.rng.percent(8) {
            return self.can_stop();
        }
        self.options();
        self.gateway();
        let (from, to) = self.rng.pick(&[(1, 4), (1, 4), (5, 20), (5, 20), (20, 100), (60, 200), (150, 420)]);
        self.horizon = self.rng.between(from * SECOND, to * SECOND);
        self.streams();
        self.faults();
        self.happenings();
        self.stdout();
        self.process();
        self.rarity();
        self.items.push(Item::End(self.horizon));
    }

    fn option(&mut self, text: impl Into<String>) {
        self.items.push(Item::Option(text.into()));
    }

    fn retry(&mut self) {
        if self.rng.percent(35) {
            let (text, time) =
                self.rng.pick(&[("0.05", 50), ("0.2", 200), ("0.2", 200), ("0.5", 500), ("2", 2000), ("4", 4000)]);
            self.option(format!("--timeout {text}"));
            self.timeout = time * MILLISECOND;
        }
        if self.rng.percent(25) {
            self.attempts = self.rng.pick(&[1, 1, 2, 4, 6]);
            self.option(format!("--attempts {}", self.attempts));
        }
    }

    fn channel(&mut self) {
        if self.rng.percent(15) {
            self.port = self.rng.pick(&[2, 3, 4]);
            self.option(format!("--channel {}", self.port));
        }
    }

    fn can_stop(&mut self) {
        self.items.push(Item::CanStop);
        self.retry();
        self.channel();
        if self.rng.percent(10) {
            self.option("--quiet");
        }
        self.gateway();
        if self.rng.percent(70) {
            self.items.push(Item::Initially { state: 2, stream_is_ours: false });
        }
        self.horizon = 1000 * SECOND;
        self.faults();
        let count = self.rng.below(3);
        for _ in 0..count {
            let at = self.rng.between(0, 3 * self.timeout);
            self.happening_at(at);
        }
        self.items.retain(|item| !matches!(item, Item::At(_, Happening::Signal)));
        self.process();
    }

    fn options(&mut self) {
        self.retry();
        self.channel();
        let format = self.rng.pick(&["raw", "raw", "raw", "raw", "candump", "influx", "pcap"]);
        if format != "raw" {
            self.option(format!("--format {format}"));
        }
        if self.rng.percent(12) {
            let count = self.rng.between(1, 12);
            self.option(format!("--count {count}"));
            self.has_count = true;
        }
        match self.rng.below(20) {
            0 | 1 => self.set_status_after("0", 0),
            2 => self.set_status_after("0.5", 500),
            3 => self.set_status_after("1", 1000),
            4 => self.set_status_after("2.5", 2500),
            5 => self.set_status_after("20", 20_000),
            6 => self.set_status_after("70", 70_000),
            _ => {}
        }
        if self.rng.percent(35) {
            let idle = self.rng.pick(&["0.3", "1", "1", "3", "6", "9", "12", "30", "70", "130"]);
            self.option(format!("--idle-timeout {idle}"));
        }
        self.stops_on_exit = self.rng.percent(35);
        if self.stops_on_exit {
            self.option("--stop-on-exit");
        }
        match self.rng.below(10) {
            0 => self.option("--quiet"),
            1 => self.option("--verbose"),
            _ => {}
        }
        if self.rng.percent(10) {
            self.option("--listen-only");
        }
        if self.rng.percent(8) {
            self.option("--data-bitrate 2000");
        }
        if self.rng.percent(15) {
            let rate = self.rng.pick(&["500", "1000", "125"]);
            self.option(format!("--bitrate {rate}"));
        }
        if self.rng.percent(4) {
            self.option("--target 10.8.0.109:19228");
        }
        if self.rng.percent(25) {
            let all = [
                "STD:100:7FF",
                "STD:0:0",
                "EXT:0:0",
                "EXT:18FEF100:1FFFFFFF",
                "STD:105:7FF",
                "STD:7FF:7FF",
                "EXT:1:1FFFFFFF",
            ];
            let count = self.rng.pick(&[1, 1, 2, 2, 3, 6]);
            for _ in 0..count {
                let filter = self.rng.pick(&all);
                self.option(format!("--filter {filter}"));
            }
        }
    }

    fn set_status_after(&mut self, text: &str, time: Time) {
        self.option(format!("--status-after {text}"));
        self.status_after = time * MILLISECOND;
    }

    fn gateway(&mut self) {
        if self.rng.percent(30) {
            let end = self.rng.pick(&["\r", "\r\n", "\\n", "\\r\\n", "\\r"]);
            self.items.push(Item::LineEnd(end.to_owned()));
        }
        if self.rng.percent(7) {
            self.items.push(Item::OddText);
        }
        match self.rng.below(10) {
            0 | 1 => self.items.push(Item::Initially { state: 1, stream_is_ours: false }),
            2 => self.items.push(Item::Initially { state: 2, stream_is_ours: true }),
            3 => self.items.push(Item::Initially { state: 2, stream_is_ours: false }),
            _ => {}
        }
        if self.rng.percent(15) {
            self.items.push(Item::Accepting);
        }
        match self.rng.below(30) {
            0 | 1 => self.items.push(Item::StatusRefused),
            2 => self.items.push(Item::StatusIgnored),
            3 => {
                let form = self.rng.pick(&["R CAN 1 OK", "R STATUS running", "R CAN 1 ---I 100", "R 17"]);
                self.items.push(Item::StatusForm(form.to_owned()));
            }
            _ => {}
        }
        if self.rng.percent(12) {
            let action = self.rng.pick(&[
                "INIT",
                "INIT",
                "INIT",
                "FILTER CLEAR",
                "FILTER ADD",
                "START",
                "START",
                "STOP",
                "STATUS",
            ]);
            let number = self.rng.below(35);
            let text = self.rng.pick(&[
                format!("R ERR {number} refused"),
                format!("R ERR {number} refused"),
                "R ERR 10 invalid CAN state".to_owned(),
                "R ERR 23 init failed".to_owned(),
                "R ERR".to_owned(),
                "R ERR busy".to_owned(),
            ]);
            let times = self.rng.pick(&[1, 1, 2, 99]);
            self.items.push(Item::Refuses { action: action.to_owned(), times, text });
        }
        if self.rng.percent(6) {
            let delay = self.rng.between(0, 2 * self.timeout - 10 * MILLISECOND);
            self.items.push(Item::Delay(delay));
        }
        if self.rng.percent(6) {
            self.items.push(Item::Packs);
        }
        if self.rng.percent(8) {
            self.items.push(Item::WrongRate);
            let at = self.rng.between(0, 8 * SECOND);
            if self.rng.percent(70) {
                let (flags, event) =
                    self.rng.pick(&[(*b"-E--", "ERRORWARNING SET"), (*b"BE--", "BUSOFF"), (*b"B---", "BUSOFF")]);
                if self.rng.percent(80) {
                    self.items.push(Item::At(at, Happening::Flags(flags)));
                }
                if self.rng.percent(80) {
                    self.text(at, format!("E {} {event}", self.port));
                }
            }
        }
    }

    fn text(&mut self, at: Time, text: impl Into<String>) {
        let mut bytes = text.into().into_bytes();
        bytes.push(b'\n');
        self.items.push(Item::At(at, Happening::Text(bytes)));
    }

    /// The times at which something happens to the bus: while the handshake runs, around START, or at any time.
    fn a_time(&mut self) -> Time {
        let start = self.timeout / 4 + 100 * MILLISECOND;
        let at = match self.rng.below(10) {
            0 | 1 => self.rng.between(0, start),
            2 => start + self.rng.between(0, 2 * self.timeout),
            3 | 4 => start + self.status_after + self.rng.between(0, self.timeout),
            5 => self.horizon.saturating_sub(self.rng.between(0, 300 * MILLISECOND)),
            _ => self.rng.between(0, self.horizon),
        };
        at.min(self.horizon)
    }

    fn streams(&mut self) {
        let count = self.rng.pick(&[0, 1, 1, 1, 1, 2, 3]);
        for _ in 0..count {
            let every = match self.rng.below(10) {
                0 | 1 => self.rng.between(3 * MILLISECOND, 20 * MILLISECOND),
                2 | 3 => self.rng.between(50 * MILLISECOND, 500 * MILLISECOND),
                4 | 5 => self.rng.between(SECOND, 4 * SECOND),
                6..=8 => self.rng.between(5 * SECOND, 12 * SECOND),
                _ => self.rng.between(12 * SECOND, 70 * SECOND),
            };
            let from =
                if self.rng.percent(60) { self.rng.between(0, SECOND) } else { self.rng.between(0, self.horizon) };
            let longest = every * self.rng.between(1, 120);
            let to = if self.rng.percent(50) { self.horizon + SECOND } else { self.rng.between(from, self.horizon) };
            let kind = self.rng.pick(&[
                Kind::Standard,
                Kind::Standard,
                Kind::Standard,
                Kind::Extended,
                Kind::Extended,
                Kind::Mixed,
                Kind::OtherPort,
            ]);
            let pack = if self.rng.percent(85) { 1 } else { 3 };
            self.items.push(Item::Stream { from, to: to.min(from + longest), every, pack, kind });
        }
    }

    /// A fate within the assumptions: carried out and answered within two timeouts or never, other copies within 20 ms of the
    /// first answer.
    fn fate(&mut self) -> Fate {
        let rng = &mut self.rng;
        let latest = 2 * self.timeout - 2 * MILLISECOND;
        let rest = 19 * MILLISECOND;
        // Mostly early, but also late, and just about the timeout.
        let answered = match rng.below(4) {
            0 => rng.between(2 * MILLISECOND, 30 * MILLISECOND),
            1 => rng.between(self.timeout.saturating_sub(5 * MILLISECOND), self.timeout + 25 * MILLISECOND),
            2 => rng.between(2 * MILLISECOND, latest),
            _ => rng.between(latest.saturating_sub(20 * MILLISECOND), latest),
        }
        .clamp(2 * MILLISECOND, latest.max(2 * MILLISECOND));
        let sooner = |rng: &mut Rng| rng.between(MILLISECOND, answered);
        let later = |rng: &mut Rng| rng.between(answered, (answered + rest).min(latest));
        let copy = |carried_out, answers: &[Time]| Copy { carried_out, answers: answers.to_vec() };
        Fate::Copies(match rng.below(10) {
            0 | 1 => vec![],
            2 => vec![copy(sooner(rng), &[])],
            3 => vec![copy(MILLISECOND, &[answered])],
            4 => vec![copy(answered, &[answered])],
            5 => vec![copy(sooner(rng), &[answered, later(rng)])],
            6 => vec![copy(sooner(rng), &[answered]), copy(sooner(rng), &[later(rng)])],
            7 => {
                let second = later(rng);
                vec![copy(sooner(rng), &[answered]), copy(second, &[second])]
            }
            8 => vec![copy(sooner(rng), &[]), copy(sooner(rng), &[answered])],
            _ => vec![copy(sooner(rng), &[]), copy(sooner(rng), &[])],
        })
    }

    fn wild_fate(&mut self) -> Fate {
        let copies = self.rng.below(4);
        let mut fate = Vec::new();
        for _ in 0..copies {
            let carried_out = self.rng.between(MILLISECOND, 5 * self.timeout);
            let answers = (0..self.rng.below(3)).map(|_| carried_out + self.rng.between(0, 5 * self.timeout)).collect();
            fate.push(Copy { carried_out, answers });
        }
        Fate::Copies(fate)
    }

    fn faults(&mut self) {
        let (chance, among) = self.rng.pick(&[(0, 0), (0, 0), (12, 12), (12, 12), (35, 40), (35, 40), (80, 30)]);
        for index in 0..among {
            if !self.rng.percent(chance) {
                continue;
            }
            let fate = if self.rng.percent(8) {
                Fate::Fails(self.rng.pick(&[SendError::Unreachable, SendError::Denied]))
            } else if self.wild && self.rng.percent(60) {
                self.wild_fate()
            } else {
                self.fate()
            };
            self.items.push(Item::Fault(index, fate));
        }
        // The START of most handshakes, and what follows it.
        if self.rng.percent(15) {
            let first = self.rng.between(3, 4) as usize;
            self.items.push(Item::Fault(first, Fate::Copies(Vec::new())));
            for index in first + 1..first + 8 {
                if self.rng.percent(25) {
                    let fate = self.fate();
                    self.items.push(Item::Fault(index, fate));
                }
            }
        }
    }

    fn happenings(&mut self) {
        let count = self.rng.pick(&[0, 0, 1, 1, 2, 3, 4, 6]);
        for _ in 0..count {
            let at = self.a_time();
            self.happening_at(at);
        }
        // Something that comes again and again.
        if self.rng.percent(12) {
            let text = self.noise();
            let every = self.rng.pick(&[5 * MILLISECOND, 300 * MILLISECOND, 2 * SECOND, 7 * SECOND]);
            let from = self.a_time();
            for number in 0..self.rng.between(2, 60) {
                let at = from + number * every;
                if at < self.horizon {
                    self.items.push(Item::At(at, Happening::Text(text.clone())));
                }
            }
        }
        // An answer to an earlier program, while the line is still quiet.
        if self.rng.percent(6) {
            let at = self.rng.between(0, (self.timeout / 4).saturating_sub(2 * MILLISECOND));
            let text = self.rng.pick(&["R ok", "R ERR 10 invalid CAN state", "R ok\nM 1 CSD 100 01"]);
            self.text(at, text);
        }
        if self.rng.percent(10) {
            let at = self.a_time();
            self.items.push(Item::At(at, Happening::Signal));
            if self.rng.percent(40) {
                let again = at + self.rng.between(110 * MILLISECOND, 3 * SECOND);
                self.items.push(Item::At(again, Happening::Signal));
            }
        }
    }

    fn noise(&mut self) -> Vec<u8> {
        let (port, other) = (self.port, self.port % 4 + 1);
        let text = self.rng.pick(&[
            format!("E {port} ERRORWARNING SET\n"),
            format!("E {port} ERRORWARNING SET\n"),
            format!("E {port} ERRORWARNING RESET\n"),
            format!("E {port} BUSOFF\n"),
            format!("E {port} BUSOFF\n"),
            format!("E {other} BUSOFF\n"),
            format!("E {port} SOMETHING ELSE\n"),
            String::new(),
            "\r\n".to_owned(),
            "\n".to_owned(),
            "hello\n".to_owned(),
            "DEV 1 something\n".to_owned(),
            "R PING ok\n".to_owned(),
            format!("M {other} CSD 100 01\n"),
            "M 9 CSD 100 01\n".to_owned(),
            format!("E {port} ERRORWARNING SET\nE {port} BUSOFF\n"),
        ]);
        let mut bytes = text.into_bytes();
        if self.rng.percent(3) {
            bytes = vec![0xFF, 0x1B, b'[', b'J'];
        }
        bytes
    }

    fn happening_at(&mut self, at: Time) {
        let lasting = match self.rng.below(4) {
            0 => self.rng.between(50 * MILLISECOND, SECOND),
            1 => self.rng.between(SECOND, 10 * SECOND),
            2 => self.rng.between(5 * SECOND, 80 * SECOND),
            _ => self.rng.between(SECOND, 200 * SECOND),
        };
        let ends = self.rng.percent(60);
        let mut pair = |from: Happening, to: Happening| {
            self.items.push(Item::At(at, from));
            if ends {
                self.items.push(Item::At(at + lasting, to));
            }
        };
        match self.rng.below(28) {
            0 | 1 => {
                let keeps = lasting % 3 == 0;
                pair(Happening::PowerOff, Happening::PowerOn(keeps));
            }
            2 => pair(Happening::PortClosed(true), Happening::PortClosed(false)),
            3 => pair(Happening::Firewall(true), Happening::Firewall(false)),
            4 => pair(Happening::Cut(true), Happening::Cut(false)),
            5 => pair(Happening::Muted(true), Happening::Muted(false)),
            6 => {
                let error = if lasting % 2 == 0 { SendError::Unreachable } else { SendError::Denied };
                pair(Happening::SendFails(Some(error)), Happening::SendFails(None));
            }
            7 => pair(Happening::AddressLost(true), Happening::AddressLost(false)),
            8 => pair(Happening::StreamTaken(true), Happening::StreamTaken(false)),
            9 | 10 => self.items.push(Item::At(at, Happening::Other("STOP".to_owned()))),
            11 => {
                // Another listener does all of it.
                for action in ["STOP", "INIT STD 500", "START"] {
                    self.items.push(Item::At(at, Happening::Other(action.to_owned())));
                }
            }
            12 => {
                let action = self.rng.pick(&["START", "INIT STD 500", "STATUS", "FILTER CLEAR"]);
                self.items.push(Item::At(at, Happening::Other(action.to_owned())));
            }
            13 | 14 => {
                let action = if self.wild { self.rng.pick(&["STOP", "STATUS", "START"]) } else { "STOP" };
                self.items.push(Item::At(at, Happening::Neighbour(action.to_owned())));
            }
            15..=20 => {
                let noise = self.noise();
                self.items.push(Item::At(at, Happening::Text(noise)));
            }
            21 | 22 => {
                let flags = self.rng.pick(&[*b"B---", *b"-E--", *b"BE--", *b"--O-", *b"---T"]);
                pair(Happening::Flags(flags), Happening::Flags(*b"----"));
            }
            23..=25 => {
                let time = self.rng.pick(&[30 * MILLISECOND, 300 * MILLISECOND, 3 * SECOND, 30 * SECOND, 90 * SECOND]);
                self.items.push(Item::At(at, Happening::Stall(time)));
            }
            _ if self.wild => {
                let text =
                    self.rng.pick(&["R ok", "R ERR 10 invalid CAN state", "R CAN 1 ----I 100", "R CAN 1 ----- 100"]);
                self.text(at, text);
            }
            _ => {}
        }
    }

    fn stdout(&mut self) {
        if self.rng.percent(12) {
            let at = self.a_time();
            let (happening, back) = self.rng.pick(&[
                (Happening::ReaderSlow(true), Some(Happening::ReaderSlow(false))),
                (Happening::ReaderSlow(true), Some(Happening::ReaderSlow(false))),
                (Happening::ReaderSlow(true), None),
                (Happening::ReaderGone, None),
                (Happening::DiskFull, None),
                (Happening::FileDeleted, None),
            ]);
            if matches!(happening, Happening::DiskFull | Happening::FileDeleted) {
                self.items.push(Item::File { sync: MILLISECOND, fails: false });
            } else if self.rng.percent(60) {
                let size = self.rng.between(20, 2000) as usize;
                self.items.push(Item::Buffer(size));
            }
            self.items.push(Item::At(at, happening));
            if let Some(back) = back {
                let later = at + self.rng.between(100 * MILLISECOND, 30 * SECOND);
                self.items.push(Item::At(later, back));
            }
        } else if self.rng.percent(8) {
            let sync = self.rng.pick(&[MILLISECOND, 300 * MILLISECOND, 4 * SECOND]);
            self.items.push(Item::File { sync, fails: self.rng.percent(40) });
        }
        if self.rng.percent(2) {
            let at = self.a_time();
            self.items.push(Item::At(at, Happening::StderrBlocked(true)));
        }
    }

    /// What independent draws hardly ever bring together.
    fn rarity(&mut self) {
        let quiet = self.timeout / 4;
        let text = |at, text: &str| Item::At(at, Happening::Text(format!("{text}\n").into_bytes()));
        match self.rng.below(50) {
            // So many frames that the loop rests, until after the end.
            0 => {
                let from = self.horizon.saturating_sub(self.rng.between(0, 400 * MILLISECOND));
                let every = self.rng.between(100, 2 * MILLISECOND);
                let to = self.horizon + 100 * MILLISECOND;
                self.items.push(Item::Stream { from, to, every, pack: 1, kind: Kind::Standard });
            }
            // A talkative gateway, whose controller goes bus off.
            1 => {
                let at = self.a_time();
                let port = self.port;
                let line = |number: Time| text(at + number * MILLISECOND, &format!("E {port} TEST {number}"));
                self.items.extend((0..60).map(line));
                self.items.push(text(at + SECOND, &format!("E {} BUSOFF", self.port)));
            }
            // It recovers.
            2 => {
                let at = self.a_time();
                let again = self.rng.between(at, self.horizon.max(at));
                let event = self.rng.pick(&["BUSOFF", "ERRORWARNING SET"]);
                self.items.push(text(at, &format!("E {} {event}", self.port)));
                self.items.push(text(again, &format!("E {} ERRORWARNING RESET", self.port)));
            }
            // Every START is lost, and every STATUS answered.
            3 => {
                self.items.retain(|item| !matches!(item, Item::Fault(..) | Item::Refuses { .. }));
                let first = self.rng.between(3, 4) as usize;
                self.items.extend((first..first + 20).step_by(2).map(|index| Item::Fault(index, Fate::Copies(vec![]))));
                self.horizon = self.horizon.max(400 * SECOND);
            }
            // The queue overflows now and then, or the reader is too slow for minutes.
            4 => {
                let (from, to) = (self.rng.between(0, SECOND), 150 * SECOND);
                self.items.push(Item::Stream { from, to, every: 200 * MILLISECOND, pack: 1, kind: Kind::Standard });
                self.horizon = self.horizon.max(to);
                if self.rng.percent(50) {
                    self.items.push(Item::Buffer(500));
                    self.items.push(Item::At(20 * SECOND, Happening::ReaderSlow(true)));
                } else {
                    self.items.push(Item::Queue(8));
                    let stall = |number: Time| Item::At(number * 11 * SECOND, Happening::Stall(3 * SECOND));
                    self.items.extend((1..13).map(stall));
                }
            }
            // It overflows before INIT.
            5 => {
                self.items.push(Item::Initially { state: 2, stream_is_ours: true });
                self.items.push(Item::Queue(8));
                let every = quiet / 40;
                self.items.push(Item::Stream { from: 0, to: quiet, every, pack: 1, kind: Kind::OtherPort });
                self.items.push(Item::At(quiet / 8, Happening::Stall(quiet / 2)));
            }
            // The answer for a neighbour waits when STOP is due, which is lost.
            6 => {
                self.items.retain(|item| !matches!(item, Item::Fault(..)));
                if !self.stops_on_exit {
                    self.option("--stop-on-exit");
                }
                self.horizon = quiet + 2 * SECOND;
                self.items.extend((4..7).map(|index| Item::Fault(index, Fate::Copies(vec![]))));
                self.items.push(Item::At(self.horizon - 50 * MILLISECOND, Happening::Stall(80 * MILLISECOND)));
                self.items.push(Item::At(self.horizon - 20 * MILLISECOND, Happening::Neighbour("STOP".to_owned())));
            }
            // The answer to one of the first commands waits behind others, until its time is over.
            7 => {
                if self.attempts == 3 {
                    self.option("--attempts 1");
                }
                let started = quiet + 66 * MILLISECOND;
                let at = self.rng.pick(&[quiet, quiet + 22 * MILLISECOND, started + self.status_after]);
                let at = at + MILLISECOND + MILLISECOND / 2;
                self.items.push(Item::At(at, Happening::Stall(3 * self.timeout)));
                self.items.extend((0..4).map(|number| text(at + number * 100, "hello")));
            }
            // Another program stops the bus and starts it again; the stream stays.
            8 => {
                let at = self.a_time();
                self.items.push(Item::At(at, Happening::Other("STOP".to_owned())));
                let again = at + self.rng.between(SECOND, 20 * SECOND);
                self.items.push(Item::At(again, Happening::Other("START".to_owned())));
                self.items.push(Item::At(again, Happening::StreamTaken(false)));
            }
            // A mode that the gateway does not know.
            9 => {
                self.items.retain(|item| !matches!(item, Item::Refuses { .. }));
                let text = "R ERR 11 invalid parameter mode".to_owned();
                self.items.push(Item::Initially { state: 2, stream_is_ours: false });
                self.items.push(Item::Refuses { action: "INIT".to_owned(), times: 99, text });
            }
            // START is doubled, only the second answer arrives, and STATUS cannot check it; frames flow.
            10 => {
                self.items.retain(|item| !matches!(item, Item::Fault(..) | Item::Refuses { .. }));
                let answered = [(MILLISECOND, vec![]), (2 * MILLISECOND, vec![3 * MILLISECOND])];
                let copies = answered.map(|(carried_out, answers)| Copy { carried_out, answers });
                self.items.extend([Item::StatusRefused, Item::Fault(3, Fate::Copies(copies.to_vec()))]);
                let (every, kind) = (5 * MILLISECOND, Kind::Standard);
                self.items.push(Item::Stream { from: 0, to: 2 * SECOND, every, pack: 1, kind });
            }
            _ => {}
        }
    }

    fn process(&mut self) {
        let count = self.rng.pick(&[0, 0, 0, 0, 1, 3]);
        for _ in 0..count {
            let longest = self.rng.pick(&[30 * MILLISECOND, self.timeout, 3 * self.timeout, 20 * SECOND]);
            let (call, time) = (self.rng.between(1, 400) as u32, self.rng.between(0, longest));
            self.items.push(Item::Pause(call, time));
        }
        if self.rng.percent(15) {
            let size = self.rng.between(4, 60) as usize;
            self.items.push(Item::Queue(size));
        }
        if self.rng.percent(3) {
            self.items.push(Item::NoDropCounter);
        }
        if self.rng.percent(20) {
            self.items.push(Item::EarlyWakeups);
        }
    }
}
