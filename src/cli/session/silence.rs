//! What a session does about a silent bus.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use anyhow::anyhow;

use super::{BusState, Resources, Session};
use crate::cli::advice;
use crate::cli::silence::Verdict;
use crate::gateway::{Answer, Connection, Outcome};

impl Session<'_> {
    pub(super) fn on_status(&mut self, outcome: Outcome) {
        let now = self.bus.received_at();
        let is_unanswered = matches!(outcome, Outcome::NoReply(_));
        self.bus_state = match outcome {
            Outcome::Answered(Answer::Status(status)) if status.stopped => BusState::ReportedStopped(now),
            // It was running then; only data or an answer to START shows that it is running now.
            Outcome::Answered(Answer::Status(_)) if self.bus_state == BusState::Running => BusState::Running,
            _ => BusState::Unknown,
        };
        let network = self.bus.network_error().map(|error| advice::network_error(self.resources.gateway, error));
        let Resources { options, messages, .. } = self.resources;
        match self.silence.on_answer(now, outcome, network) {
            Verdict::Nothing => {}
            Verdict::StartAgain(status) => {
                let mut parts = vec!["START was lost; sending it again".to_owned()];
                parts.extend(advice::controller_state(options.bitrate, self.silence.start(), status));
                if parts.len() == 1 {
                    messages.info(&parts[0])
                } else {
                    messages.warn(parts.join("; "))
                }
                self.bus_state = BusState::Unknown;
                self.bus.start_again();
            }
            Verdict::Report(gap) => {
                let cause = self.silence.cause();
                let explanation = advice::silence(options, self.silence.start(), cause);
                let message = format!("no data for {:.1} s: {explanation}", gap.as_secs_f64());
                if cause.is_warning() { messages.warn(message) } else { messages.info(message) }
            }
        }
        if is_unanswered && self.address.probe(now, self.silence.last_data()) {
            self.on_address_lost();
        }
    }

    pub(super) fn on_silence(&mut self, now: Instant) {
        if self.bus.is_idle() && self.silence.ask_at().is_some_and(|at| at <= now) {
            self.silence.mark_asked(now);
            self.status_was_requested = true;
            self.bus.request_status();
        }
        if self.idle_at().is_some_and(|at| at <= now) {
            self.on_idle();
        } else if self.address.probe_at(self.silence.last_data()) <= now
            && self.address.probe(now, self.silence.last_data())
        {
            self.on_address_lost();
        }
    }

    fn on_idle(&mut self) {
        let Resources { options, gateway, .. } = self.resources;
        let seconds = options.idle_timeout.unwrap_or_default().as_secs_f64();
        let explanation = match (self.silence.cause().is_answer(), self.bus.network_error()) {
            (false, Some(error)) => advice::network_error(gateway, error),
            _ => advice::silence(options, self.silence.start(), self.silence.cause()),
        };
        self.failures.push(anyhow!("no data from {gateway} for {seconds} s (--idle-timeout): {explanation}"));
        if !self.silence.cause().is_answer() {
            self.bus_state = BusState::Unknown;
        }
        self.begin_shutdown();
    }

    /// Ends the session. The old socket can no longer be answered, so a `STOP` leaves from a new one.
    fn on_address_lost(&mut self) {
        let Resources { options, gateway, .. } = self.resources;
        self.failures.push(anyhow!(advice::address_lost(self.address.ip(), gateway)));
        self.bus_state = BusState::Unknown;
        if options.stop_on_exit {
            let any: IpAddr =
                if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            match Connection::open(SocketAddr::new(any, 0), gateway) {
                Ok(bus) => {
                    self.bus = bus;
                    self.bus.set_retry(options.retry.config());
                }
                Err(error) => self.failures.push(anyhow!("cannot send STOP: {}", advice::open_error(&error))),
            }
        }
        self.begin_shutdown();
    }
}
