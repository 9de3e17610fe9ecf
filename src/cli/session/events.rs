//! What follows from each event.

use std::time::Instant;

use anyhow::anyhow;

use super::{CHECK_INTERVAL, EXITED, Session, Stage};
use crate::cli::advice;
use crate::cli::console::Content;
use crate::cli::losses;
use crate::gateway::{Command, Failure, NetworkError, Outcome, Verb};

impl Session<'_> {
    pub(super) fn on_sent(&mut self, command: Command, attempt: u32, left: bool) {
        let now = self.bus.now();
        match self.bus.network_error() {
            Some(NetworkError::Send(error)) if !left => {
                self.messages.debug(now, format_args!("could not send {command}: {error}"));
            }
            _ => self.messages.debug(now, format_args!("sent {command} (attempt {attempt})")),
        }
        if command.verb == Verb::Status && attempt == 1 {
            self.known.on_asked();
        }
        if !left {
            return;
        }
        self.console.status_was_sent |= command.verb == Verb::Status;
        match command.verb {
            Verb::Start => self.known.on_start_sent(now),
            Verb::Status => self.known.on_status_sent(now),
            Verb::Stop => self.known.on_stop_sent(now),
            _ => {}
        }
        if command.verb == Verb::Start && self.stage == Stage::Starting {
            self.begin_stream(now);
        }
    }

    /// A datagram of the stream was read, while this command was in flight, and printed unless it answers `STATUS`.
    pub(super) fn on_content(&mut self, in_flight: Option<Verb>, content: &Content) {
        let now = self.bus.received_at();
        match (in_flight, content.status) {
            (Some(Verb::Start), _) if content.has_ok && self.stage == Stage::Streaming => self.known.on_started(now),
            // It may be the answer to a STATUS that STOP has overtaken.
            _ if content.has_refusal && matches!(self.stage, Stage::Stopping { .. }) => self.known.on_doubt(now),
            // It is compared with everything that was read up to now, so the queue is read first.
            (None, Some(status)) if self.known.takes_late_status(status) => {
                self.bus.cancel_status();
                self.late_status = Some((now, status));
            }
            (Some(Verb::Status) | None, Some(status)) => self.known.on_status(now, status),
            _ => {}
        }
        if content.has_frame {
            self.on_frame(now);
        }
        for &change in &content.events {
            self.known.on_event(now, change);
        }
        self.console.report(now);
        if let Some(count) = self.overflowed.due(now, self.console.printer.stats.overflowed) {
            self.messages.warn(losses::in_output(&count, self.console.printer.output.is_file()));
        }
        self.check();
        if self.console.printer.is_complete() {
            self.begin_shutdown();
        }
    }

    fn on_frame(&mut self, now: Instant) {
        let gap = self.silence.on_frame(now, self.last_data());
        self.known.on_frame(now);
        self.late_status = None;
        if self.stage == Stage::Streaming {
            self.bus.cancel_status();
            if let Some(gap) = gap {
                self.messages.info(format_args!("data resumed after {:.1} s", gap.as_secs_f64()));
            }
        }
    }

    /// Looks at most once a second for what is not reported to the session.
    fn check(&mut self) {
        let now = self.bus.now();
        if now < self.next_check {
            return;
        }
        self.next_check = now + CHECK_INTERVAL;
        self.shutdown.check_terminal();
        if self.stage == Stage::Starting {
            return;
        }
        let dropped = self.bus.check_drops().count.saturating_sub(self.dropped_before);
        if let Some(count) = self.dropped.due(now, dropped) {
            self.messages.warn(losses::in_kernel(&count, self.bus.receive_buffer()));
        }
        if self.console.printer.output.take_deletion() {
            self.messages.warn(advice::FILE_DELETED);
        }
    }

    pub(super) fn on_completed(&mut self, command: Command, outcome: Outcome) {
        let now = self.bus.read_up_to();
        match command.verb {
            Verb::Start => {
                let answered = if let Outcome::NoReply(_) = outcome { "not answered" } else { "answered" };
                self.messages.debug(now, format_args!("START was {answered}"));
            }
            Verb::Stop => {
                self.known.on_halted();
                self.shutdown.set_quit_message(format!("{EXITED}; the bus is halted"));
                self.drain();
            }
            Verb::Status if self.stage == Stage::Streaming => self.on_query(now, outcome),
            _ => {}
        }
    }

    /// A `STATUS` that was sent because of a silence has ended.
    fn on_query(&mut self, now: Instant, outcome: Outcome) {
        let silent_for = now.saturating_duration_since(self.last_data());
        self.known.on_query(now, outcome);
        let message = if self.known.must_start_again() {
            let message = advice::start_again(self.options, &self.known);
            self.silence.tells(&message);
            // A STATUS has just ended, so nothing else is under way.
            let _ = self.bus.start_again();
            message
        } else {
            let explanation = advice::no_data(self.options, &self.bus, &self.known);
            if !self.silence.tells(&explanation) {
                return;
            }
            format!("no data for {:.1} s: {explanation}", silent_for.as_secs_f64())
        };
        let is_warning = self.known.has_flags() || self.known.status().is_none();
        if is_warning { self.messages.warn(message) } else { self.messages.info(message) }
    }

    /// A `START` or `STOP` has failed after the stream has begun.
    pub(super) fn on_failure(&mut self, mut failure: Failure) {
        let now = self.bus.read_up_to();
        let is_answered = matches!(failure.outcome, Outcome::Refused(_));
        failure.in_doubt |= is_answered && failure.command.verb == Verb::Start && self.known.answers_differ();
        let message = advice::failure(&failure);
        if failure.command.verb == Verb::Stop {
            if failure.in_doubt {
                self.known.on_doubt(now);
            }
            self.failures.push(anyhow!(message));
            return self.drain();
        }
        // A check that the shutdown has cut short is no evidence against a frame.
        let is_cut_short = self.stage != Stage::Streaming && self.known.has_frames();
        if failure.is_refused() {
            self.known.on_start_refused();
        } else if failure.in_doubt && !is_cut_short && !self.known.has_frame_since_asked() {
            self.known.on_doubt(now);
        }
        if self.known.has_frames() && !failure.is_refused() {
            self.messages.debug(now, format_args!("{failure}; but what was asked for has come"));
        // A START that was sent again ends no session by its failure.
        } else if self.known.repairs > 0 || !is_answered {
            if self.stage == Stage::Streaming {
                self.messages.warn(format_args!("{message}; still listening"));
            }
        } else {
            self.failures.push(anyhow!(message));
            self.begin_shutdown();
        }
    }

    pub(super) fn on_network_error(&mut self) {
        if self.stage == Stage::Starting {
            return;
        }
        let now = self.bus.now();
        self.network_errors += 1;
        self.known.on_doubt(now);
        let is_due = self.stage == Stage::Streaming && self.unreachable.due(now, self.network_errors).is_some();
        if let Some(error) = self.bus.network_error().filter(|_| is_due) {
            self.messages.warn(advice::unreachable(self.bus.gateway(), error));
        }
    }

    pub(super) fn on_timeout(&mut self) {
        let now = self.bus.read_up_to();
        self.check();
        match &mut self.stage {
            Stage::Streaming => self.on_silence(now),
            Stage::Stopping { notice_at } if notice_at.is_some_and(|at| at <= now) => {
                *notice_at = None;
                let hint = self.shutdown.quit_hint();
                self.messages
                    .warn(format_args!("waiting for the gateway to confirm STOP; {hint} (the bus may keep running)"));
            }
            _ => {}
        }
    }

    fn on_silence(&mut self, now: Instant) {
        if let Some((at, status)) = self.late_status.take_if(|&mut (at, _)| at <= now) {
            self.known.on_status(at, status);
            self.on_query(now, Outcome::Status(status));
        }
        let last_data = self.last_data();
        if self.idle_at().is_some_and(|at| at <= now) {
            let seconds = self.options.idle_timeout.unwrap_or_default().as_secs_f64();
            let gateway = self.bus.gateway();
            let explanation = advice::no_data(self.options, &self.bus, &self.known);
            let message = format!("no data from {gateway} for {seconds} s (--idle-timeout): {explanation}");
            self.failures.push(anyhow!(message));
            return self.begin_shutdown();
        }
        if self.bus.is_idle() && self.silence.must_ask(now, last_data, self.known.must_ask_again()) {
            let _ = self.bus.request_status();
        }
        if self.silence.look_at(last_data) <= now {
            let (is_lost, now) = (self.bus.address_is_lost(), self.bus.read_clock());
            if !self.silence.on_look(now, is_lost) {
                return;
            }
            self.known.on_doubt(now);
            self.failures.push(anyhow!(advice::address_lost(self.bus.local_addr().ok(), self.bus.gateway())));
            self.begin_shutdown();
        }
    }
}
