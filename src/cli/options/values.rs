//! Reads the values of options, and writes one for a shell.

use std::env;
use std::num::NonZeroU64;
use std::time::Duration;

pub(super) const TARGET_VARIABLE: &str = "CAN_TARGET";
pub(super) const BIND_VARIABLE: &str = "CAN_BIND";
pub(super) const CHANNEL_VARIABLE: &str = "CAN_CHANNEL";
pub(super) const BITRATE_VARIABLE: &str = "CAN_BITRATE";

/// Not the default gateway then: its bus could be stopped by mistake.
pub(super) const EMPTY_TARGET: &str =
    "the variable CAN_TARGET is empty; unset it to use the default gateway, or name a gateway";

/// Reads a value that can come from `variable`. There it can have white space around it, as files that were edited on
/// Windows end their lines in CR; an empty one is `unset`.
pub(super) fn or_variable<T: Clone, E: ToString>(
    variable: &'static str,
    unset: Result<T, &'static str>,
    read: fn(&str) -> Result<T, E>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| match text.trim() {
        _ if env::var(variable).as_deref() != Ok(text) => read(text).map_err(|error| error.to_string()),
        "" => unset.clone().map_err(str::to_owned),
        value => read(value).map_err(|error| format!("{} (from the variable {variable})", error.to_string())),
    }
}

/// The text as one word of a POSIX shell.
pub(super) fn shell_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/@%+=-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
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
