//! When a silent bus is asked about, and what is reported of it. A dead gateway, a lost `START`, a wrong bit rate, a bus that
//! another program stopped: all look the same to a listener. `STATUS` tells most of them apart, so it is sent once in each
//! silence, and again every minute while it is refused or not answered. It explains; data alone decides whether a session
//! ends. No socket, no clock, no thread.

use std::mem;
use std::time::{Duration, Instant};

use crate::gateway::reply::Status;
use crate::gateway::{Answer, Outcome};

/// How soon one `STATUS` may follow another: a bus with a frame every few seconds is not asked about every time.
const MIN_QUERY_INTERVAL: Duration = Duration::from_secs(60);

/// The silences of one session.
#[derive(Debug)]
pub(crate) struct Silence {
    /// How long a silence lasts before `STATUS` is sent; `None` for never.
    after: Option<Duration>,
    start: Start,
    /// When the last data came, or `START` was sent.
    last_data: Instant,
    /// When `STATUS` was last sent, in any silence.
    last_asked: Option<Instant>,
    current: Current,
}

/// What became of `START`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It was not answered.
    Unanswered,
    /// It was lost, and is sent again.
    Resent,
    /// It was answered, or `STATUS` says that the controller runs.
    Answered,
    /// Data has come.
    Streaming,
}

/// The silence that lasts; data ends it.
#[derive(Debug, Default)]
struct Current {
    asked: bool,
    cause: Cause,
    /// The cause that was reported last.
    last_told: Option<Cause>,
}

/// What is known of the cause of a silence.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Cause {
    /// Nothing yet.
    #[default]
    Unknown,
    /// `STATUS` was not answered; what the network says.
    NoReply(Option<String>),
    /// The gateway refused `STATUS` with this text.
    Refused(String),
    /// The gateway's answer.
    Status(Status),
}

/// What to do about an answer to `STATUS`.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It was reported in this silence already.
    Nothing,
    /// `START` was lost, so it must be sent again; the other flags of this status still mean something.
    StartAgain(Status),
    /// Report [`Silence::cause`] of a silence that has lasted so long.
    Report(Duration),
}

impl Silence {
    /// Begins when `START` is sent. `STATUS` follows after `status_after` (0 for never), or after half of an idle timeout
    /// that would end the session before the answer has come.
    pub fn new(now: Instant, status_after: Duration, idle_timeout: Option<Duration>) -> Silence {
        let after = (!status_after.is_zero()).then(|| match idle_timeout {
            Some(idle) if idle < 2 * status_after => idle / 2,
            _ => status_after,
        });
        Silence { after, start: Start::Unanswered, last_data: now, last_asked: None, current: Current::default() }
    }

    /// The gateway answered `START` with `R ok`.
    pub fn on_start_answered(&mut self) {
        if self.start != Start::Streaming {
            self.start = Start::Answered;
        }
    }

    /// Data came. Returns how long there was none, if that was reported or as long as it takes to ask why.
    pub fn on_data(&mut self, now: Instant) -> Option<Duration> {
        let before = mem::replace(&mut self.last_data, now);
        self.start = Start::Streaming;
        let gap = now.saturating_duration_since(before);
        let is_long = self.after.is_some_and(|after| gap >= after);
        // Cheap, since this happens at every datagram.
        if !is_long && !self.current.asked {
            return None;
        }
        let ended = mem::take(&mut self.current);
        (is_long || ended.last_told.is_some()).then_some(gap)
    }

    /// When `STATUS` is to be sent next, if no answer is awaited.
    pub fn ask_at(&self) -> Option<Instant> {
        let due = self.last_data + self.after?;
        if let (true, Cause::Unknown | Cause::Status(_)) = (self.current.asked, &self.current.cause) {
            return None;
        }
        Some(self.last_asked.map_or(due, |last| due.max(last + MIN_QUERY_INTERVAL)))
    }

    /// `STATUS` is being sent.
    pub fn mark_asked(&mut self, now: Instant) {
        self.last_asked = Some(now);
        self.current.asked = true;
    }

    /// `STATUS` was answered, or was not; `network` is what the network says about that.
    pub fn on_answer(&mut self, now: Instant, outcome: Outcome, network: Option<String>) -> Verdict {
        self.current.cause = match outcome {
            Outcome::Answered(Answer::Status(status)) if status.stopped && self.start == Start::Unanswered => {
                self.start = Start::Resent;
                // Its answer is out of date from now on. A minute later the next one may be asked for.
                self.current = Current::default();
                return Verdict::StartAgain(status);
            }
            Outcome::Answered(Answer::Status(status)) => {
                if !status.stopped {
                    self.on_start_answered();
                }
                Cause::Status(status)
            }
            Outcome::Answered(Answer::Refused(text)) => Cause::Refused(text),
            // It says nothing about the controller.
            Outcome::Answered(Answer::Ok) => Cause::Unknown,
            Outcome::NoReply(_) => Cause::NoReply(network),
        };
        if self.current.last_told.as_ref() == Some(&self.current.cause) {
            return Verdict::Nothing;
        }
        self.current.last_told = Some(self.current.cause.clone());
        Verdict::Report(now.saturating_duration_since(self.last_data))
    }

    /// What is known of the cause of the silence that lasts.
    pub fn cause(&self) -> &Cause {
        &self.current.cause
    }

    /// What became of `START`.
    pub fn start(&self) -> Start {
        self.start
    }

    /// When the last data came, or `START` was sent.
    pub fn last_data(&self) -> Instant {
        self.last_data
    }
}

impl Cause {
    /// Whether a user who wants to see only warnings must see it.
    pub fn is_warning(&self) -> bool {
        match self {
            Cause::Unknown => false,
            Cause::NoReply(_) | Cause::Refused(_) => true,
            Cause::Status(status) => status.bus_off || status.error_warning || status.overrun,
        }
    }

    /// Whether the gateway has answered.
    pub fn is_answer(&self) -> bool {
        matches!(self, Cause::Refused(_) | Cause::Status(_))
    }
}

#[cfg(test)]
mod tests;
