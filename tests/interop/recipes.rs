//! Other programs read back what the simulated gateway sent: can-utils, python-can, cantools, tshark, InfluxDB, MQTT and
//! Kafka; and the README's recipes do what it says, executed as they are written.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use can_udp::format::{PCAP_HEADER, write_pcap_record};

use crate::programs::{
    Output, Running, TempDir, clean, frame, free_port, queued, run, send_at_the_pace_of, start, wait_until,
};
use crate::simulator::Gateway;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

const README: &str = include_str!("../../README.md");

/// What installs the other programs.
const SOURCES: [(&str, &str); 18] = [
    ("kcat", "apt-get install kcat"),
    ("sshd", "apt-get install openssh-server"),
    ("ssh", "apt-get install openssh-client"),
    ("sudo", "apt-get install sudo"),
    ("script", "apt-get install bsdutils"),
    ("setsid", "apt-get install util-linux"),
    ("tshark", "apt-get install tshark"),
    ("ts", "apt-get install moreutils"),
    ("pv", "apt-get install pv"),
    ("mawk", "apt-get install mawk"),
    ("log2asc", "apt-get install can-utils"),
    ("influxd", "apt-get install influxdb"),
    ("curl", "apt-get install curl"),
    ("mosquitto", "apt-get install mosquitto"),
    ("mosquitto_pub", "apt-get install mosquitto-clients"),
    ("mosquitto_sub", "apt-get install mosquitto-clients"),
    ("python3", "apt-get install python3"),
    ("cantools", "pip install cantools"),
];

/// The PATH of the tests: the built programs first; servers are in /usr/sbin, which a user's PATH may lack.
fn path() -> String {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_can-listen"));
    let built = built.parent().expect("a folder").display();
    format!("{built}:{}:/usr/sbin", env::var("PATH").unwrap_or_default())
}

/// The file of a program that must be installed.
#[track_caller]
fn find(program: &str) -> PathBuf {
    let source = SOURCES.iter().find(|(name, _)| *name == program).map_or("part of any system", |source| source.1);
    let found = env::split_paths(&path()).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("this test needs {program}: {source}"))
}

/// A program that must be installed, without variables in its environment that change its behaviour.
#[track_caller]
fn tool(program: &str) -> Command {
    let mut command = clean(find(program));
    command
        .env("PATH", path())
        .env("no_proxy", "127.0.0.1")
        .env_remove("PYTHONUNBUFFERED")
        .env_remove("RUST_BACKTRACE");
    command
}

#[track_caller]
fn need(programs: &[&str]) {
    programs.iter().for_each(|program| drop(find(program)));
}

#[track_caller]
fn need_python_can() {
    let found = run(tool("python3").args(["-c", "import can"]));
    assert_eq!(found.code(), Some(0), "this test needs python-can: pip install python-can");
}

/// Commands that bash runs in a process group of their own, as at a terminal. Dropping it kills them all.
struct Pipeline {
    group: Group,
    bash: Running,
}

struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

impl Pipeline {
    #[track_caller]
    fn start(folder: &TempDir, gateway: &Gateway, commands: &str) -> Pipeline {
        let mut bash = tool("bash");
        bash.args(["-c", commands]).current_dir(&folder.0).process_group(0);
        let bash = start(bash.env("CAN_TARGET", gateway.target()).env("CAN_BIND", "127.0.0.1:0"));
        Pipeline { group: Group(Pid::from_raw(bash.id() as i32)), bash }
    }

    /// Ctrl-C goes to every program of the pipeline.
    fn press_ctrl_c(&self) {
        killpg(self.group.0, Signal::SIGINT).expect("the group can be signalled");
    }

    #[track_caller]
    fn end(self) -> Output {
        let Pipeline { group: _group, bash } = self;
        bash.wait()
    }
}

/// A frame that the gateway sends and that another program reads back.
struct Frame {
    number: usize,
    extended: bool,
    id: u32,
    kind: Kind,
    length: usize,
    data: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Classic,
    Remote,
    Fd,
    FdWithSwitch,
}

/// Every kind, in every length it can have, with small and large identifiers.
fn frames() -> Vec<Frame> {
    let classic = &[0, 1, 2, 3, 4, 5, 6, 7, 8][..];
    let fd = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64][..];
    let mut frames = Vec::new();
    for (extended, id) in [
        (false, 0),
        (false, 0x1),
        (false, 0x100),
        (false, 0x7FF),
        (true, 0),
        (true, 0x64),
        (true, 0x7FF),
        (true, 0x18FE0201),
        (true, 0x1FFFFFFF),
    ] {
        for (kind, lengths) in
            [(Kind::Classic, classic), (Kind::Remote, classic), (Kind::Fd, fd), (Kind::FdWithSwitch, fd)]
        {
            for &length in lengths {
                let number = frames.len();
                let bytes = if kind == Kind::Remote { 0 } else { length };
                let data = (0..bytes).map(|index| (number * 31 + index * 17) as u8).collect();
                frames.push(Frame { number, extended, id, kind, length, data });
            }
        }
    }
    frames
}

impl Frame {
    /// The CAN port of the gateway, 1 to 4.
    fn channel(&self) -> usize {
        self.number % 4 + 1
    }

