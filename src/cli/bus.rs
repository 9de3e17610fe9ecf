//! What is known of the bus and the gateway, and when it was learned, and what may be said of it. No socket, no clock.

use std::time::{Duration, Instant};

use crate::format::controller::StateChange;
use crate::gateway::Outcome;
use crate::gateway::reply::{Status, is_reply};

/// The maximum age of the latest sign of a running bus with which "the bus still runs" may be said.
const MAX_SIGN_AGE: Duration = Duration::from_secs(5);

/// How many times `START` is sent again.
const MAX_REPAIRS: u32 = 3;

/// Everything that was sent, read or heard of that bears on the state of the bus.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    /// When `START` first left, and when it left last.
    pub first_start: Option<Instant>,
    last_start: Option<Instant>,
    /// How many times it left again.
    pub repairs: u32,
    last_frame: Option<Instant>,
    /// The latest sign that the bus runs: a frame, an answer to `START`, an answer to `STATUS` that says so.
    runs: Option<Instant>,
    /// The latest sign that it may not: `STATUS` said stopped, was refused or not answered; `STOP` has left; an error of the
    /// network; an end in doubt.
    may_not_run: Option<Instant>,
    /// When the gateway last said that the controller is stopped.
    stopped: Option<Instant>,
    /// When the latest `STATUS` first left, if it did.
    asked_at: Option<Instant>,
    /// How the latest `STATUS` ended, if that is news since the last frame and the last `START`.
    pub outcome: Option<Outcome>,
    /// The controller's error state, by `STATUS` or by its events.
    pub health: Health,
    /// The latest event since the latest `STATUS` was sent: when it was read, and the state that such events alone lead to.
    event: Option<(Instant, Health)>,
    end: End,
}

/// The error state of a controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    #[default]
    Good,
    Warning,
    BusOff,
}

/// What the gateway said last of the bus, if it was final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// It refused `START`, and said that the controller is stopped.
    NotStarted,
    /// It confirmed `STOP`.
    Halted,
}

impl Bus {
    /// `START` has left.
    pub fn on_start_sent(&mut self, at: Instant) {
        if self.first_start.is_some() {
            self.repairs += 1;
        }
        self.first_start.get_or_insert(at);
        (self.last_start, self.outcome, self.end) = (Some(at), None, End::Open);
    }

    /// The gateway answered `START`.
    pub fn on_started(&mut self, at: Instant) {
        self.runs = Some(at);
    }

    /// The gateway refused `START`, and `STATUS` says that the controller is stopped.
    pub fn on_start_refused(&mut self) {
        self.end = End::NotStarted;
    }

    /// A frame came.
    pub fn on_frame(&mut self, at: Instant) {
        (self.last_frame, self.runs, self.health) = (Some(at), Some(at), Health::Good);
        self.outcome = None;
    }

    /// The controller reports a change of its state.
    pub fn on_event(&mut self, at: Instant, change: StateChange) {
        let after = |health: Health| match change {
            StateChange::BusOff => Health::BusOff,
            StateChange::ErrorWarningSet => health.max(Health::Warning),
            _ => Health::Good,
        };
        let since_asked = self.event.map_or(Health::Good, |(_, health)| health);
        (self.health, self.event) = (after(self.health), Some((at, after(since_asked))));
    }

    /// A `STATUS` was sent, as attempt of this number, and left at this time if it did.
    pub fn on_status_sent(&mut self, attempt: u32, left_at: Option<Instant>) {
        if attempt == 1 {
            (self.asked_at, self.event) = (None, None);
        }
        self.asked_at = self.asked_at.or(left_at);
    }

    /// An answer to the latest `STATUS` was read. Several can come, in another order than they were given.
    pub fn on_status(&mut self, at: Instant, status: Status) {
        if self.asked_at <= self.last_start {
            return;
        }
        let (runs_since, stopped_since) = (self.runs >= self.asked_at, self.stopped >= self.asked_at);
        if self.last_frame < self.asked_at {
            let health = match status {
                Status { bus_off: true, .. } => Health::BusOff,
                Status { error_warning: true, .. } => Health::Warning,
                _ => Health::Good,
            };
            self.health = match self.event {
                Some((read, _)) if read > at => self.health,
                // Either may be the newer one.
                _ if runs_since || stopped_since => health.max(self.health),
                Some((_, event)) => health.max(event),
                None => health,
            };
        }
        // Either may be the newer one: both get the same time, by which `answers_differ` knows it.
        if status.stopped || stopped_since {
            (self.may_not_run, self.stopped) = (Some(at), Some(at));
        }
        if !status.stopped || runs_since {
            self.runs = Some(at);
        }
    }

