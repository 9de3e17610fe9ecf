//! The datagram as it came.

use crate::text::escape_into;

/// Appends a datagram and the newline that it may lack; an empty one is nothing. With `escape`, harmless on a terminal.
pub(super) fn write_datagram(datagram: &[u8], escape: bool, out: &mut Vec<u8>) {
    if escape {
        return escape_lines(datagram, out);
    }
    out.extend_from_slice(datagram);
    if datagram.last().is_some_and(|&last| last != b'\n') {
        out.push(b'\n');
    }
}

/// Shows line ends of the three kinds as newlines, everything else outside 0x20 to 0x7E as `\xNN`.
fn escape_lines(datagram: &[u8], out: &mut Vec<u8>) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let end = (0..rest.len()).find_map(|at| Some((at, line_end(&rest[at..])?)));
        let (length, end_length) = end.unwrap_or((rest.len(), 0));
        escape_into(out, &rest[..length]);
        out.push(b'\n');
        rest = &rest[length + end_length..];
    }
}

/// The length of the line end that `bytes` begin with. A carriage return is one before a newline, before the next line of
/// the protocol and at the end; elsewhere it is part of the text.
fn line_end(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'\n', ..] | [b'\r'] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        [b'\r', b'M' | b'm' | b'R' | b'r' | b'E' | b'e', b' ', ..] => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
