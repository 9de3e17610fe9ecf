//! Promise: a file that stdout is redirected to stays readable on a full disk, beside another writer, as a log that only root
//! can read, and for the programs that read it. Needs root, util-linux, tshark, can-utils, influxd and python-can.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;

use crate::programs::{Output, Running, TempDir, can_listen, free_port, run, start, start_with, wait_until};
use crate::simulator::Gateway;
use can_udp::format::PCAP_HEADER;
use nix::sys::signal::Signal;

const FORMATS: [&str; 4] = ["raw", "candump", "influx", "pcap"];

/// A script in a mount namespace of its own, with a tmpfs of 64 KiB at `$disk`; `"$@"` is the command.
fn on_a_small_disk(folder: &TempDir, script: &str, command: &Command) -> Command {
    let disk = folder.0.join("disk");
    fs::create_dir_all(&disk).expect("a folder");
    let mount = "mount -t tmpfs -o size=64k none \"$disk\" || exit 99\n";
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", &format!("{mount}{script}"), "sh"]).env("disk", disk).env("out", &folder.0);
    shell.env_remove("CAN_TARGET").env_remove("CAN_BIND").arg(command.get_program()).args(command.get_args());
    shell
}

/// The number of whole records in a pcap file; panics if there is anything else.
#[track_caller]
fn records(content: &[u8]) -> usize {
    let mut rest = content.strip_prefix(&PCAP_HEADER).expect("a header");
    let mut count = 0;
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes")) as usize;
        rest = rest.get(16 + length..).expect("a whole record");
        count += 1;
    }
    count
}

#[test]
#[ignore = "needs root, to mount a tmpfs"]
fn full_disk_leaves_whole_lines_and_records() {
    for format in FORMATS {
        for redirection in [">", ">>"] {
            let folder = TempDir::new(&format!("full-disk-{format}"));
            let gateway = Gateway::builder().frames_per_second(20_000.0).start();
            let script =
                format!("\"$@\" {redirection}\"$disk/log\"; code=$?; cat \"$disk/log\" >\"$out/log\"; exit $code");
            let listen = can_listen(["--target", &gateway.target(), "--format", format]);
            let output = run(&mut on_a_small_disk(&folder, &script, &listen));
            assert_eq!(output.code(), Some(1), "{output:?}");
            assert!(output.stderr.contains("No space left"), "{output:?}");
            assert!(!output.stderr.contains("the file ends within"), "{output:?}");
            let content = fs::read(folder.0.join("log")).expect("a file");
            assert!((65_536 - 400..=65_536).contains(&content.len()), "{} bytes", content.len());
            if format == "pcap" {
                assert!(records(&content) > 1000);
            } else {
                assert!(content.ends_with(b"\n"), "{format}");
            }
        }
    }
}

/// Fills most of the disk, starts the listener, and writes lines of its own until the listener exits. Prints how many bytes
/// of its lines the disk accepted.
const OTHER_WRITER: &str = r#"
import os, subprocess, sys, time
log = os.environ["disk"] + "/log"
other = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(other, b"-" * (50 << 10) + b"\n")
listener = subprocess.Popen(sys.argv[1:], stdout=os.open(log, os.O_WRONLY | os.O_APPEND))
accepted = number = 0
while listener.poll() is None:
    line = b"other %08d other %08d\n" % (number, number)
    number += 1
    while line and listener.poll() is None:
        try:
            count = os.write(other, line)
            accepted += count
            line = line[count:]
            time.sleep(0.0002)
        except OSError:
            pass
print(accepted)
sys.exit(listener.returncode)
"#;

