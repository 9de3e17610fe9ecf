//! Where the lines and records in a batch of output end.

use crate::format::{PCAP_HEADER, PcapRecord, pcap_record};

/// How many whole lines the bytes begin with, and the length of these.
pub(super) fn count_lines(bytes: &[u8]) -> (u64, usize) {
    let count = bytes.iter().filter(|&&byte| byte == b'\n').count();
    (count as u64, bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1))
}

/// How many whole records the bytes begin with, and the length of these and of the file header that may precede them. No
/// record begins like the header, whose third number would be its length.
pub(super) fn count_records(bytes: &[u8]) -> (u64, usize) {
    let mut end = if bytes.starts_with(&PCAP_HEADER) { PCAP_HEADER.len() } else { 0 };
    let mut count = 0;
    while let PcapRecord::Whole(length) = pcap_record(&bytes[end..]) {
        count += 1;
        end += length;
    }
    (count, end)
}
