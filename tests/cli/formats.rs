//! Promise: `--format` candump, influx and pcap print every frame as their readers expect it; a line that is no frame goes
//! to stderr or is counted.

use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::programs::{
    Output, Running, can_listen, messages_of_stream, start, start_with, terminal, wait_until, wait_until_shared,
};
use crate::simulator::Gateway;
use can_udp::format::frame::Frame;
use can_udp::format::{InfluxWriter, write_candump, write_pcap_record};
use nix::sys::signal::Signal;

struct Session {
    gateway: Gateway,
    listener: Running,
}

impl Session {
    /// A listener that is ready for the stream.
    #[track_caller]
    fn start(format: &str) -> Session {
        let gateway = Gateway::start();
        let listener = start(&mut can_listen(["--target", &gateway.target(), "--format", format]));
        listener.wait_for_stderr("START sent");
        wait_until_shared(gateway.wait_for_command("CAN 1 START\n").from);
        Session { gateway, listener }
    }

    /// Ends the listener when it has printed everything that was sent. The last frame, which shows that, is removed.
    #[track_caller]
    fn end(self) -> Output {
        self.gateway.send("M 4 CED 1FFFFFFE FF\n");
        self.listener.wait_for_stdout("1FFFFFFE");
        self.listener.signal(Signal::SIGINT);
        let mut finished = self.listener.wait();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let text = finished.text();
        let without_last = text.trim_end_matches('\n').rfind('\n').map_or(0, |end| end + 1);
        finished.stdout.truncate(without_last);
        finished
    }
}

/// The output and messages of a session that receives these datagrams.
#[track_caller]
fn printed(format: &str, datagrams: &[&[u8]]) -> Output {
    let session = Session::start(format);
    for datagram in datagrams {
        session.gateway.send(datagram);
    }
    session.end()
}

/// A line of candump output without its time, whose format is checked.
#[track_caller]
fn without_time(line: &str) -> &str {
    let (time, rest) = line.strip_prefix('(').and_then(|line| line.split_once(") ")).expect(line);
    let (seconds, micros) = time.split_once('.').expect(line);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    assert!(seconds.len() == 10 && micros.len() == 6 && digits(seconds) && digits(micros), "{line}");
    rest
}

/// A point's tags and fields, and its time.
#[track_caller]
fn point(line: &str) -> (&str, u64) {
    let (rest, time) = line.rsplit_once(' ').expect(line);
    assert_eq!(time.len(), 19, "{line}");
    (rest, time.parse().expect(line))
}

#[track_caller]
fn candump_is(datagrams: &[&[u8]], expected: &[&str]) {
    let finished = printed("candump", datagrams);
    assert_eq!(finished.text().lines().map(without_time).collect::<Vec<_>>(), expected);
    assert_eq!(messages_of_stream(&finished.stderr), [""; 0]);
    assert!(!finished.stderr.contains("malformed"), "{finished:?}");
}

/// The part of the report between the losses and the state of the bus.
fn after_losses(finished: &Output) -> String {
    let report = finished.stderr.replace("\ncan-listen: ", "; ");
    let (_, rest) = report.split_once(" in the output buffer").expect("a report");
    rest.split_once("; the bus still runs").expect("a report").0.to_owned()
}

