//! Claims 33 to 38: what is printed and what is counted.

use super::view::{View, frames_in};
use super::{Area, Findings};
use crate::simulation::log::{Ending, Fact, MILLISECOND, Origin, Pushed, SECOND, Time, Verb, seconds};
use crate::simulation::protocol::Line;
use crate::simulation::sentences::{Sentence, recognise};

/// A datagram that was read and must, or may, be printed.
#[derive(Debug)]
struct Expected {
    packet: usize,
    must: bool,
}

#[derive(Default)]
pub struct Figures {
    expected: Option<Expected>,
    /// Pushes of datagrams, by their result.
    accepted: u64,
    full: u64,
    refused: u64,
    /// Their bytes as they came.
    bytes_pushed: u64,
    /// Datagrams read since START that may count, and their bytes.
    countable: u64,
    countable_bytes: u64,
    malformed: u64,
    written: u64,
    /// Frames of the handshake, since INIT and in all.
    handshake_frames: [u64; 2],
    /// Drops before START, until its first read, and in all.
    drops: u64,
    drops_at_start: u64,
    drops_after_start: Option<u64>,
    drops_at_end: u64,
    errors_after_start: [u64; 2],
    /// Since when a loss of the output buffer is not told.
    buffer_loss_since: Option<Time>,
    last_push: Time,
    /// What was told of these, and when; since when more must be told.
    buffer_loss_told: (u64, Option<Time>),
    buffer_loss_due: Option<Time>,
    kernel_loss: Vec<Time>,
    kernel_loss_told: u64,
    /// Since when kernel drops are not told.
    untold_since: Option<Time>,
    reported: bool,
}

impl Figures {
    fn on_read(&mut self, view: &View<'_>, packet: usize, found: &mut Findings) {
        self.check_printed(view, found);
        let read = &view.log.packets[packet];
        let frames = view.last_lines.iter().filter(|line| matches!(line, Line::Frame(_))).count() as u64;
        if view.start_left.is_none() {
            self.handshake_frames[1] += frames;
            if view.init_left.is_some() {
                self.handshake_frames[0] += frames;
            }
            return;
        }
        if view.is_complete {
            return;
        }
        let answers_status = match read.origin {
            Origin::Answer(index) => view.log.transmissions[index].verb == Verb::Status,
            _ => false,
        };
        let is_status = |line: &Line| matches!(line, Line::Status(port, _) if *port == view.options.port);
        let only_status = !view.last_lines.is_empty() && view.last_lines.iter().all(is_status);
        let only_replies =
            view.last_lines.iter().all(|line| !matches!(line, Line::Frame(_) | Line::Event(..) | Line::Other));
        if answers_status && only_status {
            // Answers to STATUS are never printed.
            self.expected = None;
            return;
        }
        self.countable += 1;
        self.countable_bytes += read.bytes.len() as u64;
        let malformed =
            view.last_lines.iter().filter(|line| matches!(line, Line::Other | Line::Reply(_))).count() as u64;
        self.malformed += malformed + frames.saturating_sub(read.frames);
        // An answer to a STOP that overtook a STATUS cannot be told from one to that.
        let window = view.options.answer_window();
        let asked = view.group(Verb::Status).filter(|group| group.left > 0).map(|group| group.last);
        let asked = asked.is_some_and(|sent| sent + 2 * window + view.stalled(sent, view.now) >= view.now);
        let is_refusal = only_replies && view.last_lines.iter().any(|line| matches!(line, Line::Refused(_) | Line::Ok));
        let uncertain = answers_status && only_replies || only_status || asked && is_refusal;
        let must = if view.options.is_raw {
            !read.bytes.is_empty()
        } else {
            let has_events =
                view.options.format != "candump" && view.last_lines.iter().any(|line| matches!(line, Line::Event(..)));
            if has_events && read.frames == 0 {
                // Only events that the format knows.
                self.expected = Some(Expected { packet, must: false });
                return;
            }
            read.frames > 0
        };
        let may = must || view.options.is_raw && !read.bytes.is_empty();
        self.expected = may.then_some(Expected { packet, must: must && !uncertain });
    }

