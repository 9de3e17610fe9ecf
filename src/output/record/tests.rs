use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use super::*;

/// A file that is removed when this is dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, content: &[u8]) -> TempFile {
        let path = std::env::temp_dir().join(format!("can-udp-record-{name}-{}", std::process::id()));
        fs::write(&path, content).expect("a file");
        TempFile(path)
    }

    fn append(&self) -> File {
        OpenOptions::new().append(true).open(&self.0).expect("the file")
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.0).expect("the file")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn failure(batch: &[u8], written: usize, datagrams: u64) -> WriteFailure {
    WriteFailure { error: io::ErrorKind::StorageFull.into(), batch: batch.to_vec(), written, datagrams }
}

#[test]
fn start_depends_on_the_last_byte() {
    for (content, expected, preamble) in [
        (&b""[..], RecordStart::Fresh, &b""[..]),
        (b"whole\n", RecordStart::Continued, b""),
        (b"whole\ncut", RecordStart::CutLine, b"\n"),
    ] {
        let file = TempFile::new("start", content);
        let record = Record::new(file.append(), Format::Candump).expect("it can be continued");
        assert_eq!((record.start(), record.preamble()), (expected, preamble));
        // A shell that starts two sessions one after the other, without O_APPEND.
        let mut shared = OpenOptions::new().write(true).open(&file.0).expect("the file");
        shared.seek(SeekFrom::End(0)).expect("a file");
        assert_eq!(Record::new(shared, Format::Raw).expect("it can be continued").start(), expected);
    }
}

#[test]
fn file_that_is_overwritten_is_not_continued() {
    let file = TempFile::new("overwritten", b"cut");
    let record = Record::new(OpenOptions::new().write(true).open(&file.0).expect("the file"), Format::Raw);
    assert_eq!(record.expect("it can be written").start(), RecordStart::Fresh);
}

#[test]
fn piece_of_a_line_is_taken_back() {
    for append in [true, false] {
        let file = TempFile::new("taken-back", b"old\n");
        let mut stdout = OpenOptions::new().append(append).write(true).open(&file.0).expect("the file");
        stdout.seek(SeekFrom::End(0)).expect("a file");
        let mut record = Record::new(stdout, Format::Raw).expect("it can be continued");
        record.write_all(b"one\ntwo\nth").expect("a file");
        let (datagrams, error) = record.on_failure(failure(b"one\ntwo\nthree\nfour\n", 10, 4));
        assert_eq!((datagrams, error.kind()), (2, io::ErrorKind::StorageFull));
        assert_eq!(file.content(), b"old\none\ntwo\n");
        record.write_all(b"next\n").expect("a file");
        assert_eq!(file.content(), b"old\none\ntwo\nnext\n");
    }
}

#[test]
fn bytes_of_other_writers_are_left_alone() {
    // Another program appended; another program shares the position, as with 2>&1.
    for shared in [false, true] {
        let file = TempFile::new("others", b"");
        let stdout = file.append();
        let mut other = if shared { stdout.try_clone().expect("a descriptor") } else { file.append() };
        let mut record = Record::new(stdout, Format::Raw).expect("it can be continued");
        record.write_all(b"one\ntw").expect("a file");
        other.write_all(b"other\n").expect("a file");
        let (datagrams, error) = record.on_failure(failure(b"one\ntwo\n", 6, 2));
        assert_eq!(datagrams, 1);
        assert!(error.to_string().contains("the file ends within a line"), "{error}");
        assert_eq!(file.content(), b"one\ntwother\n");
    }
}

#[test]
fn pcap_begins_anew_after_a_cut_header_and_refuses_others() {
    for length in 1..24 {
        let file = TempFile::new("header", &PCAP_HEADER[..length]);
        let record = Record::new(file.append(), Format::Pcap).expect("it can be continued");
        assert_eq!((record.start(), record.preamble()), (RecordStart::CutHeader, &PCAP_HEADER[..]));
        assert_eq!(file.content(), b"");
    }
    for other in [&b"text\n"[..], &[0; 30], &b"\x4D\x3C\xB2\xA1\x02\x00\x04\x01"[..]] {
        let file = TempFile::new("no-pcap", other);
        let error = Record::new(file.append(), Format::Pcap).expect_err("no pcap file");
        assert!(matches!(error, RecordError::NotOurPcap), "{error:?}");
        assert_eq!(file.content(), other);
    }
}
