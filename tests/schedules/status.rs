//! START, STATUS and STOP against every schedule that a bad network can make of two attempts, on the test's own clock.
//!
//! A model of its own stands in for gateway and network. At each command that the machine sends, the run forks, once for
//! each fate that this copy can have. STOP comes at one of several moments, or not at all.

use std::time::{Duration, Instant};

use can_udp::gateway::command::Command;
use can_udp::gateway::handshake::{Action, Answer, Failure, Machine, Retry, SETTLE};
use can_udp::gateway::reply::replies;

const ATTEMPTS: u32 = 2;
const TIMEOUT: Duration = Duration::from_secs(1);
const ROUND_TRIP: Duration = Duration::from_millis(2);
const A_LITTLE: Duration = Duration::from_millis(1);

const START: Command = Command::Start { channel: 1 };
const STATUS: Command = Command::Status { channel: 1 };
const STOP: Command = Command::Stop { channel: 1 };

/// How long a reply takes, and how long after it its copy comes; `None` is lost.
#[derive(Clone, Copy, Debug)]
enum Fate {
    RequestLost,
    ReplyLost,
    Answered(Duration, Option<Duration>),
}

const FATES: [Fate; 8] = [
    Fate::RequestLost,
    Fate::ReplyLost,
    Fate::Answered(ROUND_TRIP, None),
    Fate::Answered(ROUND_TRIP, Some(Duration::from_millis(19))),
    Fate::Answered(TIMEOUT, None),
    Fate::Answered(Duration::from_millis(1001), Some(Duration::from_millis(19))),
    Fate::Answered(Duration::from_millis(1500), None),
    Fate::Answered(Duration::from_secs(2), None),
];

#[derive(Clone)]
struct World {
    knows_status: bool,
    /// When STOP is asked for; `None` once that is done, or if it never is.
    stop_at: Option<Instant>,
    stopping: bool,
    now: Instant,
    machine: Machine,
    /// What is under way to us.
    replies: Vec<(Instant, &'static str)>,
    sent: Vec<Command>,
    /// Which commands the gateway has answered, and STOP carried out.
    status_answered: bool,
    start_answered: bool,
    stop_carried_out: bool,
    running: bool,
}

impl World {
    fn new(knows_status: bool, stop_after: Option<Duration>) -> World {
        let now = Instant::now();
        let retry = Retry { timeout: TIMEOUT, attempts: ATTEMPTS };
        World {
            knows_status,
            stop_at: stop_after.map(|after| now + after),
            stopping: false,
            now,
            machine: Machine::new(now, retry, Duration::ZERO, [START, STATUS]),
            replies: Vec::new(),
            sent: Vec::new(),
            status_answered: false,
            start_answered: false,
            stop_carried_out: false,
            running: false,
        }
    }

    /// Runs this world and all that fork from it; tells how many there were.
    fn explore(mut self) -> Result<u64, String> {
        let end = self.now + 60 * TIMEOUT;
        while self.now < end {
            match self.machine.poll(self.now) {
                Ok(Action::Send { command, .. }) => {
                    self.machine.sent(self.now);
                    self.check_sending(command)?;
                    self.sent.push(command);
                    return FATES.iter().map(|&fate| self.clone().suffer(command, fate).explore()).sum();
                }
                Ok(Action::Wait(None)) if self.stop_at.is_none() => return Ok(1),
                Ok(Action::Wait(until)) => self.pass_until(until)?,
                Ok(Action::Settled { command, answer }) => {
                    if self.check_answer(command, answer)? {
                        return Ok(1);
                    }
                }
                Ok(Action::TakeOver(_)) => return Err(self.violation("takes over")),
                Err(Failure::NoReply(STOP)) if self.count(STOP) >= ATTEMPTS as usize => return Ok(1),
                Err(failure) => return Err(self.violation(&format!("fails with {failure:?}"))),
            }
        }
        Err(self.violation("does not come to an end"))
    }

    fn count(&self, command: Command) -> usize {
        self.sent.iter().filter(|sent| **sent == command).count()
    }