#[test]
fn candump_shows_every_kind_of_frame() {
    candump_is(
        &[
            b"M 1 CSD 100 55 AA 55 AA\n",
            b"M 1 CSD 7FF\n",
            b"M 2 CED 18FE0201 01 02 03 04 05 06 07 08\n",
            b"M 3 CED 1FFFFFFF\n",
            b"M 1 CSR 101 dlc=05\n",
            b"M 1 CSR 101 dlc=8\n",
            b"M 1 CSR 101 dlc=0\n",
            b"M 1 CSR 101 dlc=00\n",
            b"M 1 CSR 101\n",
            b"M 1 CER 18FE0201 dlc=01\n",
            b"M 2 FED 18FE0201 01 02 03\n",
            b"M 1 FSD 123\n",
            b"M 1 NSD 123 0A\n",
            b"M 4 NED 1 00 01 02 03 04 05 06 07 08 09 0A 0B\n",
            b"M 1 FSD 7FF 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F 10 11 12 13 14 15 16 17 18 19 1A 1B 1C 1D 1E \
              1F 20 21 22 23 24 25 26 27 28 29 2A 2B 2C 2D 2E 2F 30 31 32 33 34 35 36 37 38 39 3A 3B 3C 3D 3E 3F\n",
        ],
        &[
            "can1 100#55AA55AA",
            "can1 7FF#",
            "can2 18FE0201#0102030405060708",
            "can3 1FFFFFFF#",
            "can1 101#R5",
            "can1 101#R8",
            "can1 101#R",
            "can1 101#R",
            "can1 101#R",
            "can1 18FE0201#R1",
            "can2 18FE0201##1010203",
            "can1 123##1",
            "can1 123##00A",
            "can4 00000001##0000102030405060708090A0B",
            "can1 7FF##1000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F\
             202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F",
        ],
    );
}

#[test]
fn candump_accepts_any_case_spacing_and_line_ending() {
    candump_is(
        &[
            b"M 1 CSD 0 01\n",
            b"M 1 CSD 5 02\r",
            b"M 1 CSD 0005 03\r\n",
            b"M 1 CED 5 04\\n",
            b"M 1 CED 00000100 05",
            b"m 1 csd 1ab fe\n",
            b"m 1 CsR 1aB DLC=03\n",
            b"  M  1   FeD\t1c  0d 0E  \r\n",
        ],
        &[
            "can1 000#01",
            "can1 005#02",
            "can1 005#03",
            "can1 00000005#04",
            "can1 00000100#05",
            "can1 1AB#FE",
            "can1 1AB#R3",
            "can1 0000001C##10D0E",
        ],
    );
}

#[test]
fn candump_shows_all_frames_of_a_datagram() {
    let session = Session::start("candump");
    session
        .gateway
        .send("M 1 CSD 1 01\r\nR ok\r\nE 1 BUSOFF\r\nM 2 FED 2 02\rR ERR 5 busy\nM 1 CSR 3 dlc=1\\nM 1 CSD 4");
    let finished = session.end();
    let text = finished.text();
    assert_eq!(
        text.lines().map(without_time).collect::<Vec<_>>(),
        ["can1 001#01", "can2 00000002##102", "can1 003#R1", "can1 004#"]
    );
    let messages = messages_of_stream(&finished.stderr);
    assert_eq!(messages.len(), 2, "{finished:?}");
    assert!(messages[0].ends_with("the gateway reports: E 1 BUSOFF"), "{finished:?}");
    assert!(messages[1].ends_with("the gateway refused a command: R ERR 5 busy"), "{finished:?}");
    assert_eq!(after_losses(&finished), "");
}

#[test]
fn candump_time_is_that_of_reception() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_micros();
    let session = Session::start("candump");
    let before = now();
    session.gateway.send("M 1 CSD 1 01\n");
    session.listener.wait_for_stdout("#01\n");
    let after = now();
    let text = session.end().text();
    let digits: String = text[..18].chars().filter(char::is_ascii_digit).collect();
    let received = digits.parse::<u128>().expect("a time");
    assert!((before..=after).contains(&received), "{before} {received} {after}");
}

#[test]
fn candump_time_is_padded_and_cut_to_microseconds() {
    let frame = Frame::parse(b"M 1 CSD 123 11 22").expect("a frame");
    for (received, expected) in [
        (Duration::new(1_436_509_052, 249_713_999), "(1436509052.249713) can1 123#1122\n"),
        (Duration::new(1_000_000_000, 42_000), "(1000000000.000042) can1 123#1122\n"),
        (Duration::new(7, 999), "(0000000007.000000) can1 123#1122\n"),
        (Duration::ZERO, "(0000000000.000000) can1 123#1122\n"),
    ] {
        let mut line = Vec::new();
        write_candump(&frame, received, &mut line);
        assert_eq!(String::from_utf8_lossy(&line), expected);
    }
}