    fn check_printed(&mut self, view: &View<'_>, found: &mut Findings) {
        let Some(Expected { packet, must: true }) = self.expected.take() else { return };
        if !view.is_complete {
            found.add(view.now, "34 a datagram is not printed", format!("#{packet}"));
        }
    }

    fn on_pushed(&mut self, view: &View<'_>, bytes: &[u8], result: Pushed, found: &mut Findings) {
        let now = view.now;
        // It is told with a datagram.
        if self.buffer_loss_due.is_some_and(|due| view.before_stall(self.last_push) > due + SECOND) {
            found.check(view.not_shown, now, "38 a loss of the output buffer is not told again", String::new);
        }
        self.last_push = now;
        let Some(Expected { packet, .. }) = self.expected.take() else {
            return found.add(
                now,
                "34 something is printed that did not come, or must not be printed",
                String::from_utf8_lossy(bytes),
            );
        };
        let read = &view.log.packets[packet];
        match result {
            Pushed::Accepted => self.accepted += 1,
            Pushed::Full => {
                self.full += 1;
                let earliest = self.buffer_loss_told.1.map_or(now, |told| now.max(told + 60 * SECOND));
                self.buffer_loss_due.get_or_insert(earliest);
            }
            Pushed::Closed => self.refused += 1,
        }
        self.bytes_pushed += read.bytes.len() as u64;
        if view.options.is_raw {
            let newline = read.bytes.last() != Some(&b'\n');
            let same = bytes.strip_suffix(b"\n").filter(|_| newline).unwrap_or(bytes) == read.bytes;
            found.check(same, now, "34 a datagram is not printed as it came", || format!("{bytes:?}"));
            return;
        }
        let printed = frames_in(&view.options.format, bytes);
        let before = view.accepted_frames - if result == Pushed::Accepted { printed } else { 0 };
        let wanted = view.options.count.map_or(read.frames, |count| read.frames.min(count.saturating_sub(before)));
        found.check(printed == wanted, now, "35 not as many frames as there are well-formed lines", || {
            format!("{printed}, but {wanted}: {}", String::from_utf8_lossy(bytes))
        });
    }

    fn on_report(
        &mut self,
        view: &View<'_>,
        datagrams: u64,
        frames: Option<u64>,
        bytes: u64,
        said: f64,
        found: &mut Findings,
    ) {
        let now = view.now;
        self.reported = true;
        let pushed = self.accepted + self.full + self.refused;
        found.check((pushed..=self.countable).contains(&datagrams), now, "34 the number of datagrams is wrong", || {
            format!("{datagrams}, but {pushed} to {}", self.countable)
        });
        found.check(
            (self.bytes_pushed..=self.countable_bytes).contains(&bytes),
            now,
            "34 the number of bytes is wrong",
            || format!("{bytes}, but {} to {}", self.bytes_pushed, self.countable_bytes),
        );
        found.check(
            frames.is_some() != view.options.is_raw,
            now,
            "35 frames are counted in raw, or not outside",
            String::new,
        );
        if let Some(frames) = frames {
            let counted = view.accepted_frames;
            found.check(frames == counted, now, "35 the number of frames is wrong", || {
                format!("{frames}, but {counted}")
            });
        }
        let Some(start) = view.start_left else {
            return found.add(now, "45 a report without a stream", "");
        };
        let high = seconds(now - start) + 0.06;
        let ended = [view.end_asked(), view.stop_tried, view.closed].into_iter().flatten().min();
        let ended = ended.filter(|_| view.options.idle.is_none() && !view.is_complete);
        let low = ended.map_or(0.0, |end| {
            seconds(
                view.before_stall(end)
                    .saturating_sub(view.start_by.unwrap_or(start))
                    .saturating_sub(view.stalled(start, end)),
            ) - 0.1
        });
        found.check((low..=high).contains(&said), now, "34 the duration is wrong", || {
            format!("{said}, but {low} to {high}")
        });
    }

