//! Claims 39 to 51: how a session ends, and what else is said.

use super::view::View;
use super::{Area, Findings};
use crate::simulation::log::{Ending, Fact, MILLISECOND, Origin, SECOND, Time, Verb, seconds};
use crate::simulation::protocol::{self, Change, Line};
use crate::simulation::sentences::{self, Claim, Sentence, claims, recognise};

/// How late `--idle-timeout` may end a session.
const IDLE_SLACK: Time = 150 * MILLISECOND;

/// How soon after a signal the output is closed, if STOP is not sent.
const CLOSE_WITHIN: Time = 60 * MILLISECOND;

const MINUTE: Time = 60 * SECOND;
const SLACK: Time = 3 * MILLISECOND;

/// How long two looks at the local address are apart.
const LOOK_INTERVAL: Time = 8 * SECOND;

/// Sessions whose address is lost end within this time, and that of a command.
const ADDRESS_LOST_WITHIN: Time = 90 * SECOND;

#[derive(Default)]
pub struct Ends {
    reports: u32,
    unreachable: Vec<Time>,
    looks: Vec<(Time, bool)>,
    address_lost_since: Option<Time>,
    /// A BUSOFF that must be shown.
    bus_off_due: Option<Time>,
    last_bus_off: Option<Time>,
    halted: bool,
    lost: bool,
    failures: Vec<String>,
}

impl Ends {
    /// How long there was no frame, until `until`, without the time that the process stood still.
    fn check_idle(&self, view: &View<'_>, since: Time, until: Time, found: &mut Findings) {
        let Some(idle) = view.options.idle else { return };
        let until = view.end_asked().map_or(until, |at| at.min(until));
        let lasted = until.saturating_sub(since).saturating_sub(view.stalled(since, until));
        found.check(
            lasted <= idle + IDLE_SLACK,
            view.now,
            "43 --idle-timeout does not end the session in time",
            || format!("no frame since {}, for {} s", seconds(since), seconds(lasted)),
        );
    }

    fn on_read(&mut self, view: &View<'_>, packet: usize, found: &mut Findings) {
        let port = view.options.port;
        if let (Some(frame), true) =
            (view.frame.filter(|frame| frame.read == view.now), view.last_lines.contains(&Line::Frame(port)))
        {
            if !view.is_ending() {
                self.looks.clear();
            }
            let since = view.frame_before.map(|before| before.read).or(view.start_left).unwrap_or(0);
            if view.end_asked().is_none() && view.closed.is_none() && view.stop_tried.is_none() && !view.is_complete {
                self.check_idle(view, since, frame.arrived, found);
            }
        }
        self.check_bus_off(view, found);
        let lines = protocol::lines(&view.log.packets[packet].bytes);
        let is_bus_off = |line: &Line| matches!(line, Line::Event(_, Change::BusOff));
        if view.start_left.is_some() && lines.iter().any(is_bus_off) {
            let is_ours = lines.contains(&Line::Event(port, Change::BusOff));
            let is_first = self.last_bus_off.is_none_or(|last| view.now > last + MINUTE + SECOND);
            let shows = !view.options.is_raw && !view.is_complete;
            self.bus_off_due = (is_ours && is_first && shows).then_some(view.now);
        }
        if lines.iter().any(is_bus_off) {
            self.last_bus_off = Some(view.now);
        }
    }

    fn check_bus_off(&mut self, view: &View<'_>, found: &mut Findings) {
        if let (Some(at), false) = (self.bus_off_due.take(), view.not_shown) {
            found.add(at, "51 the first BUSOFF is not shown", "");
        }
    }

    fn on_address_lost(&self, view: &View<'_>, found: &mut Findings) {
        let now = view.now;
        let lost: Vec<Time> = self.looks.iter().rev().take_while(|(_, lost)| *lost).map(|(at, _)| *at).collect();
        let apart = lost.first().zip(lost.last()).map_or(0, |(last, first)| last - first);
        found.check(apart + SLACK >= LOOK_INTERVAL, now, "47 the address is lost, by looks that are too close", || {
            format!("{:?}", self.looks)
        });
    }