#[test]
fn influx_makes_a_point_of_every_kind_of_frame() {
    let session = Session::start("influx");
    for datagram in [
        "M 1 CSD 100 55 AA\n",
        "m 1 csd 7ff\r",
        "M 2 CED 5 00 01 02 03 04 05 06 FF\r\n",
        "M 1 CSR 101 dlc=05\\n",
        "M 1 CER 101 dlc=0\n",
        "M 2 FED 18FE0201 01\n",
        "M 4 NSD 1 00 01 02 03 04 05 06 07 08 09 0A 0B\n",
    ] {
        session.gateway.send(datagram);
    }
    let device = session.gateway.target();
    let finished = session.end();
    let text = finished.text();
    let expected = [
        "can,channel=1,device={device},id=100 dlc=2i,data=\"55AA\",b0=85i,b1=170i",
        "can,channel=1,device={device},id=7FF dlc=0i,data=\"\"",
        "can,channel=2,device={device},id=00000005 dlc=8i,data=\"00010203040506FF\",b0=0i,b1=1i,b2=2i,b3=3i,b4=4i,b5=5i,b6=6i,b7=255i",
        "can,channel=1,device={device},id=101 dlc=5i,rtr=true",
        "can,channel=1,device={device},id=00000101 dlc=0i,rtr=true",
        "can,channel=2,device={device},id=18FE0201 dlc=1i,fd=true,brs=true,data=\"01\",b0=1i",
        "can,channel=4,device={device},id=001 dlc=12i,fd=true,brs=false,data=\"000102030405060708090A0B\",b0=0i,b1=1i,b2=2i,b3=3i,b4=4i,b5=5i,b6=6i,b7=7i,\
         b8=8i,b9=9i,b10=10i,b11=11i",
    ];
    let expected = expected.map(|line| line.replace("{device}", &device));
    assert_eq!(text.lines().map(|line| point(line).0).collect::<Vec<_>>(), expected);
    assert_eq!(messages_of_stream(&finished.stderr), [""; 0]);
}

#[test]
fn influx_times_increase_from_point_to_point() {
    let nanos = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let before = nanos(SystemTime::now());
    let datagram = "M 1 CSD 1 01\n".repeat(100);
    let finished = printed("influx", &[datagram.as_bytes(); 50]);
    let text = finished.text();
    let times: Vec<u64> = text.lines().map(|line| point(line).1).collect();
    assert_eq!(times.len(), 5000);
    assert!(times[0] > before);
    for pair in times.windows(2) {
        assert!(pair[0] < pair[1], "{pair:?}");
    }
    // The frames of a datagram are received at the same time.
    assert!(times.chunks(100).all(|datagram| datagram[99] == datagram[0] + 99), "{times:?}");
}

#[test]
fn influx_times_ignore_clock_steps_below_a_second() {
    let frame = Frame::parse(b"M 1 CSD 1").expect("a frame");
    let mut influx = InfluxWriter::new("x");
    for (received, expected) in [
        (Duration::new(1_700_000_000, 0), 1_700_000_000_000_000_000_u64),
        (Duration::new(1_700_000_000, 0), 1_700_000_000_000_000_001),
        (Duration::new(1_699_999_999, 500_000_000), 1_700_000_000_000_000_002),
        (Duration::new(1_699_999_999, 3), 1_700_000_000_000_000_003),
        (Duration::new(1_699_999_999, 3), 1_700_000_000_000_000_004),
        (Duration::new(1_699_999_999, 3), 1_699_999_999_000_000_003),
        (Duration::new(1_699_999_999, 3), 1_699_999_999_000_000_004),
        (Duration::new(1_600_000_000, 0), 1_600_000_000_000_000_000),
        (Duration::new(1_700_000_000, 0), 1_700_000_000_000_000_000),
    ] {
        let mut line = Vec::new();
        influx.write(&frame, received, &mut line);
        let expected = format!("can,channel=1,device=x,id=001 dlc=0i,data=\"\" {expected}\n");
        assert_eq!(String::from_utf8_lossy(&line), expected);
    }
}

