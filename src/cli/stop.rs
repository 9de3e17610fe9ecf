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
use crate::gateway::{Cause, Command, Connection, Event, OpenError, Verb};

/// Stops the bus. Prints messages on stderr; returns the exit code.
pub fn run(options: &StopOptions) -> ExitCode {
    let verbosity = if options.quiet { Verbosity::Quiet } else { Verbosity::Normal };
    run_and_finish("can-stop", verbosity, |messages| {
        let resolved = options.common.resolve()?;
        if !options.confirm {
            return send(options, &resolved, messages);
        }
        // On a port that a listener shares, the answer would be delivered to the listener; so this one is not shared.
        let open = |local, gateway| Connection::open(local, gateway, options.common.channel);
        let bus = open_with_port_fallback(&resolved, messages, open)?;
        Ok(confirm(options, &resolved.others, bus, messages))
    })
}

fn send(options: &StopOptions, resolved: &Resolved, messages: &Messages) -> Result<Exit> {
    let gateway = resolved.gateway;
    let command = Command { channel: options.common.channel, verb: Verb::Stop };
    let socket = open_with_port_fallback(resolved, messages, open_send_only)?;
    let sent = socket.send_to(&command.datagram(), gateway);
    sent.map_err(|error| anyhow!(advice::send_error(gateway, &error)))?;
    messages.info(format_args!("sent {command} to {gateway}; not confirmed (use --confirm)"));
    Ok(Exit::Success)
}

/// Stops the bus, and waits until the gateway has confirmed it. `others`: further addresses of the gateway's name.
pub(crate) fn confirm(options: &StopOptions, others: &[SocketAddr], mut bus: Connection, messages: &Messages) -> Exit {
    bus.set_retry(options.retry.config());
    bus.begin_stop();
    let gateway = bus.gateway();
    let (mut has_left, mut has_answered) = (false, false);
    loop {
        match bus.next_event(None) {
            Event::Sent { left, .. } => has_left |= left,
            Event::Early(_) => has_answered |= has_left,
            Event::Completed { command, .. } => {
                messages.info(format_args!("sent {command} to {gateway}; confirmed: the bus is halted"));
                return Exit::Success;
            }
            Event::Failed(failure) => {
                let explanation = advice::failure(&failure, has_answered);
                let others = advice::other_addresses(&failure, &options.common.target, others);
                let effect = if let Cause::Refused(_) = failure.cause { "" } else { "; the bus may still run" };
                return Exit::Failure(anyhow!("{explanation}{others}{effect}"));
            }
            _ => {}
        }
    }
}

/// Stopping the bus matters more than the port: a free one is used when the one asked for is in use.
fn open_with_port_fallback<T>(
    resolved: &Resolved,
    messages: &Messages,
    open: impl Fn(SocketAddr, SocketAddr) -> Result<T, OpenError>,
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
