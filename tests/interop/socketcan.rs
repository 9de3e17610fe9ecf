//! The recipe that turns a gateway into a SocketCAN interface, as the README has it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::programs::{Running, TempDir, clean, start, wait_until};
use crate::simulator::Gateway;

/// The one recipe that begins so.
#[track_caller]
fn recipe(beginning: &str) -> &'static str {
    let lines: Vec<&str> = include_str!("../../README.md").lines().filter(|line| line.starts_with(beginning)).collect();
    let [line] = lines[..] else { panic!("not one recipe that begins with {beginning:?}: {lines:?}") };
    line
}

/// A frame as the gateway sends it, and as candump logs it.
fn frames() -> Vec<(String, String)> {
    let mut frames = Vec::new();
    for number in 0..50u32 {
        for (letters, digits) in [('S', 3), ('E', 8)] {
            let id = if letters == 'S' { number * 41 } else { 0x1FFF_FFFF - number * 0x0050_5050 };
            let id = format!("{id:0digits$X}");
            let data = |length: u32| (0..length).map(|at| format!("{:02X}", (number + at) & 255)).collect::<Vec<_>>();
            let short = data(number % 9);
            let long = data([0, 7, 12, 32, 64][number as usize % 5]);
            let mut push = |kind: &str, text: String, log: String| {
                frames.push((format!("M 1 {kind} {id} {text}\n"), format!("vcan0 {id}#{log}")));
            };
            push(&format!("C{letters}D"), short.join(" "), short.concat());
            let dlc = number % 9;
            push(
                &format!("C{letters}R"),
                format!("dlc={dlc}"),
                format!("R{}", if dlc == 0 { String::new() } else { dlc.to_string() }),
            );
            push(&format!("F{letters}D"), long.join(" "), format!("#1{}", long.concat()));
            push(&format!("N{letters}D"), long.join(" "), format!("#0{}", long.concat()));
        }
    }
    // One that the README's DBC file decodes.
    frames.push(("M 1 CSD 100 00 00 00 2A 55 AA 55 AA\n".into(), "vcan0 100#0000002A55AA55AA".into()));
    frames
}

/// Newer kernels show the flag that says CAN FD, too: 5 for 1, and 4 for 0.
fn without_fd_flag(log: &str) -> String {
    log.replace("##5", "##1").replace("##4", "##0")
}

struct Interface;

impl Drop for Interface {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", "vcan0"]).status();
    }
}

fn bash(commands: &str) -> Command {
    let mut bash = clean("bash");
    bash.args(["-c", commands]).process_group(0);
    bash
}

#[track_caller]
fn wait_for_all(what: &str, frames: usize, lines: impl Fn() -> usize) {
    wait_until(&format!("{frames} frames in {what}"), || lines() >= frames);
}

const PYTHON: &str = "
import can, sys
bus = can.Bus(interface='socketcan', channel='vcan0', fd=True)
print('ready', flush=True)
for m in bus:
    id = f'{m.arbitration_id:08X}' if m.is_extended_id else f'{m.arbitration_id:03X}'
    data = m.data.hex().upper()
    if m.is_remote_frame: payload = 'R' + (str(m.dlc) if m.dlc else '')
    elif m.is_fd: payload = f'#{int(m.bitrate_switch)}' + data
    else: payload = data
    print(f'vcan0 {id}#{payload}', flush=True)
";

#[test]
#[ignore = "needs root, a kernel with vcan, can-utils and cantools: .ci/vm runs it"]
fn socketcan_recipe_shows_every_frame() {
    let made = Command::new("sh").args(["-c", recipe("sudo modprobe vcan;").replace("sudo ", "").as_str()]).status();
    assert!(made.is_ok_and(|status| status.success()), "no vcan0");
    let _interface = Interface;
    let folder = TempDir::new("socketcan");
    let dbc =
        include_str!("../../README.md").split("\n```text\nVERSION").nth(1).and_then(|after| after.split("```").next());
    folder.write("bus.dbc", &format!("VERSION{}", dbc.expect("a DBC file")));
    let mut monitor = clean("script");
    monitor.args(["-qec", recipe("cantools monitor "), "/dev/null"]).current_dir(&folder.0);
    let mut monitor = start(monitor.env("TERM", "xterm").env("SHELL", "/bin/sh"));
    let mut candump = Command::new("candump");
    let candump: Running = start(candump.args(["-L", "vcan0"]));
    let mut python = Command::new("python3");
    let python: Running = start(python.args(["-u", "-c", PYTHON]));
    python.wait_for_stdout("ready");
    // They say nothing when they are ready, but then each has a socket on the interface.
    wait_until("candump and the monitor", || {
        assert!(!monitor.has_ended(), "{}", String::from_utf8_lossy(&monitor.stdout_so_far()));
        std::fs::read_to_string("/proc/net/can/rcvlist_all").is_ok_and(|list| list.matches("vcan0").count() >= 3)
    });

    let gateway = Gateway::start();
    let built = Path::new(env!("CARGO_BIN_EXE_can-listen")).parent().expect("a folder").display();
    let path = format!("{built}:{}", std::env::var("PATH").unwrap_or_default());
    let mut pipeline =
        bash(recipe("can-listen --filter STD:0:0 --filter EXT:0:0 --format candump | (trap '' INT; exec canplayer"));
    pipeline
        .current_dir(&folder.0)
        .env("PATH", path)
        .env("CAN_TARGET", gateway.target())
        .env("CAN_BIND", "127.0.0.1:0");
    let pipeline = start(&mut pipeline);
    gateway.wait_for_command("CAN 1 START\n");
    let frames = frames();
    for (count, (line, _)) in frames.iter().enumerate() {
        gateway.send(line);
        // The interface's queue is not endless.
        if count % 20 == 19 {
            wait_for_all("candump", count + 1, || lines(&candump));
        }
    }
    wait_for_all("candump", frames.len(), || lines(&candump));
    wait_for_all("python-can", frames.len() + 1, || lines(&python));
    monitor.wait_for_stdout("Number: 42");
    killpg(Pid::from_raw(pipeline.id() as i32), Signal::SIGINT).expect("the pipeline can be signalled");
    let ended = pipeline.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");

    let logged = String::from_utf8(candump.stdout_so_far()).expect("text");
    let logged = logged.lines().map(|line| without_fd_flag(line.split_once(") ").expect(line).1));
    assert!(logged.eq(frames.iter().map(|(_, log)| log.clone())), "candump logged something else");
    let read = String::from_utf8(python.stdout_so_far()).expect("text");
    assert!(read.lines().skip(1).eq(frames.iter().map(|(_, log)| log.as_str())), "python-can read something else");
}

fn lines(running: &Running) -> usize {
    running.stdout_so_far().iter().filter(|&&byte| byte == b'\n').count()
}
