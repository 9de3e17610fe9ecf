//! `can-stop`: the options, one call, an exit code. All else is [`can_udp::cli::stop`].

use std::process::ExitCode;

use can_udp::cli::stop::{self, StopOptions};
use clap::Parser;

fn main() -> ExitCode {
    stop::run(&StopOptions::parse())
}
