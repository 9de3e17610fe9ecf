use super::*;

fn shown(datagram: &[u8]) -> String {
    let mut out = Vec::new();
    write_datagram(datagram, true, &mut out);
    String::from_utf8(out).expect("only ASCII")
}

#[test]
fn line_ends_of_three_kinds_end_lines() {
    for end in ["\n", "\r", "\r\n"] {
        let datagram = format!("M 1 CSD 1 00{end}E 1 BUSOFF{end}");
        assert_eq!(shown(datagram.as_bytes()), "M 1 CSD 1 00\nE 1 BUSOFF\n", "{end:?}");
    }
}

#[test]
fn carriage_return_within_text_is_escaped() {
    assert_eq!(shown(b"R ERR 1 a\rb\r\r\nc"), "R ERR 1 a\\x0Db\\x0D\nc\n");
    assert_eq!(shown(b""), "");
}
