//! The README: its options and messages are the programs', its commands are executed by a test, its unit, logrotate file
//! and container work.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{TempDir, can_listen_plain, can_stop, run, start};
use crate::simulator::Gateway;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const README: &str = include_str!("../../README.md");

/// The text from a heading to the next one of the same or a higher level, or of the `<details>` with that summary.
#[track_caller]
fn section(heading: &str) -> &'static str {
    if !heading.starts_with('#') {
        let summary = format!("<details><summary><b>{heading}</b></summary>\n");
        let (_, after) = README.split_once(&summary).unwrap_or_else(|| panic!("no {heading:?}"));
        return after.split("\n</details>").next().unwrap_or_default();
    }
    let (_, after) = README.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    let level = heading.split(' ').next().map_or(0, str::len);
    let ends = (1..=level).filter_map(|level| after.find(&format!("\n{} ", "#".repeat(level))));
    &after[..ends.min().unwrap_or(after.len())]
}

/// The first code block of that language in a section.
fn block(heading: &str, language: &str) -> &'static str {
    let (_, after) = section(heading).split_once(&format!("```{language}\n")).expect("a code block");
    after.split_once("```").expect("its end").0
}

/// Everything in a text that looks like an option.
fn options(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| {
            let name = word.trim_start_matches('-');
            let dashes = word.len() - name.len();
            name.starts_with(|c: char| c.is_ascii_alphabetic()) && (dashes == 2 || dashes == 1 && name.len() == 1)
        })
        .map(str::to_owned)
        .collect()
}

/// The options that a program lists in its help: those that stand at the beginning of a line ("- " begins a value).
fn options_of_help(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-') && !line.starts_with("- "));
    lines.flat_map(|line| options(line.split("  ").next().unwrap_or_default())).collect()
}

/// The options in the first column of a section's table.
fn options_of_table(heading: &str) -> BTreeSet<String> {
    let rows = section(heading).lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| options(&format!("`{}", row.split(" | ").next().unwrap_or_default()))).collect()
}

#[test]
fn options_of_the_help_are_in_the_readme() {
    for (mut program, heading) in
        [(can_listen_plain(["--help"]), "Options of can-listen"), (can_stop(["--help"]), "Options of can-stop")]
    {
        let help = run(&mut program);
        assert_eq!(help.code(), Some(0));
        assert_eq!(options_of_table(heading), options_of_help(&help.text()), "{heading}");
    }
}

#[test]
fn options_in_commands_of_the_readme_exist() {
    let listen = options_of_table("Options of can-listen");
    let stop = options_of_table("Options of can-stop");
    let mut seen = 0;
    for line in README.lines() {
        for (program, known) in [("can-listen ", &listen), ("can-stop ", &stop)] {
            let commands = line.split(program).skip(1);
            let arguments =
                commands.map(|rest| rest.split(['|', '>', ';', '#', '(', ')', '`']).next().unwrap_or_default());
            for option in arguments.flat_map(options) {
                seen += 1;
                assert!(known.contains(&option), "{program}does not know {option}: {line}");
            }
        }
    }
    assert!(seen >= 10, "only {seen} options seen in commands");
}

#[test]
fn environment_file_of_the_readme_is_accepted() {
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let (_, after) = section("## As a service").split_once("```ini\nCAN_TARGET=").expect("an environment file");
    let variables = after.split("\n```").next().unwrap_or_default();
    let options = variables.lines().find_map(|line| line.strip_prefix("CAN_OPTIONS=")).expect("options");
    let mut command = can_listen_plain(options.split(' '));
    command.args(["--count", "3"]).env("CAN_TARGET", gateway.target()).env("CAN_BIND", "127.0.0.1:0");
    let finished = run(&mut command);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_eq!(finished.text().lines().count(), 3, "{finished:?}");
    assert!(gateway.commands().contains(&"CAN 1 INIT STD 500\n".to_owned()), "{:?}", gateway.commands());
    assert!(!gateway.is_running());
}