    fn hex(&self) -> String {
        self.data.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// The line of the gateway; every second frame has its identifier padded.
    fn line(&self) -> String {
        let protocol = match self.kind {
            Kind::Classic | Kind::Remote => 'C',
            Kind::Fd => 'N',
            Kind::FdWithSwitch => 'F',
        };
        let format = if self.extended { 'E' } else { 'S' };
        let purpose = if self.kind == Kind::Remote { 'R' } else { 'D' };
        let padded = [0, if self.extended { 8 } else { 3 }][self.number % 2];
        let mut line = format!("M {} {protocol}{format}{purpose} {:0padded$X}", self.channel(), self.id);
        match self.kind {
            Kind::Remote => line += &format!(" dlc={:02}", self.length),
            _ => line.extend(self.data.iter().map(|byte| format!(" {byte:02X}"))),
        }
        line + ["\n", "\r\n", "\r"][self.number % 3]
    }

    /// The form in which all programs' readings are compared: interface, identifier, flags (extended, remote, FD,
    /// bit-rate switch), length, data.
    fn view(&self) -> String {
        let flags = [self.extended, self.kind == Kind::Remote, self.is_fd(), self.kind == Kind::FdWithSwitch];
        view(&format!("can{}", self.channel()), &format!("{:X}", self.id), flags, self.length, &self.hex())
    }

    fn is_fd(&self) -> bool {
        matches!(self.kind, Kind::Fd | Kind::FdWithSwitch)
    }
}

fn view(interface: &str, id: &str, flags: [bool; 4], length: usize, data: &str) -> String {
    let flags: String = flags.map(|flag| if flag { '1' } else { '0' }).iter().collect();
    format!("{interface} {id} {flags} {length} {data}")
}

/// Runs `can-listen` on all the frames, some alone and some with others in one datagram, then `commands` on its output,
/// the file `bus`. Returns what they printed.
#[track_caller]
fn listen(folder: &TempDir, format: &str, commands: &str) -> (Gateway, Output) {
    let mut datagrams = Vec::new();
    let mut lines = frames().into_iter().map(|frame| frame.line()).peekable();
    while lines.peek().is_some() {
        let together = [1, 1, 2, 9][datagrams.len() % 4];
        datagrams.push(lines.by_ref().take(together).collect::<String>().into_bytes());
    }
    let count = frames().len();
    let gateway = Gateway::builder()
        .frames_per_second(2000.0)
        .stop_after_frames(datagrams.len() as u64)
        .frame_maker(move |n| datagrams[n as usize].clone())
        .start();
    let listen = format!("can-listen --filter STD:0:0 --filter EXT:0:0 --format {format} --count {count} > bus");
    let finished = Pipeline::start(folder, &gateway, &format!("{listen} && {commands}")).end();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    (gateway, finished)
}

/// Asserts that every frame was read back as it was sent.
#[track_caller]
fn assert_same<T: AsRef<str>>(read: impl IntoIterator<Item = T>, sent: impl IntoIterator<Item = String>) {
    let (read, sent): (Vec<_>, Vec<_>) = (read.into_iter().collect(), sent.into_iter().collect());
    for (read, sent) in read.iter().zip(&sent) {
        assert_eq!(read.as_ref(), sent);
    }
    assert_eq!(read.len(), sent.len());
}

#[test]
#[ignore = "needs can-utils"]
fn log2asc_logs_every_frame() {
    need(&["log2asc"]);
    let folder = TempDir::new("log2asc");
    listen(&folder, "candump", "log2asc -I bus -O bus.asc can1 can2 can3 can4");
    let log = folder.read("bus.asc");
    let read = log.lines().skip(3).map(|line| {
        let mut tokens = line.split_whitespace().skip(1).peekable();
        let fd = tokens.next_if_eq(&"CANFD").is_some();
        let mut token = || tokens.next().expect(line);
        let (channel, id, remote, switch) = if fd {
            let (channel, _rx, id, switch) = (token(), token(), token(), token() == "1");
            let (_error_state_indicator, _data_length_code) = (token(), token());
            (channel, id, false, switch)
        } else {
            let (channel, id, _rx, remote) = (token(), token(), token(), token() == "r");
            (channel, id, remote, false)
        };
        let length = token().parse().expect(line);
        // More numbers follow the data of an FD frame.
        let data: String = if remote { String::new() } else { tokens.take(length).collect() };
        let flags = [id.ends_with('x'), remote, fd, switch];
        view(&format!("can{channel}"), id.trim_end_matches('x'), flags, length, &data)
    });
    assert_same(read, frames().iter().map(Frame::view));
}

#[test]
#[ignore = "needs python-can"]
fn python_can_reads_every_frame() {
    const PRINT_ALL: &str = r#"
from can.io import CanutilsLogReader
for m in CanutilsLogReader("bus"):
    flags = "".join("01"[flag] for flag in (m.is_extended_id, m.is_remote_frame, m.is_fd, m.bitrate_switch))
    print(m.channel, f"{m.arbitration_id:X}", flags, m.dlc, m.data.hex().upper())
"#;
    need_python_can();
    let (_, finished) = listen(&TempDir::new("python-can"), "candump", &format!("python3 -c '{PRINT_ALL}'"));
    assert_same(finished.text().lines(), frames().iter().map(Frame::view));
}

/// A message with a standard identifier and one with an extended one.
const DBC: &str = r#"VERSION ""
NS_ :
BS_:
BU_: ECU
BO_ 256 Counter: 4 ECU
 SG_ Number : 7|32@0+ (1,0) [0|0] "" ECU
BO_ 257 Engine: 8 ECU
 SG_ Speed : 0|16@1+ (0.25,0) [0|16383.75] "rpm" ECU
 SG_ Temperature : 16|8@1- (1,-40) [-168|87] "degC" ECU
BO_ 2566783489 Battery: 2 ECU
 SG_ Voltage : 0|16@1+ (0.01,0) [0|655.35] "V" ECU
"#;

#[test]
#[ignore = "needs cantools"]
fn cantools_decodes_standard_and_extended_signals() {
    need(&["cantools"]);
    let folder = TempDir::new("cantools");
    folder.write("bus.dbc", DBC);
    let lines = [&b"M 1 CSD 101 40 1F 5A 00 00 00 00 00\n"[..], b"M 2 CED 18FE0201 D2 04\n"];
    let gateway =
        Gateway::builder().frames_per_second(1000.0).frame_maker(move |n| lines[n as usize % 2].to_vec()).start();
    let commands = "can-listen --filter STD:0:0 --filter EXT:0:0 --format candump --count 2 |
        cantools decode --single-line bus.dbc";
    let finished = Pipeline::start(&folder, &gateway, commands).end();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let expected = [
        "can1 101#401F5A0000000000 :: Engine(Speed: 2000.0 rpm, Temperature: 50 degC)",
        "can2 18FE0201#D204 :: Battery(Voltage: 12.34 V)",
    ];
    assert_eq!(without_times(&finished.text()), expected);
}

#[test]
#[ignore = "needs cantools"]
fn dbc_of_the_readme_decodes_the_simulated_gateway() {
    need(&["cantools"]);
    let folder = TempDir::new("dbc");
    folder.write("bus.dbc", &format!("{}\n", block("VERSION \"\"")));
    let gateway = Gateway::builder().frames_per_second(100.0).start();
    let commands = format!("can-listen --format candump -n 2 > bus.log && {}", recipe("cantools decode "));
    let finished = Pipeline::start(&folder, &gateway, &commands).end();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let decoded = folder.read("bus.decoded");
    assert!(decoded.lines().next().is_some_and(|line| line.ends_with(" :: Counter(Number: 0)")), "{decoded}");
}

/// A TCP port that is free now and outside the range from which the system assigns ports.
fn free_tcp_port() -> u16 {
    loop {
        let port = free_port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An InfluxDB server. Dropping it kills it; its data stays in the folder.
struct InfluxDb {
    port: u16,
    _server: Running,
}

impl InfluxDb {
    #[track_caller]
    fn start(folder: &TempDir, port: u16) -> InfluxDb {
        let (data, other_port) = (folder.0.join("influxdb").display().to_string(), free_tcp_port());
        let config = format!(
            r#"
reporting-disabled = true
bind-address = "127.0.0.1:{other_port}"
[meta]
dir = "{data}/meta"
[data]
dir = "{data}/data"
wal-dir = "{data}/wal"
query-log-enabled = false
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
"#
        );
        folder.write("influxdb.conf", &config);
        let server = start(tool("influxd").arg("-config").arg(folder.0.join("influxdb.conf")));
        server.wait_for_stderr("Listening on HTTP");
        let server = InfluxDb { port, _server: server };
        let create = run(tool("bash").args(["-c", &server.with_address(recipe("curl "))]));
        assert_eq!(create.text(), "{\"results\":[{\"statement_id\":0}]}\n", "{create:?}");
        server
    }

    /// The commands of the recipe, with the address of this server.
    #[track_caller]
    fn recipe(&self, folder: &TempDir) -> String {
        to_influx(folder, &self.with_address(block(TO_INFLUX)))
    }

    fn with_address(&self, recipe: &str) -> String {
        replaced(recipe, "localhost:8086", &format!("127.0.0.1:{}", self.port))
    }

    /// The rows of the answer; the first has the names of the columns.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<String> {
        let mut curl = tool("curl");
        curl.args(["-sS", "--fail", "-H", "Accept: application/csv", "--data-urlencode", &format!("q={query}")]);
        curl.args(["-d", "db=can", "-d", "epoch=ns", &format!("http://127.0.0.1:{}/query", self.port)]);
        let finished = run(&mut curl);
        assert_eq!(finished.code(), Some(0), "{query}: {finished:?}");
        finished.text().lines().map(str::to_owned).collect()
    }

    /// The data of all the frames, in the order of their times.
    #[track_caller]
    fn data(&self) -> Vec<String> {
        let rows = self.query("SELECT data FROM can");
        rows.iter().skip(1).filter_map(|row| Some(row.rsplit_once(',')?.1.to_owned())).collect()
    }
}

#[test]
#[ignore = "needs influxdb, curl"]
fn influxdb_stores_a_point_with_its_own_time_per_frame() {
    need(&["influxd", "curl"]);
    let folder = TempDir::new("influxdb");
    let server = InfluxDb::start(&folder, free_tcp_port());
    let post = format!("curl -sS --fail --data-binary @bus 'http://127.0.0.1:{}/write?db=can'", server.port);
    let (gateway, _) = listen(&folder, "influx", &post);

    let columns = |byte: &dyn Fn(usize) -> String| (0..64).map(byte).collect::<Vec<_>>().join(",");
    let columns_of = |frame: &Frame| {
        let (channel, id) = (frame.channel(), frame.id);
        let id = if frame.extended { format!("{id:08X}") } else { format!("{id:03X}") };
        let rtr = if frame.kind == Kind::Remote { "true" } else { "" };
        let bytes = columns(&|index| frame.data.get(index).map(u8::to_string).unwrap_or_default());
        let fd = match frame.kind {
            Kind::Fd => "true,false",
            Kind::FdWithSwitch => "true,true",
            _ => ",",
        };
        format!("{},{channel},{id},{},{},{rtr},{fd},{bytes}", gateway.target(), frame.length, frame.hex())
    };
    let names = format!("device,channel,id,dlc,data,rtr,fd,brs,{}", columns(&|index| format!("b{index}")));
    let rows = server.query(&format!("SELECT {names} FROM can"));
    assert_eq!(rows[0], format!("name,tags,time,{names}"));
    let rows = rows[1..].iter().map(|row| row.strip_prefix("can,,").and_then(|row| row.split_once(',')).expect(row));
    let (times, points): (BTreeSet<_>, Vec<_>) = rows.map(|(time, point)| (time, point.to_owned())).unzip();
    assert_same(points, frames().iter().map(columns_of));
    assert_eq!(times.len(), frames().len());

    // In a table an empty field looks like a missing one.
    let remote = frames().iter().filter(|frame| frame.kind == Kind::Remote).count();
    let counts = server.query("SELECT count(data), count(rtr) FROM can");
    assert_eq!(counts[1], format!("can,,0,{},{remote}", frames().len() - remote));
}

/// The README's section with the recipes.
fn recipes() -> &'static str {
    let (_, after) = README.split_once("\n## Recipes\n").expect("a section with recipes");
    after.split("\n## ").next().unwrap_or_default()
}

/// The one line of the README that begins so.
#[track_caller]
fn recipe(beginning: &str) -> &'static str {
    let lines: Vec<_> = README.lines().filter(|line| line.starts_with(beginning)).collect();
    let [line] = lines[..] else { panic!("not one recipe that begins with {beginning:?}: {lines:?}") };
    line
}

