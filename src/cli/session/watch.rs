//! What a session watches beside the stream: silences, the local address, losses, errors of the network, the terminal.

use std::time::Instant;

use anyhow::anyhow;

use super::{CHECK_INTERVAL, Session, Stage};
use crate::cli::advice;
use crate::cli::losses;
use crate::gateway::Outcome;

impl Session<'_> {
    /// When to send `STATUS`; not while a command is in flight.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        let at = self.silence.ask_at(self.last_data(), self.bus.must_ask_again())?;
        self.connection.is_idle().then_some(at)
    }

    /// When `--idle-timeout` ends the session.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.options.idle_timeout.map(|timeout| self.last_data() + timeout)
    }

    pub(super) fn on_timeout(&mut self) {
        let now = self.connection.read_up_to;
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
            self.bus.on_status(at, status);
            self.on_status_ended(now, Outcome::Status(status));
        }
        if self.idle_at().is_some_and(|at| at <= now) {
            let seconds = self.options.idle_timeout.unwrap_or_default().as_secs_f64();
            let gateway = self.connection.gateway;
            let explanation = advice::no_data(self.options, &self.connection, &self.bus);
            self.failures.push(anyhow!("no data from {gateway} for {seconds} s (--idle-timeout): {explanation}"));
            return self.begin_shutdown();
        }
        if self.ask_at().is_some_and(|at| at <= now) {
            self.silence.on_asked(now);
            // There is a time to ask only while the connection is idle.
            let _ = self.connection.request_status();
        }
        if self.silence.address_look_at(self.last_data()) <= now {
            let is_lost = self.connection.transport.address_is_lost(self.connection.gateway);
            // Looking takes time, and the next look comes that much later.
            let now = self.connection.read_clock();
            if self.silence.on_look(now, is_lost) {
                self.bus.on_doubt(now);
                let local = self.connection.local_addr().ok();
                self.failures.push(anyhow!(advice::address_lost(local, self.connection.gateway)));
                self.begin_shutdown();
            }
        }
    }

    /// A `STATUS` that was sent because of a silence has ended.
    pub(super) fn on_status_ended(&mut self, now: Instant, outcome: Outcome) {
        self.bus.on_status_ended(now, outcome);
        let message = if self.bus.must_start_again() {
            let message = advice::start_again(self.options, &self.bus);
            self.silence.tells(&message);
            // A STATUS has just ended, so nothing else is under way.
            let _ = self.connection.start_again();
            message
        } else {
            let explanation = advice::no_data(self.options, &self.connection, &self.bus);
            if !self.silence.tells(&explanation) {
                return;
            }
            format!("no data for {:.1} s: {explanation}", now.saturating_duration_since(self.last_data()).as_secs_f64())
        };
        let is_warning = self.bus.has_flags() || self.bus.status().is_none();
        if is_warning { self.messages.warn(message) } else { self.messages.info(message) }
    }

    /// Looks at most once a second for what is not reported to the session.
    pub(super) fn check(&mut self) {
        let now = self.connection.now();
        if now < self.next_check {
            return;
        }
        self.next_check = now + CHECK_INTERVAL;
        self.shutdown.check_terminal();
        if self.stage == Stage::Starting {
            return;
        }
        let dropped = self.connection.transport.check_drops().count.saturating_sub(self.dropped_before);
        if let Some(count) = self.dropped.due(now, dropped) {
            self.messages.warn(losses::in_kernel(&count, self.connection.receive_buffer()));
        }
        if self.console.printer.output.take_deletion() {
            self.messages.warn(advice::FILE_DELETED);
        }
    }

    pub(super) fn on_network_error(&mut self) {
        if self.stage == Stage::Starting {
            return;
        }
        let now = self.connection.now();
        self.network_errors += 1;
        self.bus.on_doubt(now);
        let is_due = self.stage == Stage::Streaming && self.unreachable.due(now, self.network_errors).is_some();
        if let Some(error) = self.connection.network_error().filter(|_| is_due) {
            self.messages.warn(advice::unreachable(self.connection.gateway, error));
        }
    }
}