#[test]
fn transcript_is_what_the_programs_print() {
    let (_, transcript) = README.split_once("```text\n$ can-listen").expect("a transcript");
    let transcript = transcript.split("```").next().unwrap_or_default().replace("10.8.0.109", "127.0.0.1");
    let mut frames = ["M 1 CSD 100 55 AA 55 AA\n", "M 1 CSD 101 00 01\n"].into_iter();
    let gateway = Gateway::builder().frames_per_second(100.0).stop_after_frames(2);
    let gateway = gateway.frame_maker(move |_| frames.next().unwrap_or_default().into()).start();
    let listener = start(&mut can_listen_plain(["--bind", "127.0.0.1:0", "--target", &gateway.target()]));
    listener.wait_for_lines(3);
    listener.signal(Signal::SIGINT);
    let finished = listener.wait();
    // The port and the seconds vary.
    let port = gateway.target().replace("127.0.0.1:", "");
    let stderr = finished.stderr.replace(&format!("--target 127.0.0.1:{port}"), "--target 127.0.0.1");
    let stderr = stderr.replace(&format!(":{port}"), ":5000").replace(" --bind 127.0.0.1:0", "");
    let (before, after) = stderr.split_once(" in ").expect("a report");
    let after = after.split_once(" s\n").expect("seconds").1;
    let expected = transcript.lines().skip(1).map(|line| line.trim_start_matches("^C")).collect::<Vec<_>>().join("\n");
    let (begin, report) = before.rsplit_once('\n').expect("two lines");
    let printed = format!("{begin}\n{}{report} in 2.1 s\n{after}", finished.text());
    assert_eq!(printed.trim_end(), expected);
}

fn unit_file(folder: &TempDir) -> PathBuf {
    let unit = block("## As a service", "ini");
    assert!(unit.contains("ExecStart=/usr/local/bin/can-listen "), "{unit}");
    folder.write("can-listen@.service", &unit.replace("/usr/local/bin/can-listen", env!("CARGO_BIN_EXE_can-listen")))
}

#[test]
#[ignore = "needs systemd-analyze (Debian: systemd)"]
fn unit_is_accepted_by_systemd() {
    let folder = TempDir::new("unit");
    let verified = run(Command::new("systemd-analyze").arg("verify").arg(unit_file(&folder)));
    assert_eq!((verified.code(), verified.text().as_str(), verified.stderr.as_str()), (Some(0), "", ""));
}

#[test]
#[ignore = "needs systemd-analyze (Debian: systemd)"]
fn unit_has_an_exposure_of_at_most_2_of_10() {
    let folder = TempDir::new("exposure");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true", "--threshold=20"]).arg(unit_file(&folder));
    let judged = run(&mut command);
    assert_eq!(judged.code(), Some(0), "{}{}", judged.text(), judged.stderr);
    assert!(judged.text().contains("Overall exposure level"), "{}", judged.text());
}

#[test]
#[ignore = "needs logrotate and gzip"]
fn logrotate_rotates_a_large_file_twice_a_day() {
    let folder = TempDir::new("logrotate");
    let here = folder.0.display();
    let config = block("## As a service", "text").replace("/var/log/can-listen", &here.to_string());
    // Fedora's default; with it the name for a day can be used only once.
    let config = format!("dateext\n{}", config.replace("maxsize 1G", "maxsize 1k"));
    let config = folder.write("can-listen", &config);
    for content in ["old\n", "new\n"] {
        fs::write(folder.0.join("gw1.log"), content.repeat(1000)).expect("a file");
        let mut logrotate = Command::new("logrotate");
        let rotated = run(logrotate.arg("--state").arg(folder.0.join("state")).arg(&config));
        assert_eq!((rotated.code(), rotated.stderr.as_str()), (Some(0), ""));
        assert_eq!(folder.read("gw1.log"), "");
    }
    assert_eq!(folder.read("gw1.log.1"), "new\n".repeat(1000));
    assert!(folder.0.join("gw1.log.2.gz").exists());
}

#[test]
#[ignore = "needs systemd-analyze (Debian: systemd) and logrotate"]
fn hourly_timer_of_logrotate_is_accepted_by_systemd() {
    let folder = TempDir::new("timer");
    let here = folder.0.to_str().expect("UTF-8");
    let commands = README.lines().filter(|line| line.contains("/etc/systemd/system/logrotate.timer.d"));
    let commands: Vec<_> =
        commands.map(|line| line.replace("sudo ", "").replace("/etc/systemd/system", here)).collect();
    let script = format!(
        "set -e\ncp /lib/systemd/system/logrotate.* {here}\n{}\nsystemd-analyze verify {here}/logrotate.timer",
        commands.join("\n")
    );
    let verified = run(Command::new("sh").args(["-c", &script]));
    assert_eq!((verified.code(), verified.stderr.as_str()), (Some(0), ""));
    assert!(folder.read("logrotate.timer.d/hourly.conf").contains("\nOnCalendar=hourly\n"));
}