#[test]
fn influx_device_tag_is_the_target_as_given() {
    let gateway = Gateway::start();
    let target = format!("localhost:{}", gateway.address().port());
    let listener = start(&mut can_listen(["--target", &target, "--format", "influx"]));
    listener.wait_for_stderr("START sent");
    gateway.wait_for_command("CAN 1 START\n");
    gateway.send("M 1 CSD 1\n");
    listener.wait_for_stdout(&format!("can,channel=1,device={target},id=001 dlc=0i,data=\"\" "));
}

#[test]
fn influx_device_tag_is_escaped() {
    let mut line = Vec::new();
    let frame = Frame::parse(b"M 1 CSR 1 dlc=1").expect("a frame");
    InfluxWriter::new("bus a,b=c").write(&frame, Duration::from_nanos(9), &mut line);
    assert_eq!(String::from_utf8_lossy(&line), "can,channel=1,device=bus\\ a\\,b\\=c,id=001 dlc=1i,rtr=true 9\n");
}

const MALFORMED: [(&str, &str); 30] = [
    ("M 1 CSD 100 5G", "bad data byte"),
    ("M 1 CSD 100 55 A", "bad data byte"),
    ("M 1 CSD 100 55 AAA", "bad data byte"),
    ("M 1 CSD 100 55AA", "bad data byte"),
    ("M 1 CSD 100 0x55", "bad data byte"),
    ("M 1 CSD 100 dlc=1", "bad data byte"),
    ("M 1 CSD 100 1 2 3 4 5 6 7 8 9", "bad data byte"),
    ("M 1 CSD 100 01 02 03 04 05 06 07 08 09", "bad length"),
    ("M 1 CSD 800 01", "bad identifier"),
    ("M 1 CED 20000000 01", "bad identifier"),
    ("M 1 CSD 000000100 01", "bad identifier"),
    ("M 1 CSD 0x100 01", "bad identifier"),
    ("M 1 CSD -1 01", "bad identifier"),
    ("M 1 CSD", "bad identifier"),
    ("M 1 FSD 100 01 02 03 04 05 06 07 08 09", "bad length"),
    (
        "M 1 FSD 100 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F 10 11 12 13 14 15 16 17 18 19 1A 1B 1C 1D 1E 1F \
         20 21 22 23 24 25 26 27 28 29 2A 2B 2C 2D 2E 2F 30 31 32 33 34 35 36 37 38 39 3A 3B 3C 3D 3E 3F 40",
        "bad length",
    ),
    ("M 1 FSR 100 dlc=1", "bad format"),
    ("M 1 NER 100 dlc=1", "bad format"),
    ("M 1 CXD 100 01", "bad format"),
    ("M 1 XSD 100 01", "bad format"),
    ("M 1 CSDD 100 01", "bad format"),
    ("M 1", "bad format"),
    ("M 0 CSD 100 01", "bad channel"),
    ("M 5 CSD 100 01", "bad channel"),
    ("M 01 CSD 100 01", "bad channel"),
    ("M", "bad channel"),
    ("M 1 CSR 100 dlc=9", "bad length"),
    ("M 1 CSR 100 dlc=1 00", "bad length"),
    ("R okay", "not a line of the protocol"),
    ("hello", "not a line of the protocol"),
];

