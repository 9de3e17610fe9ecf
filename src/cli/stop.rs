//! `can-stop`: sends one `STOP`, confirmed on request.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::cli::address::Resolved;
use crate::cli::advice;
use crate::cli::messages::{Exit, Messages, Verbosity, run_and_finish};
pub use crate::cli::options::StopOptions;
use crate::gateway::socket::open_send_only;
use crate::gateway::{Command, Connection, NetworkError, RetryConfig, Verb};

/// Stops the bus. Prints messages on stderr; returns the exit code.
pub fn run(options: &StopOptions) -> ExitCode {
    let verbosity = if options.quiet { Verbosity::Quiet } else { Verbosity::Normal };
    run_and_finish("can-stop", verbosity, |messages| stop(options, messages))
}

fn stop(options: &StopOptions, messages: &Messages) -> Result<Exit> {
    let resolved = options.common.resolve()?;
    let (gateway, channel) = (resolved.gateway, options.common.channel);
    if options.confirm {
        // On a port that a listener shares, the answer would be delivered to the listener; so this one is not shared.
        let open = |local, gateway| Connection::open(local, gateway, channel);
        let bus = open_with_port_fallback(&resolved, messages, open)?;
        return Ok(confirm(options, &resolved.others, bus, messages));
    }
    let command = Command { channel, verb: Verb::Stop };
    let socket = open_with_port_fallback(&resolved, messages, open_send_only)?;
    let sent = socket.send_to(&command.datagram(), gateway);
    sent.map_err(|error| anyhow!(advice::send_error(gateway, &error)))?;
    messages.info(format_args!("sent {command} to {gateway}; not confirmed (use --confirm)"));
    Ok(Exit::Success)
}

/// Stops the bus, and waits until the gateway has confirmed it. `others`: further addresses of the gateway's name.
pub(crate) fn confirm(options: &StopOptions, others: &[SocketAddr], mut bus: Connection, messages: &Messages) -> Exit {
    bus.set_retry(RetryConfig::new(options.retry.timeout, options.retry.attempts));
    let command = Command { channel: options.common.channel, verb: Verb::Stop };
    match bus.stop() {
        Ok(()) => {
            messages.info(format_args!("sent {command} to {}; confirmed: the bus is halted", bus.gateway));
            Exit::Success
        }
        Err(failure) => {
            let explanation = advice::first_failure(&failure, &options.common.target, others);
            let effect = if failure.is_refused() { "" } else { "; the bus may still run" };
            Exit::Failure(anyhow!("{explanation}{effect}"))
        }
    }
}

/// Stopping the bus matters more than the port: a free one is used when the one asked for is in use.
fn open_with_port_fallback<T>(
    resolved: &Resolved,
    messages: &Messages,
    open: impl Fn(SocketAddr, SocketAddr) -> Result<T, NetworkError>,
) -> Result<T> {
    let Resolved { gateway, mut local, .. } = *resolved;
    let opened = match open(local, gateway) {
        Err(NetworkError::Bind(in_use, error)) if in_use.port() > 0 && error.kind() == io::ErrorKind::AddrInUse => {
            messages.info(format_args!("UDP port {} is already in use; sending from a free port", in_use.port()));
            local.set_port(0);
            open(local, gateway)
        }
        Ok(_) if resolved.is_own_address() => return Err(anyhow!(advice::own_address(resolved))),
        opened => opened,
    };
    opened.map_err(|error| anyhow!(advice::network_error(gateway, &error, false)))
}
