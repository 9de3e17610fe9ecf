//! Stdout. A regular file there stays readable: a session continues what an earlier one left, and the piece of a line or
//! record that a failed write has left is taken back. Pipes and terminals are left alone.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};

use crate::format::{Format, PCAP_HEADER, PCAP_RECORD_HEADER_LENGTH, pcap_record_length};
use crate::proc;

/// Back-off before the next attempt to write where the last one would have blocked.
const WRITE_BACKOFF: Duration = Duration::from_millis(5);

/// Stdout, and what a session found there.
#[derive(Debug)]
pub(crate) struct Stdout {
    file: File,
    /// Whether it is a regular file.
    pub is_regular: bool,
    is_pcap: bool,
    /// The file had a name at the last look. One of memfd_create(2) or `O_TMPFILE` never has.
    has_name: bool,
    pub found: Found,
}

/// What a session finds on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An empty file, one that is written from its beginning, or no file.
    Nothing,
    /// A file that ends with a whole line or record.
    WholeEnd,
    /// A file that ends within a line.
    CutLine,
    /// A file that cannot be read, so that its last line may be cut.
    Unreadable,
    /// A pcap file that ended within a record; so many bytes were removed.
    CutRecord(u64),
    /// A pcap file that ended within its header; it is empty now.
    CutHeader,
}

impl Stdout {
    /// Examines the file that is stdout, ends a cut line, and removes the cut end of a pcap file.
    ///
    /// # Errors
    ///
    /// It cannot be continued in this format; nothing was changed.
    pub fn open(file: File, format: Format) -> Result<Stdout> {
        let metadata = file.metadata()?;
        let is_regular = metadata.is_file();
        let has_name = is_regular && metadata.nlink() > 0;
        let mut stdout = Stdout { file, is_regular, is_pcap: format == Format::Pcap, has_name, found: Found::Nothing };
        if is_regular {
            stdout.found = stdout.examine(metadata.len())?;
        }
        if stdout.found == Found::CutLine {
            // At once: stderr can lead to the same file.
            stdout.file.write_all(b"\n")?;
        }
        Ok(stdout)
    }

