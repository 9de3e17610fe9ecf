//! Limits how much of the gateway's own text is shown. A gateway can report a thousand errors a second; the first ones of a
//! minute are shown, the rest is counted and summed up. No clock of its own.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// How long the lines are counted that one summary covers.
const WINDOW: Duration = Duration::from_secs(60);

/// How often the same line is shown in one window.
const MAX_SAME: u64 = 10;

/// How many different lines are told apart in one window; all further ones count as the same line.
const MAX_DIFFERENT: usize = 32;

/// How many lines are shown in one window, whatever they say. Two windows and their summaries can fall into one minute.
const MAX_SHOWN: u64 = 45;

/// How many lines a summary quotes.
const MAX_QUOTED: usize = 3;

/// Decides which of the gateway's lines are shown.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    /// The window that lasts. It begins with a line, so that the first line after a quiet time is shown.
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    ends_at: Instant,
    shown: u64,
    /// At most [`MAX_DIFFERENT`].
    lines: Vec<Line>,
    /// All other lines.
    others: Line,
}

#[derive(Debug, Default)]
struct Line {
    text: String,
    shown: u64,
    suppressed: u64,
}

impl Limiter {
    /// Whether `text` is shown at `now`. A [summary](Limiter::take_summary) that is due comes first.
    pub fn admits(&mut self, now: Instant, text: &str) -> bool {
        let window = self.window.get_or_insert_with(|| Window {
            ends_at: now + WINDOW,
            shown: 0,
            lines: Vec::new(),
            others: Line::default(),
        });
        let line = match window.lines.iter().position(|line| line.text == text) {
            Some(index) => &mut window.lines[index],
            None if window.lines.len() < MAX_DIFFERENT => {
                window.lines.push(Line { text: text.to_owned(), ..Line::default() });
                let last = window.lines.len() - 1;
                &mut window.lines[last]
            }
            None => &mut window.others,
        };
        let is_shown = line.shown < MAX_SAME && window.shown < MAX_SHOWN;
        if is_shown {
            line.shown += 1;
            window.shown += 1;
        } else {
            line.suppressed += 1;
        }
        is_shown
    }

    /// When [`Limiter::take_summary`] returns the next summary; `None` while there is nothing to sum up.
    pub fn summary_at(&self) -> Option<Instant> {
        let window = self.window.as_ref()?;
        (window.suppressed() > 0).then_some(window.ends_at)
    }

    /// Ends a window that is over at `now`. Returns what was not shown in it, if there was anything.
    pub fn take_summary(&mut self, now: Instant) -> Option<String> {
        let window = self.window.take_if(|window| window.ends_at <= now)?;
        (window.suppressed() > 0).then(|| window.summary())
    }
}

impl Window {
    fn suppressed(&self) -> u64 {
        self.others.suppressed + self.lines.iter().map(|line| line.suppressed).sum::<u64>()
    }

