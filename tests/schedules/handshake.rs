//! The handshake against every schedule that a bad network can make of it, on the test's own clock.
//!
//! A model of the gateway and of the network stands in for both. At each command that the machine sends, the run
//! forks, once for each fate that this copy can have; so every combination of fates is run, none is sampled. What is
//! checked in each is what the documentation of `can_udp::gateway::handshake` guarantees, within what it assumes.
//!
//! Three commands suffer every fate at a time; a fourth and a fifth (when a running controller is taken over) would make
//! hundreds of millions of schedules. They need not: it is checked too that nothing is under way when a new command is
//! sent, so what comes after it does not depend on what came before.

use std::io::Write;
use std::time::{Duration, Instant};

use can_udp::gateway::command::{self as protocol, Command, Filter};
use can_udp::gateway::handshake::{self, Action, Failure, Retry, SETTLE};
use can_udp::gateway::reply::replies;

const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(1);
const ROUND_TRIP: Duration = Duration::from_millis(2);
const A_LITTLE: Duration = Duration::from_millis(1);
const FILTERS: [Filter; 1] = [Filter::ALL_STANDARD];

/// What becomes of one copy of a command and of its reply.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    InTime,
    RequestLost,
    ReplyLost,
    /// The reply and the end of the timeout come at the same instant, the reply first.
    AtTheDeadline,
    AfterTheRetransmission,
    /// Two timeouts late, the most that is assumed; the second timeout's end comes first.
    AfterTheNextTimeout,
    /// The network delivers the reply twice, as far apart as is assumed.
    Doubled,
    /// Late and twice.
    DoubledLate,
    /// The reply arrives in time; the program stands still and reads it after the timeout's end.
    ReadAfterTheDeadline,
    /// As soon as the reply is read the program stands still, and the network's copy of it arrives meanwhile.
    DoubledWhileStandingStill,
}

const FATES: [Fate; 8] = [
    Fate::InTime,
    Fate::RequestLost,
    Fate::ReplyLost,
    Fate::AtTheDeadline,
    Fate::AfterTheRetransmission,
    Fate::AfterTheNextTimeout,
    Fate::Doubled,
    Fate::DoubledLate,
];

/// For runs in which the program stands still now and then.
const FATES_WITH_STALLS: [Fate; 9] = [
    Fate::InTime,
    Fate::RequestLost,
    Fate::ReplyLost,
    Fate::AtTheDeadline,
    Fate::AfterTheRetransmission,
    Fate::AfterTheNextTimeout,
    Fate::DoubledLate,
    Fate::ReadAfterTheDeadline,
    Fate::DoubledWhileStandingStill,
];

/// What the gateway makes of `INIT`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Init {
    Accepts,
    /// Its controller runs since an earlier session: refuses until it was stopped.
    RefusesWhileRunning,
    RefusesForGood,
}

/// What is on the line from before.
#[derive(Clone, Copy, Debug)]
enum Stale {
    Nothing,
    Reply(&'static str, Duration),
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    init: Init,
    stale: Stale,
    /// From which command on (counting from 0) every copy is answered in time: where runs would be too many.
    calm_from: usize,
    fates: &'static [Fate],
}

/// A way to break the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    TakesAnyReplyAtOnce,
    DoesNotWaitLateRepliesOut,
    LeavesOutTheLastAdd,
    MakesAnAttemptTooMany,
    LooksAtTheClockBeforeItReads,
}

/// The machine under test, whole or broken. Broken ones that hurry are the true machine with a clock that jumps.
#[derive(Clone)]
struct Machine {
    machine: handshake::Machine,
    flaw: Option<Flaw>,
    jumped: Duration,
    answered: bool,
}