#[test]
#[ignore = "needs root, to mount a tmpfs; CAN_TRIES: how many tries"]
fn nothing_that_another_program_wrote_is_removed() {
    let tries: u32 = env::var("CAN_TRIES").ok().and_then(|tries| tries.parse().ok()).unwrap_or(30);
    let mut cut = 0;
    for number in 0..tries {
        let folder = TempDir::new("other-writer");
        let writer = folder.write("writer.py", OTHER_WRITER);
        let script = format!(
            "python3 {} \"$@\" >\"$out/accepted\"; code=$?; cat \"$disk/log\" >\"$out/log\"; exit $code",
            writer.display()
        );
        let gateway = Gateway::builder().frames_per_second(5000.0).start();
        let options = ["--target", &gateway.target(), "--format", "candump", "--timeout", "0.1"];
        let output = run(&mut on_a_small_disk(&folder, &script, &can_listen(options)));
        assert_eq!(output.code(), Some(1), "{output:?}");
        cut += u32::from(output.stderr.contains("the file ends within a line"));
        let accepted: usize = folder.read("accepted").trim().parse().expect("a number");
        // What is left without the listener's lines and pieces, which have no letter of the other's, is the other's text.
        let log = folder.read("log");
        let kept: usize = {
            let frames = log.matches(" can1 100#").count();
            let text: String = log.chars().filter(|letter| "other".contains(*letter)).collect();
            assert!(frames > 0 && text.starts_with("other"), "{output:?}");
            text.len()
        };
        // Each line has ten such letters among its 30 bytes; a piece at the end has the more of them.
        let (lines, rest) = (accepted / 30, accepted % 30);
        let piece = "other 00000000 other 00000000\n".chars().cycle().take(rest);
        let expected = 10 * lines + piece.filter(|letter| "other".contains(*letter)).count();
        assert_eq!(kept, expected, "try {number}: {accepted} bytes accepted; {}", output.stderr);
    }
    println!("{tries} tries; {cut} times the listener's piece was left and reported");
}

/// A session that prints two frames and an event to this stdout, and exits.
#[track_caller]
fn session(command: impl FnOnce(&Gateway) -> Command, stdout: File) -> Output {
    let gateway = Gateway::start();
    let watched = stdout.try_clone().expect("a descriptor");
    let before = watched.metadata().expect("a file").len();
    let mut listener = start_with(&mut command(&gateway), stdout.into());
    wait_until("START or an exit", || listener.has_ended() || gateway.commands().contains(&"CAN 1 START\n".to_owned()));
    if !listener.has_ended() {
        listener.wait_for_stderr("START sent");
        gateway.send("M 1 CSD 123 11 22\nE 1 BUSOFF\nE 1 ERRORWARNING SET\nM 1 CED 1FFFFFFE 33\n");
        wait_until("output", || watched.metadata().expect("a file").len() >= before + 40);
        listener.signal(Signal::SIGINT);
    }
    listener.wait()
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("a file")
}

#[track_caller]
fn session_of(format: &str, path: &Path) {
    let listen = |gateway: &Gateway| can_listen(["--target", &gateway.target(), "--format", format]);
    let output = session(listen, append(path));
    assert_eq!(output.code(), Some(0), "{output:?}");
}

#[track_caller]
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = run(Command::new(program).args(arguments));
    assert_eq!(output.code(), Some(0), "{program}: {output:?}");
    output.text()
}

#[test]
#[ignore = "needs tshark"]
fn tshark_reads_appended_pcap_and_shows_events_as_errors() {
    let folder = TempDir::new("appended-pcap");
    let path = folder.0.join("bus.pcap");
    session_of("pcap", &path);
    // A power cut.
    let length = fs::metadata(&path).expect("a file").len();
    OpenOptions::new().write(true).open(&path).expect("a file").set_len(length - 3).expect("a file");
    session_of("pcap", &path);
    let path = path.to_str().expect("UTF-8");
    let read =
        tool("tshark", &["-r", path, "-T", "fields", "-e", "can.id", "-e", "can.flags.err", "-e", "_ws.malformed"]);
    let rows: Vec<(&str, bool)> = read
        .lines()
        .map(|row| {
            let fields: Vec<&str> = row.split('\t').collect();
            assert_eq!(fields.get(2).copied().unwrap_or_default(), "", "{read}");
            (fields[0], matches!(fields[1], "1" | "True"))
        })
        .collect();
    let errors: Vec<bool> = rows.iter().map(|row| row.1).collect();
    assert_eq!(errors, [false, true, true, false, true, true, false], "{read}");
}