/// A recipe with the function that it uses.
#[track_caller]
fn sink_recipe(beginning: &str) -> String {
    format!("{}\n{}", block("sink() {"), recipe(beginning))
}

/// The beginning of the script that writes to InfluxDB.
const TO_INFLUX: &str = "url='http://localhost:8086/write";

/// Writes the script that the recipe for InfluxDB needs; returns the recipe.
#[track_caller]
fn to_influx(folder: &TempDir, script: &str) -> String {
    folder.write("to-influx", script);
    sink_recipe("can-listen --format influx | sink ")
}

/// The one block of code in that language among the recipes.
#[track_caller]
fn recipe_in(language: &str) -> &'static str {
    let blocks: Vec<_> = recipes().split(&format!("\n```{language}\n")).skip(1).collect();
    let [block] = blocks[..] else { panic!("not one recipe in {language}") };
    block.split("```").next().unwrap_or_default()
}

/// `text` with `from`, which it must contain, replaced by `to`.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text:?}");
    text.replace(from, to)
}

/// Runs a test in several locales at the same time: without and with UTF-8, and one in which a comma stands before decimals.
/// Its arguments are the locale's name and the command that sets it.
#[track_caller]
fn in_each_locale(test: impl Fn(&str, &str) + Sync) {
    // Where a locale is missing, programs use C without a message.
    let known = run(tool("locale").arg("-a")).text();
    assert!(
        known.contains("de_DE.utf8"),
        "this test needs de_DE.UTF-8: localedef -i de_DE -f UTF-8 de_DE.UTF-8 (locales)"
    );
    let test = &test;
    thread::scope(|scope| {
        for name in ["C", "C.UTF-8", "de_DE.UTF-8"] {
            scope.spawn(move || test(name, &format!("export LC_ALL={name}\n")));
        }
    });
}

/// The number of frames that a recipe is tried with: more than one batch for InfluxDB.
const FRAMES: u32 = 2000;

/// Runs a recipe on a slow bus, where each frame must be in its output before the next one is sent, then on a busy bus
/// that ends with Ctrl-C.
#[track_caller]
fn try_recipe(folder: &TempDir, commands: &str, output: impl Fn(&Pipeline) -> String) -> Output {
    let gateway = Gateway::start();
    let pipeline = Pipeline::start(folder, &gateway, commands);
    gateway.wait_for_command("CAN 1 START\n");
    for number in 0..2 {
        gateway.send(frame(number));
        wait_until("a frame on a slow bus", || output(&pipeline).lines().count() > number as usize);
    }
    send_the_rest_and_press_ctrl_c(&gateway, &pipeline, 2);
    let finished = pipeline.end();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    finished
}

/// Sends the frames from `first` on, and Ctrl-C right after the last hundred.
#[track_caller]
fn send_the_rest_and_press_ctrl_c(gateway: &Gateway, pipeline: &Pipeline, first: u32) {
    let last = FRAMES - 100;
    let client = gateway.wait_for_command("CAN 1 START\n").from;
    send_at_the_pace_of(client, (first..last).map(frame), |datagram| gateway.send(datagram));
    (last..FRAMES).for_each(|number| gateway.send(frame(number)));
    pipeline.press_ctrl_c();
}

fn stdout(pipeline: &Pipeline) -> String {
    String::from_utf8_lossy(&pipeline.bash.stdout_so_far()).into_owned()
}

/// Lines of a candump log without the time in front.
fn without_times(log: &str) -> Vec<&str> {
    log.lines().map(|line| line.split_once(") ").map_or(line, |(_, rest)| rest)).collect()
}

fn candump(number: u32) -> String {
    format!("can1 100#{number:08X}")
}

fn hex(number: u32) -> String {
    format!("{number:08X}")
}

#[test]
#[ignore = "needs bash, grep"]
fn grep_recipe_shows_a_line_at_once() {
    let (folder, gateway) = (TempDir::new("grep"), Gateway::start());
    let pipeline = Pipeline::start(&folder, &gateway, recipe("can-listen | grep "));
    gateway.wait_for_command("CAN 1 START\n");
    for number in 0..2 {
        gateway.send("M 1 CSD 200 00\n");
        // As from a gateway that is broken: grep takes the rest for binary data, and shows none of it without -a.
        gateway.send(b"M 1 CSD 200 \0\xFF\n");
        gateway.send(frame(number));
        pipeline.bash.wait_for_lines(number as usize + 1);
    }
    pipeline.press_ctrl_c();
    assert_eq!(pipeline.end().stdout, [frame(0), frame(1)].concat());
}

#[test]
#[ignore = "needs can-utils"]
fn file_and_log2asc_recipes_keep_every_frame() {
    need(&["log2asc"]);
    let folder = TempDir::new("file");
    try_recipe(&folder, recipe("can-listen --format candump > "), |_| folder.read("bus.log"));
    assert_same(without_times(&folder.read("bus.log")), (0..FRAMES).map(candump));

    let finished = run(tool("bash").args(["-c", recipe("log2asc ")]).current_dir(&folder.0));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let log = folder.read("bus.asc");
    let data = log.lines().filter_map(|line| Some(line.split_once(" Rx   d 4 ")?.1.replace(' ', "")));
    assert_same(data, (0..FRAMES).map(hex));
}

#[test]
#[ignore = "needs bash, split"]
fn split_recipe_keeps_every_frame_in_whole_lines() {
    let as_written = recipe("can-listen --format candump | (trap '' INT; exec split ");
    // Of that size, the few frames fill several files.
    for (commands, count) in [(as_written, 1..=1), (&replaced(as_written, "-C 100M", "-C 20k"), 3..=9)] {
        let folder = TempDir::new("split");
        let files = || {
            let entries = fs::read_dir(&folder.0).expect("the folder").map(|entry| entry.expect("a file").path());
            let paths: BTreeSet<_> = entries.collect();
            paths.iter().map(|path| fs::read_to_string(path).expect("text")).collect::<Vec<_>>()
        };
        try_recipe(&folder, commands, |_| files().concat());
        assert_same(without_times(&files().concat()), (0..FRAMES).map(candump));
        assert!(files().iter().all(|file| file.ends_with('\n')));
        assert!(count.contains(&files().len()), "{} files", files().len());
    }
}