    fn on_closed(&self, view: &View<'_>, found: &mut Findings) {
        let Some(start) = view.start_left else { return };
        let now = view.now;
        if let Some(signal) = view.signals.first().copied().filter(|&signal| signal >= start) {
            let took = now.saturating_sub(signal).saturating_sub(view.stalled(signal, now));
            let options = &view.options;
            let limit = match options.stop_on_exit {
                false => CLOSE_WITHIN,
                true => 2 * options.command_time() + 2 * options.answer_window() + SECOND,
            };
            found.check(took <= limit, now, "42 the output is closed too late after a signal", || {
                format!("{} s after it", seconds(took))
            });
        }
        // STOP ends the waiting for frames.
        let until = view.stop_tried.unwrap_or(now);
        let since = view.silent_at_end.map_or(start, |(_, read)| read);
        if !view.is_complete {
            self.check_idle(view, since, until, found);
        }
    }

    fn on_exit(&self, view: &View<'_>, code: u8, found: &mut Findings) {
        let now = view.now;
        let options = &view.options;
        // The signal may have come while START was being sent.
        let is_early = !view.signals.is_empty() && (view.start_left.is_none() || view.started_after_signal);
        match code {
            0 if options.is_can_stop => {
                found.check(
                    self.halted || options.quiet || view.not_shown,
                    now,
                    "39 can-stop succeeds without a confirmation",
                    String::new,
                );
            }
            0 => {
                let reader_gone = view.log.facts.iter().any(|(_, fact)| {
                    matches!(
                        fact,
                        Fact::WriteFailed(std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset)
                    )
                });
                let asked = !view.signals.is_empty() || view.is_complete || reader_gone;
                found.check(asked, now, "39 exit 0, but nothing asked for the end", String::new);
                let mut stops = view.groups.iter().filter(|group| group.verb == Verb::Stop);
                let stopped = stops.any(|stop| stop.answered.is_some()) || !options.stop_on_exit;
                found.check(stopped, now, "39 exit 0 with --stop-on-exit, but not halted", String::new);
                found.check(
                    !options.stop_on_exit || self.halted || options.quiet || view.not_shown,
                    now,
                    "39 exit 0 with --stop-on-exit, but not halted",
                    String::new,
                );
                found.check(!is_early, now, "41 a signal before START, and not 130", String::new);
                found.check(view.start_left.is_some(), now, "39 exit 0 before START", String::new);
            }
            1 => {
                let last = view.said().last().map(|(_, text)| text).unwrap_or_default();
                let lines: Vec<&str> = sentences::lines(last).collect();
                let sentence = lines.last().map(|line| recognise(line));
                let is_failure = matches!(
                    sentence,
                    Some(Sentence::Idle { .. } | Sentence::AddressLost | Sentence::NoReply { .. } | Sentence::Other)
                );
                found.check(
                    lines.len() == 1 && is_failure || view.not_shown,
                    now,
                    "40 the last line is no failure that stands alone",
                    || format!("{lines:?}"),
                );
                let steps = ["CAN ", "no data", "stdout", "address", "STOP", "cannot", "disk"];
                let says_step = steps.iter().any(|step| last.contains(step));
                found.check(says_step || view.not_shown, now, "40 the last line does not say at which step", || {
                    last.to_owned()
                });
            }
            130 => {
                found.check(is_early, now, "41 exit 130 without a signal before START", String::new);
            }
            _ => found.add(now, "41 an exit code that nobody knows", code.to_string()),
        }
        let expects_report = view.start_left.is_some() && code != 130 && !view.not_shown;
        if expects_report && (!options.quiet || self.lost && !view.has_no_drop_counter) {
            found.check(self.reports == 1, now, "45 a stream has not one report", || self.reports.to_string());
        }
        if view.start_left.is_none() {
            found.check(self.reports == 0, now, "45 a report without a stream", String::new);
        }
        found.check(self.reports <= 1, now, "45 a stream has not one report", || self.reports.to_string());
    }
}

