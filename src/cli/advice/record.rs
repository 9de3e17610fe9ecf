//! Remedies for a stdout that cannot be continued, and what a session says of the file that it continues.

use crate::output::record::{RecordError, RecordStart};

/// Explains why stdout cannot be continued.
pub(crate) fn record_error(error: &RecordError) -> String {
    let hint = match error {
        RecordError::Stdout(_) => "check where stdout is redirected to",
        RecordError::Unreadable(_) => {
            "pcap continues only a file that it can read; make it readable for this user, or write to another one"
        }
        RecordError::NotOurPcap => "write to another file, or remove this one",
        RecordError::Damaged(at) => {
            return format!(
                "stdout: {error}; write to another file, or cut this one there, with: truncate -s {at} FILE"
            );
        }
        RecordError::NotAtEnd => "append to it with >>, or write to another file",
        RecordError::InUse => "end that process, or write to another file",
    };
    format!("stdout: {error}; {hint}")
}

/// What there is to say about the file that is continued.
pub(crate) fn record_start(start: RecordStart) -> Option<String> {
    match start {
        RecordStart::Fresh | RecordStart::Continued => None,
        RecordStart::CutLine => Some("the file ends within a line; beginning a new one".to_owned()),
        RecordStart::Unreadable => {
            Some("the file cannot be read; beginning with an empty line, in case its last one is cut".to_owned())
        }
        RecordStart::CutRecord(bytes) => Some(format!("the file ended within a record; removed its {bytes} bytes")),
        RecordStart::CutHeader => Some("the file ended within the pcap header; writing it anew".to_owned()),
    }
}
