use std::time::{Duration, Instant};

use super::{MAX_AIM, MIN_REST, MIN_WAKEUPS, Moderation};

const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The longest rests into a pipe and into a file.
const PIPE: Duration = Duration::from_millis(4);
const FILE: Duration = Duration::from_millis(33);

/// As the kernel counts 4 MiB, and the 212,992 bytes of a stock system.
const BUFFER: usize = 8 << 20;
const STOCK_BUFFER: usize = 2 * 212_992;

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
    fn read(receive_buffer: usize, max_rest: Duration, arrivals: &[Duration]) -> Reader {
        Reader::read_of_size(36, receive_buffer, max_rest, arrivals)
    }

    /// The same with datagrams of this size.
    fn read_of_size(size: usize, receive_buffer: usize, max_rest: Duration, arrivals: &[Duration]) -> Reader {
        let start = Instant::now();
        let mut moderation = Moderation::new(receive_buffer, max_rest);
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
            rest = moderation.on_read(start + at, datagrams, datagrams * size);
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
    for (max_rest, periods_ms) in [(PIPE, [1, 3, 50]), (FILE, [7, 10, 50])] {
        for period in periods_ms {
            let reader = Reader::read(BUFFER, max_rest, &steady(period * MILLISECOND, 1_000));
            assert_eq!(reader.rests, [], "every {period} ms, {max_rest:?}");
        }
    }
}

#[test]
fn bursts_that_arrive_at_once_cost_no_rest() {
    let at_any_rest = [(10 * MILLISECOND, 20), (MILLISECOND, 300)];
    for (period, size) in [(2 * MILLISECOND, 20), (500 * MICROSECOND, 60)].into_iter().chain(at_any_rest) {
        let reader = Reader::read(BUFFER, PIPE, &bursts(period, size, Duration::ZERO, 100));
        assert_eq!((reader.rests.len(), reader.wakeups), (0, 100), "{size} every {period:?}");
    }
    for (period, size) in at_any_rest {
        let reader = Reader::read(BUFFER, FILE, &bursts(period, size, Duration::ZERO, 100));
        assert_eq!((reader.rests.len(), reader.wakeups), (0, 100), "{size} every {period:?} into a file");
    }
}

#[test]
fn large_bursts_end_it() {
    let mut arrivals = steady(200 * MICROSECOND, 100);
    let before = Reader::read(BUFFER, PIPE, &arrivals).rests.len();
    assert!(before > 0);
    let last = arrivals[arrivals.len() - 1];
    arrivals.extend(bursts(MILLISECOND, 300, Duration::ZERO, 100).into_iter().map(|arrival| last + arrival));
    let reader = Reader::read(BUFFER, PIPE, &arrivals);
    assert!(reader.rests.len() <= before + 2, "{} rests in 100 bursts", reader.rests.len() - before);
}

#[test]
fn steady_stream_is_read_after_rests() {
    // Rate, and the most rests and wake-ups that a second may cost.
    let into_pipe = [(2_000, 260), (5_000, 260), (20_000, 270), (40_000, 330)].map(|case| (PIPE, case));
    let into_file = [(250, 50), (1_000, 50), (5_000, 50), (20_000, 170), (40_000, 330)].map(|case| (FILE, case));
    for (max_rest, (rate, most)) in into_pipe.into_iter().chain(into_file) {
        let reader = Reader::read(BUFFER, max_rest, &steady(Duration::from_secs(1) / rate, rate));
        let cost = reader.rests.len() + reader.wakeups;
        assert!(cost <= most, "{cost} at {rate}/s, {max_rest:?}");
    }
}

#[test]
fn few_wakeups_in_a_row_are_not_moderated() {
    let arrivals = steady(200 * MICROSECOND, MIN_WAKEUPS);
    assert_eq!(Reader::read(BUFFER, PIPE, &arrivals).rests, []);
}