impl Area for Ends {
    fn on_fact(&mut self, view: &View<'_>, fact: &Fact, found: &mut Findings) {
        match fact {
            Fact::Read(packet) => self.on_read(view, *packet, found),
            Fact::Empty { .. } => self.check_bus_off(view, found),
            Fact::Look { lost } => self.looks.push((view.now, *lost)),
            Fact::Happened { what, .. } if what == "address-lost on" => {
                self.address_lost_since.get_or_insert(view.now);
            }
            Fact::Happened { what, .. } if what == "address-lost off" => self.address_lost_since = None,
            Fact::Dropped(_)
                if view.start_left.is_some_and(|start| view.last_read_at > start) && view.closed.is_none() =>
            {
                self.lost = true;
            }
            Fact::Pushed { result: crate::simulation::log::Pushed::Full, .. } => self.lost = true,
            Fact::Closed => self.on_closed(view, found),
            _ => {}
        }
        if let (Some(since), true) = (self.address_lost_since, view.streams()) {
            let since = since.max(view.silent_since().map_or(0, |(_, read)| read));
            let limit = ADDRESS_LOST_WITHIN + view.options.query_after() + view.options.command_time();
            let lasted = view.now.saturating_sub(since).saturating_sub(view.stalled(since, view.now));
            found.check(lasted <= limit, view.now, "47 the address is lost, and the session goes on", String::new);
        }
    }

    fn on_line(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        let sentence = recognise(line);
        if sentence == Sentence::Debug {
            return;
        }
        self.halted |= claims(line).any(|claim| claim == Claim::Halted);
        if view.options.quiet {
            let is_info = matches!(
                sentence,
                Sentence::Connecting | Sentence::StartSent | Sentence::Restarting { .. } | Sentence::Resumed { .. }
            );
            found.check(!is_info, now, "50 --quiet shows information", || line.to_owned());
        }
        match sentence {
            Sentence::Report { .. } => self.reports += 1,
            Sentence::Unreachable => {
                found.check(!view.read_errors.is_empty(), now, "46 unreachable without an error", || line.to_owned());
                let stalled = view.stalled(now.saturating_sub(2 * MINUTE), now);
                let often = self.unreachable.last().is_some_and(|&last| now + SLACK + stalled < last + MINUTE);
                found.check(!often, now, "46 unreachable more than once a minute", String::new);
                self.unreachable.push(now);
            }
            Sentence::AddressLost => self.on_address_lost(view, found),
            Sentence::Idle { seconds: said, .. } => {
                let idle = view.options.idle.unwrap_or(0);
                let since = view.known().map(|known| known.silent_since).min().unwrap_or(0);
                found.check(
                    now + MILLISECOND >= since + idle,
                    now,
                    "43 --idle-timeout ends the session too early",
                    || format!("the last frame at {}", seconds(since)),
                );
                found.check((said - seconds(idle)).abs() < 0.001, now, "43 another idle timeout", || said.to_string());
            }
            Sentence::RefusedCommand(text) => {
                let ours =
                    view.last_read.is_some_and(|packet| matches!(view.log.packets[packet].origin, Origin::Answer(_)));
                found.check(!ours, now, "49 the gateway refused a command, which was our own", || text.clone());
                let quoted = view.last_lines.iter().any(|line| matches!(line, Line::Refused(_)));
                found.check(quoted, now, "49 the gateway refused a command, but no such line came", || text.clone());
            }
            Sentence::GatewayReports(text) if text.to_uppercase().contains("BUSOFF") => self.bus_off_due = None,
            _ => {}
        }
        self.failures.push(line.to_owned());
    }

    fn on_end(&mut self, view: &View<'_>, found: &mut Findings) {
        match &view.ending {
            Some(Ending::Panic(text)) => found.add(view.now, "44 a panic", text.clone()),
            Some(Ending::Livelock) => found.add(view.now, "44 the session does not end", ""),
            Some(Ending::Quit) => {
                let early = view.start_left.is_none() && !view.signals.is_empty();
                let enough = view.signals.len() >= 2 || early;
                found.check(enough, view.now, "41 a signal quits at once", String::new);
            }
            Some(Ending::Code(code)) => {
                self.on_exit(view, *code, found);
            }
            None => {}
        }
    }
}
