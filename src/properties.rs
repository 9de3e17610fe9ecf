//! Generated input: no datagram and no option value causes a panic, the output is bounded by the input, and what is well
//! formed survives the way from the wire to stdout and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::cli::address::{Address, parse_local, parse_target};
use crate::cli::options::ListenOptions;
use crate::format::frame::{Frame, FrameKind, Id};
use crate::format::{Encoder, Format, InfluxWriter, Notice, write_candump};
use crate::gateway::command::{BitRate, Channel, Command, Filter, Verb};
use crate::gateway::reply::tests::replies;
use crate::gateway::reply::{Line, lines};
use clap::Parser;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// The largest payload of a UDP datagram over IPv4.
const LARGEST: usize = 65_507;

/// A time with ten digits of seconds, as all have from 2001 to 2286.
const NOW: Duration = Duration::new(1_436_509_052, 249_713_000);

const DEVICE: &str = "10.8.0.109";

/// A frame as the test knows it, with nothing of the crate's.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    channel: u8,
    extended: bool,
    id: u32,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Classic(Vec<u8>),
    Remote(u8),
    Fd { switch: bool, data: Vec<u8> },
}

fn content() -> impl Strategy<Value = Content> {
    let fd_length = select(vec![0usize, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64]);
    prop_oneof![
        vec(any::<u8>(), 0..=8).prop_map(Content::Classic),
        (0..=8u8).prop_map(Content::Remote),
        (any::<bool>(), fd_length.prop_flat_map(|length| vec(any::<u8>(), length)))
            .prop_map(|(switch, data)| Content::Fd { switch, data }),
    ]
}

fn known() -> impl Strategy<Value = Known> {
    (1..=4u8, any::<bool>(), any::<u32>(), content()).prop_map(|(channel, extended, id, content)| {
        let id = id & if extended { 0x1FFF_FFFF } else { 0x7FF };
        Known { channel, extended, id, content }
    })
}

/// How a gateway may write a frame down.
#[derive(Clone, Debug)]
struct Spelling {
    lower: Vec<bool>,
    gaps: Vec<&'static str>,
    around: (&'static str, &'static str),
    id_digits: usize,
    dlc_digits: usize,
    end: &'static str,
}

fn spelling() -> impl Strategy<Value = Spelling> {
    let gap = select(vec![" ", "  ", "\t", "     ", " \t "]);
    let around = select(vec!["", " ", "  ", "\t"]);
    let end = select(vec!["\n", "\r", "\r\n", "\\n", "\\r", "\\r\\n", " \r\n", "\n\n"]);
    let case = prop_oneof![Just(vec![false]), Just(vec![true]), vec(any::<bool>(), 1..20)];
    (case, vec(gap, 1..6), (around.clone(), around), 1..=8usize, 1..=2usize, end).prop_map(
        |(lower, gaps, around, id_digits, dlc_digits, end)| Spelling {
            lower,
            gaps,
            around,
            id_digits,
            dlc_digits,
            end,
        },
    )
}

impl Known {
    fn format(&self) -> String {
        let (first, last) = match self.content {
            Content::Classic(_) => ('C', 'D'),
            Content::Remote(_) => ('C', 'R'),
            Content::Fd { switch: true, .. } => ('F', 'D'),
            Content::Fd { switch: false, .. } => ('N', 'D'),
        };
        format!("{first}{}{last}", if self.extended { 'E' } else { 'S' })
    }

    fn spelled(&self, spelling: &Spelling) -> String {
        let mut tokens = vec!["M".to_owned(), self.channel.to_string(), self.format()];
        tokens.push(format!("{:01$X}", self.id, spelling.id_digits));
        match &self.content {
            Content::Remote(dlc) => tokens.push(format!("dlc={:01$}", dlc, spelling.dlc_digits)),
            Content::Classic(data) | Content::Fd { data, .. } => {
                tokens.extend(data.iter().map(|byte| format!("{byte:02X}")));
            }
        }
        let mut text = spelling.around.0.to_owned();
        for (token, gap) in tokens.iter().zip(spelling.gaps.iter().cycle()) {
            text += token;
            text += gap;
        }
        let line = text.trim_end().to_owned() + spelling.around.1;
        let cased = line.chars().zip(spelling.lower.iter().cycle()).map(|(letter, &lower)| match lower {
            true => letter.to_ascii_lowercase(),
            false => letter,
        });
        cased.collect::<String>() + spelling.end
    }
}