    /// The latest `STATUS` has ended.
    pub fn on_status_ended(&mut self, ended_at: Instant, outcome: Outcome) {
        let is_news = Some(ended_at) >= self.last_frame && self.asked_at > self.last_start;
        self.outcome = is_news.then_some(outcome);
        // An answer of unknown form says nothing.
        if self.status().is_none() && self.unknown_answer().is_none() {
            self.may_not_run = self.asked_at.and(Some(ended_at)).or(self.may_not_run);
        }
    }

    /// A `STOP` has left.
    pub fn on_stop_sent(&mut self, at: Instant) {
        (self.may_not_run, self.asked_at) = (Some(at), None);
    }

    /// Something puts in doubt that the bus runs.
    pub fn on_doubt(&mut self, at: Instant) {
        self.may_not_run = Some(at);
    }

    /// The gateway confirmed `STOP`.
    pub fn on_halted(&mut self) {
        self.end = End::Halted;
    }

    /// Whether a frame of this session has come.
    pub fn has_frames(&self) -> bool {
        self.last_frame.is_some()
    }

    /// Whether a sign that it runs is newer than the latest `STATUS`.
    pub fn has_new_sign(&self) -> bool {
        self.runs > self.asked_at
    }

    /// Whether it has run in this session, for all that is known.
    pub fn has_run(&self) -> bool {
        self.runs.is_some()
    }

    /// When the last frame came; before any, when `START` was first sent.
    pub fn last_data(&self) -> Option<Instant> {
        self.last_frame.or(self.first_start)
    }

    /// The controller's state in the answer that is its `outcome`.
    pub fn status(&self) -> Option<Status> {
        match self.outcome.as_ref()? {
            Outcome::Status(status) => Some(*status),
            _ => None,
        }
    }

    /// Whether one answer to the latest `STATUS` says that the bus runs and another that it is stopped, in an unknown order.
    pub fn answers_differ(&self) -> bool {
        self.stopped.is_some() && self.stopped == self.runs
    }

    /// The answer to the latest `STATUS`, if it is a reply of unknown form.
    pub fn unknown_answer(&self) -> Option<&str> {
        match self.outcome.as_ref()? {
            Outcome::Ok => Some("R ok"),
            Outcome::NoReply(Some(text)) => is_reply(text).then_some(text.as_str()),
            _ => None,
        }
    }

    /// Whether the controller has met something that a user who wants to see only warnings must see.
    pub fn has_flags(&self) -> bool {
        self.health != Health::Good || self.status().is_some_and(|status| status.overrun)
    }

    /// Whether to ask again in one silence: no answer since the last `START` tells whether the controller runs, or `START` is
    /// still to be sent again.
    pub fn must_ask_again(&self) -> bool {
        self.status().is_none() || self.must_start_again()
    }

    /// Whether `START` did not start the bus and is to be sent again.
    pub fn must_start_again(&self) -> bool {
        self.status().is_some_and(|status| status.stopped) && !self.has_run() && self.repairs < MAX_REPAIRS
    }

    /// Whether an answer to a `STATUS` that has ended says something new: there was none, or one because of which `START` is
    /// about to be sent again; no `START` and no frame has come since.
    pub fn takes_late_status(&self, late: Status) -> bool {
        match &self.outcome {
            Some(Outcome::NoReply(_)) => true,
            Some(Outcome::Status(status)) => status.stopped && !late.stopped && !self.has_run(),
            _ => false,
        }
    }

    /// What may be said of the bus at the end of the session. Unless it is known to be stopped, the command line `can_stop`
    /// stands alone on the last line.
    pub fn conclusion(&self, now: Instant, can_stop: &str) -> String {
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let state = match (self.end, self.last_frame) {
            (End::Halted, _) => return "the bus is halted".to_owned(),
            (End::NotStarted, _) if !self.has_run() => return "the bus was not started".to_owned(),
            _ if self.stopped > self.runs && self.stopped >= self.last_start => {
                return format!("the bus was reported stopped {:.0} s ago", since(self.stopped).as_secs_f64());
            }
            _ if self.runs > self.may_not_run && since(self.runs) <= MAX_SIGN_AGE => {
                let bus_off = if self.health == Health::BusOff { " (the controller is bus off)" } else { "" };
                format!("the bus still runs{bus_off}")
            }
            (_, Some(_)) => {
                format!("last frame {:.0} s ago; the bus may still run", since(self.last_frame).as_secs_f64())
            }
            (_, None) => "the bus may still run".to_owned(),
        };
        format!("{state}, stop it with:\n{can_stop}")
    }
}
