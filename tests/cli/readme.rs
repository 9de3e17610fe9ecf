//! The README stays true: its options, its unit, its logrotate file, its container.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{Folder, can_listen_plain, can_stop, run, start};
use crate::simulator::Gateway;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const README: &str = include_str!("../../README.md");

/// The text from a heading to the next one of the same or a higher level.
fn section(heading: &str) -> &'static str {
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
fn every_option_is_in_the_readme_and_in_the_help() {
    for (mut program, heading) in
        [(can_listen_plain(["--help"]), "### Options of can-listen"), (can_stop(["--help"]), "### Options of can-stop")]
    {
        let help = run(&mut program);
        assert_eq!(help.code(), Some(0));
        assert_eq!(options_of_table(heading), options_of_help(&help.text()), "{heading}");
    }
}

#[test]
fn every_option_in_a_command_of_the_readme_exists() {
    let listen = options_of_table("### Options of can-listen");
    let stop = options_of_table("### Options of can-stop");
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

fn unit_file(folder: &Folder) -> PathBuf {
    let unit = block("## As a service", "ini");
    assert!(unit.contains("ExecStart=/usr/local/bin/can-listen "), "{unit}");
    folder.write("can-listen@.service", &unit.replace("/usr/local/bin/can-listen", env!("CARGO_BIN_EXE_can-listen")))
}

#[test]
#[ignore = "needs systemd-analyze (Debian: systemd)"]
fn the_unit_is_one_that_systemd_has_nothing_to_say_about() {
    let folder = Folder::new("unit");
    let verified = run(Command::new("systemd-analyze").arg("verify").arg(unit_file(&folder)));
    assert_eq!((verified.code(), verified.text().as_str(), verified.stderr.as_str()), (Some(0), "", ""));
}

#[test]
#[ignore = "needs systemd-analyze (Debian: systemd)"]
fn the_unit_exposes_at_most_2_of_10() {
    let folder = Folder::new("exposure");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true", "--threshold=20"]).arg(unit_file(&folder));
    let judged = run(&mut command);
    assert_eq!(judged.code(), Some(0), "{}{}", judged.text(), judged.stderr);
    assert!(judged.text().contains("Overall exposure level"), "{}", judged.text());
}

#[test]
#[ignore = "needs logrotate"]
fn logrotate_has_nothing_against_its_file() {
    let folder = Folder::new("logrotate");
    let config = folder.write("can-listen", block("## As a service", "text"));
    let state = folder.0.join("state");
    let judged = run(Command::new("logrotate").arg("--debug").arg("--state").arg(state).arg(config));
    assert_eq!(judged.code(), Some(0), "{}", judged.stderr);
    assert!(!judged.stderr.contains("error:"), "{}", judged.stderr);
}

/// Builds the static binary with the Dockerfile's own command, in a target folder of its own.
fn build_static() -> PathBuf {
    let dockerfile = block("## In a container", "dockerfile");
    let build = dockerfile.lines().find_map(|line| line.strip_prefix("RUN ")).expect("a build command");
    let (_, binaries) = dockerfile.split_once("COPY --from=build /src/").expect("what is copied");
    let can_listen = binaries.split_whitespace().next().expect("can-listen's path");
    assert!(can_listen.ends_with("/can-listen"), "{can_listen}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
    let built = Command::new("sh").arg("-c").arg(build).env("CARGO_TARGET_DIR", &target).status().expect("a shell");
    assert!(built.success(), "{build}");
    target.join(can_listen.strip_prefix("target/").expect("a path below target"))
}

#[test]
#[ignore = "needs root, unshare (Debian: util-linux) and a static C library (Debian: libc6-dev)"]
fn the_static_binary_alone_in_an_empty_root_as_process_1_listens_until_sigterm() {
    let root = Folder::new("root");
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
    assert!(
        ended.stderr.contains("lost: unknown (the system does not say) in the kernel, 0 in the spool"),
        "{ended:?}"
    );
}

#[test]
fn no_link_leads_nowhere() {
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

/// What the programs can say, as it stands in their source: without line breaks, and with `{}` for what varies.
fn words_of_the_programs() -> String {
    let mut words = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                words += &fs::read_to_string(path).expect("text");
            }
        }
    }
    words.split("\\\n").map(str::trim_start).collect()
}

#[test]
fn every_message_in_the_readme_is_one_that_the_programs_have() {
    let words = words_of_the_programs();
    let mut seen = 0;
    for heading in ["## What silence means", "## When something goes wrong"] {
        let rows = section(heading).lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        for message in rows.flat_map(|row| row.split('`').step_by(2)) {
            for part in message.split('…').map(str::trim).filter(|part| !part.is_empty()) {
                // What the user's own values stand for varies.
                let part = part.replace("CAN 1 INIT", "").replace("port 5000 is", "port {port} is");
                for part in part.split("R ERR").map(|part| part.trim().trim_end_matches(':')) {
                    assert!(words.contains(part), "{part:?} of {message:?} is nothing that the programs say");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 25, "only {seen} messages");
}

#[test]
fn the_words_that_users_look_for_are_there() {
    let readme = README.to_lowercase();
    for word in
        "timestamp gap rate reconnect rotate 29-bit J1939 Wireshark SocketCAN vcan DBC BLF awk tee Docker systemd \
                 InfluxDB Grafana Kafka MQTT firewall VPN listen-only"
            .split_whitespace()
            .chain(["several gateways"])
    {
        assert!(readme.contains(&word.to_lowercase()), "{word}");
    }
}
