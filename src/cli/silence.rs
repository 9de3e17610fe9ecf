//! What a silent bus means. A silent bus, a dead gateway, a lost `START`, a wrong bit rate, a bus that somebody halted:
//! all look the same to a listener that only listens. `STATUS` tells most of them apart, so it is asked once for each
//! silence and its answer is explained. It explains, it does not decide. No socket, no clock, no thread.

use std::time::{Duration, Instant};

use crate::gateway::command::BitRate;
use crate::gateway::handshake::Answer;
use crate::gateway::reply::Status;

/// How long after one question the next may follow: a bus with a frame every few seconds is not asked every time.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// The silences of one session.
#[derive(Debug)]
pub(crate) struct Silence {
    /// After how long a silence the gateway is asked; `None` for never.
    after: Option<Duration>,
    bit_rate: BitRate,
    start_answered: bool,
    /// START is sent again and not yet known to have arrived.
    start_in_doubt: bool,
    /// When the last data came, or START was sent.
    last_data: Instant,
    data_has_come: bool,
    /// When the gateway was asked last, and whether that was in this silence.
    asked: Option<(Instant, bool)>,
    /// What the gateway answered in this silence; `Some(None)` if nothing.
    word: Option<Option<Answer>>,
    /// The explanation that the user was given last, and whether it was in this silence.
    explained: Option<(String, bool)>,
}

/// What is to be done about an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The user knows it already.
    Nothing,
    /// `START` was lost: it is to be sent again. The words say so, also to who wants quiet if there is more to warn of.
    StartAgain { words: String, warn: bool },
    /// To be told, unless the user wants quiet.
    Tell(String),
    /// To be told in any case.
    Warn(String),
}

impl Silence {
    /// Begins when `START` is sent. With an idle timeout that would end the session before the answer is there, the
    /// gateway is asked after half of that.
    pub fn new(now: Instant, status_after: Duration, idle_timeout: Option<Duration>, bit_rate: BitRate) -> Silence {
        let after = (!status_after.is_zero()).then(|| match idle_timeout {
            Some(idle) if idle < 2 * status_after => idle / 2,
            _ => status_after,
        });
        Silence {
            after,
            bit_rate,
            start_answered: false,
            start_in_doubt: false,
            last_data: now,
            data_has_come: false,
            asked: None,
            word: None,
            explained: None,
        }
    }

    /// `START` was sent.
    pub fn begin(&mut self, now: Instant) {
        self.last_data = now;
    }

    /// The gateway said `R ok` to `START`.
    pub fn start_is_answered(&mut self) {
        self.start_answered = true;
        self.start_in_doubt = false;
    }

    /// When the last data came, or `START` was sent.
    pub fn last_data(&self) -> Instant {
        self.last_data
    }

    /// Data came. Returns how long there was none, if the user was told of it.
    pub fn data(&mut self, now: Instant) -> Option<Duration> {
        let before = std::mem::replace(&mut self.last_data, now);
        self.data_has_come = true;
        self.start_in_doubt = false;
        // All else is of the silence that is over.
        if let Some((_, in_this_silence)) = &mut self.asked {
            *in_this_silence = false;
        }
        self.word = None;
        let (_, in_this_silence) = self.explained.as_mut()?;
        std::mem::take(in_this_silence).then(|| now.saturating_duration_since(before))
    }

    /// When the gateway is to be asked.
    pub fn ask_at(&self) -> Option<Instant> {
        let due = self.last_data + self.after?;
        match self.asked {
            None => Some(due),
            Some((_, true)) => None,
            Some((last, false)) => Some(due.max(last + ASK_EVERY)),
        }
    }

    /// The gateway is being asked.
    pub fn ask(&mut self, now: Instant) {
        self.asked = Some((now, true));
    }