/// Upper-case hexadecimal digits only, as candump writes them.
fn number(digits: &str) -> Option<u32> {
    let upper = |digit: char| digit.is_ascii_digit() || ('A'..='F').contains(&digit);
    digits.chars().all(upper).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::try_from(number(pair)?).ok()
    });
    pairs.collect()
}

fn identifier(digits: &str) -> Option<(bool, u32)> {
    let (extended, highest) = match digits.len() {
        3 => (false, 0x7FF),
        8 => (true, 0x1FFF_FFFF),
        _ => return None,
    };
    number(digits).filter(|&id| id <= highest).map(|id| (extended, id))
}

/// Reads a line of `candump -L`: the microseconds since 1970 and the frame.
fn read_candump(line: &str) -> Option<(u128, Known)> {
    let (time, rest) = line.strip_prefix('(')?.split_once(") can")?;
    let (seconds, micros) =
        time.split_once('.').filter(|(seconds, micros)| seconds.len() >= 10 && micros.len() == 6)?;
    let time = seconds.parse::<u128>().ok()? * 1_000_000 + micros.parse::<u128>().ok()?;
    let (channel, rest) = rest.split_once(' ')?;
    let (id, payload) = rest.split_once('#')?;
    let (extended, id) = identifier(id)?;
    let content = match payload.as_bytes() {
        [b'R'] => Content::Remote(0),
        [b'R', digit @ b'1'..=b'8'] => Content::Remote(digit - b'0'),
        [b'#', flags @ (b'0' | b'1'), ..] => Content::Fd { switch: *flags == b'1', data: bytes(&payload[2..])? },
        _ => Content::Classic(bytes(payload)?),
    };
    Some((time, Known { channel: channel.parse().ok()?, extended, id, content }))
}

/// Reads a point of the line protocol: the time and the frame.
fn read_influx(line: &str) -> Option<(u128, Known)> {
    let (tags, rest) = line.strip_prefix("can,channel=")?.split_once(' ')?;
    let (fields, time) = rest.split_once(' ')?;
    let (channel, id) = tags.split_once(",device=10.8.0.109,id=")?;
    let (extended, id) = identifier(id)?;
    let (dlc, rest) = fields.strip_prefix("dlc=")?.split_once("i,")?;
    let dlc = dlc.parse::<usize>().ok()?;
    let content = if rest == "rtr=true" {
        Content::Remote(dlc.try_into().ok()?)
    } else {
        let (switch, rest) = match rest.strip_prefix("fd=true,brs=") {
            Some(rest) => {
                let (switch, rest) = rest.split_once(',')?;
                (Some(switch.parse().ok()?), rest)
            }
            None => (None, rest),
        };
        let (data, single) = rest.strip_prefix("data=\"")?.split_once('"')?;
        let data = bytes(data).filter(|data| data.len() == dlc)?;
        let expected: String = data.iter().enumerate().map(|(at, byte)| format!(",b{at}={byte}i")).collect();
        if single != expected {
            return None;
        }
        match switch {
            Some(switch) => Content::Fd { switch, data },
            None => Content::Classic(data),
        }
    };
    Some((time.parse().ok()?, Known { channel: channel.parse().ok()?, extended, id, content }))
}

/// The lines of a datagram, cut the plain way.
fn plain_lines(datagram: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while at < datagram.len() {
        let length = match &datagram[at..] {
            [b'\n' | b'\r', ..] => 1,
            [b'\\', b'n' | b'r', ..] => 2,
            _ => 0,
        };
        if length > 0 {
            found.push(&datagram[begin..at]);
            begin = at + length;
        }
        at += length.max(1);
    }
    found.push(&datagram[begin..]);
    found.into_iter().map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect()
}