#[test]
fn malformed_lines_are_counted_and_not_printed() {
    for format in ["candump", "influx"] {
        let session = Session::start(format);
        for (line, _) in MALFORMED {
            session.gateway.send(format!("{line}\nM 1 CSD 123 77\n"));
        }
        let finished = session.end();
        let text = finished.text();
        assert_eq!(text.lines().count(), MALFORMED.len(), "{finished:?}");
        assert!(text.lines().all(|line| line.contains("can1 123#77") || line.contains(",b0=119i ")), "{text}");
        assert_eq!(after_losses(&finished), "; 30 malformed lines left out");
        // Only the first is shown.
        let messages = messages_of_stream(&finished.stderr);
        let expected =
            "can-listen: malformed line (bad data byte), left out; more will only be counted: M 1 CSD 100 5G";
        assert_eq!(messages, [expected]);
    }
}

#[test]
fn first_malformed_line_is_shown_with_its_fault() {
    // Several sessions in parallel, since most of a handshake is waiting.
    for some in MALFORMED.chunks(8) {
        let begin = |&(line, fault): &(&'static str, &'static str)| {
            let gateway = Gateway::start();
            let listener = start(&mut can_listen(["--target", &gateway.target(), "--format", "candump"]));
            (gateway, listener, line, fault)
        };
        let sessions: Vec<_> = some.iter().map(begin).collect();
        for (gateway, listener, line, fault) in sessions {
            listener.wait_for_stderr("START sent");
            gateway.wait_for_command("CAN 1 START\n");
            gateway.send(line);
            let shown = &line[..line.len().min(200)];
            listener.wait_for_stderr(&format!(
                "can-listen: malformed line ({fault}), left out; more will only be counted: {shown}"
            ));
        }
    }
}

#[test]
fn malformed_line_is_shown_escaped_and_cut() {
    let line = [b"M 1 CSD 100 \x1B[2J\xFF ".as_slice(), &[b'x'; 400]].concat();
    let finished = printed("candump", &[&line]);
    let shown = format!("M 1 CSD 100 \\x1B[2J\\xFF {}...", "x".repeat(200 - 18));
    let expected = format!("can-listen: malformed line (bad data byte), left out; more will only be counted: {shown}");
    assert_eq!(messages_of_stream(&finished.stderr), [expected]);
    assert_eq!(after_losses(&finished), "; 1 malformed line left out");
}

#[test]
fn events_and_refusals_go_to_stderr() {
    // The record of InfluxDB has the events, too.
    for (format, points) in [("candump", 0), ("influx", 3)] {
        let session = Session::start(format);
        session.gateway.send("E 1 BUSOFF\n");
        session.listener.wait_for_stderr("the gateway reports: E 1 BUSOFF\n");
        session.gateway.send("E 1 ERRORWARNING SET\r\nR ok\r\n");
        session.listener.wait_for_stderr("the gateway reports: E 1 ERRORWARNING SET\n");
        session.gateway.send("e 1 errorwarning \x1b reset\r");
        session.listener.wait_for_stderr("the gateway reports: e 1 errorwarning \\x1B reset\n");
        session.gateway.send("r  OK\n");
        session.gateway.send("r err 12 Busy\n");
        session.listener.wait_for_stderr("the gateway refused a command: r err 12 Busy\n");
        let finished = session.end();
        let text = finished.text();
        assert!(text.lines().all(|line| line.starts_with("can_event,")) && text.lines().count() == points, "{text}");
        assert_eq!(messages_of_stream(&finished.stderr).len(), 4, "{finished:?}");
        assert_eq!(after_losses(&finished), "");
    }
}

#[test]
fn count_applies_to_frames_within_a_datagram() {
    for (format, printed, report) in [
        ("candump", vec!["can1 001#", "can1 002#", "can1 003#"], " 3 datagrams (3 frames, "),
        ("raw", vec!["R ok", "M 1 CSD 1", "M 1 CSD 2"], " 2 datagrams ("),
    ] {
        let gateway = Gateway::start();
        let count = if format == "raw" { "2" } else { "3" };
        let listener = start(&mut can_listen(["--target", &gateway.target(), "--format", format, "-n", count]));
        wait_until_shared(gateway.wait_for_command("CAN 1 START\n").from);
        gateway.send("M 1 CSD 1\nM 1 CSD 2\n");
        gateway.send("M 1 CSD 3\nM 1 CSD 4\n");
        let finished = listener.wait();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        let text = finished.text();
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(") ").map_or(line, |(_, rest)| rest)).collect();
        assert_eq!(lines, printed);
        assert!(finished.stderr.contains(report), "{finished:?}");
    }
}

