//! `can-listen`: the options, one call, an exit code. All else is [`can_udp::cli::listen`].

use std::process::ExitCode;

use can_udp::cli::{listen, options};

fn main() -> ExitCode {
    listen::run(&options::parse())
}
