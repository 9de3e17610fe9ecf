//! Keeps the record readable where stdout is a regular file: how a session continues what an earlier one left, and what
//! becomes of a line or record that was written in part. Pipes and terminals are left alone.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use crate::format::{Format, PCAP_HEADER};
use crate::output::pcap_end::{PcapEnd, find_end};
use crate::output::pieces::{count_lines, count_records};
use crate::output::spool::WriteFailure;

/// How many bytes at the end of a file are compared with what was written, at least, if that many were.
const COMPARED: usize = 4096;

/// Stdout, and how a session continues it.
#[derive(Debug)]
pub(crate) struct Record {
    stdout: File,
    is_file: bool,
    is_pcap: bool,
    start: RecordStart,
}

/// What a session finds on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordStart {
    /// Nothing: an empty file, or no file.
    Fresh,
    /// A file that ends with a whole line or record.
    Continued,
    /// A file that ends within a line.
    CutLine,
    /// A file that cannot be read, so that its last line may be cut.
    Unreadable,
    /// A pcap file that ended within a record; so many bytes were removed.
    CutRecord(u64),
    /// A pcap file that ended within its header; it is empty now.
    CutHeader,
}

/// Why stdout cannot be continued. Nothing was changed.
#[derive(Debug)]
pub(crate) enum RecordError {
    /// The system's, while stdout was examined or cut.
    Stdout(io::Error),
    /// A pcap file is to be continued, but it cannot be read.
    Unreadable(io::Error),
    /// It is no pcap file of ours.
    NotOurPcap,
    /// The pcap file has something else than a record at this offset, in bytes.
    Damaged(u64),
    /// The file does not end where stdout is positioned.
    NotAtEnd,
    /// Another process changes the file.
    InUse,
}

/// A failed write to a file that ends within a line or record for that reason.
#[derive(Debug)]
struct CutError {
    source: io::Error,
    what: &'static str,
}

impl Record {
    /// Examines stdout, and removes the cut end of a pcap file.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: stdout cannot be continued in this format.
    pub fn open(format: Format) -> Result<Record, RecordError> {
        Record::new(File::from(io::stdout().as_fd().try_clone_to_owned().map_err(RecordError::Stdout)?), format)
    }

    fn new(stdout: File, format: Format) -> Result<Record, RecordError> {
        let is_file = stdout.metadata().map_err(RecordError::Stdout)?.is_file();
        let mut record = Record { stdout, is_file, is_pcap: format == Format::Pcap, start: RecordStart::Fresh };
        if is_file {
            record.start = record.examine()?;
        }
        Ok(record)
    }

    /// What was found.
    pub fn start(&self) -> RecordStart {
        self.start
    }