    /// What precedes all data of this session.
    pub fn preamble(&self) -> &'static [u8] {
        match self.found {
            Found::Nothing | Found::CutHeader if self.is_pcap => &PCAP_HEADER,
            // Readers of all our text formats skip an empty line.
            Found::Unreadable => b"\n",
            _ => b"",
        }
    }

    /// Writes all of it. Where that fails half-way, whole lines or records stay, or the error says that they do not.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        write_when_possible(&mut self.file, batch).map_err(|(written, error)| self.on_failure(&batch[..written], error))
    }

    fn on_failure(&mut self, written: &[u8], error: io::Error) -> io::Error {
        let piece = &written[self.whole_length(written)..];
        if !self.is_regular || piece.is_empty() || self.take_back(piece).is_ok() {
            return error;
        }
        let what = if self.is_pcap { "record" } else { "line" };
        io::Error::new(error.kind(), format!("{error}; the file ends within a {what}"))
    }

    /// Waits until the file is stored, if it is one and its file system has such a call.
    ///
    /// # Errors
    ///
    /// The system's; an earlier write can be the cause.
    pub fn sync(&self) -> io::Result<()> {
        use ErrorKind::{InvalidInput, ReadOnlyFilesystem, Unsupported};
        match self.file.sync_all() {
            Err(error) if !matches!(error.kind(), InvalidInput | ReadOnlyFilesystem | Unsupported) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the file had a name at the last look and has none now.
    pub fn has_lost_name(&mut self) -> bool {
        let is_lost = self.has_name && self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        self.has_name &= !is_lost;
        is_lost
    }

    fn examine(&mut self, length: u64) -> Result<Found> {
        let position = if self.appends() { length } else { self.file.stream_position()? };
        if self.is_pcap {
            ensure!(position == length, "not positioned at its end; append to it with >>");
            return if length == 0 { Ok(Found::Nothing) } else { self.continue_pcap(length) };
        }
        if position == 0 {
            return Ok(Found::Nothing);
        }
        let (mut first, mut last) = ([0; 4], [0]);
        let is_pcap =
            self.reader().and_then(|file| file.read_exact_at(&mut first, 0)).is_ok() && PCAP_HEADER.starts_with(&first);
        ensure!(!is_pcap, "it is a pcap file");
        Ok(match self.reader().and_then(|file| file.read_at(&mut last, position - 1)) {
            Ok(_) if last == *b"\n" => Found::WholeEnd,
            Ok(_) => Found::CutLine,
            Err(_) => Found::Unreadable,
        })
    }

    fn continue_pcap(&mut self, length: u64) -> Result<Found> {
        let reader = self.reader().map_err(|error| anyhow!("{error}; this user must be able to read it"))?;
        let mut file = BufReader::with_capacity(64 << 10, reader);
        let mut header = Vec::new();
        file.by_ref().take(PCAP_HEADER.len() as u64).read_to_end(&mut header)?;
        let end = match PCAP_HEADER.strip_prefix(&header[..]) {
            Some([]) => records_end(file, PCAP_HEADER.len() as u64)?,
            Some(_) => 0,
            None => bail!("it is not a pcap file of this program"),
        };
        if end == length {
            return Ok(Found::WholeEnd);
        }
        // What another process appends between this look at the length and the cut is lost: microseconds.
        ensure!(self.file.metadata()?.len() == length, "another process is writing to it; end that process");
        self.truncate(end)?;
        Ok(if end == 0 { Found::CutHeader } else { Found::CutRecord(length - end) })
    }

    /// The length of the whole lines or records that the bytes begin with.
    fn whole_length(&self, bytes: &[u8]) -> usize {
        if !self.is_pcap {
            return bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        }
        // No record begins like the file header, whose third number would be its length.
        let begin = if bytes.starts_with(&PCAP_HEADER) { PCAP_HEADER.len() } else { 0 };
        records_end(&bytes[begin..], begin as u64).map_or(0, |end| end as usize)
    }

    /// Removes the piece that was written last, if the file still ends in it.
    fn take_back(&mut self, piece: &[u8]) -> Result<()> {
        // With O_APPEND too this is the end of our last write, unless the position is shared, as by `>>f 2>&1`.
        let position = self.file.stream_position()?;
        let begin = position.saturating_sub(piece.len() as u64);
        let mut found = vec![0; piece.len()];
        self.reader()?.read_exact_at(&mut found, begin)?;
        // What another process appends between this look at the length and the cut is lost: microseconds, on a full disk.
        ensure!(found == piece && self.file.metadata()?.len() == position, "the file does not end in it");
        Ok(self.truncate(begin)?)
    }

    fn truncate(&mut self, end: u64) -> io::Result<()> {
        self.file.set_len(end)?;
        // Without O_APPEND, what follows would leave a gap of zeros.
        self.file.seek(SeekFrom::Start(end)).map(drop)
    }

    /// The file, opened for reading: stdout itself can usually only be written.
    fn reader(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Whether the kernel appends every write (O_APPEND); assumed if it cannot be read.
    fn appends(&self) -> bool {
        const O_APPEND: u64 = 0o2000;
        let info = format!("/proc/self/fdinfo/{}", self.file.as_raw_fd());
        proc::number(&info, "flags:", 0, 8).is_none_or(|flags| flags & O_APPEND != 0)
    }
}

/// Where the last whole record ends, if the first begins at `end`.
fn records_end(mut records: impl Read, mut end: u64) -> Result<u64> {
    let mut record = Vec::new();
    loop {
        record.clear();
        records.by_ref().take(PCAP_RECORD_HEADER_LENGTH as u64).read_to_end(&mut record)?;
        let length = pcap_record_length(&record)
            .ok_or_else(|| anyhow!("no pcap record at byte {end}; cut it there: truncate -s {end} FILE"))?;
        records.by_ref().take((length - PCAP_RECORD_HEADER_LENGTH) as u64).read_to_end(&mut record)?;
        if record.len() < length {
            return Ok(end);
        }
        end += length as u64;
    }
}

/// Like [`Write::write_all`], but waits for an `out` that is non-blocking and full: other processes that share a pipe or
/// terminal, such as terminal multiplexers, make it so. An error comes with the number of bytes that were written.
pub(crate) fn write_when_possible(out: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(WRITE_BACKOFF),
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
