//! The state machine that speaks to the gateway for a whole session: first the handshake, later a `STATUS`, in the end
//! a `STOP`. It is told the time and which replies arrived, and answers what to send and when it next wants to be
//! woken. No socket, no clock, no thread.
//!
//! # What is sent
//!
//! One command at a time, in the order in which they were queued. Each waits for its answer, and is sent again when
//! none came within [`Retry::timeout`], at most [`Retry::attempts`] times in all; only `START` is sent once. An `R ERR`
//! is a [`Failure`], except the first one to `INIT`: the controller may be running since an earlier session, so the
//! machine sends `STOP`, awaits its answer, `R ok` or not, and sends `INIT` once more. A `STATUS` never fails. A `STOP`
//! that was sent more than once and is then refused may have been carried out, so `STATUS` decides.
//!
//! # What is assumed of the network, and what is then guaranteed
//!
//! A reply does not say which command it answers, so one can be credited wrongly if it arrives after the next command
//! was sent. With `timeout` for [`Retry::timeout`], assume that
//!
//! 1. the gateway carries out and answers each copy of a command at most once, in the order in which they arrive;
//! 2. a command's reply arrives within 2 × `timeout` of the sending of that copy, or never;
//! 3. copies of a reply that the network makes arrive within [`SETTLE`] (20 ms) of the first of them;
//! 4. what is under way from before (the late answer to a `can-stop`) arrives during the initial quiet.
//!
//! What is no reply may come at any time and in any number. Then
//!
//! * no reply is credited to a command other than its own;
//! * `START` is sent only when the gateway has carried out `INIT`, then `FILTER CLEAR`, then every `FILTER ADD`;
//! * `STOP` is confirmed only when the gateway has carried it out;
//! * none is sent more than `attempts` times (`INIT` after a `STOP` counts anew; `STOP` while another answer is owed
//!   does not count), so everything comes to an end.
//!
//! # The means
//!
//! Time, for this machine, is the moment up to which everything has been read: a reply that lies unread in the socket's
//! queue has arrived. Times are compared in [`Machine::poll`] alone. A reply and a sending are stamped after they were
//! read and made, so that what is counted from them never ends too early.
//!
//! After every reply the line settles for [`SETTLE`], and what arrives then still belongs to the command just answered;
//! an `R ERR` among it is that command's true answer. After a command that was sent more than once the machine waits
//! until 2 × `timeout` after its last copy, when every answer to it has come.
//!
//! `STOP` is in a hurry. It waits at most [`SETTLE`] for the command in hand and goes out, although that one's answer
//! is still owed. Until this is over an `R ERR` says nothing, and one `R ok` confirms nothing: it may be the other's.
//! Two, [`SETTLE`] or more apart, are one for each. So after the first, `STOP` is sent once more at once.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::gateway::command::Command;
use crate::gateway::reply::{Reply, Status};
use crate::text::escape_truncated;

/// How long the line is let settle after every reply.
pub const SETTLE: Duration = Duration::from_millis(20);

/// How patiently a command is repeated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How long each copy of a command is given to be answered; more than a day counts as a day.
    pub timeout: Duration,
    /// How many copies of a command are sent at most; 0 counts as 1.
    pub attempts: u32,
}

impl Retry {
    /// How long the line is let settle before a handshake, so that late answers to a `can-stop` just before are none of
    /// its own: a quarter of the timeout, at most 250 ms.
    pub fn initial_quiet(&self) -> Duration {
        (self.timeout / 4).min(Duration::from_millis(250))
    }
}

impl Default for Retry {
    /// 3 attempts of 1 s.
    fn default() -> Self {
        Retry { timeout: Duration::from_secs(1), attempts: 3 }
    }
}

