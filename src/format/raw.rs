//! The datagram as it came.

use crate::text::escape_into;

/// Appends a datagram and the newline that it may lack; an empty one is nothing. With `escape`, harmless on a terminal.
pub(super) fn write_datagram(datagram: &[u8], escape: bool, out: &mut Vec<u8>) {
    if escape {
        escape_into(out, datagram);
    } else {
        out.extend_from_slice(datagram);
    }
    if datagram.last().is_some_and(|&last| last != b'\n') {
        out.push(b'\n');
    }
}
