//! `can-stop`: sends one `STOP`, confirmed on request.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::cli::advice;
use crate::cli::messages::{Exit, Messages, Verbosity, run_and_finish};
pub use crate::cli::options::StopOptions;
use crate::gateway::socket::open_send_only;
use crate::gateway::{Command, Connection, NetworkError, OpenError, StartStopError};

/// Stops the bus. Prints messages on stderr; returns the exit code.
pub fn run(options: &StopOptions) -> ExitCode {
    let verbosity = if options.common.quiet { Verbosity::Quiet } else { Verbosity::Normal };
    run_and_finish("can-stop", verbosity, |messages| {
        let gateway = options.common.target.resolve(&options.common.local())?;
        if options.confirm { confirm(options, gateway, messages) } else { send(options, gateway, messages) }?;
        Ok(Exit::Success)
    })
}

fn send(options: &StopOptions, gateway: SocketAddr, messages: &Messages) -> Result<()> {
    let command = Command::Stop { channel: options.common.channel };
    let socket = open_with_port_fallback(options, gateway, messages, open_send_only)?;
    socket
        .send_to(&command.datagram(), gateway)
        .map_err(|error| anyhow!(advice::network_error(gateway, &NetworkError::Send(error))))?;
    messages.info(format_args!("sent {command} to {gateway}; not confirmed (use --confirm)"));
    Ok(())
}

fn confirm(options: &StopOptions, gateway: SocketAddr, messages: &Messages) -> Result<()> {
    let channel = options.common.channel;
    // On a port that a listener shares, the answer would be delivered to the listener; so this one is not shared.
    let mut bus = open_with_port_fallback(options, gateway, messages, Connection::open)?;
    bus.set_retry(options.retry.config());
    match bus.stop(channel) {
        Ok(()) => {
            messages
                .info(format_args!("sent {} to {gateway}; confirmed: the bus is halted", Command::Stop { channel }));
            Ok(())
        }
        Err(StartStopError::Failed { failure, network_error }) => {
            Err(anyhow!(advice::failure(gateway, bus.retry(), &failure, network_error.as_ref())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Stopping the bus matters more than the port: a free one is used when the one asked for is in use.
fn open_with_port_fallback<T>(
    options: &StopOptions,
    gateway: SocketAddr,
    messages: &Messages,
    open: fn(SocketAddr, SocketAddr) -> Result<T, OpenError>,
) -> Result<T> {
    let local = options.common.local();
    let opened = match open(local.address(gateway), gateway) {
        Err(OpenError::Bind(in_use, error)) if error.kind() == io::ErrorKind::AddrInUse => {
            messages.info(format_args!("UDP port {} is already in use; sending from a free port", in_use.port()));
            open(local.with_any_port().address(gateway), gateway)
        }
        opened => opened,
    };
    opened.map_err(|error| anyhow!(advice::open_error(&error)))
}
