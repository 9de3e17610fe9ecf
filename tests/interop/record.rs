//! Promise: a file that stdout is redirected to stays readable on a full disk, beside another writer, as a log that only root
//! can read, and for the programs that read it; errors that come late are reported. Needs root, util-linux, cc, tshark,
//! can-utils, influxd and python-can.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

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
begin = os.fstat(other).st_size
while listener.poll() is None and os.fstat(other).st_size == begin:
    pass
while listener.poll() is None:
    line = b"other %08d other %08d\n" % (number, number)
    number += 1
    while line and listener.poll() is None:
        try:
            count = os.write(other, line)
            accepted += count
            line = line[count:]
            time.sleep(0.0005)
        except OSError:
            pass
print(accepted)
sys.exit(listener.returncode)
"#;

#[test]
#[ignore = "needs root, to mount a tmpfs; CAN_TRIES: how many tries"]
fn nothing_that_another_program_wrote_is_removed() {
    let tries: u32 = env::var("CAN_TRIES").ok().and_then(|tries| tries.parse().ok()).unwrap_or(30);
    let (mut cut, mut frames) = (0, 0);
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
            frames += log.matches(" can1 100#").count();
            let text: String = log.chars().filter(|letter| "other".contains(*letter)).collect();
            assert!(text.starts_with("other"), "{output:?}");
            text.len()
        };
        // Each line has ten such letters among its 30 bytes; a piece at the end has the more of them.
        let (lines, rest) = (accepted / 30, accepted % 30);
        let piece = "other 00000000 other 00000000\n".chars().cycle().take(rest);
        let expected = 10 * lines + piece.filter(|letter| "other".contains(*letter)).count();
        assert_eq!(kept, expected, "try {number}: {accepted} bytes accepted; {}", output.stderr);
    }
    // The other program can be the one that fills the disk, before the listener writes anything.
    assert!(frames > 0, "no frame in {tries} tries");
    println!("{tries} tries; {cut} times the listener's piece was left and reported");
}

/// Two listeners that append to one file until the disk is full. Prints each exit code.
const TWO_LISTENERS: &str = r#"
head -c 51200 /dev/zero | tr '\0' - >"$disk/log"; echo >>"$disk/log"
"$@" --target "$first" >>"$disk/log" 2>"$out/first" & first=$!
"$@" --target "$second" >>"$disk/log" 2>"$out/second"; echo $?
wait $first; echo $?
cat "$disk/log" >"$out/log"
"#;

#[test]
#[ignore = "needs root, to mount a tmpfs; CAN_TRIES: how many tries"]
fn torn_line_of_two_listeners_is_reported() {
    let tries: u32 = env::var("CAN_TRIES").ok().and_then(|tries| tries.parse().ok()).unwrap_or(30);
    let mut torn = 0;
    for number in 0..tries {
        let folder = TempDir::new("two-listeners");
        let gateways = [1, 2].map(|_| Gateway::builder().frames_per_second(20_000.0).start());
        let mut command = on_a_small_disk(&folder, TWO_LISTENERS, &can_listen(["--format", "candump"]));
        command.env("first", gateways[0].target()).env("second", gateways[1].target());
        let output = run(&mut command);
        assert_eq!(output.text(), "1\n1\n", "{output:?}");
        let log = folder.read("log");
        let is_whole = |line: &str| line.len() == 45 && line.starts_with('(') && line.ends_with(char::is_alphanumeric);
        let cut = log.split_inclusive('\n').skip(1).filter(|line| !line.ends_with('\n') || !is_whole(line.trim_end()));
        let cut = cut.count();
        torn += usize::from(cut > 0);
        let stderr = folder.read("first") + &folder.read("second");
        let reported = stderr.matches("the file ends within a line").count();
        // What one leaves is one line that another may have continued.
        assert!(cut <= reported, "try {number}: {stderr}\n{}", log.get(log.len() - 500..).unwrap_or_default());
    }
    println!("{tries} tries; a torn line in {torn}");
}

/// Preloaded, makes fsync(2) and write(2) of regular files fail. `FSYNC` is fsync's error, or 0 for one that never returns;
/// `WRITE` is write's, once 1000 bytes were written. Each fsync appends a byte to the file `SYNCS`.
const FAILING_FILE: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static long room = 1000;

int fsync(int fd) {
    const char *error = getenv("FSYNC"), *path = getenv("SYNCS");
    if (path) {
        int syncs = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
        syscall(SYS_write, syncs, ".", 1);
        close(syncs);
    }
    if (!error) return 0;
    if (!atoi(error)) for (;;) pause();
    errno = atoi(error);
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    const char *error = getenv("WRITE");
    struct stat status;
    if (error && !fstat(fd, &status) && S_ISREG(status.st_mode)) {
        if (!room) return errno = atoi(error), -1;
        if (count > room) count = room;
        room -= count;
    }
    return syscall(SYS_write, fd, bytes, count);
}
"#;

