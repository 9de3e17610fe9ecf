//! Reads the values of options, and writes one for a shell.

use std::env;
use std::num::NonZeroU64;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::{BIND_VARIABLE, TARGET_VARIABLE};
use crate::cli::address::{LocalAddr, Target};
use crate::format::Format;
use crate::gateway::command::CHANNELS;

/// The formats by their names on the command line.
impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Format] {
        &[Format::Raw, Format::Candump, Format::Influx, Format::Pcap]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Format::Raw => "raw",
            Format::Candump => "candump",
            Format::Influx => "influx",
            Format::Pcap => "pcap",
        }))
    }
}

/// A value from the environment can have white space around it: files with variables that were edited on Windows end their
/// lines in CR.
pub(super) fn target(text: &str) -> Result<Target, &'static str> {
    match from_environment(TARGET_VARIABLE, text) {
        // Not the default gateway: its bus could be stopped by mistake.
        Some("") => Err("the variable CAN_TARGET is empty; unset it to use the default gateway, or name a gateway"),
        Some(value) => value.parse(),
        None => text.parse(),
    }
}

/// An empty variable counts as unset: compose files write `${CAN_BIND:-}`.
pub(super) fn local_addr(text: &str) -> Result<LocalAddr, &'static str> {
    match from_environment(BIND_VARIABLE, text) {
        Some("") => Ok(LocalAddr::default()),
        Some(value) => value.parse(),
        None => text.parse(),
    }
}

/// The value without the white space around it, if it is that of the environment variable.
fn from_environment<'a>(variable: &str, text: &'a str) -> Option<&'a str> {
    env::var(variable).is_ok_and(|value| value == text).then(|| text.trim())
}

/// The text as one word of a POSIX shell.
pub(super) fn shell_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/@%+=-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

pub(super) fn channel(text: &str) -> Result<u8, &'static str> {
    text.parse().ok().filter(|number| CHANNELS.contains(number)).ok_or("give 1, 2, 3 or 4")
}

pub(super) fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(seconds @ 0.001..=86_400.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, from 0.001 to 86400"),
    }
}

pub(super) fn seconds_or_never(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(Duration::ZERO),
        _ => seconds(text).map_err(|_| "give seconds, from 0.001 to 86400, or 0 for never"),
    }
}

pub(super) fn count(text: &str) -> Result<NonZeroU64, &'static str> {
    text.parse().map_err(|_| "give a whole number, 1 or more")
}
