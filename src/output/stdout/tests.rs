use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use super::*;
use crate::format::frame::Frame;
use crate::format::write_pcap_record;

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

#[test]
fn cut_line_is_ended_at_the_start() {
    for (content, found, continued) in [
        (&b""[..], Found::Nothing, &b""[..]),
        (b"whole\n", Found::WholeEnd, b"whole\n"),
        (b"whole\ncut", Found::CutLine, b"whole\ncut\n"),
    ] {
        let file = TempFile::new("start", content);
        let stdout = Stdout::open(file.append(), Format::Candump).expect("it can be continued");
        assert_eq!((stdout.found, stdout.preamble()), (found, &b""[..]));
        assert_eq!(file.content(), continued);
        // A shell that starts two sessions one after the other, without O_APPEND.
        let file = TempFile::new("shared", content);
        let mut shared = OpenOptions::new().write(true).open(&file.0).expect("the file");
        shared.seek(SeekFrom::End(0)).expect("a file");
        assert_eq!(Stdout::open(shared, Format::Raw).expect("it can be continued").found, found);
        assert_eq!(file.content(), continued);
    }
}

#[test]
fn file_that_is_overwritten_is_not_continued() {
    let file = TempFile::new("overwritten", b"cut");
    let stdout = Stdout::open(OpenOptions::new().write(true).open(&file.0).expect("the file"), Format::Raw);
    assert_eq!(stdout.expect("it can be written").found, Found::Nothing);
}

/// Writes this much of a batch, then fails as on a full disk.
fn fail_after(stdout: &mut Stdout, written: &[u8]) -> io::Error {
    stdout.file.write_all(written).expect("a file");
    stdout.on_failure(written, ErrorKind::StorageFull.into())
}

#[test]
fn piece_of_a_line_is_taken_back() {
    for append in [true, false] {
        let file = TempFile::new("taken-back", b"old\n");
        let mut stdout = OpenOptions::new().append(append).write(true).open(&file.0).expect("the file");
        stdout.seek(SeekFrom::End(0)).expect("a file");
        let mut stdout = Stdout::open(stdout, Format::Raw).expect("it can be continued");
        let error = fail_after(&mut stdout, b"one\ntwo\nth");
        assert_eq!(error.to_string(), io::Error::from(ErrorKind::StorageFull).to_string());
        assert_eq!(file.content(), b"old\none\ntwo\n");
        stdout.write(b"next\n").expect("a file");
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
        let mut stdout = Stdout::open(stdout, Format::Raw).expect("it can be continued");
        stdout.file.write_all(b"one\ntw").expect("a file");
        other.write_all(b"other\n").expect("a file");
        let error = stdout.on_failure(b"one\ntw", ErrorKind::StorageFull.into());
        assert!(error.to_string().contains("the file ends within a line"), "{error}");
        assert_eq!(file.content(), b"one\ntwother\n");
    }
}

#[test]
fn pcap_begins_anew_after_a_cut_header_and_refuses_others() {
    for length in 1..24 {
        let file = TempFile::new("header", &PCAP_HEADER[..length]);
        let stdout = Stdout::open(file.append(), Format::Pcap).expect("it can be continued");
        assert_eq!((stdout.found, stdout.preamble()), (Found::CutHeader, &PCAP_HEADER[..]));
        assert_eq!(file.content(), b"");
    }
    for other in [&b"text\n"[..], &[0; 30], &b"\x4D\x3C\xB2\xA1\x02\x00\x04\x01"[..]] {
        let file = TempFile::new("no-pcap", other);
        let error = Stdout::open(file.append(), Format::Pcap).expect_err("no pcap file");
        assert!(error.to_string().starts_with("it is not a pcap file"), "{error}");
        assert_eq!(file.content(), other);
    }
}

/// A pcap file of so many records. Each record of 64 bytes of data contains what looks like a record.
fn pcap(records: u32, looks_like_records: bool) -> Vec<u8> {
    let fake = "00 00 00 00 00 00 00 00 48 00 00 00 48 00 00 00 ".repeat(4);
    let data = if looks_like_records { fake } else { "11 22 33 44 55 66 77 88".to_owned() };
    let frame = Frame::parse(format!("M 1 FSD 123 {data}").as_bytes()).expect("a frame");
    let mut content = PCAP_HEADER.to_vec();
    for number in 0..records {
        write_pcap_record(&frame, Duration::from_secs(number.into()), &mut content);
    }
    content
}

#[test]
fn cut_record_is_removed_wherever_it_is_cut() {
    for (records, fake) in [(1, false), (3, true), (3000, false), (1500, true)] {
        let content = pcap(records, fake);
        let record = (content.len() - 24) / records as usize;
        for missing in 0..=record {
            let cut = &content[..content.len() - missing];
            let file = TempFile::new("cut", cut);
            let stdout = Stdout::open(file.append(), Format::Pcap).expect("it can be continued");
            let (end, expected) = match missing {
                0 => (content.len(), Found::WholeEnd),
                _ if missing == record => (cut.len(), Found::WholeEnd),
                _ => (content.len() - record, Found::CutRecord((record - missing) as u64)),
            };
            assert_eq!(stdout.found, expected, "{records} records, {missing} bytes missing");
            assert_eq!(stdout.preamble(), b"");
            assert_eq!(file.content(), content[..end]);
        }
    }
}

#[test]
fn damage_is_found_where_it_is() {
    let mut content = pcap(3000, false);
    let at = 24 + 32 * 2990;
    content[at..].fill(0);
    let file = TempFile::new("zeros", &content);
    let error = Stdout::open(file.append(), Format::Pcap).expect_err("it is damaged");
    assert!(error.to_string().starts_with(&format!("no pcap record at byte {at};")), "{error}");
    assert_eq!(file.content(), content);
}

#[test]
fn piece_of_a_record_is_taken_back() {
    let (old, batch) = (pcap(2, false), pcap(5, true));
    for (begin, written) in [(24, 24), (24, 24 + 88), (24, 24 + 100), (0, 10), (0, 24), (0, 150)] {
        let old = if begin == 0 { &b""[..] } else { &old };
        let file = TempFile::new("record-taken-back", old);
        let mut stdout = Stdout::open(file.append(), Format::Pcap).expect("it can be continued");
        fail_after(&mut stdout, &batch[begin..written]);
        let whole = if written < 24 { 0 } else { 24 + (written - 24) / 88 * 88 };
        assert_eq!(file.content(), [old, &batch[begin..whole.max(begin)]].concat(), "{begin}, {written}");
    }
}

#[test]
fn only_a_file_that_had_a_name_can_be_deleted() {
    let file = TempFile::new("deleted", b"");
    let mut stdout = Stdout::open(file.append(), Format::Raw).expect("a file");
    let other_name = file.0.with_extension("other");
    fs::hard_link(&file.0, &other_name).expect("a link");
    fs::remove_file(&file.0).expect("a file");
    assert!(!stdout.has_lost_name(), "it has another name");
    fs::remove_file(&other_name).expect("a file");
    assert!(stdout.has_lost_name());
    assert!(!stdout.has_lost_name(), "once");
    let mut nameless = Stdout::open(stdout.file, Format::Raw).expect("a file");
    assert!(!nameless.has_lost_name(), "it never had a name");
}