#[test]
#[ignore = "needs cantools"]
fn cantools_recipes_decode_every_frame() {
    need(&["cantools"]);
    let folder = TempDir::new("cantools-recipe");
    folder.write("bus.dbc", DBC);
    let beginning = "can-listen --format candump | (trap '' INT; PYTHONUNBUFFERED=1 exec cantools ";
    let finished = try_recipe(&folder, recipe(beginning), stdout);
    let decoded = |number| format!("{} :: Counter(Number: {number})", candump(number));
    assert_same(without_times(&finished.text()), (0..FRAMES).map(decoded));

    try_recipe(&folder, recipe("can-listen --format candump > "), |_| folder.read("bus.log"));
    let finished = run(tool("bash").args(["-c", recipe("cantools decode ")]).current_dir(&folder.0));
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_same(without_times(&folder.read("bus.decoded")), (0..FRAMES).map(decoded));
}

#[test]
#[ignore = "needs cantools[plot], de_DE.UTF-8"]
fn cantools_plot_recipe_draws_a_signal() {
    need(&["cantools"]);
    in_each_locale(|name, locale| {
        let (folder, gateway) =
            (TempDir::new(&format!("plot-{name}")), Gateway::builder().frames_per_second(1000.0).start());
        folder.write("bus.dbc", &format!("{}\n", block("VERSION \"\"")));
        let commands = format!("{locale}can-listen --format candump -n 500 > bus.log && {}", recipe("cantools plot "));
        // As on a machine without a screen.
        let finished = Pipeline::start(&folder, &gateway, &format!("unset DISPLAY WAYLAND_DISPLAY\n{commands}")).end();
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert!(!finished.text().contains("WARNING") && !finished.stderr.contains("WARNING"), "{finished:?}");
        let picture = fs::read(folder.0.join("bus.png")).expect("a picture");
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5000, "{} bytes", picture.len());
    });
}

#[test]
#[ignore = "needs python-can"]
fn python_can_recipe_reads_every_frame() {
    need_python_can();
    let (folder, script) = (TempDir::new("python-recipe"), recipe_in("python"));
    folder.write("this.py", script);
    let commands = script.lines().next().and_then(|line| line.strip_prefix("# ")).expect("how it is run");
    let finished = try_recipe(&folder, commands, stdout);
    assert_same(finished.text().lines(), (0..FRAMES).map(|number| format!("256 {number:08x}")));
}

#[test]
#[ignore = "needs influxdb, curl"]
fn influxdb_recipe_stores_every_frame() {
    need(&["influxd", "curl"]);
    let folder = TempDir::new("influxdb-recipe");
    let server = InfluxDb::start(&folder, free_tcp_port());
    try_recipe(&folder, &server.recipe(&folder), |_| server.data().join("\n"));
    assert_same(server.data(), (0..FRAMES).map(hex));

    // What Grafana puts in place of its variables.
    let query = replaced(block("SELECT last("), "$timeFilter", "time > now() - 1h");
    let rows = server.query(query.trim());
    assert_eq!(rows[0], "name,tags,time,byte 0,frames/s");
    let fields = rows[1..].iter().map(|row| row.rsplitn(3, ',').map(|field| field.parse::<f64>()));
    let (mut frames, mut bytes) = (0.0, BTreeSet::new());
    for mut row in fields {
        frames += 10.0 * row.next().and_then(Result::ok).expect("frames/s");
        bytes.insert(row.next().and_then(Result::ok).expect("byte 0") as u8);
    }
    assert_eq!((frames.round() as u32, bytes), (FRAMES, BTreeSet::from([0])), "{rows:?}");
    assert!(rows[1].contains("device="), "{rows:?}");
}

#[test]
#[ignore = "needs influxdb, curl"]
fn influxdb_recipe_waits_for_a_late_server() {
    need(&["influxd", "curl"]);
    let (folder, gateway) = (TempDir::new("influxdb-late"), Gateway::start());
    let server = InfluxDb::start(&folder, free_tcp_port());
    let (port, commands) = (server.port, server.recipe(&folder));
    drop(server); // the database is in the folder

    let pipeline = Pipeline::start(&folder, &gateway, &commands);
    gateway.wait_for_command("CAN 1 START\n");
    gateway.send(frame(0));
    pipeline.bash.wait_for_stderr("curl: (7) Failed to connect");
    send_the_rest_and_press_ctrl_c(&gateway, &pipeline, 1);
    pipeline.bash.wait_for_stderr("waiting for the process reading stdout");
    let server = InfluxDb::start(&folder, port);
    let finished = pipeline.end();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_same(server.data(), (0..FRAMES).map(hex));
}

/// An MQTT broker, on this port.
#[track_caller]
fn mosquitto(folder: &TempDir, port: &str) -> Running {
    let config = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n");
    let config = folder.write("mosquitto.conf", &config);
    let broker = start(tool("mosquitto").arg("-v").arg("-c").arg(config));
    broker.wait_for_stderr("running");
    broker
}

#[test]
#[ignore = "needs mosquitto, mosquitto-clients"]
fn mqtt_recipe_publishes_every_frame() {
    need(&["mosquitto_pub"]);
    let (folder, port) = (TempDir::new("mqtt"), free_tcp_port().to_string());
    let broker = mosquitto(&folder, &port);
    let subscriber = start(tool("mosquitto_sub").args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "can/gw1"]));
    broker.wait_for_stderr("Sending SUBACK");
    let recipe = sink_recipe("can-listen --format candump | sink mosquitto_pub ");
    let commands = replaced(&recipe, "-h localhost ", &format!("-h 127.0.0.1 -p {port} "));
    let received = || String::from_utf8_lossy(&subscriber.stdout_so_far()).into_owned();
    try_recipe(&folder, &commands, |_| received());
    subscriber.wait_for_lines(FRAMES as usize);
    assert_same(without_times(&received()), (0..FRAMES).map(candump));
}

#[test]
#[ignore = "needs moreutils, de_DE.UTF-8"]
fn ts_recipe_stamps_each_line_at_once() {
    need(&["ts"]);
    in_each_locale(|name, locale| {
        let folder = TempDir::new(&format!("ts-{name}"));
        let commands = format!("{locale}{}", recipe("can-listen | (trap '' INT; exec ts "));
        let finished = try_recipe(&folder, &commands, |pipeline| {
            stdout(pipeline).lines().filter(|line| line.contains("CSD")).collect::<Vec<_>>().join("\n")
        });
        let text = finished.text();
        let lines = text.lines().map(|line| line.split_once(' ').expect("a time"));
        let (times, lines): (Vec<&str>, Vec<String>) = lines.map(|(time, line)| (time, format!("{line}\n"))).unzip();
        assert!(times.iter().all(|time| time.parse::<f64>().is_ok_and(|time| time > 1e9)), "{times:?}");
        assert_same(&lines[1..], (0..FRAMES).map(|number| String::from_utf8(frame(number)).expect("text")));
    });
}

#[test]
#[ignore = "needs moreutils"]
fn messages_recipe_adds_the_time_to_each() {
    need(&["ts"]);
    let (folder, gateway) = (TempDir::new("messages"), Gateway::start());
    let pipeline = Pipeline::start(&folder, &gateway, recipe("can-listen > bus.txt 2> >(trap "));
    let messages = || fs::read_to_string(folder.0.join("bus.err")).unwrap_or_default();
    wait_until("a message", || messages().contains("START sent"));
    pipeline.press_ctrl_c();
    assert_eq!(pipeline.end().code(), Some(0));
    wait_until("the report", || messages().contains("can-stop --confirm"));
    let messages = messages();
    // As in "Jan 31 23:59:59 can-listen: ", or without the program's name where the line to copy is alone.
    let is_timed = |line: &&str| line.split(' ').nth(2).is_some_and(|time| time.split(':').count() == 3);
    assert!(messages.lines().count() >= 4 && messages.lines().all(|line| is_timed(&line)), "{messages}");
}

