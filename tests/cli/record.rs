//! Promise: a file that stdout is redirected to stays readable: no line is joined to one that was cut, and pcap continues
//! only what it has written itself.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

use crate::programs::{Output, Running, TempDir, can_listen, start_with, wait_until};
use crate::simulator::Gateway;
use can_udp::format::{PCAP_HEADER, write_pcap_record};
use nix::sys::signal::Signal;

/// Appends a session to the file, in which the gateway sends two frames and an event.
#[track_caller]
fn append(format: &str, path: &Path, options: &[&str]) -> Output {
    session(format, OpenOptions::new().append(true).create(true).open(path).expect("a file"), options)
}

#[track_caller]
fn session(format: &str, stdout: File, options: &[&str]) -> Output {
    let gateway = Gateway::start();
    let mut listen = can_listen(["--target", &gateway.target(), "--format", format, "--status-after", "0"]);
    let before = stdout.metadata().expect("a file").len();
    let watched = stdout.try_clone().expect("a descriptor");
    let mut listener = start_with(listen.args(options), stdout.into());
    wait_until("START or an exit", || listener.has_ended() || gateway.commands().contains(&"CAN 1 START\n".to_owned()));
    if !listener.has_ended() {
        listener.wait_for_stderr("START sent");
        gateway.send("M 1 CSD 123 11 22\nE 1 BUSOFF\nM 1 CED 1FFFFFFE 33\n");
        // The last frame makes at least this many bytes in each format.
        wait_until("output", || watched.metadata().expect("a file").len() >= before + 40);
        listener.signal(Signal::SIGINT);
    }
    let output = listener.wait();
    assert!(output.code() == Some(0) || gateway.commands().is_empty(), "{output:?}");
    output
}

/// The beginning of what each format prints for the frames of a session.
const TEXT_FORMATS: [(&str, &str); 3] = [("raw", "M 1 CSD 123 11 22"), ("candump", "("), ("influx", "can,channel=1")];

#[test]
fn cut_line_is_ended_and_reported() {
    let folder = TempDir::new("record-cut-line");
    for (format, _) in TEXT_FORMATS {
        let path = folder.write(format, "whole\ncut");
        let output = append(format, &path, &[]);
        let text = folder.read(format);
        assert!(text.starts_with("whole\ncut\n"), "{text}");
        assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text}");
        assert!(output.stderr.contains("the file ended within a line"), "{}", output.stderr);
    }
}

#[test]
fn cut_line_is_ended_before_the_first_message() {
    let folder = TempDir::new("record-both-streams");
    let path = folder.write("bus.txt", "whole\ncut");
    let file = OpenOptions::new().append(true).open(&path).expect("a file");
    let gateway = Gateway::start();
    let mut listen = can_listen(["--target", &gateway.target(), "--count", "1"]);
    let status = listen.stdout(file.try_clone().expect("a descriptor")).stderr(file).status().expect("it runs");
    assert_eq!(status.code(), Some(0));
    let text = folder.read("bus.txt");
    assert!(text.starts_with("whole\ncut\ncan-listen: the file ended within a line"), "{text}");
}

#[test]
fn whole_last_line_is_continued_without_a_word() {
    let folder = TempDir::new("record-whole-line");
    for (format, _) in TEXT_FORMATS {
        let path = folder.write(format, "whole\n");
        let output = append(format, &path, &[]);
        let text = folder.read(format);
        assert!(text.starts_with("whole\n") && !text.contains("\n\n"), "{text}");
        assert!(!output.stderr.contains("the file"), "{}", output.stderr);
    }
}

#[test]
fn second_session_of_one_redirection_continues_the_line() {
    let folder = TempDir::new("record-one-redirection");
    let path = folder.write("log", "cut");
    let mut stdout = OpenOptions::new().write(true).open(&path).expect("a file");
    stdout.seek(SeekFrom::End(0)).expect("a file");
    session("candump", stdout, &[]);
    assert!(folder.read("log").starts_with("cut\n("), "{}", folder.read("log"));
}

/// The identifiers of the records in a pcap file, which must be whole.
#[track_caller]
fn ids(content: &[u8]) -> Vec<u32> {
    let mut rest = content.strip_prefix(&PCAP_HEADER).expect("a header");
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes")) as usize;
        ids.push(u32::from_be_bytes(rest[16..20].try_into().expect("four bytes")));
        rest = &rest[16 + length..];
    }
    ids
}

const SESSION_IDS: [u32; 3] = [0x123, 0x2000_0040, 0x9FFF_FFFE];

#[test]
fn pcap_sessions_append_to_one_readable_file() {
    let folder = TempDir::new("record-pcap");
    let path = folder.0.join("bus.pcap");
    append("pcap", &path, &[]);
    append("pcap", &path, &[]);
    assert_eq!(ids(&fs::read(&path).expect("a file")), [SESSION_IDS, SESSION_IDS].concat());
}

