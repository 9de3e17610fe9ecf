//! What the user can say to each program. What both programs understand is declared once.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser};

use crate::cli::address::{LocalAddr, Target};
use crate::format::Format;
use crate::gateway::command::{BitRate, CHANNELS, DataBitRate, Filter, Init};
use crate::gateway::{RetryConfig, Setup};

/// Start the CAN bus behind a UDP gateway and print what it streams
///
/// Speaks the ASCII protocol of HMS Ixxat's CAN@net gateways. Data goes to stdout, words go to stderr. Ctrl-C ends it;
/// the bus runs on until can-stop halts it, unless --stop-on-exit is given.
#[derive(Clone, Debug, Parser)]
#[command(name = "can-listen", version)]
pub struct ListenOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a field's documentation would become the program's description")]
    pub common: CommonOptions,
    /// Bit rate of the bus in kbit/s
    ///
    /// One of 5, 10, 20, 50, 100, 125, 250, 500, 800 and 1000. A wrong one can disturb a live bus; see --listen-only.
    #[arg(long, default_value_t = BitRate::DEFAULT, value_name = "KBIT/S", help_heading = GATEWAY)]
    pub bitrate: BitRate,
    /// CAN FD: bit rate of the data phase in kbit/s
    ///
    /// One of 500, 1000, 2000, 4000, 5000 and 8000. Without it the gateway speaks classic CAN.
    #[arg(long, value_name = "KBIT/S", hide_short_help = true, help_heading = GATEWAY)]
    pub data_bitrate: Option<DataBitRate>,
    /// Only listen, so that nothing can disturb the bus
    ///
    /// The gateway acknowledges nothing and sends no error frames.
    #[arg(long, help_heading = GATEWAY)]
    pub listen_only: bool,
    /// What passes (hex); 29-bit ids: EXT:0:0
    ///
    /// The gateway's acceptance filter. A frame passes if its identifier equals ID in every bit that is set in MASK.
    /// Repeatable. STD:000:000 is every 11-bit identifier, EXT:0:0 every 29-bit one.
    #[arg(long = "filter", default_value = "STD:000:000", value_name = "STD|EXT:ID:MASK", help_heading = GATEWAY)]
    pub filters: Vec<Filter>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub retry: RetryOptions,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, help_heading = OUTPUT)]
    pub format: Format,
    /// Exit after printing N datagrams (raw) or frames
    #[arg(short = 'n', long, value_parser = count, allow_negative_numbers = true, value_name = "N", help_heading = OUTPUT)]
    pub count: Option<NonZeroU64>,
    /// Show each step of the handshake on stderr
    #[arg(short, long, conflicts_with = "quiet", help_heading = OUTPUT)]
    pub verbose: bool,
    /// When the bus is silent for this long, ask why
    ///
    /// The gateway is asked for the controller's state, and what that means is told. Seconds, from 0.001 to 86400, or 0
    /// for never.
    #[arg(
        long,
        default_value = "5",
        value_parser = seconds_or_never,
        value_name = "SECONDS",
        hide_short_help = true,
        help_heading = SESSION
    )]
    pub status_after: Duration,
    /// Fail when nothing has arrived for this long
    ///
    /// Seconds, from 0.001 to 86400. Choose it longer than the longest pause of your bus.
    #[arg(long, value_parser = seconds, value_name = "SECONDS", help_heading = SESSION)]
    pub idle_timeout: Option<Duration>,
    /// At the end, halt the bus
    ///
    /// And fail if the gateway does not confirm it.
    #[arg(long, help_heading = SESSION)]
    pub stop_on_exit: bool,
}

const GATEWAY: &str = "Gateway";
const OUTPUT: &str = "Output";
const SESSION: &str = "Session";

/// Halt the CAN bus behind a UDP gateway
///
/// Sends one command and, unless told to, waits for no answer. Works beside a running can-listen; when the local port
/// is taken, the command goes out from a free one.
#[derive(Clone, Debug, Parser)]
#[command(name = "can-stop", version)]
// Nothing is repeated without --confirm.
#[command(mut_arg("timeout", |arg| arg.requires("confirm")), mut_arg("attempts", |arg| arg.requires("confirm")))]
pub struct StopOptions {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a field's documentation would become the program's description")]
    pub common: CommonOptions,
    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub retry: RetryOptions,
    /// Wait until the gateway confirms that the bus is halted
    ///
    /// And fail if it does not. Without it, nobody knows whether the command arrived.
    #[arg(long, help_heading = SESSION)]
    pub confirm: bool,
}

