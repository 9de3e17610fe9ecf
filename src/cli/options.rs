//! The options of each program. What both have is declared once.

mod values;

use std::env::{self, VarError};
use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, value_parser};

use values::{
    BIND_VARIABLE, BITRATE_VARIABLE, CHANNEL_VARIABLE, EMPTY_TARGET, TARGET_VARIABLE, VARIABLES, count, or_variable,
    seconds, seconds_or_never, shell_quoted,
};

use crate::cli::address::{Address, Resolved, parse_local, parse_target};
use crate::format::Format;
use crate::gateway::{BitRate, Channel, DataBitRate, Filter, Init, RetryConfig, Setup};

/// Start the CAN bus behind a UDP gateway and print what it streams
///
/// Speaks the ASCII protocol of HMS Ixxat's CAN@net gateways. Data goes to stdout,
/// messages go to stderr. Ctrl-C stops it; the bus keeps running until can-stop
/// stops it, unless --stop-on-exit is given.
#[derive(Clone, Debug, Parser)]
#[command(name = "can-listen", version, verbatim_doc_comment, after_long_help = LISTEN_EXAMPLES)]
#[allow(missing_docs, reason = "a flattened field's documentation would become the program's description")]
pub struct ListenOptions {
    /// raw, candump, influx or pcap
    #[arg(short, long, value_parser = format(), default_value = "raw", hide_possible_values = true, long_help = FORMATS)]
    pub(crate) format: Format,
    /// Exit after printing N datagrams (raw) or frames
    ///
    /// In raw, the answer to START counts.
    #[arg(short = 'n', long, value_parser = count, allow_negative_numbers = true, value_name = "N")]
    pub count: Option<NonZeroU64>,
    /// Exit with an error after this long without data
    ///
    /// Seconds, from 0.001 to 86400. Choose it longer than the longest pause
    /// of your bus.
    #[arg(long, value_parser = seconds, allow_negative_numbers = true, value_name = "SECONDS", verbatim_doc_comment)]
    pub idle_timeout: Option<Duration>,
    /// Send STOP on exit; fail if it is not confirmed
    #[arg(long)]
    pub stop_on_exit: bool,
    /// Query the gateway after this much silence and explain it
    ///
    /// Seconds, from 0.001 to 86400, or 0 for never.
    #[arg(long, default_value = "5", value_parser = seconds_or_never, allow_negative_numbers = true)]
    #[arg(value_name = "SECONDS", hide_short_help = true)]
    pub status_after: Duration,
    /// Print only warnings, errors and gateway events
    #[arg(short, long)]
    pub quiet: bool,
    /// Show each step of the handshake on stderr
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    #[command(flatten)]
    pub common: CommonOptions,
    // What follows is under the heading that `common` begins.
    /// Bus bit rate
    ///
    /// In kbit/s: 5, 10, 20, 50, 100, 125, 250, 500, 800 or 1000. A wrong one
    /// can disturb a live bus; see --listen-only.
    #[arg(long, default_value_t = BitRate::DEFAULT)]
    #[arg(value_parser = or_variable(BITRATE_VARIABLE, Ok(BitRate::DEFAULT), str::parse), env = BITRATE_VARIABLE)]
    #[arg(hide_env_values = true, value_name = "KBIT/S", verbatim_doc_comment)]
    pub bitrate: BitRate,
    /// CAN FD: bit rate of the data phase in kbit/s
    ///
    /// One of 500, 1000, 2000, 4000, 5000 and 8000. Without it, classic CAN.
    #[arg(long, value_name = "KBIT/S", hide_short_help = true)]
    pub data_bitrate: Option<DataBitRate>,
    /// Listen only: no acknowledgements, no error frames
    ///
    /// For a live bus: the gateway cannot disturb it.
    #[arg(long)]
    pub listen_only: bool,
    /// Acceptance filter, hex; all 29-bit: EXT:0:0
    ///
    /// STD:ID:MASK or EXT:ID:MASK, repeatable. A frame passes if its
    /// identifier equals ID in every bit that is set in MASK. The default,
    /// STD:000:000, passes every 11-bit identifier; EXT:0:0 passes every
    /// 29-bit one. CAN@net Basic has 5 entries of each kind.
    #[arg(long = "filter", verbatim_doc_comment, default_value = "STD:000:000", hide_default_value = true)]
    #[arg(value_name = "KIND:ID:MASK")]
    pub filters: Vec<Filter>,
    #[command(flatten)]
    pub retry: RetryOptions,
}

