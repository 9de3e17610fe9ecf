//! Finds the end of the last whole record of a pcap file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::{PCAP_HEADER, PCAP_RECORD_MAX, PcapRecord, pcap_record};

/// How much is read at once, and how much of the end of a file is usually enough.
const WINDOW: usize = 64 << 10;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PcapEnd {
    /// The last whole record ends here.
    At(u64),
    /// There is something else than a record here.
    Damaged(u64),
}

/// Finds the end from the last 64 KiB, where a record begins within the length of the longest: if all places at which one
/// could begin lead to the same end, it is that. Otherwise the file is walked from its beginning.
///
/// # Errors
///
/// The system's, of reading.
pub(crate) fn find_end(file: &File, length: u64) -> io::Result<PcapEnd> {
    let begin = length.saturating_sub(WINDOW as u64);
    if begin > PCAP_HEADER.len() as u64 {
        let window = read(file, begin, length)?;
        let mut ends = (0..PCAP_RECORD_MAX).filter_map(|place| end_of_chain(&window, place));
        if let Some(end) = ends.next().filter(|&end| ends.all(|other| other == end)) {
            return Ok(PcapEnd::At(begin + end as u64));
        }
    }
    walk(file, length)
}

/// Where the last whole record ends if records begin at `place`; `None` if the chain breaks.
fn end_of_chain(window: &[u8], place: usize) -> Option<usize> {
    let mut at = place;
    loop {
        match pcap_record(&window[at..]) {
            PcapRecord::Whole(length) => at += length,
            PcapRecord::Cut => return Some(at),
            PcapRecord::Invalid => return None,
        }
    }
}

fn walk(file: &File, length: u64) -> io::Result<PcapEnd> {
    let mut begin = PCAP_HEADER.len() as u64;
    loop {
        let window = read(file, begin, length)?;
        let is_last = begin + window.len() as u64 == length;
        let mut at = 0;
        loop {
            match pcap_record(&window[at..]) {
                PcapRecord::Whole(length) => at += length,
                PcapRecord::Cut => break,
                PcapRecord::Invalid => return Ok(PcapEnd::Damaged(begin + at as u64)),
            }
        }
        begin += at as u64;
        if is_last {
            return Ok(PcapEnd::At(begin));
        }
    }
}

/// Up to [`WINDOW`] bytes from `begin`, none after `length`.
fn read(file: &File, begin: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut window = vec![0; (length - begin).min(WINDOW as u64) as usize];
    file.read_exact_at(&mut window, begin)?;
    Ok(window)
}

#[cfg(test)]
mod tests;
