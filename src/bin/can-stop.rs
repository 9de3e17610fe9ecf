//! `can-stop`: the options, one call, an exit code. All else is [`can_udp::cli::stop`].

use std::process::ExitCode;

use can_udp::cli::{options, stop};

fn main() -> ExitCode {
    stop::run(&options::parse())
}
