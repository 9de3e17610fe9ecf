use std::time::Duration;

use crate::format::{Encoder, Format};

fn encoded(format: Format, line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new(format, "gw", false).write(line, || Duration::new(1, 2), u64::MAX, &mut out, |_| {});
    out
}

#[test]
fn pcap_records_events_as_error_frames() {
    for (line, id, state) in [
        (&b"E 1 BUSOFF"[..], 0x40, 0),
        (b"e  2  errorwarning set\r", 0x04, 0x0C),
        (b"E 1 ERRORWARNING RESET\n", 0x04, 0x40),
    ] {
        let expected =
            [1, 0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 0x20, 0, 0, id, 8, 0, 0, 0, 0, state, 0, 0, 0, 0, 0, 0];
        assert_eq!(encoded(Format::Pcap, line), expected);
    }
    assert_eq!(encoded(Format::Pcap, b"E 1 NEW"), b"");
}

#[test]
fn influx_records_events_with_escaped_text() {
    assert_eq!(encoded(Format::Influx, b"E 1 BUSOFF\n"), b"can_event,channel=1,device=gw text=\"BUSOFF\" 1000000002\n");
    let text = String::from_utf8(encoded(Format::Influx, b"E 3 a\"b\\c\x1B\n")).expect("ASCII");
    assert_eq!(text, "can_event,channel=3,device=gw text=\"a\\\"b\\\\c\\\\x1B\" 1000000002\n");
    for line in [&b"E"[..], b"E 1", b"E 5 BUSOFF", b"E x BUSOFF"] {
        assert_eq!(encoded(Format::Influx, line), b"", "{line:?}");
    }
}

#[test]
fn candump_has_no_events() {
    assert_eq!(encoded(Format::Candump, b"E 1 BUSOFF\n"), b"");
}