impl Machine {
    fn new(now: Instant, flaw: Option<Flaw>) -> Machine {
        let attempts = if flaw == Some(Flaw::MakesAnAttemptTooMany) { ATTEMPTS + 1 } else { ATTEMPTS };
        let filters = if flaw == Some(Flaw::LeavesOutTheLastAdd) { &FILTERS[1..] } else { &FILTERS };
        let retry = Retry { timeout: TIMEOUT, attempts };
        let channel = 1;
        let mut commands =
            vec![Command::Init { channel, init: protocol::Init::DEFAULT }, Command::FilterClear { channel }];
        commands.extend(filters.iter().map(|&filter| Command::FilterAdd { channel, filter }));
        commands.push(Command::Start { channel });
        let machine = handshake::Machine::new(now, retry, retry.initial_quiet(), commands);
        Machine { machine, flaw, jumped: Duration::ZERO, answered: true }
    }

    fn poll(&mut self, now: Instant) -> Result<Action, Failure> {
        loop {
            let action = self.machine.poll(now + self.jumped)?;
            let Action::Wait(Some(until)) = action else {
                if let Action::Send { .. } = action {
                    self.answered = false;
                    self.machine.sent(now + self.jumped);
                }
                return Ok(action);
            };
            let until = until - self.jumped;
            let patience = match self.flaw {
                Some(Flaw::TakesAnyReplyAtOnce) if self.answered => Duration::ZERO,
                Some(Flaw::DoesNotWaitLateRepliesOut) if self.answered => SETTLE,
                _ => return Ok(Action::Wait(Some(until))),
            };
            let hasty = until.min(now + patience);
            self.jumped += until - hasty;
            if hasty > now {
                return Ok(Action::Wait(Some(hasty)));
            }
        }
    }
}

/// Something under way in the network.
#[derive(Clone, Copy, Debug)]
struct Event {
    at: Instant,
    /// Comes after what else happens at that instant.
    last: bool,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A copy of the n-th command reaches the gateway; the reply takes these times to come back.
    Request(usize, [Option<Duration>; 2]),
    /// A reply to the n-th command, or to one of an earlier session, reaches us.
    Reply(Option<usize>, &'static str),
}

#[derive(Clone)]
struct World {
    setting: Setting,
    born: Instant,
    now: Instant,
    machine: Machine,
    network: Vec<Event>,
    /// Every command that the machine sent, and how many copies of it.
    sent: Vec<(Command, u32)>,
    last_sent: Instant,
    /// Whether the last command has been answered, and whether that was a refusal.
    answered: bool,
    refused: bool,
    /// What the gateway has carried out, without immediate repetitions.
    carried_out: Vec<Command>,
    running: bool,
    noise: usize,
    /// Until when the program stands still.
    stands_still_until: Option<Instant>,
    /// For how long it will, once it has read a reply.
    then_stands_still: Option<Duration>,
    has_stood_still: bool,
    /// Replies that arrived meanwhile.
    unread: Vec<(Option<usize>, &'static str)>,
}

/// Frames, events and rubbish around a reply, in the same datagram: what is before it and what is after it.
const NOISE: [(&str, &str); 4] =
    [("", "\n"), ("M 1 CSD 100 55 AA\r\n", "\r\nE 1 BUSOFF\r\n"), ("R okay\nok\n\n", "\rR\r"), ("\u{1}R  \\n", "\\n")];

impl World {
    fn new(setting: Setting, flaw: Option<Flaw>) -> World {
        let born = Instant::now();
        let network = match setting.stale {
            Stale::Nothing => Vec::new(),
            Stale::Reply(line, after) => vec![Event { at: born + after, last: false, what: What::Reply(None, line) }],
        };
        World {
            setting,
            born,
            now: born,
            machine: Machine::new(born, flaw),
            network,
            sent: Vec::new(),
            last_sent: born,
            answered: true,
            refused: false,
            carried_out: Vec::new(),
            running: setting.init == Init::RefusesWhileRunning,
            noise: 0,
            stands_still_until: None,
            then_stands_still: None,
            has_stood_still: false,
            unread: Vec::new(),
        }
    }