    fn check_sending(&self, command: Command) -> Result<(), String> {
        match command {
            STOP if self.stopping => Ok(()),
            START if self.sent.is_empty() => Ok(()),
            STATUS if !self.stopping && self.count(STATUS) < ATTEMPTS as usize => {
                // Whatever is under way answers STATUS itself.
                let of_start = self.count(STATUS) == 0 && !self.replies.is_empty();
                if of_start { Err(self.violation("asks while START's answer is owed")) } else { Ok(()) }
            }
            _ => Err(self.violation(&format!("sends {command}"))),
        }
    }

    fn suffer(mut self, command: Command, fate: Fate) -> World {
        if let Fate::RequestLost = fate {
            return self;
        }
        let reply = match command {
            STATUS if !self.knows_status => "R ERR 2 unknown command",
            STATUS if self.running => "R CAN 1 ----- 100",
            STATUS => "R CAN 1 ----I 100",
            _ => {
                self.running = command == START;
                self.stop_carried_out |= command == STOP;
                "R ok"
            }
        };
        if let Fate::Answered(after, copy) = fate {
            self.status_answered |= command == STATUS;
            self.start_answered |= command == START;
            self.replies.push((self.now + after, reply));
            self.replies.extend(copy.map(|copy| (self.now + after + copy, reply)));
        }
        self
    }

    fn pass_until(&mut self, until: Option<Instant>) -> Result<(), String> {
        let next = (0..self.replies.len()).min_by_key(|&index| self.replies[index].0);
        let reply_at = next.map(|index| self.replies[index].0);
        let earliest = [until, reply_at, self.stop_at].into_iter().flatten().min();
        self.now = earliest.ok_or_else(|| self.violation("waits for ever"))?.max(self.now);
        if self.stop_at.is_some_and(|at| at <= self.now) {
            self.stop_at = None;
            self.stopping = true;
            self.machine.stop(self.now, 1);
        }
        if let Some(index) = next.filter(|&index| self.replies[index].0 <= self.now) {
            let (_, line) = self.replies.swap_remove(index);
            for reply in replies(line.as_bytes()) {
                self.machine.handle_reply(self.now, reply);
            }
        }
        Ok(())
    }

    /// `true` at the end.
    fn check_answer(&self, command: Command, answer: Option<Answer>) -> Result<bool, String> {
        let right = match (command, &answer) {
            (START, Some(Answer::Ok)) => self.start_answered,
            (STATUS, Some(Answer::Status(status))) => self.status_answered && status.stopped != self.running,
            (STATUS, Some(Answer::Refused(_))) => self.status_answered && !self.knows_status,
            (START | STATUS, None) => true,
            (STOP, Some(Answer::Ok)) => self.stop_carried_out,
            _ => false,
        };
        if right { Ok(command == STOP) } else { Err(self.violation(&format!("settles {command} with {answer:?}"))) }
    }

    fn violation(&self, what: &str) -> String {
        format!("the machine {what}; sent: {:?}; under way: {:?}", self.sent, self.replies)
    }
}

fn explore_all(stops: &[Option<Duration>]) -> u64 {
    let worlds = stops.iter().flat_map(|&stop| [true, false].map(|knows_status| World::new(knows_status, stop)));
    worlds.map(|world| world.explore().unwrap_or_else(|violation| panic!("{violation}"))).sum()
}

#[test]
fn no_schedule_of_start_and_status_credits_an_answer_to_the_wrong_one() {
    assert!(explore_all(&[None]) > 500);
}

#[test]
fn no_schedule_confirms_a_stop_that_was_not_carried_out() {
    let moments = [
        Duration::ZERO,
        A_LITTLE,
        ROUND_TRIP + A_LITTLE,
        TIMEOUT / 2,
        TIMEOUT + A_LITTLE,
        2 * TIMEOUT + SETTLE + A_LITTLE,
        2 * TIMEOUT + TIMEOUT / 2,
        3 * TIMEOUT + TIMEOUT / 2,
        5 * TIMEOUT,
    ];
    assert!(explore_all(&moments.map(Some)) > 10_000);
}
