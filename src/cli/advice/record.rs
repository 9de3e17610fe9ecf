//! Remedies for a stdout that cannot be written, and what a session says of the file that it continues.

use std::io::{self, ErrorKind};

use crate::output::stdout::Found;

/// Explains why stdout could not be written.
pub(crate) fn write_error(error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there, or write to another disk",
        ErrorKind::FileTooLarge => {
            "a limit of the file system (4 GiB on FAT32) or of ulimit -f; write several files: | split -C 1G, or in pcap | \
             tshark -i - -b filesize:1000000 -w bus.pcap"
        }
        _ => "check where it is redirected to",
    };
    format!("cannot write to stdout: {error}; {advice}")
}

/// What there is to say about the file that is continued.
pub(crate) fn found(found: Found) -> Option<String> {
    let message = match found {
        Found::Nothing | Found::WholeEnd => return None,
        Found::CutLine => "the file ended within a line; beginning a new one",
        Found::Unreadable => "the file cannot be read; beginning with an empty line, in case its last one is cut",
        Found::CutRecord(bytes) => &format!("the file ended within a record; removed its {bytes} bytes"),
        Found::CutHeader => "the file ended within the pcap header; writing it anew",
    };
    Some(message.to_owned())
}

/// A warning about a file that was deleted while it was written.
pub(crate) const FILE_DELETED: &str = "the output file was deleted; what is written there will be gone";