/// What the machine wants done next, or tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this command now, and say when that was done: [`Machine::sent`].
    Send {
        /// The command.
        command: Command,
        /// How often it has been sent, this time included.
        copy: u32,
    },
    /// `INIT` was refused with these words; `STOP` and a second `INIT` follow. Nothing to do but tell the user.
    TakeOver(String),
    /// Nothing more will come that belongs to this command.
    Settled {
        /// The command.
        command: Command,
        /// What was answered; `None` if nothing was, which only `START` and `STATUS` survive.
        answer: Option<Answer>,
    },
    /// Wait for replies, until then if there is a time, and poll again.
    Wait(Option<Instant>),
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `R ok`.
    Ok,
    /// `R ERR …`, in the gateway's words (escaped, cut at 200 bytes).
    Refused(String),
    /// To `STATUS` alone.
    Status(Status),
}

impl Answer {
    /// Of two answers to one command the one that tells more; of a refusal and an `R ok`, the refusal.
    fn or_better(self, other: Answer) -> Answer {
        let rank = |answer: &Answer| match answer {
            Answer::Ok => 0,
            Answer::Refused(_) => 1,
            Answer::Status(_) => 2,
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
}

/// Why the machine gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// None of the copies of this command was answered in time.
    NoReply(Command),
    /// The gateway refused this command, in these words (escaped, cut at 200 bytes).
    Refused(Command, String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoReply(command) => write!(f, "no reply to {command}"),
            Failure::Refused(command, words) => write!(f, "the gateway refused {command}: {words}"),
        }
    }
}

impl std::error::Error for Failure {}

/// The machine; see the [module](self) for what it does.
#[derive(Clone, Debug)]
pub struct Machine {
    retry: Retry,
    /// What is still to be sent. The first one is in hand unless the state is [`State::Quiet`].
    queue: VecDeque<Command>,
    state: State,
    took_over: bool,
    /// When `STOP` waits no longer for the command in hand.
    hurry: Option<Instant>,
    owed: Option<Owed>,
    /// How a repeated `STOP` was refused, while `STATUS` is asked what became of it.
    refused_stop: Option<Failure>,
    failure: Option<Failure>,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing is in hand; what arrives belongs to what was before.
    Quiet { until: Instant },
    /// The command in hand was sent so often, for the last time then, and not yet answered. The first `free` copies
    /// were sent while another answer was owed, and are no attempts.
    Awaiting { copies: u32, free: u32, sent: Instant },
    /// The command in hand was answered; what still arrives is more of its answer.
    Settling { until: Instant, copies: u32, answer: Answer },
}

/// `STOP` was sent while the answer to another command could still come.
#[derive(Clone, Copy, Debug)]
struct Owed {
    until: Instant,
    heard: Heard,
}

#[derive(Clone, Copy, Debug)]
enum Heard {
    Nothing,
    /// One `R ok`; until then another one may be its copy.
    OkUntil(Instant),
    OneOk,
}

impl Machine {
    /// A machine that keeps quiet for so long and then sends these commands.
    pub fn new(now: Instant, retry: Retry, quiet: Duration, commands: impl IntoIterator<Item = Command>) -> Machine {
        // So that no deadline lies beyond what a clock can show.
        const DAY: Duration = Duration::from_secs(86_400);
        Machine {
            retry: Retry { timeout: retry.timeout.min(DAY), ..retry },
            queue: commands.into_iter().collect(),
            state: State::Quiet { until: now + quiet },
            took_over: false,
            hurry: None,
            owed: None,
            refused_stop: None,
            failure: None,
        }
    }

    /// How patient it is.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// The command that was sent and may still be answered.
    pub fn in_hand(&self) -> Option<Command> {
        if matches!(self.state, State::Quiet { .. }) { None } else { self.queue.front().copied() }
    }

    /// Whether there is nothing to send, and no answer to wait for.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a command behind all others.
    pub fn push(&mut self, command: Command) {
        self.queue.push_back(command);
    }

