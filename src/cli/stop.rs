//! `can-stop`: sends one `STOP`, confirmed on request.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::cli::address::Resolved;
use crate::cli::advice;
use crate::cli::messages::{Messages, Verbosity, run_and_report};
pub use crate::cli::options::StopOptions;
use crate::gateway::socket::open_send_only;
use crate::gateway::{Command, Connection, NetworkError, OpenError, StartStopError};

/// Stops the bus. Prints messages on stderr; returns the exit code.
pub fn run(options: &StopOptions) -> ExitCode {
    let verbosity = if options.quiet { Verbosity::Quiet } else { Verbosity::Normal };
    run_and_report("can-stop", verbosity, |messages| {
        let resolved = options.common.resolve()?;
        if options.confirm { confirm(options, &resolved, messages) } else { send(options, &resolved, messages) }
    })
}

fn send(options: &StopOptions, resolved: &Resolved, messages: &Messages) -> Result<()> {
    let gateway = resolved.gateway;
    let command = Command::Stop { channel: options.common.channel };
    let socket = open_with_port_fallback(resolved, messages, open_send_only)?;
    socket
        .send_to(&command.datagram(), gateway)
        .map_err(|error| anyhow!(advice::network_error(gateway, &NetworkError::Send(error))))?;
    messages.info(format_args!("sent {command} to {gateway}; not confirmed (use --confirm)"));
    Ok(())
}

fn confirm(options: &StopOptions, resolved: &Resolved, messages: &Messages) -> Result<()> {
    let gateway = resolved.gateway;
    let channel = options.common.channel;
    // On a port that a listener shares, the answer would be delivered to the listener; so this one is not shared.
    let mut bus = open_with_port_fallback(resolved, messages, Connection::open)?;
    bus.set_retry(options.retry.config());
    match bus.stop(channel) {
        Ok(()) => {
            messages
                .info(format_args!("sent {} to {gateway}; confirmed: the bus is halted", Command::Stop { channel }));
            Ok(())
        }
        Err(StartStopError::Failed { failure, network_error }) => {
            let explanation = advice::failure(gateway, bus.retry(), &failure, network_error.as_ref());
            let others = advice::other_addresses(&failure, &options.common.target, &resolved.others);
            Err(anyhow!("{explanation}{others}"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Stopping the bus matters more than the port: a free one is used when the one asked for is in use.
fn open_with_port_fallback<T>(
    resolved: &Resolved,
    messages: &Messages,
    open: fn(SocketAddr, SocketAddr) -> Result<T, OpenError>,
) -> Result<T> {
    let Resolved { gateway, mut local, .. } = *resolved;
    let opened = match open(local, gateway) {
        Err(OpenError::Bind(in_use, error)) if error.kind() == io::ErrorKind::AddrInUse => {
            messages.info(format_args!("UDP port {} is already in use; sending from a free port", in_use.port()));
            local.set_port(0);
            open(local, gateway)
        }
        Ok(_) if resolved.is_own_address() => return Err(anyhow!(advice::own_address(resolved))),
        opened => opened,
    };
    opened.map_err(|error| anyhow!(advice::open_error(&error)))
}
