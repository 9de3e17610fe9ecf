//! `can-listen`: the options, one call, an exit code. All else is [`can_udp::listen`].

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::Duration;

use can_udp::Verbosity;
use can_udp::format::Format;
use can_udp::handshake::Retry;
use can_udp::listen::{self, Options};
use can_udp::protocol::{BitRate, Filter};
use can_udp::socket::{Bind, Target};
use clap::Parser;

/// Start the CAN bus behind a UDP gateway and print what it streams.
///
/// Speaks the ASCII protocol of HMS Ixxat's CAN@net gateways. Data goes to stdout, words go to stderr. Ctrl-C ends it;
/// the bus runs on until can-stop halts it, unless --stop-on-exit is given.
#[derive(Parser)]
#[command(name = "can-listen", version)]
struct Arguments {
    /// The gateway: HOST or HOST:PORT, a name, an IPv4 or a bracketed IPv6 address
    #[arg(short, long, env = "CAN_TARGET", default_value = "10.8.0.109", value_name = "HOST[:PORT]")]
    target: Target,
    /// The local address; port 5000 unless given, 0 takes any free one [default: port 5000 on every address]
    #[arg(short, long, env = "CAN_BIND", value_name = "IP[:PORT]")]
    bind: Option<Bind>,
    /// The gateway's CAN port
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4), value_name = "1..4")]
    channel: u8,
    /// Bit rate of the bus in kbit/s: 5, 10, 20, 50, 100, 125, 250, 500, 800 or 1000
    #[arg(long, default_value_t = BitRate::DEFAULT, value_name = "KBIT/S")]
    bitrate: BitRate,
    /// What the gateway lets pass, hexadecimal, repeatable: STD:000:000 is every 11-bit identifier (the default),
    /// EXT:0:0 every 29-bit one
    #[arg(long, value_name = "STD|EXT:ID:MASK")]
    filter: Vec<Filter>,
    /// What datagrams become on stdout
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    /// Exit after printing N datagrams
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    count: Option<u64>,
    /// How long to wait for each reply of the gateway (0.001 to 86400)
    #[arg(long, default_value = "1", value_parser = can_udp::seconds, value_name = "SECONDS")]
    timeout: Duration,
    /// How often to send each command until it is answered (1 to 100)
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    attempts: u32,
    /// Fail when nothing has arrived for this long (0.001 to 86400) [default: never]
    #[arg(long, value_parser = can_udp::seconds, value_name = "SECONDS")]
    idle_timeout: Option<Duration>,
    /// At the end, halt the bus, and fail if the gateway does not confirm it
    #[arg(long)]
    stop_on_exit: bool,
    /// Show each step of the handshake on stderr
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Show only errors, warnings and what the gateway reports on stderr
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut filters = arguments.filter;
    if filters.is_empty() {
        filters.push(Filter::ALL_STANDARD);
    }
    can_udp::exit_code(
        "can-listen",
        listen::run(&Options {
            target: arguments.target,
            bind: arguments.bind.unwrap_or_default(),
            channel: arguments.channel,
            bit_rate: arguments.bitrate,
            filters,
            retry: Retry { timeout: arguments.timeout, attempts: arguments.attempts },
            format: arguments.format,
            count: arguments.count.and_then(NonZeroU64::new),
            idle_timeout: arguments.idle_timeout,
            stop_on_exit: arguments.stop_on_exit,
            verbosity: match (arguments.quiet, arguments.verbose) {
                (true, _) => Verbosity::Quiet,
                (_, true) => Verbosity::Verbose,
                _ => Verbosity::Normal,
            },
        }),
    )
}