    fn summary(mut self) -> String {
        let total = self.suppressed();
        let seconds = WINDOW.as_secs();
        let mut summary = format!("not shown in the last {seconds} s: {total} more messages of the gateway");
        self.lines.retain(|line| line.suppressed > 0);
        self.lines.sort_by_key(|line| std::cmp::Reverse(line.suppressed));
        self.lines.truncate(MAX_QUOTED);
        let mut separator = " (";
        let mut others = total;
        for Line { text, suppressed, .. } in &self.lines {
            let _ = write!(summary, "{separator}{suppressed} x {text}");
            others -= suppressed;
            separator = ", ";
        }
        if others > 0 {
            let _ = write!(summary, "{separator}{others} x other");
        }
        summary + ")"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a limiter on a clock of the test's own.
    struct Run {
        limiter: Limiter,
        start: Instant,
        /// When each line was shown, summaries included.
        shown_at: Vec<Duration>,
        summaries: Vec<String>,
        suppressed: u64,
    }

    impl Run {
        fn new() -> Run {
            let limiter = Limiter::default();
            Run { limiter, start: Instant::now(), shown_at: Vec::new(), summaries: Vec::new(), suppressed: 0 }
        }

        fn advance_to(&mut self, at: Duration) {
            if let Some(summary) = self.limiter.take_summary(self.start + at) {
                self.summaries.push(summary);
                self.shown_at.push(at);
            }
        }

        fn line(&mut self, at: Duration, text: &str) -> bool {
            self.advance_to(at);
            let is_shown = self.limiter.admits(self.start + at, text);
            if is_shown {
                self.shown_at.push(at);
            } else {
                self.suppressed += 1;
            }
            is_shown
        }

        /// The largest number of lines in any minute.
        fn max_per_minute(&self) -> usize {
            let within = |first: &Duration| {
                self.shown_at.iter().filter(|at| *at >= first && **at < *first + Duration::from_secs(60)).count()
            };
            self.shown_at.iter().map(within).max().unwrap_or(0)
        }
    }

    const MILLISECOND: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn same_line_is_shown_ten_times_a_minute_and_summed_up() {
        let mut run = Run::new();
        for _ in 0..3000 {
            run.line(Duration::ZERO, "E 1 BUSOFF");
        }
        assert_eq!(run.shown_at.len(), 10);
        assert_eq!(run.limiter.summary_at(), Some(run.start + WINDOW));
        run.advance_to(WINDOW - MILLISECOND);
        assert!(run.summaries.is_empty());
        run.advance_to(WINDOW);
        assert_eq!(
            run.summaries,
            ["not shown in the last 60 s: 2990 more messages of the gateway (2990 x E 1 BUSOFF)"]
        );
        assert_eq!(run.limiter.summary_at(), None);
    }

    #[test]
    fn flood_of_any_lines_stays_under_100_a_minute() {
        for different in [1, 3, 32, 40, 1000, u32::MAX] {
            let mut run = Run::new();
            for n in 0..600_000 {
                run.line(n * MILLISECOND, &format!("E 1 {}", n % different));
            }
            run.advance_to(700 * SECOND);
            assert!(run.max_per_minute() < 100, "{} lines with {different} different", run.max_per_minute());
            let shown = run.shown_at.len() - run.summaries.len();
            assert_eq!(shown as u64 + run.suppressed, 600_000);
            let number =
                |summary: &String| summary.split(' ').find_map(|word| word.parse::<u64>().ok().filter(|&n| n != 60));
            assert_eq!(run.summaries.iter().filter_map(number).sum::<u64>(), run.suppressed);
        }
    }

    #[test]
    fn other_lines_are_shown_beside_a_flood() {
        let mut run = Run::new();
        for _ in 0..100_000 {
            run.line(SECOND, "E 1 ERRORWARNING SET");
        }
        assert!(run.line(SECOND, "E 1 BUSOFF"));
    }

    #[test]
    fn single_line_an_hour_after_a_flood_is_shown_at_once() {
        let mut run = Run::new();
        for n in 0..3000 {
            run.line(n * MILLISECOND, "E 1 BUSOFF");
        }
        run.advance_to(60 * SECOND);
        assert!(run.line(3600 * SECOND, "E 1 BUSOFF"));
        assert_eq!(run.limiter.summary_at(), None, "there is nothing to sum up");
    }

    #[test]
    fn summary_quotes_the_most_frequent_lines() {
        let mut run = Run::new();
        for (text, times) in [("a", 12), ("b", 30), ("c", 11), ("d", 14), ("e", 20)] {
            for _ in 0..times {
                run.line(Duration::ZERO, text);
            }
        }
        run.advance_to(WINDOW);
        // Of 87 lines 45 are shown: ten each of a, b, c and d, five of e.
        assert_eq!(
            run.summaries,
            ["not shown in the last 60 s: 42 more messages of the gateway (20 x b, 15 x e, 4 x d, 3 x other)"]
        );
    }
}
