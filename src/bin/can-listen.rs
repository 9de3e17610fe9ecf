//! `can-listen`: the options, one call, an exit code. All else is [`can_udp::cli::listen`].

use std::process::ExitCode;

use can_udp::cli::listen::{self, ListenOptions};
use clap::Parser;

fn main() -> ExitCode {
    listen::run(&ListenOptions::parse())
}