    /// The gateway answered the question, or did not; `port_is_closed` if the network said so meanwhile.
    pub fn answer(&mut self, now: Instant, answer: Option<Answer>, port_is_closed: bool) -> Verdict {
        let is_stopped = matches!(answer, Some(Answer::Status(status)) if status.stopped);
        let start_was_lost = is_stopped && !self.start_answered && !self.data_has_come && self.word.is_none();
        let is_important = match &answer {
            Some(Answer::Status(status)) => status.bus_off || status.error_warning || status.overrun,
            Some(Answer::Ok) => false,
            Some(Answer::Refused(_)) | None => true,
        };
        if let (Some(Answer::Status(status)), true) = (&answer, start_was_lost && self.explained.is_none()) {
            let mut words =
                "START was lost: the controller is stopped, and START was not answered; it is sent again".to_owned();
            if is_important {
                words = format!("{words}; {}", self.meaning(Status { stopped: false, ..*status }));
            }
            // From now on the answer is no longer true: only START's own tells.
            self.start_in_doubt = true;
            self.explained = Some((words.clone(), true));
            return Verdict::StartAgain { words, warn: is_important };
        }
        self.word = Some(answer);
        let explanation = self.explanation(port_is_closed);
        if self.explained.as_ref().is_some_and(|(last, _)| *last == explanation) {
            return Verdict::Nothing;
        }
        self.explained = Some((explanation.clone(), true));
        let gap = now.saturating_duration_since(self.last_data).as_secs_f64();
        let words = format!("nothing has arrived for {gap:.1} s: {explanation}");
        if is_important { Verdict::Warn(words) } else { Verdict::Tell(words) }
    }

    /// Why nothing comes, as far as is known.
    pub fn explanation(&self, port_is_closed: bool) -> String {
        match &self.word {
            None | Some(Some(Answer::Ok)) => self.possible_reasons(),
            Some(None) if port_is_closed => {
                "the gateway's port is closed: has it restarted, or is it another machine now?".to_owned()
            }
            Some(None) => {
                "the gateway does not answer STATUS either: has it lost power, is the network or the VPN down, \
                           or does it not know STATUS?"
                    .to_owned()
            }
            Some(Some(Answer::Refused(words))) => format!(
                "the gateway answers STATUS with {words}: it has restarted and forgotten the handshake (run again), or \
                 does not know STATUS"
            ),
            Some(Some(Answer::Status(status))) => self.meaning(*status),
        }
    }

    fn meaning(&self, status: Status) -> String {
        let mut parts = Vec::new();
        if status.stopped {
            parts.push(
                "the controller is stopped: somebody halted the bus, or the gateway has restarted; run again to start it"
                    .to_owned(),
            );
        }
        if status.bus_off || status.error_warning {
            let state = if status.bus_off { "bus off" } else { "at its error warning level" };
            parts.push(format!("the controller is {state}: --bitrate {} is wrong, or the wiring", self.bit_rate));
        }
        if status.overrun {
            parts.push("the gateway itself lost frames (data overrun)".to_owned());
        }
        if parts.is_empty() {
            let filter = if self.data_has_come {
                ""
            } else {
                ", or the filter passes nothing (29-bit identifiers need --filter EXT:0:0)"
            };
            parts
                .push(format!("the controller runs: so the bus is silent{filter}, or another listener has the stream"));
        }
        parts.join("; ")
    }

    fn possible_reasons(&self) -> String {
        if self.data_has_come {
            return "has the gateway lost power, or did somebody halt the bus or take the stream over?".to_owned();
        }
        let lost = if self.start_answered { "" } else { ", START was lost (it was not answered; run again)" };
        format!(
            "the bus is silent, --bitrate {} is wrong{lost}, or its frames have 29-bit identifiers and the filter does \
             not pass them (--filter EXT:0:0)",
            self.bit_rate
        )
    }

    /// Whether the gateway has answered in this silence.
    pub fn gateway_answers(&self) -> bool {
        matches!(self.word, Some(Some(_)))
    }

    /// What the gateway's last word says of the bus, if nothing came since: `Some(false)` if it is halted, `None` if
    /// the gateway has fallen silent.
    pub fn bus_runs(&self) -> Option<bool> {
        match &self.word {
            Some(None) => None,
            Some(Some(Answer::Status(status))) => Some(!status.stopped),
            _ if self.start_in_doubt => None,
            _ => Some(true),
        }
    }
}

#[cfg(test)]
mod tests;