/// Builds the static binary with the Dockerfile's own command, from the files that `.dockerignore` lets through.
fn build_static() -> PathBuf {
    let dockerfile = block("## In a container", "dockerfile");
    let build = dockerfile.lines().find_map(|line| line.strip_prefix("RUN ")).expect("a build command");
    let (_, binaries) = dockerfile.split_once("COPY --from=build /src/").expect("what is copied");
    let can_listen = binaries.split_whitespace().next().expect("can-listen's path");
    assert!(can_listen.ends_with("/can-listen"), "{can_listen}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
    let context = TempDir::new("context");
    for name in include_str!("../../.dockerignore").lines().filter_map(|line| line.strip_prefix('!')) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        assert_eq!(run(Command::new("cp").arg("-r").arg(from).arg(&context.0)).code(), Some(0), "{name}");
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", build]).current_dir(&context.0).env("CARGO_TARGET_DIR", &target);
    assert!(shell.status().expect("a shell").success(), "{build}");
    target.join(can_listen.strip_prefix("target/").expect("a path below target"))
}

#[test]
#[ignore = "needs root, unshare (Debian: util-linux) and a static C library (Debian: libc6-dev)"]
fn static_binary_listens_as_process_1_of_an_empty_root() {
    let root = TempDir::new("root");
    fs::copy(build_static(), root.0.join("can-listen")).expect("a copy");
    let gateway = Gateway::builder().frames_per_second(1000.0).start();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--setgid", "65532", "--setuid", "65532"]);
    command.arg(format!("--root={}", root.0.display()));
    command.args(["/can-listen", "--bind", "127.0.0.1:0", "--target", &gateway.target()]);
    let unshare = start(&mut command);
    unshare.wait_for_lines(100);

    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    let child = fs::read_to_string(children).expect("unshare's children").trim().parse().expect("one child");
    let status = fs::read_to_string(format!("/proc/{child}/status")).expect("the child's status");
    let numbers = status.lines().find(|line| line.starts_with("NSpid:")).expect("its numbers");
    assert!(numbers.ends_with("\t1"), "it is process 1 where it lives: {numbers}");

    let sent = gateway.frames_sent();
    kill(Pid::from_raw(child), Signal::SIGTERM).expect("the child can be signalled");
    let ended = unshare.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.text().lines().filter(|line| line.starts_with("M ")).count() as u64 >= sent, "{ended:?}");
    // There is no /proc in the empty root.
    assert!(ended.stderr.contains("lost: unknown in the kernel, 0 in the output buffer"), "{ended:?}");
}