    fn on_lost(&self, view: &View<'_>, kernel: Option<u64>, is_lower_bound: bool, buffer: u64, found: &mut Findings) {
        let now = view.now;
        found.check(buffer == self.full, now, "37 the losses of the output buffer are wrong", || {
            format!("{buffer}, but {}", self.full)
        });
        let is_unknown = view.has_no_drop_counter;
        let low = self.drops_at_end - self.drops_after_start.unwrap_or(self.drops_at_start).min(self.drops_at_end);
        let high = self.drops - self.drops_at_start;
        match kernel {
            _ if is_unknown => found.check(is_lower_bound, now, "33 drops that cannot be known", String::new),
            Some(said) => found.check(
                (low..=high).contains(&said) && !is_lower_bound,
                now,
                "33 the kernel's drops are wrong",
                || format!("{said}, but {low} to {high}"),
            ),
            None => found.add(now, "33 the kernel's drops are unknown", ""),
        }
    }

    fn on_kernel_loss(&mut self, view: &View<'_>, count: Option<u64>, found: &mut Findings) {
        let now = view.now;
        found.check(self.drops > self.drops_at_start, now, "38 kernel losses, but nothing was dropped", String::new);
        let often = self.kernel_loss.last().is_some_and(|&last| now < last + 59 * SECOND);
        found.check(!often, now, "38 kernel losses more than once a minute", String::new);
        if let Some(count) = count {
            let high = self.drops - self.drops_at_start;
            found.check(
                count + self.kernel_loss_told <= high && count > 0,
                now,
                "38 the count of kernel losses is wrong",
                || format!("{count} after {}, but {high}", self.kernel_loss_told),
            );
            self.kernel_loss_told += count;
        }
        self.kernel_loss.push(now);
        self.untold_since = None;
    }
}

impl Area for Figures {
    fn on_fact(&mut self, view: &View<'_>, fact: &Fact, found: &mut Findings) {
        if view.start_left.is_none() {
            self.drops_at_start = self.drops;
        } else if matches!(fact, Fact::Read(_) | Fact::Empty { .. }) {
            self.drops_after_start.get_or_insert(self.drops);
            self.drops_at_end = self.drops;
        }
        match fact {
            Fact::Read(packet) => self.on_read(view, *packet, found),
            Fact::Empty { .. } => self.check_printed(view, found),
            Fact::Pushed { bytes, datagrams: 1, result } => {
                self.on_pushed(view, bytes, *result, found);
                if *result == Pushed::Full && self.full == 1 {
                    self.buffer_loss_since = Some(view.now);
                }
            }
            Fact::Pushed { .. } => {}
            Fact::Written(written) => self.written = *written,
            Fact::Dropped(_) => {
                self.drops += 1;
                if self.drops_after_start.is_some() {
                    self.untold_since.get_or_insert(view.now);
                }
            }
            Fact::ReadError(_) if view.start_left.is_some() => {
                self.errors_after_start[1] += 1;
                if !view.is_ending() {
                    self.errors_after_start[0] += 1;
                }
            }
            Fact::Closed => {
                self.check_printed(view, found);
                // The idle timeout may have ended it before the signal.
                let idle = view.idle_at();
                let asked = view.end_asked().map(|asked| idle.map_or(asked, |idle| asked.min(idle)));
                let began = view.before_stall(view.now);
                let is_early = |&&(arrived, _): &&(Time, usize)| asked.is_some_and(|asked| arrived < asked.min(began));
                let left = view.queued.iter().filter(is_early).count();
                if view.start_left.is_some() && !view.is_complete {
                    found.check(
                        left == 0,
                        view.now,
                        "36 what had arrived before the end is neither printed nor counted",
                        || format!("{left} datagrams"),
                    );
                }
            }
            _ => {}
        }
    }