#[test]
#[ignore = "needs root, to become another user"]
fn log_that_only_root_can_read_starts_with_an_empty_line() {
    for format in FORMATS {
        let folder = TempDir::new(&format!("root-log-{format}"));
        let path = folder.write("log", "cut");
        tool("chmod", &["640", path.to_str().expect("UTF-8")]);
        let as_nobody = |gateway: &Gateway| {
            let listen = can_listen(["--target", &gateway.target(), "--format", format]);
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.env_remove("CAN_TARGET").env_remove("CAN_BIND");
            command.arg(listen.get_program()).args(listen.get_args());
            command
        };
        let output = session(as_nobody, append(&path));
        if format == "pcap" {
            assert_eq!(output.code(), Some(1), "{output:?}");
            assert!(output.stderr.contains("cannot read the file"), "{output:?}");
            assert_eq!(folder.read("log"), "cut");
        } else {
            assert_eq!(output.code(), Some(0), "{output:?}");
            assert!(!output.stderr.contains("cannot be read"), "{output:?}");
            assert!(folder.read("log").starts_with("cut\n"), "{}", folder.read("log"));
        }
    }
}

/// A log of two sessions with an empty line between them.
fn with_an_empty_line(folder: &TempDir, format: &str) -> String {
    let path = folder.0.join("log");
    session_of(format, &path);
    fs::write(&path, folder.read("log") + "\n").expect("a file");
    session_of(format, &path);
    assert!(folder.read("log").contains("\n\n"));
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
#[ignore = "needs python-can"]
fn python_can_skips_empty_lines() {
    let folder = TempDir::new("empty-python-can");
    let log = with_an_empty_line(&folder, "candump");
    let script = "import sys\nfrom can.io import CanutilsLogReader\nprint(len(list(CanutilsLogReader(sys.argv[1]))))";
    assert_eq!(tool("python3", &["-c", script, &log]), "4\n");
}

#[test]
#[ignore = "needs can-utils"]
fn log2asc_skips_empty_lines() {
    let folder = TempDir::new("empty-log2asc");
    let log = with_an_empty_line(&folder, "candump");
    let asc = tool("log2asc", &["-I", &log, "can1"]);
    assert_eq!(asc.lines().filter(|line| line.contains(" Rx ")).count(), 4, "{asc}");
}

/// Under a kernel with SocketCAN.
mod socketcan {
    use super::*;

    #[test]
    #[ignore = "needs can-utils, and SocketCAN in the kernel"]
    fn canplayer_skips_empty_lines() {
        let folder = TempDir::new("empty-canplayer");
        let log = with_an_empty_line(&folder, "candump");
        let played = tool("canplayer", &["-t", "-I", &log, "stdout=can1"]);
        assert_eq!(played.lines().filter(|line| line.contains('#')).count(), 4, "{played}");
    }
}

/// Starts InfluxDB 1 in this folder; returns its HTTP port.
fn influxdb(folder: &TempDir) -> (Running, u16) {
    let (http, rpc, data) = (free_port(), free_port(), folder.0.join("influxdb").display().to_string());
    let config = format!(
        "reporting-disabled = true\nbind-address = \"127.0.0.1:{rpc}\"\n[meta]\ndir = \"{data}/meta\"\n[data]\n\
         dir = \"{data}/data\"\nwal-dir = \"{data}/wal\"\n[monitor]\nstore-enabled = false\n[http]\n\
         bind-address = \"127.0.0.1:{http}\"\n"
    );
    let config = folder.write("influxdb.conf", &config);
    let server = start(Command::new("influxd").arg("-config").arg(config));
    server.wait_for_stderr("Listening on HTTP");
    (server, http)
}

#[test]
#[ignore = "needs influxdb, curl"]
fn influxdb_skips_empty_lines_and_stores_events() {
    let folder = TempDir::new("empty-influx");
    let log = with_an_empty_line(&folder, "influx");
    let (_server, port) = influxdb(&folder);
    let url = format!("http://127.0.0.1:{port}");
    let curl = |arguments: &[&str]| tool("curl", &[&["-sS", "--fail", "--noproxy", "*"], arguments].concat());
    curl(&["-d", "q=CREATE DATABASE can", &format!("{url}/query")]);
    curl(&["--data-binary", &format!("@{log}"), &format!("{url}/write?db=can")]);
    let query = |query: &str| {
        curl(&["-H", "Accept: application/csv", "--data-urlencode", query, &format!("{url}/query?db=can")])
    };
    assert!(query("q=SELECT count(dlc) FROM can").contains("can,,0,4"));
    let events = query("q=SELECT text FROM can_event");
    assert_eq!(events.matches("BUSOFF").count(), 2, "{events}");
    assert_eq!(events.matches("ERRORWARNING SET").count(), 2, "{events}");
}
