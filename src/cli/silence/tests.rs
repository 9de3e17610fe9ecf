//! Silences on the test's own clock.

use super::*;

const RUNNING: Status = Status { channel: 1, bus_off: false, error_warning: false, overrun: false, stopped: false };
const STOPPED: Status = Status { stopped: true, ..RUNNING };

const SECOND: Duration = Duration::from_secs(1);

fn silence(begun: Instant) -> Silence {
    Silence::new(begun, 5 * SECOND, None, BitRate::DEFAULT)
}

/// Asks, and answers at once.
fn ask(silence: &mut Silence, now: Instant, status: Status) -> Verdict {
    assert!(silence.ask_at().is_some_and(|at| at <= now));
    silence.ask(now);
    silence.answer(now, Some(Answer::Status(status)), false)
}

#[test]
fn a_bus_that_stays_silent_is_asked_about_once() {
    let begun = Instant::now();
    let mut silence = silence(begun);
    assert_eq!(silence.ask_at(), Some(begun + 5 * SECOND));
    silence.start_is_answered();
    assert!(matches!(ask(&mut silence, begun + 5 * SECOND, RUNNING), Verdict::Tell(_)));
    assert_eq!(silence.ask_at(), None);
}

#[test]
fn a_bus_with_a_frame_every_seven_seconds_is_asked_about_once_a_minute() {
    let begun = Instant::now();
    let mut silence = silence(begun);
    let mut asked = Vec::new();
    for second in 1..=240 {
        let now = begun + second * SECOND;
        if silence.ask_at().is_some_and(|at| at <= now) {
            ask(&mut silence, now, RUNNING);
            asked.push(second);
        }
        if second % 7 == 0 {
            silence.data(now);
        }
    }
    // First after 5 s; then, when a minute is over, 5 s after the frame before (at 63, 126, 189).
    assert_eq!(asked, [5, 68, 131, 194]);
}

#[test]
fn a_stream_that_flows_moves_the_question_away() {
    let begun = Instant::now();
    let mut silence = silence(begun);
    assert_eq!(silence.data(begun + 4 * SECOND), None);
    assert_eq!(silence.ask_at(), Some(begun + 9 * SECOND));
}

#[test]
fn an_idle_timeout_that_would_come_too_early_is_asked_in_its_middle() {
    let now = Instant::now();
    let ask_after = |status_after, idle| {
        let silence = Silence::new(now, status_after, Some(idle), BitRate::DEFAULT);
        silence.ask_at().map(|at| at - now)
    };
    assert_eq!(ask_after(5 * SECOND, 9 * SECOND), Some(9 * SECOND / 2));
    assert_eq!(ask_after(5 * SECOND, 10 * SECOND), Some(5 * SECOND));
    assert_eq!(ask_after(Duration::ZERO, 10 * SECOND), None);
}

#[test]
fn start_is_sent_again_only_at_the_first_answer_and_if_it_was_unanswered_and_nothing_has_come() {
    let begun = Instant::now();
    let first = |prepare: fn(&mut Silence, Instant)| {
        let mut silence = silence(begun);
        prepare(&mut silence, begun);
        ask(&mut silence, begun + 10 * SECOND, STOPPED)
    };
    assert!(matches!(first(|_, _| ()), Verdict::StartAgain { warn: false, .. }));
    assert!(matches!(first(|silence, _| silence.start_is_answered()), Verdict::Tell(_)));
    let data = |silence: &mut Silence, now| {
        silence.data(now);
    };
    assert!(matches!(first(data), Verdict::Tell(_)));

    // Once it ran, a stop is somebody's will.
    let mut silence = silence(begun);
    assert!(matches!(ask(&mut silence, begun + 5 * SECOND, RUNNING), Verdict::Tell(_)));
    silence.data(begun + 6 * SECOND);
    assert!(matches!(ask(&mut silence, begun + 70 * SECOND, STOPPED), Verdict::Tell(_)));
}

#[test]
fn after_start_is_sent_again_what_was_said_before_is_no_longer_true() {
    let begun = Instant::now();
    let mut silence = silence(begun);
    ask(&mut silence, begun + 5 * SECOND, STOPPED);
    assert_eq!(silence.bus_runs(), None, "nobody knows whether it arrived");
    silence.start_is_answered();
    assert_eq!(silence.bus_runs(), Some(true));
    assert!(!silence.explanation(false).contains("stopped"));
    assert_eq!(silence.ask_at(), None);
}

#[test]
fn a_lost_start_hides_no_other_flag() {
    let begun = Instant::now();
    let verdict = ask(&mut silence(begun), begun + 5 * SECOND, Status { bus_off: true, overrun: true, ..STOPPED });
    let Verdict::StartAgain { words, warn: true } = verdict else { panic!("{verdict:?}") };
    assert!(words.contains("bus off") && words.contains("data overrun"), "{words}");
}

#[test]
fn the_gap_is_told_only_if_the_silence_was() {
    let begun = Instant::now();
    let mut silence = silence(begun);
    assert_eq!(silence.data(begun + 4 * SECOND), None);
    ask(&mut silence, begun + 9 * SECOND, RUNNING);
    assert_eq!(silence.data(begun + 12 * SECOND), Some(8 * SECOND));
    assert_eq!(silence.data(begun + 13 * SECOND), None);
    // The same answer again is not told, and so neither is its end.
    assert_eq!(ask(&mut silence, begun + 100 * SECOND, RUNNING), Verdict::Nothing);
    assert_eq!(silence.data(begun + 101 * SECOND), None);
    assert!(matches!(ask(&mut silence, begun + 200 * SECOND, STOPPED), Verdict::Tell(_)));
}

#[test]
fn what_was_said_last_tells_of_the_bus_until_something_comes() {
    let begun = Instant::now();
    let mut silence = silence(begun);
    assert_eq!((silence.bus_runs(), silence.gateway_answers()), (Some(true), false));
    silence.start_is_answered();
    ask(&mut silence, begun + 5 * SECOND, STOPPED);
    assert_eq!((silence.bus_runs(), silence.gateway_answers()), (Some(false), true));
    silence.data(begun + 6 * SECOND);
    assert_eq!(silence.bus_runs(), Some(true));
    silence.ask(begun + 100 * SECOND);
    silence.answer(begun + 103 * SECOND, None, false);
    assert_eq!(silence.bus_runs(), None);
}
