use std::time::{Duration, Instant};

use super::{MAX_AIM, MIN_REST, MIN_WAKEUPS, Moderation};

const MAX_REST: Duration = Duration::from_millis(4);
const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// As the kernel counts 4 MiB.
const BUFFER: usize = 8 << 20;

/// A loop that reads what arrives, on a simulated clock. A read takes 3 µs.
#[derive(Default)]
struct Reader {
    wakeups: usize,
    rests: Vec<Duration>,
    max_delay: Duration,
    max_queued: usize,
}

impl Reader {
    /// Reads datagrams that arrive at these times after the start.
    fn read(receive_buffer: usize, arrivals: &[Duration]) -> Reader {
        let start = Instant::now();
        let mut moderation = Moderation::new(receive_buffer, MAX_REST);
        let mut reader = Reader::default();
        let (mut now, mut read, mut rest) = (Duration::ZERO, 0, None);
        while read < arrivals.len() {
            let mut datagrams = 1;
            let at = match rest {
                Some(rest) => {
                    now += rest;
                    reader.rests.push(rest);
                    datagrams = arrivals[read..].iter().take_while(|&&arrival| arrival <= now).count();
                    reader.max_queued = reader.max_queued.max(datagrams);
                    now
                }
                None => {
                    reader.wakeups += usize::from(arrivals[read] > now);
                    now = now.max(arrivals[read]);
                    now + 3 * MICROSECOND
                }
            };
            for arrival in &arrivals[read..read + datagrams] {
                now += 3 * MICROSECOND;
                reader.max_delay = reader.max_delay.max(now.saturating_sub(*arrival));
            }
            read += datagrams;
            rest = moderation.on_read(start + at, datagrams);
        }
        reader
    }
}

/// `count` datagrams at equal intervals.
fn steady(period: Duration, count: u32) -> Vec<Duration> {
    (1..=count).map(|number| period * number).collect()
}

/// Bursts of `size` every `period`, with `spacing` between the datagrams of a burst.
fn bursts(period: Duration, size: u32, spacing: Duration, count: u32) -> Vec<Duration> {
    (1..=count).flat_map(|burst| (0..size).map(move |number| period * burst + spacing * number)).collect()
}

#[test]
fn datagrams_of_a_quiet_bus_are_read_at_once() {
    for period in [MILLISECOND, Duration::from_micros(3_300), 50 * MILLISECOND] {
        let reader = Reader::read(BUFFER, &steady(period, 1_000));
        assert_eq!(reader.rests, [], "every {period:?}");
    }
}

#[test]
fn bursts_that_arrive_at_once_cost_no_rest() {
    for (period, size) in [(10 * MILLISECOND, 20), (2 * MILLISECOND, 20), (500 * MICROSECOND, 60), (MILLISECOND, 300)] {
        let reader = Reader::read(BUFFER, &bursts(period, size, Duration::ZERO, 100));
        assert_eq!((reader.rests.len(), reader.wakeups), (0, 100), "{size} every {period:?}");
    }
}

#[test]
fn large_bursts_end_it() {
    let mut arrivals = steady(200 * MICROSECOND, 100);
    let before = Reader::read(BUFFER, &arrivals).rests.len();
    assert!(before > 0);
    let last = arrivals[arrivals.len() - 1];
    arrivals.extend(bursts(MILLISECOND, 300, Duration::ZERO, 100).into_iter().map(|arrival| last + arrival));
    let reader = Reader::read(BUFFER, &arrivals);
    assert!(reader.rests.len() <= before + 2, "{} rests in 100 bursts", reader.rests.len() - before);
}

#[test]
fn steady_stream_is_read_after_rests() {
    // Rate, and the most rests and wake-ups that a second may cost.
    for (rate, most) in [(2_000, 260), (5_000, 260), (20_000, 270), (40_000, 330)] {
        let reader = Reader::read(BUFFER, &steady(Duration::from_secs(1) / rate, rate));
        let cost = reader.rests.len() + reader.wakeups;
        assert!(cost <= most, "{cost} at {rate}/s");
    }
}

#[test]
fn few_wakeups_in_a_row_are_not_moderated() {
    let arrivals = steady(200 * MICROSECOND, MIN_WAKEUPS);
    assert_eq!(Reader::read(BUFFER, &arrivals).rests, []);
}

#[test]
fn rest_aims_at_a_number_of_datagrams() {
    for period in [21 * MICROSECOND, 30 * MICROSECOND] {
        let reader = Reader::read(BUFFER, &steady(period, 100_000));
        let usual = reader.rests[reader.rests.len() / 2];
        let aim = period * MAX_AIM as u32;
        assert!(usual.abs_diff(aim) < aim / 20, "{usual:?} instead of {aim:?}");
    }
}

#[test]
fn rest_stays_within_its_limits() {
    for arrivals in [
        steady(500 * MICROSECOND, 1_000),
        steady(21 * MICROSECOND, 10_000),
        bursts(MILLISECOND, 100, Duration::ZERO, 100),
        bursts(10 * MILLISECOND, 20, 230 * MICROSECOND, 100),
    ] {
        let reader = Reader::read(BUFFER, &arrivals);
        assert!(reader.rests.iter().all(|rest| (MIN_REST..=MAX_REST).contains(rest)));
        assert!(reader.max_delay <= MAX_REST + MILLISECOND, "{:?}", reader.max_delay);
    }
}

#[test]
fn silence_ends_it_after_two_rests() {
    let mut arrivals = steady(200 * MICROSECOND, 100);
    let before = Reader::read(BUFFER, &arrivals).rests.len();
    arrivals.push(Duration::from_secs(10));
    assert!(Reader::read(BUFFER, &arrivals).rests.len() <= before + 3);
}

#[test]
fn frames_of_a_busy_part_of_a_cycle_are_read_together() {
    // 20 frames of a bus with 500 kbit/s, then silence.
    let reader = Reader::read(BUFFER, &bursts(10 * MILLISECOND, 20, 230 * MICROSECOND, 100));
    let cost = reader.rests.len() + reader.wakeups;
    assert!(cost <= 1_200, "{cost} for 2,000 frames");
}

#[test]
fn small_receive_buffer_shortens_the_rest() {
    // 212,992 bytes are counted as twice as many. Of a small datagram the kernel charges 2.25 KiB at most.
    let buffer = 2 * 212_992;
    // The flood begins at any point of a rest.
    for before in 1_000..1_030 {
        let mut arrivals = steady(300 * MICROSECOND, before);
        let last = arrivals[arrivals.len() - 1];
        arrivals.extend((1..5_000).map(|number| last + 13 * MICROSECOND * number));
        let reader = Reader::read(buffer, &arrivals);
        assert!(!reader.rests.is_empty());
        assert!(reader.max_queued < buffer / 2304, "{} queued", reader.max_queued);
    }
}

#[test]
fn rest_at_most_doubles() {
    let mut arrivals = bursts(200 * MICROSECOND, 20, Duration::ZERO, 500);
    let last = arrivals[arrivals.len() - 1];
    arrivals.extend(steady(500 * MICROSECOND, 100).into_iter().map(|arrival| last + arrival));
    let reader = Reader::read(BUFFER, &arrivals);
    assert!(reader.rests.len() > 30, "{}", reader.rests.len());
    assert!(reader.rests.windows(2).all(|pair| pair[1] <= 2 * pair[0]), "{:?}", reader.rests);
}