/// A pcap record has seconds, nanoseconds, the length twice, and the frame as in SocketCAN.
#[track_caller]
fn assert_record(line: &str, frame: &[u8]) {
    let mut record = Vec::new();
    write_pcap_record(
        &Frame::parse(line.as_bytes()).expect(line),
        Duration::new(0x0102_0304, 0x0506_0708),
        &mut record,
    );
    let length = frame.len() as u8;
    let header = [4, 3, 2, 1, 8, 7, 6, 5, length, 0, 0, 0, length, 0, 0, 0];
    assert_eq!(record, [&header, frame].concat(), "{line}");
}

#[test]
fn pcap_makes_a_record_of_every_kind_of_frame() {
    assert_record("M 1 CSD 123 11 22", b"\x00\x00\x01\x23\x02\x00\x00\x00\x11\x22");
    assert_record("M 1 CSD 7FF", b"\x00\x00\x07\xFF\x00\x00\x00\x00");
    assert_record("M 1 CED 18FE0201 FF", b"\x98\xFE\x02\x01\x01\x00\x00\x00\xFF");
    assert_record("M 1 CSR 101 dlc=5", b"\x40\x00\x01\x01\x05\x00\x00\x00");
    assert_record("M 1 CER 101", b"\xC0\x00\x01\x01\x00\x00\x00\x00");
    assert_record("M 1 NSD 1 AA", b"\x00\x00\x00\x01\x01\x04\x00\x00\xAA");
    assert_record("M 1 FED 1 AA", b"\x80\x00\x00\x01\x01\x05\x00\x00\xAA");
    let data = "55 ".repeat(64);
    let frame = [&b"\x00\x00\x00\x01\x40\x05\x00\x00"[..], &[0x55; 64]].concat();
    assert_record(&format!("M 1 FSD 1 {data}"), &frame);
}

#[test]
fn pcap_header_is_written_before_the_first_frame() {
    let session = Session::start("pcap");
    let header = b"\x4D\x3C\xB2\xA1\x02\x00\x04\x00\0\0\0\0\0\0\0\0\x48\0\0\0\xE3\0\0\0";
    wait_until("a header", || session.listener.stdout_so_far().len() >= header.len());
    assert_eq!(session.listener.stdout_so_far(), header);
    session.gateway.send("M 1 CSD 123 11\nM 1 rubbish\nR ok\nM 1 CSD 124 22\n");
    wait_until("two records", || session.listener.stdout_so_far().len() >= 24 + 2 * (16 + 9));
    session.listener.signal(Signal::SIGTERM);
    let finished = session.listener.wait();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(finished.stdout.len(), 24 + 2 * (16 + 9));
    assert_eq!(finished.stdout[24 + 16..][..9], *b"\0\0\x01\x23\x01\0\0\0\x11");
    assert!(finished.stderr.contains("(2 frames, "), "{finished:?}");
}

#[test]
fn pcap_on_a_terminal_is_bad_usage() {
    let (_master, name) = terminal();
    let screen = File::options().write(true).open(name).expect("the terminal can be opened");
    let gateway = Gateway::start();
    let finished =
        start_with(&mut can_listen(["--target", &gateway.target(), "--format", "pcap"]), screen.into()).wait();
    assert_eq!(finished.code(), Some(2), "{finished:?}");
    assert!(finished.stderr.contains("can-listen --format pcap | wireshark -k -i -"), "{finished:?}");
    assert_eq!(gateway.commands(), [""; 0]);
}
