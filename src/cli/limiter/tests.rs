use super::*;

/// A limiter on a clock of the test's own.
struct Run {
    limiter: Limiter,
    start: Instant,
    /// When each line was shown, summaries included.
    shown_at: Vec<Duration>,
    summaries: Vec<u64>,
}

impl Run {
    fn new() -> Run {
        Run { limiter: Limiter::default(), start: Instant::now(), shown_at: Vec::new(), summaries: Vec::new() }
    }

    fn line(&mut self, at: Duration, text: &str) -> bool {
        let Some(suppressed) = self.limiter.admits(self.start + at, text) else { return false };
        self.shown_at.extend(std::iter::repeat_n(at, 1 + usize::from(suppressed > 0)));
        self.summaries.extend((suppressed > 0).then_some(suppressed));
        true
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
fn same_line_is_shown_ten_times_a_minute_and_counted() {
    let mut run = Run::new();
    for _ in 0..3000 {
        run.line(Duration::ZERO, "E 1 BUSOFF");
    }
    assert_eq!(run.shown_at.len(), 10);
    assert_eq!(run.limiter.suppressed, 2990);
    assert!(!run.line(WINDOW - MILLISECOND, "E 1 BUSOFF"));
    // Reported before the next line that is shown, and once.
    assert!(run.line(WINDOW, "E 1 BUSOFF") && run.line(WINDOW, "E 1 BUSOFF"));
    assert_eq!(run.summaries, [2991]);
    assert_eq!(run.limiter.suppressed, 2991);
}

#[test]
fn flood_of_any_lines_stays_under_100_a_minute() {
    for different in [1, 3, 32, 40, 1000, u32::MAX] {
        let mut run = Run::new();
        for n in 0..600_000 {
            run.line(n * MILLISECOND, &format!("E 1 {}", n % different));
        }
        assert!(run.max_per_minute() < 100, "{} lines with {different} different", run.max_per_minute());
        assert!(run.limiter.shown.len() <= 48, "{}", run.limiter.shown.len());
        let shown = run.shown_at.len() - run.summaries.len();
        assert_eq!(shown as u64 + run.limiter.suppressed, 600_000);
        run.line(700 * SECOND, "the next");
        assert_eq!(run.summaries.iter().sum::<u64>(), run.limiter.suppressed);
    }
}

#[test]
fn events_of_the_protocol_have_their_own_allowance() {
    let mut run = Run::new();
    for n in 0..300 {
        run.line(n * MILLISECOND, &format!("E 1 WARNING {}", n % 100));
    }
    assert!(!run.line(SECOND, "E 1 NEW"));
    for event in ["E 1 BUSOFF", "E 1 ERRORWARNING SET", "E 1 ERRORWARNING RESET"] {
        assert_eq!((0..20).filter(|_| run.line(SECOND, event)).count(), 10, "{event}");
    }
    // Each before the next line that was shown: 45 of the others were.
    assert_eq!(run.summaries, [256, 10, 10]);
}

#[test]
fn single_line_an_hour_after_a_flood_is_shown_at_once() {
    let mut run = Run::new();
    for n in 0..3000 {
        run.line(n * MILLISECOND, "E 1 BUSOFF");
    }
    assert!(run.line(3600 * SECOND, "E 1 BUSOFF"));
    assert_eq!(run.summaries.len(), 1);
    assert!(run.line(7200 * SECOND, "E 1 BUSOFF"));
    assert_eq!(run.summaries.len(), 1, "there is nothing more to report");
}