    /// Queues `STOP` in place of all that is not sent yet; what is in hand holds it up for at most [`SETTLE`].
    pub fn stop(&mut self, now: Instant, channel: u8) {
        self.queue.truncate(usize::from(self.in_hand().is_some()));
        self.queue.push_back(Command::Stop { channel });
        self.hurry = Some(now + SETTLE);
    }

    /// Takes a `STATUS` back, in hand or queued: nobody needs its answer any more.
    pub fn withdraw_status(&mut self) {
        if let Some(Command::Status { .. }) = self.in_hand() {
            self.put_down();
        }
        self.queue.retain(|command| !matches!(command, Command::Status { .. }));
    }

    /// What to do at `now`, the time up to which everything has been read. Call it again after each action that was
    /// carried out, after each reply, and when the time of [`Action::Wait`] has come.
    ///
    /// # Errors
    ///
    /// A [`Failure`], once; what was queued is then forgotten.
    pub fn poll(&mut self, now: Instant) -> Result<Action, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(self.fail(failure));
        }
        if self.hurry.is_some_and(|hurry| hurry <= now) {
            self.hurry = None;
            // What has settled is not owed.
            if self.clear() > now {
                self.owed = Some(Owed { until: self.put_down(), heard: Heard::Nothing });
                self.state = State::Quiet { until: now };
            }
        }
        let deadline = match &self.state {
            State::Awaiting { copies, free, sent } => return self.await_answer(now, *copies, *free, *sent),
            State::Quiet { .. } if self.queue.is_empty() => return Ok(Action::Wait(None)),
            State::Quiet { until } | State::Settling { until, .. } => *until,
        };
        if now < deadline {
            return Ok(Action::Wait(Some(self.hurry.map_or(deadline, |hurry| hurry.min(deadline)))));
        }
        if let State::Settling { answer, .. } = &self.state {
            let (command, answer) = (self.queue[0], answer.clone());
            self.put_down();
            return self.conclude(now, command, answer);
        }
        self.hurry = None;
        Ok(self.send(1, 0, now))
    }

    /// The command that [`Action::Send`] named was sent; `now` is a time after that.
    pub fn sent(&mut self, now: Instant) {
        if let State::Awaiting { sent, .. } = &mut self.state {
            *sent = now;
        }
    }

    /// Takes a reply that was read; `now` is a time after that. What is no reply is not for this machine.
    pub fn handle_reply(&mut self, now: Instant, reply: Reply<'_>) {
        let Some(command) = self.in_hand() else { return };
        let answer = match (reply, command) {
            (Reply::Status(status), Command::Status { channel }) if status.channel == channel => Answer::Status(status),
            (Reply::Status(_), _) => return,
            (Reply::Ok, _) => Answer::Ok,
            (Reply::Refused(words), _) => Answer::Refused(escape_truncated(words)),
        };
        if let Some(Owed { heard, .. }) = &mut self.owed {
            match (&answer, *heard) {
                (Answer::Ok, Heard::OneOk) => {}
                (Answer::Ok, Heard::Nothing) => return *heard = Heard::OkUntil(now + SETTLE),
                _ => return,
            }
        }
        let all_arrived = self.clear();
        let (copies, answer) = match &self.state {
            State::Awaiting { copies, .. } => (*copies, answer),
            State::Settling { copies, answer: first, .. } => (*copies, first.clone().or_better(answer)),
            State::Quiet { .. } => return,
        };
        if let Answer::Refused(words) = &answer {
            if !self.survives_refusal(command, copies) {
                self.failure = Some(Failure::Refused(command, words.clone()));
            }
        }
        let until = match &self.state {
            State::Settling { until, .. } => *until,
            // After the last command of all nothing follows that a late reply could be credited to.
            _ if copies == 1 || (self.is_final_stop() && answer == Answer::Ok) => now + SETTLE,
            _ => all_arrived.max(now + SETTLE),
        };
        // What was just answered is let settle, in a hurry too.
        self.hurry = self.hurry.map(|_| now + SETTLE);
        self.state = State::Settling { until, copies, answer };
    }

    /// When nothing more can come that belongs to the command in hand, or to the one before.
    fn clear(&self) -> Instant {
        match self.state {
            State::Quiet { until } | State::Settling { until, .. } => until,
            State::Awaiting { sent, .. } => sent + 2 * self.retry.timeout + SETTLE,
        }
    }

    /// Whether the `STOP` in hand is the session's last command, and not a part of taking over.
    fn is_final_stop(&self) -> bool {
        matches!(self.queue.front(), Some(Command::Stop { .. })) && self.queue.len() == 1
    }

    fn survives_refusal(&self, command: Command, copies: u32) -> bool {
        match command {
            Command::Init { .. } => !self.took_over,
            Command::Stop { .. } => !self.is_final_stop() || copies > 1,
            Command::Status { .. } => true,
            _ => false,
        }
    }

    fn send(&mut self, copy: u32, free: u32, now: Instant) -> Action {
        let free = if self.owed.is_some() { copy } else { free };
        self.state = State::Awaiting { copies: copy, free, sent: now };
        Action::Send { command: self.queue[0], copy }
    }

    fn await_answer(&mut self, now: Instant, copies: u32, free: u32, sent: Instant) -> Result<Action, Failure> {
        let command = self.queue[0];
        if let Some(hurry) = self.hurry {
            // It is not worth another copy.
            return Ok(Action::Wait(Some(hurry)));
        }
        // START is not repeated, so its answer is awaited for as long as one can take.
        let is_start = matches!(command, Command::Start { .. });
        let mut deadline = if is_start { self.clear() } else { sent + self.retry.timeout };
        self.owed = self.owed.filter(|owed| now < owed.until);
        if let Some(owed) = &mut self.owed {
            deadline = deadline.min(owed.until);
            if let Heard::OkUntil(settled) = owed.heard {
                deadline = deadline.min(settled);
                if settled <= now {
                    owed.heard = Heard::OneOk;
                }
            }
        }
        if now < deadline {
            return Ok(Action::Wait(Some(deadline)));
        }
        if self.owed.is_some() || (copies - free < self.retry.attempts.max(1) && !is_start) {
            return Ok(self.send(copies + 1, free, now));
        }
        self.put_down();
        match (command, self.refused_stop.take()) {
            (_, Some(failure)) => Err(self.fail(failure)),
            (Command::Start { .. } | Command::Status { .. }, None) => Ok(Action::Settled { command, answer: None }),
            (_, None) => Err(self.fail(Failure::NoReply(command))),
        }
    }

    /// All answers to a command have come: what follows?
    fn conclude(&mut self, now: Instant, command: Command, answer: Answer) -> Result<Action, Failure> {
        let channel = command.channel();
        match (command, answer) {
            (Command::Init { .. }, Answer::Refused(words)) => {
                self.took_over = true;
                self.queue.push_front(command);
                self.queue.push_front(Command::Stop { channel });
                Ok(Action::TakeOver(words))
            }
            (Command::Stop { .. }, Answer::Refused(words)) if self.queue.is_empty() => {
                self.refused_stop = Some(Failure::Refused(command, words));
                self.queue.push_back(Command::Status { channel });
                self.poll(now)
            }
            (_, answer) => match self.refused_stop.take() {
                None => Ok(Action::Settled { command, answer: Some(answer) }),
                Some(_) if matches!(answer, Answer::Status(Status { stopped: true, .. })) => {
                    Ok(Action::Settled { command: Command::Stop { channel }, answer: Some(answer) })
                }
                Some(failure) => Err(self.fail(failure)),
            },
        }
    }

    /// Lets go of the command in hand, if there is one; tells until when its answers may still come.
    fn put_down(&mut self) -> Instant {
        let clear = self.clear();
        if self.in_hand().is_some() {
            self.queue.pop_front();
        }
        self.state = State::Quiet { until: clear };
        clear
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        self.put_down();
        self.queue.clear();
        failure
    }
}