/// Asserts that `bus.txt` has the answer to START and every frame.
#[track_caller]
fn try_recipe_for_bus_txt(name: &str, commands: &str) {
    let folder = TempDir::new(name);
    try_recipe(&folder, commands, |_| {
        let so_far = fs::read_to_string(folder.0.join("bus.txt")).unwrap_or_default();
        so_far.lines().skip(1).collect::<Vec<_>>().join("\n")
    });
    let frames = (0..FRAMES).map(|number| String::from_utf8(frame(number)).expect("text"));
    assert_eq!(folder.read("bus.txt"), "R ok\n".to_owned() + &frames.collect::<String>());
}

#[test]
#[ignore = "needs bash, tee"]
fn tee_recipe_keeps_every_frame() {
    try_recipe_for_bus_txt("tee", recipe("can-listen | (trap '' INT; exec tee bus.txt)"));
}

#[test]
#[ignore = "needs pv"]
fn pv_recipe_with_a_file_keeps_every_frame() {
    need(&["pv"]);
    // pv exits with an error at Ctrl-C.
    let commands = format!("{}\n[ $PIPESTATUS = 0 ]", recipe("can-listen | (trap '' INT; exec tee -p "));
    try_recipe_for_bus_txt("pv", &commands);
}

/// `commands` on a terminal of its own. Dropping it closes the terminal.
#[track_caller]
fn start_on_a_terminal(folder: &TempDir, gateway: &Gateway, commands: &str) -> Running {
    let mut script = tool("script");
    script.args(["-qec", commands, "/dev/null"]).current_dir(&folder.0);
    start(script.env("CAN_TARGET", gateway.target()).env("CAN_BIND", "127.0.0.1:0").env("SHELL", "/bin/bash"))
}

#[test]
#[ignore = "needs pv, script, de_DE.UTF-8"]
fn pv_recipe_shows_the_rate_on_a_terminal() {
    need(&["pv"]);
    for beginning in ["can-listen | pv ", "can-listen | (trap '' INT; exec tee -p "] {
        in_each_locale(|name, locale| {
            let folder = TempDir::new(&format!("pv-terminal-{name}"));
            let gateway = Gateway::builder().frames_per_second(100.0).start();
            let terminal = start_on_a_terminal(&folder, &gateway, &format!("{locale}{}", recipe(beginning)));
            wait_until("a rate near 100/s", || {
                let shown = String::from_utf8_lossy(&terminal.stdout_so_far()).replace(',', ".");
                let rates = shown.split('[').filter_map(|part| part.split(" /s]").next()?.trim().parse::<f64>().ok());
                rates.into_iter().any(|rate| (50.0..200.0).contains(&rate))
            });
        });
    }
}

#[test]
#[ignore = "needs script, nohup"]
fn nohup_recipe_survives_the_terminal() {
    let folder = TempDir::new("nohup");
    let gateway = Gateway::builder().frames_per_second(100.0).start();
    let commands = format!("{}\necho $! > pid; sleep 60", recipe("nohup can-listen "));
    let terminal = start_on_a_terminal(&folder, &gateway, &commands);
    let frames = || fs::read_to_string(folder.0.join("bus.txt")).unwrap_or_default().matches("CSD").count();
    wait_until("frames", || frames() > 10);
    drop(terminal);
    wait_until("the message", || folder.read("bus.err").contains("the terminal has closed"));
    // A second of frames: a signal that comes as the terminal closes counts as its closing.
    let before = frames();
    wait_until("more frames", || frames() > before + 100);
    let pid = folder.read("pid").trim().parse().expect("a process number");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it can be signalled");
    wait_until("the report", || folder.read("bus.err").contains("lost: 0 in the kernel"));
}

#[test]
#[ignore = "needs bash, timeout"]
fn timeout_recipe_ends_in_time_with_0() {
    let gateway = Gateway::builder().frames_per_second(100.0).start();
    let commands = replaced(recipe("timeout --preserve-status 60 "), "60", "2");
    let finished = Pipeline::start(&TempDir::new("timeout"), &gateway, &commands).end();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.text().lines().count() > 50, "{finished:?}");
}

#[test]
#[ignore = "needs bash"]
fn filter_recipe_asks_for_one_identifier() {
    let gateway = Gateway::builder().frames_per_second(100.0).start();
    let pipeline = Pipeline::start(&TempDir::new("filter"), &gateway, recipe("can-listen --filter STD:123:7FF"));
    pipeline.bash.wait_for_lines(2);
    pipeline.press_ctrl_c();
    assert_eq!(pipeline.end().code(), Some(0));
    assert!(gateway.commands().contains(&"CAN 1 FILTER ADD STD 123 7FF\n".to_owned()), "{:?}", gateway.commands());
}

/// A block of code that begins so, up to its end.
#[track_caller]
fn block(beginning: &str) -> &'static str {
    let (_, after) = README.split_once(&format!("\n{beginning}")).unwrap_or_else(|| panic!("no {beginning:?}"));
    let start = README.len() - after.len() - beginning.len();
    README[start..].split("\n```").next().unwrap_or_default()
}

#[test]
#[ignore = "needs bash, timeout and 90 s"]
fn bit_rate_recipe_finds_the_last_rate_within_100_s() {
    let commands = block("for rate in ");
    let rates = commands.split([' ', ';']).filter_map(|token| token.parse::<u32>().ok());
    let last = rates.take_while(|rate| *rate != 9).last().expect("rates");
    let gateway = Gateway::start();
    let begun = Instant::now();
    let mut pipeline = Pipeline::start(&TempDir::new("bit-rate"), &gateway, commands);
    let init = format!("CAN 1 INIT mode=LISTEN baudA={last}\n");
    while !gateway.commands().contains(&init) {
        assert!(begun.elapsed() < Duration::from_secs(100), "{last} was not tried: {:?}", gateway.commands());
        thread::sleep(Duration::from_millis(10));
    }
    let tried = gateway.commands().len();
    wait_until("its START", || gateway.commands()[tried..].contains(&"CAN 1 START\n".to_owned()));
    gateway.send("M 1 CSD 123 11 22\n");
    wait_until("its end", || pipeline.bash.has_ended());
    assert!(begun.elapsed() < Duration::from_secs(100), "{:?}", begun.elapsed());
    let finished = pipeline.end();
    let text = finished.text();
    assert!(text.starts_with(&format!("{last} kbit/s: (")) && text.ends_with(") can1 123#1122\n"), "{finished:?}");
    assert_eq!(text.lines().count(), 1, "{finished:?}");
}

#[test]
#[ignore = "needs tshark"]
fn ring_recipe_keeps_every_frame() {
    need(&["tshark", "setsid"]);
    let as_written = recipe("can-listen --format pcap | setsid -w tshark ");
    // Of that size, the few frames fill several files.
    for (commands, count) in [(as_written, 1..=1), (&replaced(as_written, "filesize:100000", "filesize:20"), 4..=9)] {
        let (folder, gateway) = (TempDir::new("ring"), Gateway::start());
        let pipeline = Pipeline::start(&folder, &gateway, commands);
        pipeline.bash.wait_for_stderr("Capturing on");
        send_the_rest_and_press_ctrl_c(&gateway, &pipeline, 0);
        assert_eq!(pipeline.end().code(), Some(0));
        let read = "for file in bus_*.pcapng; do echo $file >&2; tshark -r $file -T fields -e data.data; done";
        let finished = run(tool("bash").args(["-c", read]).current_dir(&folder.0));
        assert_same(finished.text().lines().map(str::to_uppercase), (0..FRAMES).map(hex));
        let files = finished.stderr.matches(".pcapng").count();
        assert!(count.contains(&files), "{files} files");
    }
}