#[test]
fn pcap_cuts_off_half_a_record() {
    let folder = TempDir::new("record-pcap-cut");
    let path = folder.0.join("bus.pcap");
    let frame = can_udp::format::frame::Frame::parse(b"M 1 CSD 55 11 22 33").expect("a frame");
    let mut content = PCAP_HEADER.to_vec();
    for _ in 0..2 {
        write_pcap_record(&frame, std::time::Duration::from_secs(1), &mut content);
    }
    fs::write(&path, &content[..content.len() - 5]).expect("a file");
    let output = append("pcap", &path, &[]);
    assert!(output.stderr.contains("the file ended within a record; removed its 22 bytes"), "{}", output.stderr);
    assert_eq!(ids(&fs::read(&path).expect("a file")), [&[0x55][..], &SESSION_IDS].concat());
}

#[test]
fn pcap_is_continued_wherever_it_was_cut() {
    let frame = |number: u8| can_udp::format::frame::Frame::parse(format!("M 1 CSD {number} 11 22 33").as_bytes());
    let mut content = PCAP_HEADER.to_vec();
    for number in 1..=3 {
        write_pcap_record(&frame(number).expect("a frame"), std::time::Duration::from_secs(1), &mut content);
    }
    let record = (content.len() - 24) / 3;
    for length in [1, 10, 24, 25, 40, 24 + record, content.len() - 20, content.len() - 1, content.len()] {
        let folder = TempDir::new(&format!("record-pcap-{length}"));
        let path = folder.0.join("bus.pcap");
        fs::write(&path, &content[..length]).expect("a file");
        let output = append("pcap", &path, &[]);
        let whole = length.saturating_sub(24) / record;
        let kept: Vec<u32> = (1..=whole as u32).collect();
        assert_eq!(ids(&fs::read(&path).expect("a file")), [&kept[..], &SESSION_IDS].concat(), "{length} bytes");
        let is_cut = length < 24 || (length - 24) % record > 0;
        assert_eq!(output.stderr.contains("the file ended within"), is_cut, "{length}: {output:?}");
    }
}

#[test]
fn deleted_file_is_reported_unless_it_never_had_a_name() {
    for (delete_at_start, format) in [(false, "raw"), (false, "pcap"), (true, "raw")] {
        let folder = TempDir::new("record-deleted");
        let path = folder.0.join("log");
        let file = File::create(&path).expect("a file");
        if delete_at_start {
            fs::remove_file(&path).expect("the file");
        }
        let gateway = Gateway::builder().frames_per_second(1000.0).start();
        let mut listen = can_listen(["--target", &gateway.target(), "--format", format, "--quiet"]);
        let watched = file.try_clone().expect("a descriptor");
        let listener = start_with(&mut listen, file.into());
        wait_until("output", || watched.metadata().expect("a file").len() > 100);
        if !delete_at_start {
            fs::remove_file(&path).expect("the file");
        }
        listener.signal(Signal::SIGINT);
        let output = listener.wait();
        assert_eq!(output.code(), Some(0), "{output:?}");
        let warning = "can-listen: the output file was deleted; what is written there will be gone\n";
        assert_eq!(output.stderr, if delete_at_start { "" } else { warning });
    }
}

/// How many times a process has written so far, to whatever (proc(5), `syscw`).
fn writes(listener: &Running) -> u64 {
    let io = listener.proc("io");
    let count = io.lines().find_map(|line| line.strip_prefix("syscw: ")).and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("no count in {io}"))
}

#[test]
fn regular_file_is_written_ten_times_a_second() {
    let folder = TempDir::new("record-moderated");
    let file = File::create(folder.0.join("log")).expect("a file");
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let listener = start_with(&mut can_listen(["--target", &gateway.target()]), file.try_clone().expect("one").into());
    listener.wait_for_stderr("START sent");
    gateway.wait_until_streamed(100);
    let (before, began) = (writes(&listener), Instant::now());
    gateway.wait_until_streamed(1600);
    let (count, tenths) = (writes(&listener) - before, began.elapsed().as_millis() as u64 / 100);
    assert!((5..=tenths + 5).contains(&count), "{count} writes in {tenths} tenths of a second");
    listener.signal(Signal::SIGINT);
    assert_eq!(listener.wait().code(), Some(0));
}

#[test]
fn pcap_refuses_a_text_file_and_leaves_it_unchanged() {
    let folder = TempDir::new("record-pcap-text");
    let path = folder.write("log", "M 1 CSD 123 11 22\n");
    let output = append("pcap", &path, &[]);
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("not a pcap file of this program"), "{}", output.stderr);
    assert!(!output.stderr.contains("START sent"), "{}", output.stderr);
    assert_eq!(folder.read("log"), "M 1 CSD 123 11 22\n");
}

#[test]
fn influx_records_events_and_candump_does_not() {
    let folder = TempDir::new("record-events");
    append("influx", &folder.0.join("influx"), &[]);
    let text = folder.read("influx");
    let event = text.lines().nth(1).expect("three lines");
    assert!(event.starts_with("can_event,channel=1,device=127.0.0.1:"), "{text}");
    assert!(event.contains(" text=\"BUSOFF\" "), "{text}");
    append("candump", &folder.0.join("candump"), &[]);
    assert_eq!(folder.read("candump").lines().count(), 2);
}
