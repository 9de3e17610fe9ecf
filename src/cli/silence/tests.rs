//! Silences on the test's own clock.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What the policy wants of a session that began at 0, second by second, where a frame comes at these times.
struct Wanted {
    asked: Vec<u32>,
    looked: Vec<u32>,
    /// When data was said to resume, after how many seconds.
    resumed: Vec<(u32, u64)>,
}

/// `must_ask_again`: no answer explains anything. `tells`: every silence that is asked about is explained.
fn run(mut silence: Silence, until: u32, frames: &[u32], must_ask_again: bool, tells: bool) -> Wanted {
    let start = Instant::now();
    let mut wanted = Wanted { asked: vec![], looked: vec![], resumed: vec![] };
    let mut last_data = start;
    for second in 0..=until {
        let now = start + second * SECOND;
        let asks = silence.ask_at(last_data, must_ask_again).is_some_and(|at| at <= now);
        let looks = silence.address_look_at(last_data) <= now;
        if asks {
            silence.on_asked(now);
            wanted.asked.push(second);
        }
        if looks {
            silence.on_look(now, false);
            wanted.looked.push(second);
        }
        if asks && tells {
            silence.tells("why");
        }
        if frames.contains(&second) {
            wanted.resumed.extend(silence.on_frame(now, last_data).map(|gap| (second, gap.as_secs())));
            last_data = now;
        }
    }
    wanted
}

fn silence() -> Silence {
    Silence::new(5 * SECOND, None)
}

#[test]
fn silence_is_asked_about_until_an_answer_explains_it() {
    assert_eq!(run(silence(), 200, &[4], false, true).asked, [9]);
    assert_eq!(run(silence(), 200, &[4], true, true).asked, [9, 69, 129, 189]);
    assert_eq!(run(Silence::new(Duration::ZERO, None), 200, &[], true, true).asked, []);
}

#[test]
fn slow_bus_is_asked_about_every_two_minutes() {
    let frames: Vec<u32> = (1..=400).filter(|second| second % 7 == 0).collect();
    // First after 5 s; then, when two minutes are over, at least 5 s after a frame (the last at 364).
    assert_eq!(run(silence(), 400, &frames, false, true).asked, [5, 125, 245, 369]);
}

#[test]
fn short_idle_timeout_moves_the_question_to_its_middle() {
    let now = Instant::now();
    let asks_after = |idle| Silence::new(5 * SECOND, Some(idle)).ask_at(now, false).map(|at| at - now);
    assert_eq!(asks_after(9 * SECOND), Some(9 * SECOND / 2));
    assert_eq!(asks_after(10 * SECOND), Some(5 * SECOND));
}

#[test]
fn reported_silence_ends_with_a_message_and_others_without() {
    let frames = [6, 20, 40, 106];
    assert_eq!(run(silence(), 106, &frames, false, true).resumed, [(6, 6), (106, 66)]);
    assert_eq!(run(silence(), 106, &frames, false, false).resumed, []);
}

#[test]
fn silence_that_was_not_observed_is_not_reported() {
    let (mut silence, start) = (silence(), Instant::now());
    assert_eq!(silence.on_frame(start + 60 * SECOND, start), None);
}

#[test]
fn explanation_is_told_once_in_a_row() {
    let (mut silence, start) = (silence(), Instant::now());
    let told = ["a", "a", "b", "a"].map(|explanation| silence.tells(explanation));
    assert_eq!(told, [true, false, true, true]);
    silence.on_look(start + 5 * SECOND, false);
    silence.on_frame(start + 6 * SECOND, start);
    assert!(silence.tells("a"), "in each silence");
}

#[test]
fn address_is_lost_at_two_looks_of_one_silence() {
    assert_eq!(run(silence(), 25, &[], false, true).looked, [5, 13, 21]);
    let start = Instant::now();
    let looks = |found: &[bool], frame_at: Option<usize>| {
        let mut silence = silence();
        let mut last = false;
        for (look, &is_lost) in (0..).zip(found) {
            let now = start + 5 * SECOND + look * LOOK_INTERVAL;
            last = silence.on_look(now, is_lost);
            if frame_at == Some(look as usize) {
                silence.on_frame(now, start);
            }
        }
        last
    };
    assert!(looks(&[true, true], None));
    assert!(!looks(&[true], None));
    assert!(!looks(&[true, false, true], None), "it came back");
    assert!(!looks(&[true, true], Some(0)), "a frame came");
}