#[test]
#[ignore = "needs tshark"]
fn pcap_recipe_is_read_by_tshark() {
    need(&["tshark"]);
    let folder = TempDir::new("pcap");
    let read = || {
        let read = "tshark -r bus.pcap -T fields -e data.data";
        run(tool("bash").args(["-c", read]).current_dir(&folder.0)).text().to_uppercase()
    };
    try_recipe(&folder, recipe("can-listen --format pcap > bus.pcap"), |_| read());
    assert_same(read().lines(), (0..FRAMES).map(hex));
}

#[test]
#[ignore = "needs root, sudo"]
fn sudo_recipe_keeps_target_and_path() {
    need(&["sudo"]);
    let folder = TempDir::new("sudo");
    try_recipe(&folder, recipe("sudo --preserve-env"), |_| folder.read("bus.log"));
    assert_same(without_times(&folder.read("bus.log")), (0..FRAMES).map(candump));
}

#[test]
#[ignore = "needs sh, timeout"]
fn cron_recipe_works_without_an_environment() {
    let (folder, gateway) = (TempDir::new("cron"), Gateway::builder().frames_per_second(100.0).start());
    let bin = folder.0.join(".cargo/bin");
    fs::create_dir_all(&bin).expect("a folder");
    symlink(env!("CARGO_BIN_EXE_can-listen"), bin.join("can-listen")).expect("a link");
    // What cron does: the time is taken off, `\%` is a percent sign, sh runs the rest.
    let command = recipe("0 6 * * * ").trim_start_matches("0 6 * * * ").replace("\\%", "%");
    let command = replaced(&replaced(&command, "10.8.0.109", &gateway.target()), "3600", "2");
    let mut cron = tool("sh");
    cron.args(["-c", &command]).env_clear();
    cron.env("HOME", &folder.0).env("PATH", "/usr/bin:/bin").env("CAN_BIND", "127.0.0.1:0");
    let finished = run(cron.current_dir("/"));
    assert_eq!((finished.code(), finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let files = run(tool("bash").args(["-c", "cat bus-20??-??-??.log"]).current_dir(&folder.0));
    assert!(files.text().lines().count() > 50 && files.text().contains(") can1 100#"), "{files:?}");
}

/// An SSH server for the user who runs the tests, and an `ssh` whose host `bench` is that server.
struct SshServer {
    folder: TempDir,
    _server: Running,
}

impl SshServer {
    #[track_caller]
    fn start(gateway: &Gateway) -> SshServer {
        need(&["ssh", "sshd", "ssh-keygen"]);
        let (folder, port) = (TempDir::new("ssh"), free_tcp_port());
        let here = folder.0.display().to_string();
        for key in ["host", "user"] {
            let made = run(tool("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &format!("{here}/{key}")]));
            assert_eq!(made.code(), Some(0), "{made:?}");
        }
        let (path, target) = (path(), gateway.target());
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\nStrictModes no\n\
             UsePAM no\nPidFile none\nPermitRootLogin yes\n\
             SetEnv \"PATH={path}\" \"CAN_TARGET={target}\" \"CAN_BIND=127.0.0.1:0\"\n"
        );
        let config = folder.write("sshd_config", &config);
        fs::create_dir_all("/run/sshd").expect("a folder that sshd needs");
        let server = start(tool("sshd").args(["-D", "-e", "-f"]).arg(config));
        server.wait_for_stderr("Server listening");
        folder.write(
            "ssh_config",
            &format!(
                "Host bench\nHostName 127.0.0.1\nPort {port}\nIdentityFile {here}/user\nStrictHostKeyChecking no\n\
                 UserKnownHostsFile /dev/null\nLogLevel ERROR\n"
            ),
        );
        let ssh =
            folder.write("ssh", &format!("#!/bin/sh\nexec {} -F {here}/ssh_config \"$@\"\n", find("ssh").display()));
        fs::set_permissions(ssh, fs::Permissions::from_mode(0o755)).expect("a program");
        SshServer { folder, _server: server }
    }
}

#[test]
#[ignore = "needs root, openssh-server, openssh-client, tshark"]
fn ssh_recipe_shows_frames_of_a_remote_listener() {
    need(&["tshark"]);
    let gateway = Gateway::start();
    let server = SshServer::start(&gateway);
    let path = server.folder.0.display();
    let tshark = format!("tshark -l {FIELDS} -i -");
    let commands = format!("PATH={path}:$PATH\n{}", replaced(recipe("ssh bench "), "wireshark -k -i -", &tshark));
    let pipeline = Pipeline::start(&server.folder, &gateway, &commands);
    let client = gateway.wait_for_command("CAN 1 START\n").from;
    pipeline.bash.wait_for_stderr("Capturing on");
    (0..100).for_each(|number| gateway.send(frame(number)));
    pipeline.bash.wait_for_lines(100);
    pipeline.press_ctrl_c();
    pipeline.end();
    wait_until("the end of the remote can-listen", || {
        gateway.send(frame(100));
        queued(client).is_none()
    });
}

/// The mock cluster of librdkafka, with one broker: SIGUSR1 takes it away, SIGUSR2 brings it back.
const BROKER: &str = r#"
import ctypes, glob, os, signal, confluent_kafka
kafka = ctypes.CDLL(glob.glob(os.path.dirname(confluent_kafka.__file__) + ".libs/librdkafka*")[0])
kafka.rd_kafka_conf_new.restype = kafka.rd_kafka_new.restype = ctypes.c_void_p
kafka.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
error = ctypes.create_string_buffer(512)
conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
assert kafka.rd_kafka_conf_set(conf, b"test.mock.num.brokers", b"1", error, 512) == 0, error.value
client = ctypes.c_void_p(kafka.rd_kafka_new(0, conf, error, 512))
cluster = ctypes.c_void_p(kafka.rd_kafka_handle_mock_cluster(client))
signal.signal(signal.SIGUSR1, lambda *_: kafka.rd_kafka_mock_broker_set_down(cluster, 1))
signal.signal(signal.SIGUSR2, lambda *_: kafka.rd_kafka_mock_broker_set_up(cluster, 1))
print(kafka.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
while True: signal.pause()
"#;

#[test]
#[ignore = "needs kcat, setsid and confluent-kafka (pip)"]
fn kafka_recipe_delivers_in_order_through_an_outage() {
    need(&["kcat", "setsid"]);
    let (folder, gateway) = (TempDir::new("kafka"), Gateway::start());
    let broker = start(tool("python3").args(["-c", BROKER]));
    broker.wait_for_lines(1);
    let address = String::from_utf8(broker.stdout_so_far()).expect("text").trim().to_owned();
    let recipe = sink_recipe("can-listen --format candump | sink kcat ");
    let pipeline = Pipeline::start(&folder, &gateway, &replaced(&recipe, "-b localhost ", &format!("-b {address} ")));
    // The key, the partition and the value of each message in the topic.
    let messages = || {
        let mut consumer = tool("kcat");
        consumer.args(["-C", "-q", "-e", "-o", "beginning", "-b", &address, "-t", "can", "-f", "%k %p %s\n"]);
        run(&mut consumer).text()
    };
    gateway.wait_for_command("CAN 1 START\n");
    // kcat reads stdin in blocks, so it holds back the last lines until more follow.
    (0..100).for_each(|number| gateway.send(frame(number)));
    wait_until("frames of a slow bus", || messages().lines().count() > 60);
    broker.signal(Signal::SIGUSR1);
    pipeline.bash.wait_for_stderr("failed: Connection refused");
    send_the_rest_and_press_ctrl_c(&gateway, &pipeline, 100);
    pipeline.bash.wait_for_stderr("lost: 0 in the kernel");
    broker.signal(Signal::SIGUSR2);
    let finished = pipeline.end();
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let messages = messages();
    assert_same(without_times(&messages), (0..FRAMES).map(candump));
    let places = messages.lines().map(|line| line.split(" (").next().expect(line));
    assert_eq!(places.collect::<BTreeSet<_>>().len(), 1, "several keys or partitions");
    assert!(messages.starts_with("gw1 "), "{messages}");
}

#[test]
#[ignore = "needs kcat, setsid, curl, mosquitto, mosquitto-clients"]
fn second_ctrl_c_ends_a_sink_whose_server_is_away() {
    need(&["kcat", "setsid", "curl", "mosquitto_pub"]);
    let (folder, nowhere) = (TempDir::new("sink"), format!("127.0.0.1:{}", free_tcp_port()));
    let kafka = replaced(&sink_recipe("can-listen --format candump | sink kcat "), "localhost", &nowhere);
    let influxdb = to_influx(&folder, &replaced(block(TO_INFLUX), "localhost:8086", &nowhere));
    let port = free_tcp_port().to_string();
    let mqtt = sink_recipe("can-listen --format candump | sink mosquitto_pub ");
    let mqtt = replaced(&mqtt, "-h localhost ", &format!("-h 127.0.0.1 -p {port} "));
    let mut broker = Some(mosquitto(&folder, &port));
    for (commands, is_away) in [(kafka, "Connection refused"), (influxdb, "Failed to connect"), (mqtt, "")] {
        let gateway = Gateway::start();
        let mut pipeline = Pipeline::start(&folder, &gateway, &commands);
        gateway.wait_for_command("CAN 1 START\n");
        (0..100).for_each(|number| gateway.send(frame(number)));
        if is_away.is_empty() {
            broker.take().expect("a broker").wait_for_stderr("Received PUBLISH");
            gateway.send(frame(100));
        }
        pipeline.bash.wait_for_stderr(is_away);
        pipeline.press_ctrl_c();
        pipeline.bash.wait_for_stderr("lost: 0 in the kernel");
        assert!(!pipeline.bash.has_ended(), "{commands}");
        // Again and again, because bash may not have noticed the first one yet.
        wait_until("its end", || {
            pipeline.press_ctrl_c();
            pipeline.bash.has_ended()
        });
        // Nothing is left that holds its output open.
        pipeline.end();
    }
}

/// A command of the README's first pages for this gateway.
#[track_caller]
fn command_for(gateway: &Gateway, beginning: &str) -> String {
    recipe(beginning).replace("10.8.0.109", &gateway.target())
}

#[test]
#[ignore = "needs bash"]
fn first_commands_of_the_readme_work() {
    let folder = TempDir::new("first");
    let gateway = Gateway::builder().frames_per_second(100.0).status("----").start();
    let listener = Pipeline::start(&folder, &gateway, &command_for(&gateway, "can-listen --target "));
    listener.bash.wait_for_stdout("M 1 CSD ");
    let stop = |beginning| Pipeline::start(&folder, &gateway, &command_for(&gateway, beginning)).end();
    assert_eq!(stop("can-stop --target ").code(), Some(0));
    wait_until("a bus that is stopped", || !gateway.is_running());
    listener.press_ctrl_c();
    assert_eq!(listener.end().code(), Some(0));

    let commands = [command_for(&gateway, "export CAN_TARGET="), command_for(&gateway, "can-listen > bus.txt  ")];
    let listener = Pipeline::start(&folder, &gateway, &commands.join("\n"));
    wait_until("frames", || fs::read_to_string(folder.0.join("bus.txt")).is_ok_and(|text| text.contains("M 1 CSD ")));
    listener.press_ctrl_c();
    assert_eq!(listener.end().code(), Some(0));
    assert!(folder.read("bus.txt").lines().all(|line| line == "R ok" || line.starts_with("M 1 CSD ")));

    for (beginning, command) in [
        ("can-listen --listen-only ", "CAN 1 INIT mode=LISTEN baudA=250\n"),
        ("can-listen --filter STD:0:0 --filter EXT:0:0   ", "CAN 1 FILTER ADD EXT 0 0\n"),
    ] {
        let listener = Pipeline::start(&folder, &gateway, recipe(beginning));
        listener.bash.wait_for_stdout("M 1 CSD ");
        listener.press_ctrl_c();
        assert_eq!(listener.end().code(), Some(0));
        assert!(gateway.commands().contains(&command.to_owned()), "{:?}", gateway.commands());
    }

    let stopped = stop("can-stop --confirm   ");
    assert_eq!(stopped.code(), Some(0), "{stopped:?}");
    assert!(!gateway.is_running());
}

#[test]
#[ignore = "needs cargo, and half a minute to build"]
fn rust_example_streams_and_stops() {
    let crate_folder = TempDir::new("example");
    let here = env!("CARGO_MANIFEST_DIR");
    let manifest = format!(
        "[package]\nname = \"example\"\nedition = \"2024\"\n[dependencies]\ncan-udp = {{ path = \"{here}\", default-features = false }}\n[workspace]\n"
    );
    crate_folder.write("Cargo.toml", &manifest);
    fs::copy(format!("{here}/Cargo.lock"), crate_folder.0.join("Cargo.lock")).expect("a copy");
    fs::create_dir_all(crate_folder.0.join("src")).expect("a folder");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("example");
    let run_against = |gateway: &Gateway| {
        let source = replaced(block("use std::io::"), "10.8.0.109:5000", &gateway.target());
        crate_folder.write("src/main.rs", &replaced(&source, "0.0.0.0:5000", "0.0.0.0:0"));
        let mut cargo = tool("cargo");
        let built = cargo.args(["build", "--quiet", "--offline"]).current_dir(&crate_folder.0);
        let built = built.env("CARGO_TARGET_DIR", &target).status().expect("cargo");
        assert!(built.success(), "the example does not build");
        run(&mut Command::new(target.join("debug/example")))
    };
    let gateway = Gateway::builder().frames_per_second(100.0).start();
    let finished = run_against(&gateway);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.text().lines().filter(|line| line.starts_with("M 1 CSD ")).count() > 30, "{finished:?}");
    assert_eq!(gateway.commands()[4..], ["CAN 1 STOP\n"]);

    let finished = run_against(&Gateway::builder().silent(true).start());
    assert!(
        finished.stderr.contains("no reply to CAN 1 INIT STD 250") && !finished.stderr.contains("--"),
        "{finished:?}"
    );
}

#[test]
#[ignore = "needs mawk, de_DE.UTF-8"]
fn gaps_recipe_shows_each_when_it_is_over() {
    need(&["mawk"]);
    let recipe = recipe("can-listen --format candump | (trap '' INT; LC_ALL=C exec mawk ");
    in_each_locale(|name, locale| {
        let (folder, gateway) = (TempDir::new(&format!("gaps-{name}")), Gateway::start());
        let pipeline = Pipeline::start(&folder, &gateway, &format!("{locale}{recipe}"));
        gateway.wait_for_command("CAN 1 START\n");
        for number in 0..3 {
            gateway.send(frame(2 * number));
            gateway.send(frame(2 * number + 1));
            // The gap itself.
            thread::sleep(Duration::from_millis(700));
            if number > 0 {
                pipeline.bash.wait_for_lines(number as usize);
            }
        }
        pipeline.press_ctrl_c();
        let text = pipeline.end().text();
        let gaps: Vec<&str> = text.lines().collect();
        assert_eq!(gaps.len(), 2, "{text}");
        for (gap, number) in gaps.iter().zip([2, 4]) {
            let (seconds, rest) = gap.split_once(" s without a frame before ").expect(gap);
            assert!(seconds.parse::<f64>().is_ok_and(|seconds| (0.6..10.0).contains(&seconds)), "{gap}");
            assert!(rest.ends_with(&candump(number)), "{gap}");
        }
    });
}

#[test]
#[ignore = "needs bash"]
fn reconnect_recipe_survives_a_power_cycle() {
    let folder = TempDir::new("power");
    let gateway = Gateway::builder().frames_per_second(100.0).start();
    let commands = replaced(recipe("while can-listen --idle-timeout 10 "), "10 >>", "1 --timeout 0.3 >>");
    let pipeline = Pipeline::start(&folder, &gateway, &commands);
    let frames = || fs::read_to_string(folder.0.join("bus.txt")).unwrap_or_default().matches("CSD").count();
    wait_until("a stream", || frames() > 20);
    gateway.set_power(false);
    pipeline.bash.wait_for_stderr("--idle-timeout");
    gateway.set_power(true);
    let before = frames();
    wait_until("the stream to be back", || frames() > before + 20);
    pipeline.press_ctrl_c();
    pipeline.end();
}

#[test]
#[ignore = "needs python-can[mf4]"]
fn blf_and_mf4_recipes_keep_every_frame() {
    need_python_can();
    let convert = recipe("can_logconvert ");
    let (as_written, _) = convert.split_once("  # or bus.mf4").expect("the other format");
    for (reader, file) in [("BLFReader", "bus.blf"), ("MF4Reader", "bus.mf4")] {
        let folder = TempDir::new(file);
        let convert = replaced(as_written, "bus.blf", file);
        let read = format!("from can.io import {reader}; [print(m.data.hex()) for m in {reader}('{file}')]");
        let (_, finished) =
            listen(&folder, "candump", &format!("mv bus bus.log && {convert} && python3 -c \"{read}\""));
        // MF4 has remote frames in a group of their own.
        let text = finished.text();
        let mut read: Vec<&str> = text.lines().collect();
        let mut sent: Vec<String> = frames().iter().map(|frame| frame.hex().to_lowercase()).collect();
        if file == "bus.mf4" {
            read.sort_unstable();
            sent.sort_unstable();
        }
        assert_same(read, sent);
    }
}

/// An HTTP server that accepts and records every request.
struct Recorder {
    port: u16,
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let kept = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let request = Recorder::take(stream.expect("a connection"));
                kept.lock().expect("no panic").push(request);
            }
        });
        Recorder { port, requests }
    }

    /// The head and the body.
    fn take(mut stream: TcpStream) -> (String, String) {
        let mut reader = BufReader::new(stream.try_clone().expect("a second one"));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("a line") > 0, "cut: {head}");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        reader.read_exact(&mut body).expect("a body");
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").expect("an answer");
        (head, String::from_utf8(body).expect("text"))
    }
}

