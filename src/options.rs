//! What the user can say to each program. What both programs understand is declared once.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser};

use crate::address::{Bind, Target};
use crate::format::Format;
use crate::handshake::Retry;
use crate::protocol::{BitRate, Command, DataBitRate, Filter, Init};

/// Start the CAN bus behind a UDP gateway and print what it streams.
///
/// Speaks the ASCII protocol of HMS Ixxat's CAN@net gateways. Data goes to stdout, words go to stderr. Ctrl-C ends it;
/// the bus runs on until can-stop halts it, unless --stop-on-exit is given.
#[derive(Clone, Debug, Parser)]
#[command(name = "can-listen", version)]
pub struct ListenOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a field's documentation would become the program's description")]
    pub gateway: GatewayOptions,
    /// Bit rate of the bus in kbit/s: 5, 10, 20, 50, 100, 125, 250, 500, 800 or 1000
    #[arg(long, default_value_t = BitRate::DEFAULT, value_name = "KBIT/S")]
    pub bitrate: BitRate,
    /// CAN FD, with this bit rate of the data phase in kbit/s: 500, 1000, 2000, 4000, 5000 or 8000
    #[arg(long, value_name = "KBIT/S")]
    pub data_bitrate: Option<DataBitRate>,
    /// Only listen to the bus: acknowledge nothing and send no error frames, so that nothing can disturb it
    #[arg(long)]
    pub listen_only: bool,
    /// What the gateway lets pass, hexadecimal, repeatable: STD:000:000 is every 11-bit identifier, EXT:0:0 every 29-bit
    /// one
    #[arg(long = "filter", default_value = "STD:000:000", value_name = "STD|EXT:ID:MASK")]
    pub filters: Vec<Filter>,
    /// What datagrams become on stdout
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Exit after printing N datagrams (raw) or frames (other formats)
    #[arg(short = 'n', long, value_parser = count, value_name = "N")]
    pub count: Option<NonZeroU64>,
    /// Ask the gateway for its state when the bus has been silent for this long, and say why (0.001 to 86400; 0: never)
    #[arg(long, default_value = "5", value_parser = seconds_or_never, value_name = "SECONDS")]
    pub status_after: Duration,
    /// Fail when nothing has arrived for this long (0.001 to 86400) [default: never]
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    pub idle_timeout: Option<Duration>,
    /// At the end, halt the bus, and fail if the gateway does not confirm it
    #[arg(long)]
    pub stop_on_exit: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub retry: RetryOptions,
    /// Show each step of the handshake on stderr
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
}

/// Halt the CAN bus behind a UDP gateway.
///
/// Sends one command and, unless told to, waits for no answer. Works beside a running can-listen; when the local port is
/// taken, the command goes out from a free one.
#[derive(Clone, Debug, Parser)]
#[command(name = "can-stop", version)]
// Nothing is repeated without --confirm.
#[command(mut_arg("timeout", |arg| arg.requires("confirm")), mut_arg("attempts", |arg| arg.requires("confirm")))]
pub struct StopOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a field's documentation would become the program's description")]
    pub gateway: GatewayOptions,
    /// Wait until the gateway confirms that the bus is halted, and fail if it does not
    #[arg(long)]
    pub confirm: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub retry: RetryOptions,
}

/// Which gateway, from where, and how much is said about it.
#[derive(Args, Clone, Debug)]
pub struct GatewayOptions {
    /// The gateway: HOST or HOST:PORT, a name, an IPv4 or a bracketed IPv6 address
    #[arg(short, long, env = "CAN_TARGET", default_value = "10.8.0.109", value_name = "HOST[:PORT]")]
    pub target: Target,
    /// The local address; port 5000 unless given, 0 takes any free one [default: port 5000 on every address]
    #[arg(short, long, env = "CAN_BIND", value_name = "IP[:PORT]")]
    pub bind: Option<Bind>,
    /// The gateway's CAN port
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4), value_name = "1..4")]
    pub channel: u8,
    /// Say only what is wrong on stderr, and what the gateway reports
    #[arg(short, long)]
    pub quiet: bool,
}

/// How patiently commands are repeated.
#[derive(Args, Clone, Debug)]
pub struct RetryOptions {
    /// How long to wait for each reply of the gateway (0.001 to 86400)
    #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    pub timeout: Duration,
    /// How often to send each command until it is answered (1 to 100)
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<u32>::new().range(1..=100), value_name = "N")]
    pub attempts: u32,
}

impl ListenOptions {
    /// The commands of the handshake, in their order.
    pub(crate) fn handshake(&self) -> Vec<Command> {
        let channel = self.gateway.channel;
        let init = Init { bit_rate: self.bitrate, data_bit_rate: self.data_bitrate, listen_only: self.listen_only };
        let mut commands = vec![Command::Init { channel, init }, Command::FilterClear { channel }];
        commands.extend(self.filters.iter().map(|&filter| Command::FilterAdd { channel, filter }));
        commands.push(Command::Start { channel });
        commands
    }
}

impl GatewayOptions {
    /// The local address, given or not.
    pub(crate) fn local(&self) -> Bind {
        self.bind.unwrap_or_default()
    }

    /// The `can-stop` that halts this very bus.
    pub(crate) fn stop_command(&self) -> String {
        let mut command = format!("can-stop --confirm --target {}", self.target);
        if self.channel != 1 {
            command += &format!(" --channel {}", self.channel);
        }
        command
    }
}

impl From<&RetryOptions> for Retry {
    fn from(options: &RetryOptions) -> Retry {
        Retry { timeout: options.timeout, attempts: options.attempts }
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(seconds @ 0.001..=86_400.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, from 0.001 to 86400"),
    }
}

fn seconds_or_never(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(Duration::ZERO),
        _ => seconds(text).map_err(|_| "give seconds, from 0.001 to 86400, or 0 for never"),
    }
}

fn count(text: &str) -> Result<NonZeroU64, &'static str> {
    text.parse().map_err(|_| "give a whole number, 1 or more")
}