/// Reads a format's name.
fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["raw", "candump", "influx", "pcap"]).map(|name| match name.as_str() {
        "candump" => Format::Candump,
        "influx" => Format::Influx,
        "pcap" => Format::Pcap,
        _ => Format::Raw,
    })
}

const FORMATS: &str = "\
Output format

raw:     The datagram as it came; a missing newline is added
candump: The log format of `candump -L`, one line for each frame
influx:  InfluxDB's line protocol, one point for each frame
pcap:    For Wireshark and tshark, one record for each frame";

const LISTEN_EXAMPLES: &str = "\
Examples:
  can-listen --target 10.8.0.109                Start the bus, print the stream
  can-listen --listen-only --bitrate 500        Only listen, at 500 kbit/s
  can-listen --filter STD:0:0 --filter EXT:0:0  11-bit and 29-bit identifiers
  can-listen --format candump > bus.log         Write a log for can-utils
  can-listen --format pcap | wireshark -k -i -  Watch in Wireshark

Exit codes:
  0    Ended as requested: Ctrl-C, SIGTERM, SIGHUP, --count, or the reader of
       stdout went away
  1    Failed; the last message says why
  2    Wrong usage
  130  A second Ctrl-C, or the first before START was sent";

const STOP_EXAMPLES: &str = "\
Examples:
  can-stop                                Stop the bus of the default gateway,
                                          or of CAN_TARGET and CAN_CHANNEL
  can-stop --confirm --target 10.8.0.109  Wait until that is confirmed
  can-stop --confirm --target gw2 -c 2    Stop the bus on CAN port 2

Exit codes:
  0    STOP was sent; with --confirm: the bus is halted
  1    Failed; the message says why
  2    Wrong usage
  130  Ctrl-C";

/// Stop the CAN bus behind a UDP gateway
///
/// Sends one command; waits for the answer only with --confirm. Works beside a
/// running can-listen; when the local port is in use, the command is sent from a
/// free one.
#[derive(Clone, Debug, Parser)]
#[command(name = "can-stop", version, verbatim_doc_comment, after_long_help = STOP_EXAMPLES)]
// Nothing is repeated without --confirm.
#[command(mut_arg("timeout", |arg| arg.requires("confirm")), mut_arg("attempts", |arg| arg.requires("confirm")))]
#[allow(missing_docs, reason = "as above")]
pub struct StopOptions {
    /// Wait until the gateway confirms that the bus is halted
    ///
    /// Fail if it does not. Without this option it is unknown whether the
    /// command arrived.
    #[arg(long, verbatim_doc_comment)]
    pub confirm: bool,
    /// Print only warnings and errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub common: CommonOptions,
    #[command(flatten, next_help_heading = "With --confirm")]
    pub retry: RetryOptions,
}

/// Which bus, and from which address.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Gateway")]
pub struct CommonOptions {
    /// Gateway
    ///
    /// A name, an IPv4 or a bracketed IPv6 address; port 5000 unless given.
    #[arg(short, long, value_parser = or_variable(TARGET_VARIABLE, Err(EMPTY_TARGET), parse_target))]
    #[arg(env = TARGET_VARIABLE, hide_env_values = true, default_value = "10.8.0.109", value_name = "HOST[:PORT]")]
    pub target: Address,
    /// Local address, else 0.0.0.0:5000
    ///
    /// Port 0 is any free one. For an IPv6 gateway the default is port 5000
    /// of every IPv6 address.
    #[arg(short, long, verbatim_doc_comment)]
    #[arg(value_parser = or_variable(BIND_VARIABLE, Ok(Address::default()), parse_local), env = BIND_VARIABLE)]
    #[arg(hide_env_values = true, value_name = "IP[:PORT]")]
    pub bind: Option<Address>,
    /// CAN port
    ///
    /// The number of the gateway's CAN port.
    #[arg(short, long, default_value_t = Channel::DEFAULT)]
    #[arg(value_parser = or_variable(CHANNEL_VARIABLE, Ok(Channel::DEFAULT), str::parse), env = CHANNEL_VARIABLE)]
    #[arg(hide_env_values = true, value_name = "1..4")]
    pub channel: Channel,
}