/// A well-formed line of any kind, with its end.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let other = select(vec!["R ok\r\n", "R ERR 5 busy\n", "E 1 BUSOFF\r", "E 1 ERRORWARNING SET\n", "R OK\\n", "\n"]);
    prop_oneof![
        3 => (known(), spelling()).prop_map(|(known, spelling)| known.spelled(&spelling).into_bytes()),
        1 => other.prop_map(|text| text.as_bytes().to_vec()),
    ]
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(u8),
    Insert(u8),
    Remove,
    CutHere,
    Double,
}

fn mutated_lines() -> impl Strategy<Value = Vec<u8>> {
    let byte = || prop_oneof![any::<u8>(), select(b"MCNFSEDR 0123489Gg\r\n\\n=dlcxk\t\x00\x0b".to_vec())];
    let mutation = prop_oneof![
        4 => byte().prop_map(Mutation::Set),
        3 => byte().prop_map(Mutation::Insert),
        3 => Just(Mutation::Remove),
        1 => Just(Mutation::CutHere),
        1 => Just(Mutation::Double),
    ];
    (vec(line(), 1..6), vec((any::<Index>(), mutation), 0..5)).prop_map(|(lines, mutations)| {
        let mut datagram = lines.concat();
        for (place, mutation) in mutations {
            if datagram.is_empty() {
                break;
            }
            let at = place.index(datagram.len());
            match mutation {
                Mutation::Set(byte) => datagram[at] = byte,
                Mutation::Insert(byte) => datagram.insert(at, byte),
                Mutation::Remove => drop(datagram.remove(at)),
                Mutation::CutHere => datagram.truncate(at),
                Mutation::Double => datagram.extend_from_within(at..),
            }
        }
        datagram
    })
}

fn datagram() -> impl Strategy<Value = Vec<u8>> {
    // The longest there are, of one piece over and over.
    let piece = prop_oneof![vec(any::<u8>(), 1..12), line(), Just(b"\\".to_vec()), Just(b" ".to_vec())];
    let long = piece.prop_map(|piece| piece.iter().copied().cycle().take(LARGEST).collect());
    prop_oneof![
        8 => vec(any::<u8>(), 0..300),
        8 => vec(select(b"MRE 1CFNSED0okr\n\r\\n".to_vec()), 0..300),
        16 => mutated_lines(),
        1 => long,
    ]
}

struct Written {
    out: Vec<u8>,
    notices: usize,
}

/// What a datagram becomes; asserts that its buffer is no larger than growing by doubling makes it.
fn write(format: Format, escape: bool, datagram: &[u8]) -> Written {
    let mut out = Vec::new();
    let (mut notices, mut notice_bytes) = (0, 0);
    Encoder::new(format, DEVICE, escape).write(
        datagram,
        || NOW,
        u64::MAX,
        &mut out,
        |notice| {
            let (Notice::Refusal(line) | Notice::Event { line, .. } | Notice::Malformed(line, _)) = notice;
            notices += 1;
            notice_bytes += line.len();
        },
    );
    assert!(out.capacity() <= (2 * out.len()).max(8), "{} bytes for {}", out.capacity(), out.len());
    assert!(notice_bytes <= datagram.len());
    Written { out, notices }
}