/// A listener whose stdout is the file `log` in the folder, with this preloaded and these variables.
fn with_failing_file(folder: &TempDir, gateway: &Gateway, format: &str, variables: &[(&str, &str)]) -> Running {
    let (source, library) = (folder.write("failing.c", FAILING_FILE), folder.0.join("failing.so"));
    let mut compiler = Command::new("cc");
    let compiled = run(compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source));
    assert_eq!(compiled.code(), Some(0), "{compiled:?}");
    let mut listen = can_listen(["--target", &gateway.target(), "--format", format]);
    listen.env("LD_PRELOAD", library).env("SYNCS", folder.0.join("syncs")).envs(variables.iter().copied());
    start_with(&mut listen, File::create(folder.0.join("log")).expect("a file").into())
}

/// How often such a listener has called fsync.
fn syncs(folder: &TempDir) -> u64 {
    fs::metadata(folder.0.join("syncs")).map_or(0, |syncs| syncs.len())
}

#[test]
#[ignore = "needs cc"]
fn error_of_fsync_is_a_failure_on_the_last_line() {
    // EIO, ENOSPC, EDQUOT; EINVAL, EROFS, ENOSYS, EOPNOTSUPP.
    for (error, reason) in [
        ("5", "Input/output error (os error 5); check where it is redirected to"),
        ("28", "No space left on device (os error 28); make room there, or write to another disk"),
        ("122", "Disk quota exceeded (os error 122); make room there, or write to another disk"),
        ("22", ""),
        ("30", ""),
        ("38", ""),
        ("95", ""),
    ] {
        let folder = TempDir::new(&format!("fsync-{error}"));
        let gateway = Gateway::builder().frames_per_second(1000.0).start();
        let listener = with_failing_file(&folder, &gateway, "raw", &[("FSYNC", error)]);
        listener.wait_for_stderr("START sent");
        gateway.wait_until_streamed(50);
        listener.signal(Signal::SIGINT);
        let output = listener.wait();
        assert_eq!((syncs(&folder), folder.read("log").lines().count() >= 50), (1, true), "{output:?}");
        let (report, last) = output.stderr.trim_end().rsplit_once('\n').expect("lines");
        if reason.is_empty() {
            assert_eq!(output.code(), Some(0), "{output:?}");
            assert!(last.starts_with("can-stop --confirm "), "{output:?}");
        } else {
            assert_eq!(output.code(), Some(1), "{output:?}");
            assert_eq!(last, format!("can-listen: cannot write to stdout: {reason}"));
            assert!(report.lines().last().is_some_and(|line| line.starts_with("can-stop --confirm ")), "{output:?}");
        }
    }
}

#[test]
#[ignore = "needs cc"]
fn disk_that_hangs_is_named_and_a_second_signal_quits() {
    let folder = TempDir::new("fsync-hangs");
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let listener = with_failing_file(&folder, &gateway, "raw", &[("FSYNC", "0")]);
    listener.wait_for_stderr("START sent");
    listener.signal(Signal::SIGINT);
    listener.wait_for_stderr("can-listen: waiting for the disk to store the file; press Ctrl-C to quit now\n");
    assert!(listener.stderr_so_far().contains("stop it with:\ncan-stop "), "the report comes first");
    listener.signal(Signal::SIGINT);
    assert_eq!(listener.wait().code(), Some(130));
}

#[test]
#[ignore = "needs cc"]
fn full_quota_and_largest_file_have_their_advice() {
    // EDQUOT, EFBIG.
    for (error, advice) in [("122", "make room there, or write to another disk"), ("27", "4 GiB on FAT32")] {
        for format in FORMATS {
            let folder = TempDir::new(&format!("write-{error}-{format}"));
            let gateway = Gateway::builder().frames_per_second(1000.0).start();
            let output = with_failing_file(&folder, &gateway, format, &[("WRITE", error)]).wait();
            assert_eq!(output.code(), Some(1), "{output:?}");
            let last = output.stderr.lines().last().unwrap_or_default();
            assert!(last.starts_with("can-listen: cannot write to stdout: ") && last.contains(advice), "{output:?}");
            assert_eq!(last.contains("split"), error == "27", "{output:?}");
            assert!(output.stderr.contains(" not written to stdout\n"), "{output:?}");
            assert_eq!(syncs(&folder), 0, "after a failed write");
            let content = fs::read(folder.0.join("log")).expect("a file");
            assert!((800..=1000).contains(&content.len()), "{} bytes", content.len());
            assert!(if format == "pcap" { records(&content) > 20 } else { content.ends_with(b"\n") }, "{format}");
        }
    }
}

#[test]
#[ignore = "takes a minute"]
fn deletion_is_noticed_within_a_minute() {
    let folder = TempDir::new("deleted-in-a-minute");
    let path = folder.0.join("log");
    let gateway = Gateway::builder().frames_per_second(10.0).start();
    let listen = &mut can_listen(["--target", &gateway.target()]);
    let listener = start_with(listen, File::create(&path).expect("a file").into());
    listener.wait_for_stderr("START sent");
    fs::remove_file(&path).expect("the file");
    let deadline = Instant::now() + Duration::from_secs(70);
    while !listener.stderr_so_far().contains("was deleted") {
        assert!(Instant::now() < deadline, "{}", listener.stderr_so_far());
        thread::sleep(Duration::from_millis(100));
    }
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
            assert!(output.stderr.contains("cannot continue the file"), "{output:?}");
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