    /// Runs this world and all that fork from it; tells how many there were.
    fn explore(mut self) -> Result<u64, String> {
        loop {
            if self.now > self.born + 90 * TIMEOUT {
                return Err(self.violation("does not come to an end"));
            }
            match self.machine.poll(self.now) {
                Ok(Action::Wait(None)) => return Err(self.violation("waits for ever")),
                Ok(Action::Wait(Some(until))) if until <= self.now => {
                    return Err(self.violation("waits for a time that is past"));
                }
                Ok(Action::Wait(Some(until))) => self.let_time_pass(until)?,
                Ok(Action::Settled { .. }) => {}
                Ok(Action::TakeOver(_)) if self.refused && self.setting.init != Init::Accepts => {}
                Ok(Action::TakeOver(_)) => return Err(self.violation("takes over without a refusal")),
                Ok(Action::Send { command: Command::Start { .. }, .. }) => return self.check_start().map(|()| 1),
                Ok(Action::Send { command, .. }) => {
                    self.note_sent(command)?;
                    let calm = self.sent.len() > self.setting.calm_from;
                    let fates = if calm { &FATES[..1] } else { self.setting.fates };
                    return fates.iter().map(|&fate| self.clone().suffer(fate).explore()).sum();
                }
                Err(failure) => return self.check_failure(&failure).map(|()| 1),
            }
        }
    }

    fn note_sent(&mut self, command: Command) -> Result<(), String> {
        self.last_sent = self.now;
        match self.sent.last_mut() {
            Some((last, copies)) if *last == command && !self.answered => {
                *copies += 1;
                if *copies > ATTEMPTS {
                    return Err(self.violation("sends more copies than attempts"));
                }
            }
            _ if !self.answered => return Err(self.violation("has two different commands unanswered")),
            _ if !self.network.is_empty() => {
                return Err(self.violation("sends a command while a reply to another may still come"));
            }
            _ => {
                self.sent.push((command, 1));
                self.answered = false;
                self.refused = false;
            }
        }
        Ok(())
    }

    fn suffer(mut self, fate: Fate) -> World {
        let soon = ROUND_TRIP / 2;
        let repeated = SETTLE - A_LITTLE;
        let replies = match fate {
            Fate::RequestLost => return self,
            Fate::ReplyLost => [None, None],
            Fate::InTime => [Some(ROUND_TRIP), None],
            Fate::AtTheDeadline => [Some(TIMEOUT), None],
            Fate::AfterTheRetransmission => [Some(TIMEOUT + A_LITTLE), None],
            Fate::AfterTheNextTimeout => [Some(2 * TIMEOUT), None],
            Fate::Doubled => [Some(ROUND_TRIP), Some(ROUND_TRIP + repeated)],
            Fate::DoubledLate => [Some(TIMEOUT + A_LITTLE), Some(TIMEOUT + A_LITTLE + repeated)],
            Fate::ReadAfterTheDeadline => {
                self.stands_still_until = Some(self.now + TIMEOUT + TIMEOUT / 5);
                [Some(ROUND_TRIP), None]
            }
            Fate::DoubledWhileStandingStill => {
                self.then_stands_still = Some(4 * SETTLE);
                [Some(ROUND_TRIP), Some(ROUND_TRIP + repeated)]
            }
        };
        let replies = replies.map(|delay| delay.map(|delay| delay - soon));
        self.network.push(Event {
            at: self.now + soon,
            last: false,
            what: What::Request(self.sent.len() - 1, replies),
        });
        self
    }

    /// Lets the next thing happen that is under way, or the time of `until` come.
    fn let_time_pass(&mut self, until: Instant) -> Result<(), String> {
        if let Some(until) = self.stands_still_until.take() {
            self.has_stood_still = true;
            // The clock first, although what has arrived is not read yet.
            if self.machine.flaw == Some(Flaw::LooksAtTheClockBeforeItReads) {
                self.now = until;
            }
            while let Some(event) = self.next_event(until) {
                match event.what {
                    What::Request(number, delays) => self.carry_out(event.at, number, delays),
                    What::Reply(number, line) => self.unread.push((number, line)),
                }
            }
            if self.machine.flaw == Some(Flaw::LooksAtTheClockBeforeItReads) {
                return Ok(());
            }
            self.now = until;
        }
        for (number, line) in std::mem::take(&mut self.unread) {
            self.deliver(number, line)?;
        }
        if self.now >= until {
            return Ok(());
        }
        match self.next_event(until) {
            Some(event) => {
                self.now = event.at.max(self.now);
                match event.what {
                    What::Request(number, delays) => self.carry_out(self.now, number, delays),
                    What::Reply(number, line) => self.deliver(number, line)?,
                }
            }
            None => self.now = until,
        }
        Ok(())
    }