/// Which gateway, from where, and how much is said about it.
#[derive(Args, Clone, Debug)]
pub struct CommonOptions {
    /// The gateway
    ///
    /// A name, an IPv4 or a bracketed IPv6 address; port 5000 unless given.
    #[arg(
        short,
        long,
        env = "CAN_TARGET",
        hide_env_values = true,
        default_value = "10.8.0.109",
        value_name = "HOST[:PORT]",
        help_heading = GATEWAY
    )]
    pub target: Target,
    /// The local address, 0.0.0.0:5000 unless given
    ///
    /// Port 0 takes any free one. For an IPv6 gateway the default is port 5000 of every IPv6 address.
    #[arg(short, long, env = "CAN_BIND", hide_env_values = true, value_name = "IP[:PORT]", help_heading = GATEWAY)]
    pub bind: Option<LocalAddr>,
    /// The gateway's CAN port
    #[arg(
        short,
        long,
        default_value_t = 1,
        value_parser = channel,
        value_name = "1..4",
        help_heading = GATEWAY
    )]
    pub channel: u8,
    /// Say only what is wrong, and what the gateway reports
    #[arg(short, long, help_heading = OUTPUT)]
    pub quiet: bool,
}

/// How patiently commands are repeated.
#[derive(Args, Clone, Debug)]
pub struct RetryOptions {
    /// How long to wait for each reply of the gateway
    ///
    /// Seconds, from 0.001 to 86400.
    #[arg(
        long,
        default_value = "1",
        value_parser = seconds,
        value_name = "SECONDS",
        hide_short_help = true,
        help_heading = GATEWAY
    )]
    pub timeout: Duration,
    /// How often to send each command until it is answered
    ///
    /// From 1 to 100.
    #[arg(
        long,
        default_value_t = 3,
        value_parser = RangedU64ValueParser::<u32>::new().range(1..=100),
        value_name = "N",
        hide_short_help = true,
        help_heading = GATEWAY
    )]
    pub attempts: u32,
}

impl clap::ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Format] {
        &[Format::Raw, Format::Candump, Format::Influx, Format::Pcap]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let (name, help) = match self {
            Format::Raw => ("raw", "The datagram as it came; a newline is added if it does not end in one"),
            Format::Candump => ("candump", "The log format of `candump -L`, one line for each frame"),
            Format::Influx => ("influx", "InfluxDB's line protocol, one point for each frame"),
            Format::Pcap => ("pcap", "For Wireshark and tshark, one record for each frame"),
        };
        Some(clap::builder::PossibleValue::new(name).help(help))
    }
}

impl ListenOptions {
    /// What the handshake sets up. The gateway refuses a filter that is set twice, so each is set once.
    pub(crate) fn setup(&self) -> Setup {
        let mut filters: Vec<Filter> = Vec::new();
        for filter in &self.filters {
            if !filters.contains(filter) {
                filters.push(*filter);
            }
        }
        Setup {
            channel: self.common.channel,
            init: Init { bit_rate: self.bitrate, data_bit_rate: self.data_bitrate, listen_only: self.listen_only },
            filters,
            retry: self.retry.config(),
        }
    }
}

impl CommonOptions {
    /// The local address, given or not.
    pub(crate) fn local(&self) -> LocalAddr {
        self.bind.unwrap_or_default()
    }

    /// The `can-stop` that halts this very bus.
    pub(crate) fn can_stop_command_line(&self) -> String {
        let mut command = format!("can-stop --confirm --target {}", self.target);
        if self.channel != 1 {
            command += &format!(" --channel {}", self.channel);
        }
        command
    }
}

impl RetryOptions {
    /// When commands are sent again.
    pub(crate) fn config(&self) -> RetryConfig {
        RetryConfig { timeout: self.timeout, attempts: self.attempts }
    }
}

fn channel(text: &str) -> Result<u8, &'static str> {
    text.parse().ok().filter(|number| CHANNELS.contains(number)).ok_or("give 1, 2, 3 or 4")
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