#[test]
#[ignore = "needs curl"]
fn influxdb_recipe_works_with_versions_2_and_3() {
    need(&["curl"]);
    let (folder, server) = (TempDir::new("influxdb-2"), Recorder::start());
    let settings = |name: &str| {
        let (_, after) = README.split_once(&format!("{name}='http://localhost:8086/api/v2/")).expect("for InfluxDB 2");
        format!("http://127.0.0.1:{}/api/v2/{}", server.port, after.split('\'').next().expect("its end"))
    };
    let (_, header) = README.split_once("`header='").expect("a header for InfluxDB 2");
    let header = header.split('\'').next().expect("its end");
    let (first, rest) = block(TO_INFLUX).split_once('\n').expect("several lines");
    assert!(first.contains(" header="), "{first}");
    let commands = to_influx(&folder, &format!("url='{}' header='{header}'\n{rest}", settings("url")));
    let bodies = || server.requests.lock().expect("no panic").iter().map(|(_, body)| body.as_str()).collect::<String>();
    try_recipe(&folder, &commands, |_| bodies());
    let points = bodies();
    let data = points.lines().map(|point| point.split('"').nth(1).expect(point));
    assert_same(data, (0..FRAMES).map(hex));
    for (head, _) in server.requests.lock().expect("no panic").iter() {
        assert!(head.starts_with("POST /api/v2/write?org=ORG&bucket=can&precision=ns HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nAuthorization: Token TOKEN\r\n"), "{head}");
    }
}