fn text_lines(out: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(out).expect("only ASCII");
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lines_of_any_datagram_are_complete(datagram in datagram()) {
        let found: Vec<&[u8]> = lines(&datagram).collect();
        prop_assert_eq!(&found, &plain_lines(&datagram));
        let mut answers = 0;
        for &line in &found {
            match Line::classify(line) {
                Line::Ok | Line::Refused => answers += 1,
                // Such a line is not among the samples.
                Line::Status(_) => prop_assert!(false),
                Line::Frame | Line::Event | Line::Unknown => {}
            }
        }
        prop_assert_eq!(replies(&datagram).count(), answers);
    }

    #[test]
    fn raw_output_is_the_datagram_and_at_most_one_newline(datagram in datagram()) {
        let mut expected = datagram.clone();
        if !datagram.is_empty() && !datagram.ends_with(b"\n") {
            expected.push(b'\n');
        }
        prop_assert_eq!(write(Format::Raw, false, &datagram).out, expected);
    }

    #[test]
    fn escaped_output_is_harmless_and_bounded(datagram in datagram()) {
        let out = write(Format::Raw, true, &datagram).out;
        prop_assert!(out.len() <= 4 * datagram.len() + 1);
        prop_assert!(out.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')));
    }

    /// The shortest line that makes a frame, `M 1 FED 0`, is 9 bytes and a line end, and becomes 37 in candump's format
    /// and 97 in InfluxDB's with this device (if it begins with `M 1 N`). The shortest event, `E 1` and a
    /// byte that is escaped, is 5 and becomes 71.
    #[test]
    fn decoded_output_is_bounded_and_accounts_for_each_line(datagram in datagram()) {
        let quiet = replies(&datagram).filter(|&reply| reply == Line::Ok).count();
        let lines = lines(&datagram).count();
        for (format, longest, read) in [
            (Format::Candump, 37, read_candump as fn(&str) -> Option<(u128, Known)>),
            (Format::Influx, 119, read_influx),
        ] {
            let Written { out, notices } = write(format, false, &datagram);
            prop_assert!(out.len() <= (datagram.len() + 1) * longest / 10, "{} from {}", out.len(), datagram.len());
            let frames = text_lines(&out);
            let frames: Vec<&str> = frames.into_iter().filter(|line| !line.starts_with("can_event,")).collect();
            prop_assert_eq!(frames.len() + notices + quiet, lines);
            for line in frames {
                prop_assert!(read(line).is_some(), "{:?}", line);
            }
        }
    }

    #[test]
    fn parsed_frame_is_well_formed(datagram in datagram()) {
        for line in lines(&datagram).chain([&datagram[..]]) {
            let Ok(frame) = Frame::parse(line) else { continue };
            let mut out = Vec::new();
            write_candump(&frame, NOW, &mut out);
            let (_, known) = read_candump(text_lines(&out)[0]).expect("a line of candump");
            let plain = Spelling {
                lower: vec![false], gaps: vec![" "], around: ("", ""), id_digits: 1, dlc_digits: 1, end: "",
            };
            prop_assert_eq!(Frame::parse(known.spelled(&plain).as_bytes()), Ok(frame));
        }
    }

    #[test]
    fn frame_survives_printing_in_any_spelling(
        frames in vec((known(), spelling()), 1..6),
        seconds in 0..10_000_000_000u64,
        nanos in 0..1_000_000_000u32,
    ) {
        let datagram: String = frames.iter().map(|(known, spelling)| known.spelled(spelling)).collect();
        let received = Duration::new(seconds, nanos);
        for (format, read) in [
            (Format::Candump, read_candump as fn(&str) -> Option<(u128, Known)>),
            (Format::Influx, read_influx),
        ] {
            let mut out = Vec::new();
            let nothing = |notice: Notice<'_>| panic!("{notice:?}");
            Encoder::new(format, DEVICE, false).write(datagram.as_bytes(), || received, u64::MAX, &mut out, nothing);
            let printed = text_lines(&out);
            prop_assert_eq!(printed.len(), frames.len());
            for (line, (place, (known, _))) in printed.iter().zip(frames.iter().enumerate()) {
                let mut time = received.as_micros();
                if format == Format::Influx {
                    time = received.as_nanos() + place as u128;
                    if received.is_zero() {
                        time += 1; // no point has the time 0
                    }
                }
                prop_assert_eq!(read(line), Some((time, known.clone())), "{:?}", line);
            }
        }
    }

    #[test]
    fn frame_is_parsed_in_any_spelling(known in known(), spelling in spelling()) {
        let text = known.spelled(&spelling);
        let frame = Frame::parse(lines(text.as_bytes()).next().expect("a line")).expect("a frame");
        let (kind, length, data) = match known.content {
            Content::Classic(data) => (FrameKind::Classic, data.len(), data),
            Content::Remote(dlc) => (FrameKind::Remote, usize::from(dlc), vec![]),
            Content::Fd { switch, data } => (FrameKind::Fd { bit_rate_switch: switch }, data.len(), data),
        };
        prop_assert_eq!(u8::from(frame.channel()), known.channel);
        prop_assert_eq!(frame.id(), if known.extended { Id::Extended(known.id) } else { Id::Standard(known.id) });
        prop_assert_eq!(frame.kind(), kind);
        prop_assert_eq!(usize::from(frame.length()), length);
        prop_assert_eq!(frame.data(), data);
    }

    #[test]
    fn reply_is_recognised_in_any_spelling(
        reply in select(vec!["R ok", "R ERR 5 busy", "R ERR"]),
        lower in vec(any::<bool>(), 1..12),
        gap in "[ \t]{1,3}",
        around in "[ \t\r\n]{0,3}",
    ) {
        let cased = reply.chars().zip(lower.iter().cycle()).map(|(letter, &lower)| match lower {
            true => letter.to_ascii_lowercase(),
            false => letter.to_ascii_uppercase(),
        });
        let line = cased.collect::<String>().replace(' ', &gap);
        let datagram = format!("{around}{line}{around}");
        let expected = if reply == "R ok" { Line::Ok } else { Line::Refused };
        prop_assert_eq!(replies(datagram.as_bytes()).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn influx_times_increase_unless_the_clock_was_set_back(steps in vec(-1_500_000_000..2_000_000_000i64, 1..50)) {
        let frame = Frame::parse(b"M 1 CSD 1").expect("a frame");
        let mut influx = InfluxWriter::new(DEVICE);
        let (mut clock, mut last) = (1_000_000_000_000u64, 0u64);
        for step in steps {
            clock = clock.saturating_add_signed(step);
            let mut out = Vec::new();
            influx.write(&frame, Duration::from_nanos(clock), &mut out);
            let time = read_influx(text_lines(&out)[0]).expect("a point").0 as u64;
            if clock > last || last - clock > 1_000_000_000 {
                prop_assert_eq!(time, clock);
            } else {
                prop_assert_eq!(time, last + 1);
            }
            last = time;
        }
    }

    #[test]
    fn device_name_is_at_most_doubled(device in any::<String>()) {
        let mut out = Vec::new();
        InfluxWriter::new(&device).write(&Frame::parse(b"M 1 CED 0").expect("a frame"), NOW, &mut out);
        prop_assert!(out.len() <= 69 + 2 * device.len());
    }

    #[test]
    fn filter_text_is_in_range_or_refused(
        text in prop_oneof![
            4 => "(STD|EXT|std|Ext):[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}",
            2 => "(STD|EXT|SDT)?:[0-9A-Fa-fGx+]{0,9}:[0-9A-Fa-f -]{0,9}(:0)?",
            1 => any::<String>(),
        ],
    ) {
        let parts: Vec<&str> = text.split(':').collect();
        let expected = match parts[..] {
            [kind, id, mask] => plain_filter(kind, id, mask),
            _ => None,
        };
        let command = |filter| Command { channel: Channel::DEFAULT, verb: Verb::FilterAdd(filter) };
        let sent = text.parse::<Filter>().ok().map(|filter| command(filter).datagram());
        prop_assert_eq!(sent, expected.map(String::into_bytes));
    }

    #[test]
    fn filter_survives_writing_and_reading(extended in any::<bool>(), id in any::<u32>(), mask in any::<u32>()) {
        let filter = match extended {
            true => Filter::extended(id & 0x1FFF_FFFF, mask & 0x1FFF_FFFF),
            false => Filter::standard(id & 0x7FF, mask & 0x7FF),
        }
        .expect("within the limits");
        prop_assert_eq!(filter.to_string().replace(' ', ":").parse(), Ok(filter));
    }

    #[test]
    fn bit_rate_is_one_of_ten_or_refused(number in prop_oneof![0..1100u32, any::<u32>()]) {
        let text = number.to_string();
        let known = [5, 10, 20, 50, 100, 125, 250, 500, 800, 1000].contains(&number);
        prop_assert_eq!(text.parse::<BitRate>().ok().map(|rate| rate.to_string()), known.then_some(text));
    }

    #[test]
    fn target_is_kept_as_written(
        (text, host) in prop_oneof![
            "[a-z][a-z0-9.-]{0,30}".prop_map(|name| (name.clone(), name)),
            any::<Ipv4Addr>().prop_map(|ip| (ip.to_string(), ip.to_string())),
            any::<Ipv6Addr>().prop_map(|ip| (format!("[{ip}]"), ip.to_string())),
        ],
        port in prop_oneof![any::<Option<u16>>(), Just(Some(0))],
    ) {
        let text = port.map_or(text.clone(), |port| format!("{text}:{port}"));
        let target = parse_target(&text).ok();
        prop_assert_eq!(target.is_some(), port != Some(0), "{}", text);
        if let Some(target) = target {
            prop_assert_eq!(target.to_string(), text);
            // Names are left alone: this is no place to ask a resolver.
            if let Ok(ip) = host.parse::<IpAddr>() {
                let resolved = target.resolve(&Address::default()).expect("an address");
                prop_assert_eq!(resolved.gateway, SocketAddr::new(ip.to_canonical(), port.unwrap_or(5000)));
            }
        }
    }

    #[test]
    fn local_address_is_kept_as_written(ip in any::<IpAddr>(), port in any::<Option<u16>>()) {
        let gateway = if ip.to_canonical().is_ipv4() { "10.8.0.109:7" } else { "[fd00::1]:7" };
        let text = match (ip, port) {
            (IpAddr::V6(ip), Some(port)) => format!("[{ip}]:{port}"),
            (ip, Some(port)) => format!("{ip}:{port}"),
            (ip, None) => ip.to_string(),
        };
        let bind = parse_local(&text).expect("an address");
        let resolved = parse_target(gateway).expect("a target").resolve(&bind).expect("an address");
        prop_assert_eq!(resolved.local, SocketAddr::new(ip.to_canonical(), port.unwrap_or(5000)));
        prop_assert_eq!(bind.to_string(), text);
    }

    #[test]
    fn option_values_of_any_text_do_not_panic(
        text in prop_oneof![any::<String>(), "[0-9a-fx:.\\[\\]%+-]{0,25}", "\\[?[0-9a-f:]{0,12}\\]?:?[0-9]{0,6}"],
    ) {
        let _ = parse_local(&text);
        let _ = text.parse::<BitRate>();
        for option in ["--timeout", "--idle-timeout", "--status-after", "--attempts", "--channel", "-n", "--filter"] {
            let _ = ListenOptions::try_parse_from(["can-listen", &format!("{option}={text}")]);
        }
        if let Ok(target) = parse_target(&text) {
            prop_assert_eq!(target.to_string(), text);
        }
    }
}

/// What is sent for a filter, worked out the plain way.
fn plain_filter(kind: &str, id: &str, mask: &str) -> Option<String> {
    let number = |digits: &str| {
        let digits = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).unwrap_or(digits);
        let all_hex = digits.chars().all(|digit| digit.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| all_hex && digits.len() <= 8)
    };
    let (id, mask) = (number(id)?, number(mask)?);
    match &*kind.to_ascii_uppercase() {
        "STD" if id.max(mask) <= 0x7FF => Some(format!("CAN 1 FILTER ADD STD {id:03X} {mask:03X}\n")),
        "EXT" if id.max(mask) <= 0x1FFF_FFFF => Some(format!("CAN 1 FILTER ADD EXT {id:X} {mask:X}\n")),
        _ => None,
    }
}

#[test]
fn output_bounds_are_reached() {
    let datagram = |line: &str| line.repeat(100).into_bytes();
    assert_eq!(write(Format::Raw, true, &[0xFF; 1000]).out.len(), 4001);
    assert_eq!(write(Format::Candump, false, &datagram("M 1 FED 0\n")).out.len(), 3700);
    assert_eq!(write(Format::Influx, false, &datagram("M 1 NED 0\n")).out.len(), 9700);
    assert_eq!(write(Format::Influx, false, &datagram("E 1 x\n")).out.len(), 6700);
}