    /// The next thing to happen, if it does so before that time is over.
    fn next_event(&mut self, until: Instant) -> Option<Event> {
        let next = (0..self.network.len()).min_by_key(|&index| (self.network[index].at, self.network[index].last))?;
        let event = self.network[next];
        ((event.at, event.last) <= (until, false)).then(|| self.network.swap_remove(next))
    }

    fn carry_out(&mut self, at: Instant, number: usize, delays: [Option<Duration>; 2]) {
        let command = self.sent[number].0;
        let refused = match (command, self.setting.init) {
            (Command::Init { .. }, Init::RefusesForGood) => true,
            (Command::Init { .. }, _) => self.running,
            _ => false,
        };
        if !refused {
            self.running &= !matches!(command, Command::Stop { .. });
            if self.carried_out.last() != Some(&command) {
                self.carried_out.push(command);
            }
        }
        let line = if refused { "R ERR 5 controller is running" } else { "R ok" };
        for delay in delays.into_iter().flatten() {
            let last = delay + ROUND_TRIP / 2 == 2 * TIMEOUT;
            self.network.push(Event { at: at + delay, last, what: What::Reply(Some(number), line) });
        }
    }

    fn deliver(&mut self, number: Option<usize>, line: &str) -> Result<(), String> {
        if number != self.sent.len().checked_sub(1) {
            return Err(self.violation("credits a reply to another command than its own"));
        }
        if let Some(stall) = self.then_stands_still.take() {
            self.stands_still_until = Some(self.now + stall);
        }
        self.answered = true;
        self.refused |= line != "R ok";
        self.machine.answered = true;
        let (before, after) = NOISE[self.noise % NOISE.len()];
        self.noise += 1;
        for reply in replies(format!("{before}{line}{after}").as_bytes()) {
            self.machine.machine.handle_reply(self.now + self.machine.jumped, reply);
        }
        Ok(())
    }

    fn check_start(&self) -> Result<(), String> {
        if !self.network.is_empty() {
            return Err(self.violation("sends START while a reply to another command may still come"));
        }
        let mut needed = vec!["CAN 1 INIT STD 250", "CAN 1 FILTER CLEAR", "CAN 1 FILTER ADD STD 000 000"];
        if self.setting.init == Init::RefusesWhileRunning {
            needed.insert(0, "CAN 1 STOP");
        }
        let carried_out: Vec<String> = self.carried_out.iter().map(Command::to_string).collect();
        if carried_out == needed && self.setting.init != Init::RefusesForGood {
            Ok(())
        } else {
            Err(self.violation("starts what is not set up"))
        }
    }

    fn check_failure(&self, failure: &Failure) -> Result<(), String> {
        let Some(&(command, copies)) = self.sent.last() else {
            return Err(self.violation("fails before it has tried"));
        };
        let deserved = match failure {
            Failure::NoReply(named) => {
                let deadline = self.last_sent + TIMEOUT;
                *named == command
                    && copies == ATTEMPTS
                    && !self.answered
                    && (self.now == deadline || self.has_stood_still && self.now > deadline)
            }
            Failure::Refused(named, words) => {
                let inits = self.sent.iter().filter(|(sent, _)| matches!(sent, Command::Init { .. })).count();
                *named == command
                    && self.refused
                    && words == "R ERR 5 controller is running"
                    && self.setting.init == Init::RefusesForGood
                    && inits == 2
            }
        };
        if deserved { Ok(()) } else { Err(self.violation(&format!("fails with {failure:?}"))) }
    }