/// The fields with which tshark shows a frame.
const FIELDS: &str = "-T fields -E separator=/s -E occurrence=f -e can.id -e can.flags.xtd -e can.flags.rtr -e can.len \
                      -e canfd.flags.brs -e data.data -e frame.time_epoch --disable-protocol autosar-nm";

impl Frame {
    fn as_tshark_shows_it(&self) -> String {
        let flag = |flag: bool| u8::from(flag).to_string();
        let rtr = if self.is_fd() { String::new() } else { flag(self.kind == Kind::Remote) };
        let brs = if self.is_fd() { flag(self.kind == Kind::FdWithSwitch) } else { String::new() };
        let data = self.hex().to_lowercase();
        format!("{} {} {rtr} {} {brs} {data}", self.id, flag(self.extended), self.length)
    }
}

/// Frames of every kind and length, with identifiers and data that look random.
fn random_frames(count: usize) -> Vec<Frame> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut roll = move |sides: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % sides
    };
    let frame = |number| {
        let extended = roll(2) == 1;
        let kind = [Kind::Classic, Kind::Remote, Kind::Fd, Kind::FdWithSwitch][roll(4)];
        let length = match kind {
            Kind::Classic | Kind::Remote => roll(9),
            _ => [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64][roll(16)],
        };
        let bytes = if kind == Kind::Remote { 0 } else { length };
        let id = roll(if extended { 1 << 29 } else { 1 << 11 }) as u32;
        Frame { number, extended, id, kind, length, data: (0..bytes).map(|_| roll(256) as u8).collect() }
    };
    (0..count).map(frame).collect()
}

#[test]
#[ignore = "needs tshark"]
fn tshark_reads_every_field_of_10_000_frames_from_a_file() {
    need(&["tshark"]);
    let folder = TempDir::new("tshark-file");
    let frames = random_frames(10_000);
    let mut file = PCAP_HEADER.to_vec();
    let time = |number: usize| Duration::new(1_700_000_000 + number as u64, (number as u32 * 99_991) % 1_000_000_000);
    for frame in &frames {
        let line = frame.line();
        write_pcap_record(
            &can_udp::format::frame::Frame::parse(line.trim_end().as_bytes()).expect("a frame"),
            time(frame.number),
            &mut file,
        );
    }
    fs::write(folder.0.join("bus.pcap"), &file).expect("a file");
    let read = |commands: &str| {
        let finished = run(tool("bash").args(["-c", commands]).current_dir(&folder.0));
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        finished.text()
    };
    let expected = |frame: &Frame| {
        let time = time(frame.number);
        format!("{} {}.{:09}", frame.as_tshark_shows_it(), time.as_secs(), time.subsec_nanos())
    };
    assert_same(read(&format!("tshark -r bus.pcap {FIELDS}")).lines(), frames.iter().map(expected));
    assert_eq!(read("tshark -r bus.pcap --disable-protocol autosar-nm -Y _ws.malformed"), "");
    // Cut anywhere, it is readable up to the last whole record.
    let last = frames.last().expect("frames");
    let record = 16 + 8 + last.data.len();
    for missing in [1, record / 2, record - 1] {
        let head = format!("head -c -{missing} bus.pcap > cut.pcap; tshark -r cut.pcap {FIELDS} | wc -l");
        assert_eq!(read(&head).trim(), "9999", "{missing} bytes missing");
    }
}

#[test]
#[ignore = "needs tshark"]
fn wireshark_recipe_shows_10_000_frames_live() {
    need(&["tshark"]);
    let folder = TempDir::new("tshark-pipe");
    let frames = random_frames(10_000);
    let lines: Vec<Vec<u8>> = frames.iter().map(|frame| frame.line().into_bytes()).collect();
    let gateway = Gateway::start();
    // The same but for the window.
    let tshark = format!("tshark -l -c 10000 {FIELDS} -i -");
    let commands = replaced(recipe("can-listen --format pcap | wireshark "), "wireshark -k -i -", &tshark);
    let pipeline = Pipeline::start(&folder, &gateway, &commands);
    let client = gateway.wait_for_command("CAN 1 START\n").from;
    // It has opened before any frame has come.
    pipeline.bash.wait_for_stderr("Capturing on");
    send_at_the_pace_of(client, lines, |datagram| gateway.send(datagram));
    pipeline.bash.wait_for_lines(10_000);
    pipeline.press_ctrl_c();
    let finished = pipeline.end();
    let text = finished.text();
    let read = text.lines().map(|line| line.rsplit_once(' ').expect(line).0);
    assert_same(read, frames.iter().map(Frame::as_tshark_shows_it));
}