#[test]
fn rest_aims_at_a_number_of_datagrams() {
    for period in [21 * MICROSECOND, 30 * MICROSECOND] {
        let reader = Reader::read(BUFFER, PIPE, &steady(period, 100_000));
        let usual = reader.rests[reader.rests.len() / 2];
        let aim = period * MAX_AIM as u32;
        assert!(usual.abs_diff(aim) < aim / 20, "{usual:?} instead of {aim:?}");
    }
}

#[test]
fn rest_stays_within_its_limits() {
    for (max_rest, arrivals) in [PIPE, FILE].into_iter().flat_map(|max_rest| {
        [
            (max_rest, steady(500 * MICROSECOND, 1_000)),
            (max_rest, steady(21 * MICROSECOND, 10_000)),
            (max_rest, bursts(MILLISECOND, 100, Duration::ZERO, 100)),
            (max_rest, bursts(10 * MILLISECOND, 20, 230 * MICROSECOND, 100)),
        ]
    }) {
        let reader = Reader::read(BUFFER, max_rest, &arrivals);
        assert!(reader.rests.iter().all(|rest| (MIN_REST..=max_rest).contains(rest)));
        assert!(reader.max_delay <= max_rest + MILLISECOND, "{:?}", reader.max_delay);
    }
}

#[test]
fn silence_ends_it_after_two_rests() {
    let mut arrivals = steady(200 * MICROSECOND, 100);
    let before = Reader::read(BUFFER, PIPE, &arrivals).rests.len();
    arrivals.push(Duration::from_secs(10));
    assert!(Reader::read(BUFFER, PIPE, &arrivals).rests.len() <= before + 3);
}

#[test]
fn frames_of_a_busy_part_of_a_cycle_are_read_together() {
    // 20 frames of a bus with 500 kbit/s, then silence.
    let reader = Reader::read(BUFFER, PIPE, &bursts(10 * MILLISECOND, 20, 230 * MICROSECOND, 100));
    let cost = reader.rests.len() + reader.wakeups;
    assert!(cost <= 1_200, "{cost} for 2,000 frames");
}

#[test]
fn flood_during_a_rest_fits_the_receive_buffer() {
    // Of a small datagram the kernel charges 2.25 KiB at most, over loopback 768 bytes.
    for (buffer, flood_period, charge) in [
        (STOCK_BUFFER, 13 * MICROSECOND, 2304),
        (BUFFER, 13 * MICROSECOND, 2304),
        (BUFFER, Duration::from_nanos(3_333), 768),
    ] {
        for max_rest in [PIPE, FILE] {
            // It begins at any point of a rest.
            for before in (1_000..1_090).step_by(3) {
                let mut arrivals = steady(300 * MICROSECOND, before);
                let last = arrivals[arrivals.len() - 1];
                arrivals.extend((1..20_000).map(|number| last + flood_period * number));
                let reader = Reader::read(buffer, max_rest, &arrivals);
                assert!(!reader.rests.is_empty());
                assert!(reader.max_queued * charge < buffer, "{} queued, {max_rest:?}", reader.max_queued);
            }
        }
    }
}

#[test]
fn large_datagrams_shorten_the_rest() {
    // They are charged with a page more.
    for (size, rate) in [(65_000, 6_000), (4_000, 20_000), (1_400, 40_000)] {
        let arrivals = steady(Duration::from_secs(1) / rate, rate);
        let reader = Reader::read_of_size(size, BUFFER, FILE, &arrivals);
        let max_queued = reader.max_queued * (size + 4096);
        assert!(!reader.rests.is_empty() && max_queued < BUFFER / 4, "{max_queued} bytes queued, size {size}");
    }
}

#[test]
fn rest_at_most_doubles() {
    let mut arrivals = bursts(200 * MICROSECOND, 20, Duration::ZERO, 500);
    let last = arrivals[arrivals.len() - 1];
    arrivals.extend(steady(500 * MICROSECOND, 100).into_iter().map(|arrival| last + arrival));
    let reader = Reader::read(BUFFER, PIPE, &arrivals);
    assert!(reader.rests.len() > 30, "{}", reader.rests.len());
    assert!(reader.rests.windows(2).all(|pair| pair[1] <= 2 * pair[0]), "{:?}", reader.rests);
}
