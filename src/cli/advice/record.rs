//! Remedies for a stdout that cannot be continued or written, and what a session says of the file that it continues.

use std::io::{self, ErrorKind};

use crate::output::stdout::{Found, OpenError};

/// Explains why stdout cannot be continued.
pub(crate) fn stdout_open_error(error: &OpenError) -> String {
    match error {
        OpenError::Io(error) => format!(
            "stdout: cannot continue the file: {error}; pcap continues only a file that it can read and cut; make it \
             readable for this user, or write to another one"
        ),
        OpenError::NotOurs(0) => {
            "stdout: the file is not a pcap file of this program; write to another file, or remove this one".to_owned()
        }
        OpenError::NotOurs(at) => format!(
            "stdout: the pcap file has no record at byte {at}; write to another file, or cut this one there, with: \
             truncate -s {at} FILE"
        ),
        OpenError::NotAtEnd => {
            "stdout is not positioned at the end of the file; append to it with >>, or write to another file".to_owned()
        }
        OpenError::InUse => {
            "stdout: another process is writing to the file; end that process, or write to another file".to_owned()
        }
    }
}

/// Explains why stdout could not be written.
pub(crate) fn write_error(error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there, or write to another disk",
        ErrorKind::FileTooLarge => {
            "the file is as large as its file system allows (4 GiB on FAT32); write several, with: | split -C 1G"
        }
        _ => "check where it is redirected to",
    };
    format!("cannot write to stdout: {error}; {advice}")
}

/// What there is to say about the file that is continued.
pub(crate) fn found(found: Found) -> Option<String> {
    match found {
        Found::Nothing | Found::WholeEnd => None,
        Found::CutLine => Some("the file ends within a line; beginning a new one".to_owned()),
        Found::Unreadable => {
            Some("the file cannot be read; beginning with an empty line, in case its last one is cut".to_owned())
        }
        Found::CutRecord(bytes) => Some(format!("the file ended within a record; removed its {bytes} bytes")),
        Found::CutHeader => Some("the file ended within the pcap header; writing it anew".to_owned()),
    }
}

/// A warning about a file that was deleted while it was written.
pub(crate) const FILE_DELETED: &str =
    "the file that stdout is redirected to was deleted; what is written there will be gone";