/// When commands are sent again.
#[derive(Args, Clone, Debug)]
pub struct RetryOptions {
    /// Time to wait for each reply of the gateway
    ///
    /// Seconds, from 0.001 to 86400.
    #[arg(long, default_value = "1", value_parser = seconds, allow_negative_numbers = true, value_name = "SECONDS")]
    #[arg(hide_short_help = true)]
    pub timeout: Duration,
    /// Maximum attempts per command
    ///
    /// From 1 to 100. A command that nothing answers fails after
    /// (attempts + 1) x timeout, 4 s by default.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=100), allow_negative_numbers = true, value_name = "N")]
    #[arg(hide_short_help = true, verbatim_doc_comment)]
    pub attempts: u32,
}

/// The options of the command line. Asked for help, or given what is no option, it prints and exits instead.
pub fn parse<T: Parser>() -> T {
    T::try_parse().unwrap_or_else(|mut error| {
        let unknown = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(text)) if error.kind() == ErrorKind::UnknownArgument => text.as_str(),
            _ => "",
        };
        let names_target = env::args_os().any(|argument| argument == "-t" || argument == "--target");
        if !names_target && parse_target(unknown).is_ok() {
            let tip = format!("name the gateway with --target {}", shell_quoted(unknown));
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        let is_not_text = |variable: &&str| matches!(env::var(*variable), Err(VarError::NotUnicode(_)));
        if let (ErrorKind::InvalidUtf8, Some(variable)) = (error.kind(), VARIABLES.into_iter().find(is_not_text)) {
            error = T::command().error(ErrorKind::InvalidUtf8, format!("the variable {variable} is not UTF-8 text"));
        }
        if error.get(ContextKind::Usage).is_some() {
            // The error's own usage lists options as required whose variables are set.
            error.insert(ContextKind::Usage, ContextValue::StyledStr(T::command().render_usage()));
        }
        error.exit()
    })
}

impl ListenOptions {
    /// What the handshake sets up. The gateway refuses a filter that is set twice, so each is set once.
    pub(crate) fn setup(&self) -> Setup {
        let is_new = |&(index, filter): &(usize, &Filter)| !self.filters[..index].contains(filter);
        let filters = self.filters.iter().enumerate().filter(is_new).map(|(_, filter)| *filter).collect();
        let init = Init { bit_rate: self.bitrate, data_bit_rate: self.data_bitrate, listen_only: self.listen_only };
        Setup { init, filters, retry: RetryConfig::new(self.retry.timeout, self.retry.attempts) }
    }
}

impl CommonOptions {
    /// Finds both addresses.
    ///
    /// # Errors
    ///
    /// Those of [`Address::resolve`].
    pub(crate) fn resolve(&self) -> Result<Resolved> {
        self.target.resolve(self.bind.as_ref().unwrap_or(&Address::default()))
    }

    /// The command line that stops this bus, quoted for a shell, whatever variables are set there.
    pub(crate) fn can_stop_command_line(&self) -> String {
        let mut command = format!("can-stop --confirm --target {}", shell_quoted(&self.target.to_string()));
        if self.channel != Channel::DEFAULT || env::var_os(CHANNEL_VARIABLE).is_some() {
            command += &format!(" --channel {}", self.channel);
        }
        // If its variable is set, it is not the default.
        if let Some(bind) = self.bind.as_ref().filter(|bind| **bind != Address::default()) {
            command += &format!(" --bind {}", shell_quoted(&bind.to_string()));
        }
        command
    }
}