    fn on_line(&mut self, view: &View<'_>, line: &str, found: &mut Findings) {
        let now = view.now;
        match recognise(line) {
            Sentence::Report { datagrams, frames, bytes, seconds } => {
                self.on_report(view, datagrams, frames, bytes, seconds, found);
            }
            Sentence::Lost { kernel, is_lower_bound, buffer } => {
                self.on_lost(view, kernel, is_lower_bound, buffer, found)
            }
            Sentence::KernelLoss { count } => self.on_kernel_loss(view, count, found),
            Sentence::BufferLoss { count } => {
                found.check(self.full > 0, now, "37 the output buffer lost nothing", String::new);
                let (told, at) = self.buffer_loss_told;
                let often = at.is_some_and(|at| now + view.stalled(at, now) < at + 59 * SECOND);
                found.check(!often, now, "38 losses of the output buffer more than once a minute", String::new);
                let exact = count.is_none_or(|count| told + count == self.full);
                found.check(exact, now, "38 the count of losses of the output buffer is wrong", || {
                    format!("{count:?} after {told}, but {}", self.full)
                });
                (self.buffer_loss_told, self.buffer_loss_due) = ((self.full, Some(now)), None);
                self.buffer_loss_since = None;
            }
            Sentence::NetworkErrors(said) => {
                let [low, high] = self.errors_after_start;
                found.check((low..=high).contains(&said), now, "33 the number of network errors is wrong", || {
                    format!("{said}, but {low} to {high}")
                });
            }
            Sentence::HandshakeFrames(said) => {
                let [low, high] = self.handshake_frames;
                found.check((low..=high).contains(&said), now, "33 the frames of the handshake are wrong", || {
                    format!("{said}, but {low} to {high}")
                });
            }
            Sentence::NotRead(said) | Sentence::NotWritten(said) => {
                let missing = (self.accepted + self.refused).saturating_sub(self.written);
                found.check(said == missing, now, "36 the datagrams that were not written are wrong", || {
                    format!("{said}, but {missing}")
                });
            }
            Sentence::MalformedLines(said) => {
                found.check(said <= self.malformed, now, "34 the malformed lines are wrong", || {
                    format!("{said}, but {}", self.malformed)
                });
            }
            _ => {}
        }
    }

    fn on_end(&mut self, view: &View<'_>, found: &mut Findings) {
        let ended = matches!(view.ending, Some(Ending::Code(_))) && view.start_left.is_some() && !view.not_shown;
        if !ended {
            return;
        }
        if let Some(since) = self.buffer_loss_since {
            let end = [view.end_asked(), view.closed].into_iter().flatten().min().unwrap_or(view.now);
            let untold = end.saturating_sub(since).saturating_sub(view.stalled(since, end));
            found.check(untold < 2 * SECOND, view.now, "37 a loss of the output buffer is not told at once", || {
                seconds(untold).to_string()
            });
        }
        if self.reported {
            let has = |wanted: fn(&Sentence) -> bool| {
                view.said()
                    .any(|(_, text)| crate::simulation::sentences::lines(text).any(|line| wanted(&recognise(line))))
            };
            if self.errors_after_start[0] > 0 {
                found.check(
                    has(|s| matches!(s, Sentence::NetworkErrors(_))),
                    view.now,
                    "33 network errors are not counted",
                    String::new,
                );
            }
            if self.handshake_frames[0] > 0 {
                found.check(
                    has(|s| matches!(s, Sentence::HandshakeFrames(_))),
                    view.now,
                    "33 frames of the handshake are not counted",
                    String::new,
                );
            }
            if view.write_failed.is_some() && self.accepted + self.refused > self.written {
                let told = has(|s| matches!(s, Sentence::NotRead(_) | Sentence::NotWritten(_)));
                found.check(told, view.now, "36 datagrams that were not written are not counted", String::new);
            }
        }
        // It looks once a second while data comes, so a loss is told soon, unless the last one was told less than a minute ago.
        if let (Some(since), false) = (self.untold_since, view.has_no_drop_counter) {
            let end = view.end_asked().unwrap_or(view.now);
            let allowed = since.max(self.kernel_loss.last().map_or(0, |&last| last + 60 * SECOND));
            let due = view.after(allowed, 3 * SECOND);
            let kept_coming = view.frame.is_some_and(|frame| frame.read > due + 1000 * MILLISECOND);
            found.check(due > end || !kept_coming, due, "38 a loss in the kernel is not told", String::new);
        }
    }
}