#[test]
fn links_lead_to_files() {
    let mut seen = 0;
    for (page, folder) in
        [(README, ""), (include_str!("../../.github/CONTRIBUTING.md"), ".github"), (BENCH, "tests/bench")]
    {
        for link in page.split("](").skip(1) {
            let link = link.split(')').next().expect("a link ends");
            if !link.starts_with("https://") {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(link);
                assert!(path.exists(), "{link} of {folder}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "only {seen} links");
}

const BENCH: &str = include_str!("../bench/README.md");

/// The source of the programs without tests and comments: what they can print is in there, without line breaks.
fn source_of_the_programs() -> String {
    let mut source = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("tests.rs") {
                let text = fs::read_to_string(path).expect("text");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                source.extend(lines.flat_map(|line| [line, "\n"]));
            }
        }
    }
    source.split("\\\n").map(str::trim_start).collect()
}

/// The messages in the first column of the table, without what varies: `…`, a command, a port, the gateway's own text.
fn documented_messages() -> Vec<&'static str> {
    let rows = section("Messages that need more than their own words").lines();
    let messages = rows.filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let messages = messages.flat_map(|messages| messages.split('`').step_by(2));
    let parts = messages.flat_map(|message| message.split('…'));
    let parts = parts
        .flat_map(|part| part.split("CAN 1 INIT"))
        .flat_map(|part| part.split("CAN 1 STOP"))
        .flat_map(|part| part.split("5000"));
    let parts = parts.flat_map(|part| part.split("R ERR")).map(|part| part.trim().trim_end_matches(':').trim());
    parts.filter(|part| !part.is_empty()).collect()
}

#[test]
fn messages_in_the_readme_are_those_of_the_programs() {
    let (source, messages) = (source_of_the_programs(), documented_messages());
    let unknown: Vec<_> = messages.iter().filter(|message| !source.contains(**message)).collect();
    assert!(unknown.is_empty(), "the programs do not print these: {unknown:#?}");
    assert!(messages.len() >= 15, "only {} messages", messages.len());
}

/// How many lines of the README are not folded into `<details>`.
fn open_lines() -> usize {
    let mut folded = 0;
    let open = README.lines().filter(|line| {
        folded += usize::from(line.starts_with("<details>"));
        let is_open = folded == 0;
        folded -= usize::from(*line == "</details>");
        is_open
    });
    open.count()
}

#[test]
fn readme_begins_with_what_a_visitor_looks_for() {
    let beginning = README.lines().take(45).collect::<Vec<_>>().join("\n");
    let expected =
        ["cargo install", "can-listen --target", "can-stop", "stdout", "Wireshark", "CAN@net", "CAN bus ── gateway"];
    for text in expected {
        assert!(beginning.contains(text), "{text} is not in the first 45 lines");
    }
    assert!(open_lines() <= 240, "{} lines are open", open_lines());
    assert!(README.lines().count() <= 600, "{} lines", README.lines().count());
}

#[test]
fn terms_that_users_search_for_are_in_the_readme() {
    let readme = README.to_lowercase();
    for term in
        "timestamp|gap|rate|reconnect|rotate|29-bit|J1939|Wireshark|SocketCAN|vcan|DBC|BLF|awk|tee|Docker|systemd|\
                 InfluxDB|Grafana|Kafka|MQTT|firewall|VPN|listen-only|several gateways|19228|cron|ssh|sudo|SIGXFSZ|\
                 uninstall|MF4|SavvyCAN|cantools plot|uutils|VRF|SIGUSR1|two network cards"
            .split('|')
    {
        assert!(readme.contains(&term.to_lowercase()), "{term}");
    }
}

/// The blocks of the README and, of those in sh, their commands, each with the test or script that executes it as it is
/// written, by its name: a test here, one in `tests/interop`, or `.ci/run`.
const EXECUTED: &[(&str, &str)] = &[
    ("cargo run --release --example demo ", ".ci/run"),
    ("cargo install --locked --path . ", ".ci/run"),
    ("cargo test ", ".ci/run"),
    ("cargo uninstall can-udp ", ".ci/run"),
    ("can-listen --target 10.8.0.109 ", "first_commands_of_the_readme_work"),
    ("can-stop --target 10.8.0.109 ", "first_commands_of_the_readme_work"),
    ("export CAN_TARGET=", "first_commands_of_the_readme_work"),
    ("can-listen > bus.txt  ", "first_commands_of_the_readme_work"),
    ("can-listen --listen-only ", "first_commands_of_the_readme_work"),
    ("can-listen --filter STD:0:0 --filter EXT:0:0 ", "first_commands_of_the_readme_work"),
    ("can-stop --confirm   ", "first_commands_of_the_readme_work"),
    ("can-listen --format pcap | wireshark ", "wireshark_recipe_shows_10_000_frames_live"),
    ("can-listen | grep ", "grep_recipe_shows_a_line_at_once"),
    ("can-listen --filter STD:123:7FF ", "filter_recipe_asks_for_one_identifier"),
    ("can-listen | pv ", "pv_recipe_shows_the_rate_on_a_terminal"),
    ("can-listen | (trap '' INT; exec tee -p ", "pv_recipe_with_a_file_keeps_every_frame"),
    ("can-listen | (trap '' INT; exec tee bus.txt)", "tee_recipe_keeps_every_frame"),
    ("can-listen | (trap '' INT; exec ts ", "ts_recipe_stamps_each_line_at_once"),
    ("timeout --preserve-status 60 ", "timeout_recipe_ends_in_time_with_0"),
    ("can-listen --format candump | (trap '' INT; LC_ALL=C exec mawk ", "gaps_recipe_shows_each_when_it_is_over"),
    ("for rate in ", "bit_rate_recipe_finds_the_last_rate_within_100_s"),
    ("can-listen --format candump > bus.log", "file_and_log2asc_recipes_keep_every_frame"),
    ("can-listen --format candump | (trap '' INT; exec split ", "split_recipe_keeps_every_frame_in_whole_lines"),
    ("can-listen --format pcap | setsid -w tshark ", "ring_recipe_keeps_every_frame"),
    ("while can-listen ", "reconnect_recipe_survives_a_power_cycle"),
    ("nohup can-listen ", "nohup_recipe_survives_the_terminal"),
    ("can-listen > bus.txt 2> >(trap '' INT; exec ts ", "messages_recipe_adds_the_time_to_each"),
    ("sudo --preserve-env", "sudo_recipe_keeps_target_and_path"),
    ("ssh bench ", "ssh_recipe_shows_frames_of_a_remote_listener"),
    ("0 6 * * * ", "cron_recipe_works_without_an_environment"),
    ("cantools decode ", "cantools_recipes_decode_every_frame"),
    ("can-listen --format candump | (trap '' INT; PYTHONUNBUFFERED=1 ", "cantools_recipes_decode_every_frame"),
    ("VERSION ", "dbc_of_the_readme_decodes_the_simulated_gateway"),
    ("cantools plot ", "cantools_plot_recipe_draws_a_signal"),
    ("log2asc ", "file_and_log2asc_recipes_keep_every_frame"),
    ("can_logconvert ", "blf_and_mf4_recipes_keep_every_frame"),
    ("# can-listen --format candump | (trap '' INT; exec python3 ", "python_can_recipe_reads_every_frame"),
    ("can-listen --format pcap > bus.pcap", "pcap_recipe_is_read_by_tshark"),
    ("sudo modprobe vcan; ", "socketcan_recipe_shows_every_frame"),
    ("cantools monitor ", "socketcan_recipe_shows_every_frame"),
    (
        "can-listen --filter STD:0:0 --filter EXT:0:0 --format candump | (trap '' INT; exec canplayer ",
        "socketcan_recipe_shows_every_frame",
    ),
    ("sink() {", "second_ctrl_c_ends_a_sink_whose_server_is_away"),
    ("can-listen --format candump | sink kcat ", "kafka_recipe_delivers_in_order_through_an_outage"),
    ("can-listen --format candump | sink mosquitto_pub ", "mqtt_recipe_publishes_every_frame"),
    ("curl -sS --data-urlencode ", "influxdb_recipe_stores_every_frame"),
    ("can-listen --format influx | sink bash to-influx", "influxdb_recipe_stores_every_frame"),
    ("url='http://localhost:8086/write", "influxdb_recipe_stores_every_frame"),
    ("SELECT last(", "influxdb_recipe_stores_every_frame"),
    ("[Unit]", "unit_is_accepted_by_systemd"),
    ("/var/log/can-listen/*.log {", "logrotate_rotates_a_large_file_twice_a_day"),
    ("sudo mkdir -p /etc/systemd/system/logrotate.timer.d", "hourly_timer_of_logrotate_is_accepted_by_systemd"),
    ("printf '[Timer]", "hourly_timer_of_logrotate_is_accepted_by_systemd"),
    ("CAN_TARGET=[fd00::109]", "environment_file_of_the_readme_is_accepted"),
    ("cargo build --release", ".ci/run"),
    ("FROM rust:", "static_binary_listens_as_process_1_of_an_empty_root"),
    ("use std::io::", "rust_example_streams_and_stops"),
];

/// Blocks and commands that nothing executes, with the reason.
const NOT_EXECUTED: &[(&str, &str)] = &[
    ("CAN bus ── gateway", "a picture"),
    ("$ can-listen --target", "a transcript; its messages are checked by `transcript_is_what_the_programs_print`"),
    ("sudo install ", "would install into the system"),
    ("sudo systemctl ", "needs systemd as process 1"),
    ("journalctl ", "needs systemd as process 1"),
    ("echo net.core.rmem_max", "would change a setting of the machine"),
    (
        "docker ",
        "needs a container registry for the base image; the static build and the empty root are tested without",
    ),
];

/// The first line of each block, and all commands of those in sh.
fn commands_of_the_readme() -> Vec<&'static str> {
    let mut commands = Vec::new();
    for (number, part) in README.split("\n```").enumerate().filter(|(number, _)| number % 2 == 1) {
        let (language, block) = part.split_once('\n').unwrap_or_else(|| panic!("block {number} is empty"));
        let lines = block.lines();
        match language {
            // Of a loop, the first line.
            "sh" if !block.starts_with("for ") => commands.extend(lines.filter(|line| !line.starts_with('#'))),
            _ => commands.extend(lines.take(1)),
        }
    }
    commands
}

#[test]
fn commands_in_the_readme_are_executed_by_a_test_or_listed() {
    let tests =
        [include_str!("readme.rs"), include_str!("../interop/recipes.rs"), include_str!("../interop/socketcan.rs")];
    for (beginning, by) in EXECUTED {
        let exists = *by == ".ci/run" || tests.iter().any(|tests| tests.contains(&format!("fn {by}()")));
        assert!(exists, "no test {by} for {beginning:?}");
    }
    let commands = commands_of_the_readme();
    assert!(commands.len() > 50, "only {} commands", commands.len());
    let known = || EXECUTED.iter().chain(NOT_EXECUTED).map(|(beginning, _)| *beginning);
    // With a blank behind, a command that ends there begins with `beginning ` too.
    let begins = |command: &str, beginning: &str| format!("{command} ").starts_with(beginning);
    for command in &commands {
        assert!(known().any(|beginning| begins(command, beginning)), "nothing executes {command:?}");
    }
    for beginning in known() {
        assert!(commands.iter().any(|command| begins(command, beginning)), "no command begins with {beginning:?}");
    }
}
