//! `can-stop`: the options, one call, an exit code. All else is [`can_udp::stop`].

use std::process::ExitCode;
use std::time::Duration;

use can_udp::Verbosity;
use can_udp::handshake::Retry;
use can_udp::socket::{Bind, Target};
use can_udp::stop::{self, Options};
use clap::Parser;

/// Halt the CAN bus behind a UDP gateway.
///
/// Sends one command and, unless told to, waits for no answer. Works beside a running can-listen.
#[derive(Parser)]
#[command(name = "can-stop", version)]
struct Arguments {
    /// The gateway: HOST or HOST:PORT, a name, an IPv4 or a bracketed IPv6 address
    #[arg(short, long, env = "CAN_TARGET", default_value = "10.8.0.109", value_name = "HOST[:PORT]")]
    target: Target,
    /// The local address; port 5000 unless given, 0 takes any free one [default: port 5000 on every address, or a free
    /// port if that is taken]
    #[arg(short, long, env = "CAN_BIND", value_name = "IP[:PORT]")]
    bind: Option<Bind>,
    /// The gateway's CAN port
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4), value_name = "1..4")]
    channel: u8,
    /// Wait until the gateway confirms that the bus is halted, and fail if it does not
    #[arg(long)]
    confirm: bool,
    /// With --confirm: how long to wait for the reply (0.001 to 86400)
    #[arg(long, requires = "confirm", default_value = "1", value_parser = can_udp::seconds, value_name = "SECONDS")]
    timeout: Duration,
    /// With --confirm: how often to send the command until it is answered (1 to 100)
    #[arg(long, requires = "confirm", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    attempts: u32,
    /// Show only errors on stderr
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let retry = Retry { timeout: arguments.timeout, attempts: arguments.attempts };
    can_udp::exit_code(
        "can-stop",
        stop::run(&Options {
            target: arguments.target,
            bind: arguments.bind.unwrap_or_default(),
            channel: arguments.channel,
            confirm: arguments.confirm.then_some(retry),
            verbosity: if arguments.quiet { Verbosity::Quiet } else { Verbosity::Normal },
        }),
    )
}