    fn violation(&self, what: &str) -> String {
        format!(
            "the machine {what}, {:?} after its birth\n{:?}\nsent: {:?}\nunder way: {:?}",
            self.now - self.born,
            self.setting,
            self.sent,
            self.network.iter().map(|event| event.what).collect::<Vec<_>>()
        )
    }
}

const STALE: [Stale; 3] = [
    Stale::Nothing,
    Stale::Reply("R ok", Duration::from_millis(249)),
    Stale::Reply("R ERR 9 stale", Duration::from_millis(249)),
];

fn explore_all(flaw: Option<Flaw>, settings: impl IntoIterator<Item = Setting>) -> Result<u64, String> {
    settings.into_iter().map(|setting| World::new(setting, flaw).explore()).sum()
}

fn assert_holds(name: &str, settings: impl IntoIterator<Item = Setting>) {
    let schedules = explore_all(None, settings).unwrap_or_else(|violation| panic!("{violation}"));
    // Past the test runner's capture, which print! would go into.
    let _ = writeln!(std::io::stderr(), "{name}: {schedules} schedules");
    assert!(schedules >= 200_000, "only {schedules} schedules");
}

/// `INIT`, `FILTER CLEAR` and `FILTER ADD`, every fate of every copy.
#[test]
fn no_schedule_of_a_bad_network_breaks_the_handshake() {
    assert_holds("healthy gateway", STALE[..1].iter().map(|&stale| accepting(stale, 3)));
}

/// What is on the line from before meets `INIT` and what follows it.
#[test]
fn no_stale_reply_breaks_the_handshake() {
    let settings = STALE[1..].iter().map(|&stale| accepting(stale, 3));
    assert_holds("stale replies", settings);
}

/// `INIT`, `STOP` and the second `INIT`, every fate of every copy.
#[test]
fn no_schedule_breaks_the_taking_over_of_a_running_controller() {
    let init = Init::RefusesWhileRunning;
    assert_holds("running controller", [Setting { init, stale: Stale::Nothing, calm_from: 3, fates: &FATES }]);
}

#[test]
fn no_schedule_makes_the_handshake_insist_on_a_gateway_that_refuses_for_good() {
    let init = Init::RefusesForGood;
    assert_holds("refusing gateway", [Setting { init, stale: Stale::Nothing, calm_from: 3, fates: &FATES }]);
}

/// Replies that lie in the queue while the program stands still have arrived all the same.
#[test]
fn no_stall_of_the_program_breaks_the_handshake() {
    let fates = &FATES_WITH_STALLS;
    assert_holds("stalls", [Setting { fates, ..accepting(Stale::Nothing, 3) }]);
}

fn accepting(stale: Stale, calm_from: usize) -> Setting {
    Setting { init: Init::Accepts, stale, calm_from, fates: &FATES }
}

#[track_caller]
fn assert_found(flaw: Flaw, violation: &str) {
    let found = explore_all(Some(flaw), STALE.map(|stale| accepting(stale, 3)));
    let found = found.expect_err("the schedules show no fault in a broken machine");
    assert!(found.contains(violation), "{found}");
}

#[test]
fn a_program_that_looks_at_the_clock_before_it_reads_is_found_out() {
    let setting = Setting { fates: &FATES_WITH_STALLS, ..accepting(Stale::Nothing, 3) };
    let found = explore_all(Some(Flaw::LooksAtTheClockBeforeItReads), [setting]);
    let found = found.expect_err("the schedules show no fault in a program that reads too late");
    assert!(found.contains("credits a reply to another"), "{found}");
}

#[test]
fn a_machine_that_takes_any_reply_at_once_is_found_out() {
    assert_found(Flaw::TakesAnyReplyAtOnce, "while a reply to another");
}

#[test]
fn a_machine_that_does_not_wait_late_replies_out_is_found_out() {
    assert_found(Flaw::DoesNotWaitLateRepliesOut, "while a reply to another");
}

#[test]
fn a_machine_that_leaves_out_the_last_add_is_found_out() {
    assert_found(Flaw::LeavesOutTheLastAdd, "starts what is not set up");
}

#[test]
fn a_machine_that_makes_an_attempt_too_many_is_found_out() {
    assert_found(Flaw::MakesAnAttemptTooMany, "sends more copies than attempts");
}