    /// What precedes all data of this session.
    pub fn preamble(&self) -> &'static [u8] {
        match self.start {
            RecordStart::Fresh | RecordStart::CutHeader if self.is_pcap => &PCAP_HEADER,
            // Readers of all our text formats skip an empty line.
            RecordStart::CutLine | RecordStart::Unreadable => b"\n",
            _ => b"",
        }
    }

    fn examine(&mut self) -> Result<RecordStart, RecordError> {
        let length = self.stdout.metadata().map_err(RecordError::Stdout)?.len();
        let position =
            if self.appends() { length } else { self.stdout.stream_position().map_err(RecordError::Stdout)? };
        if position == 0 {
            return Ok(RecordStart::Fresh);
        }
        if self.is_pcap {
            let file = self.reader().map_err(RecordError::Unreadable)?;
            return if position == length { self.continue_pcap(&file, length) } else { Err(RecordError::NotAtEnd) };
        }
        let mut last = [0];
        Ok(match self.reader().and_then(|file| file.read_at(&mut last, position - 1)) {
            Ok(_) if last == *b"\n" => RecordStart::Continued,
            Ok(_) => RecordStart::CutLine,
            Err(_) => RecordStart::Unreadable,
        })
    }

    fn continue_pcap(&mut self, file: &File, length: u64) -> Result<RecordStart, RecordError> {
        let mut header = PCAP_HEADER;
        let header = &mut header[..length.min(PCAP_HEADER.len() as u64) as usize];
        file.read_exact_at(header, 0).map_err(RecordError::Unreadable)?;
        if !PCAP_HEADER.starts_with(header) {
            return Err(RecordError::NotOurPcap);
        }
        if header.len() < PCAP_HEADER.len() {
            self.cut(length, 0)?;
            return Ok(RecordStart::CutHeader);
        }
        match find_end(file, length).map_err(RecordError::Unreadable)? {
            PcapEnd::At(end) if end == length => Ok(RecordStart::Continued),
            PcapEnd::At(end) => {
                self.cut(length, end)?;
                Ok(RecordStart::CutRecord(length - end))
            }
            PcapEnd::Damaged(at) => Err(RecordError::Damaged(at)),
        }
    }

    /// Cuts the file, which had this length when it was read. What another process appends between the look at the length
    /// and the cut is lost; these are microseconds.
    fn cut(&mut self, length: u64, end: u64) -> Result<(), RecordError> {
        if self.stdout.metadata().map_err(RecordError::Stdout)?.len() != length {
            return Err(RecordError::InUse);
        }
        self.stdout.set_len(end).map_err(RecordError::Stdout)?;
        self.stdout.seek(SeekFrom::Start(end)).map_err(RecordError::Stdout)?;
        Ok(())
    }

    /// Takes back the piece of a line or record that a failed write has left, if that piece is still the end of the file.
    /// Returns how many datagrams of the batch are in the file, and the error to report.
    pub fn on_failure(&mut self, failure: WriteFailure) -> (u64, io::Error) {
        let WriteFailure { error, batch, written, datagrams } = failure;
        if !self.is_file {
            return (0, error);
        }
        let count = if self.is_pcap { count_records } else { count_lines };
        let (whole, end) = count(&batch[..written]);
        // A datagram that is not in the file lacks a line or record at least.
        let lacking = (count(&batch).0 - whole).min(datagrams);
        let error = match self.take_back(&batch[..written], end) {
            Ok(true) => error,
            Ok(false) | Err(_) => {
                let what = if self.is_pcap { "record" } else { "line" };
                io::Error::new(error.kind(), CutError { source: error, what })
            }
        };
        (datagrams - lacking, error)
    }

    /// Removes what was written after `end`; `false` if the file does not end in it any more.
    fn take_back(&mut self, written: &[u8], end: usize) -> io::Result<bool> {
        let piece = (written.len() - end) as u64;
        if piece == 0 {
            return Ok(true);
        }
        let compared = &written[end.min(written.len().saturating_sub(COMPARED))..];
        // With O_APPEND too this is the end of our last write, unless the position is shared, as by `>>f 2>&1`.
        let position = self.stdout.stream_position()?;
        let Some(begin) = position.checked_sub(compared.len() as u64) else { return Ok(false) };
        let mut found = vec![0; compared.len()];
        self.reader()?.read_exact_at(&mut found, begin)?;
        // What another process appends between this look at the length and the cut is lost: microseconds, on a full disk.
        if found != compared || self.stdout.metadata()?.len() != position {
            return Ok(false);
        }
        self.stdout.set_len(position - piece)?;
        // Without O_APPEND, what follows would leave a gap of zeros.
        self.stdout.seek(SeekFrom::Start(position - piece))?;
        Ok(true)
    }

    /// The file, opened for reading: stdout itself can usually only be written.
    fn reader(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.stdout.as_raw_fd()))
    }

    /// Whether the kernel appends every write (O_APPEND); assumed if it cannot be read.
    fn appends(&self) -> bool {
        const O_APPEND: u32 = 0o2000;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.stdout.as_raw_fd())).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_none_or(|flags| flags & O_APPEND != 0)
    }
}

impl Write for Record {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

impl fmt::Display for CutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; the file ends within a {}", self.source, self.what)
    }
}

impl std::error::Error for CutError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Stdout(error) => write!(f, "cannot write to stdout: {error}"),
            RecordError::Unreadable(error) => write!(f, "cannot read the file: {error}"),
            RecordError::NotOurPcap => f.write_str("the file is not a pcap file of this program"),
            RecordError::Damaged(at) => write!(f, "the pcap file has no record at byte {at}"),
            RecordError::NotAtEnd => f.write_str("stdout is not positioned at the end of the file"),
            RecordError::InUse => f.write_str("another process is writing to the file"),
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecordError::Stdout(error) | RecordError::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
