//! One `STOP` command, confirmed if asked.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::cli::messages::{Stderr, Verbosity, exit_code};
pub use crate::cli::options::StopOptions;
use crate::gateway::command::Command;
use crate::gateway::driver::{Connection, Exchange, Turn};
use crate::gateway::handshake::{Answer, Machine, Retry, SETTLE};
use crate::gateway::socket::{OpenError, open, open_for_sending, unreachable_words};

/// Halts the bus; tells what to leave with. What there is to say has been said on stderr.
pub fn run(options: &StopOptions) -> ExitCode {
    let verbosity = if options.gateway.quiet { Verbosity::Quiet } else { Verbosity::Normal };
    exit_code("can-stop", verbosity, |stderr| {
        let gateway = options.gateway.target.resolve(&options.gateway.local())?;
        let command = Command::Stop { channel: options.gateway.channel };
        if !options.confirm {
            let socket = on_local_or_any_port(options, gateway, stderr, open_for_sending)?;
            socket
                .send_to(&command.datagram(), gateway)
                .map_err(|error| anyhow!(unreachable_words(gateway, &error)))?;
            stderr.note(format_args!("sent {command} to {gateway}; no answer was waited for (--confirm waits)"));
            return Ok(());
        }
        // Beside a listener on our port its socket would be given the answer, so this takes a port for itself.
        let connection = Connection::new(on_local_or_any_port(options, gateway, stderr, open)?);
        match confirm(options, &connection, gateway)? {
            Some(Answer::Status(_)) => stderr.note(format_args!(
                "sent {command} to {gateway} again, which refused it but says that the bus is halted"
            )),
            _ => stderr.note(format_args!("sent {command} to {gateway}; the gateway confirmed it")),
        }
        Ok(())
    })
}

fn confirm(options: &StopOptions, connection: &Connection, gateway: SocketAddr) -> Result<Option<Answer>> {
    let now = Instant::now();
    let command = Command::Stop { channel: options.gateway.channel };
    let machine = Machine::new(now, Retry::from(&options.retry), SETTLE, [command]);
    let mut exchange = Exchange::new(connection, machine, now);
    loop {
        match exchange.turn(None) {
            Turn::Settled(_, answer) => return Ok(answer),
            Turn::Failed(failure) => return Err(exchange.explain(&failure, gateway)),
            _ => {}
        }
    }
}

/// Halting the bus matters more than the port: any will do when the one asked for is taken.
fn on_local_or_any_port(
    options: &StopOptions,
    gateway: SocketAddr,
    stderr: &Stderr,
    open: fn(SocketAddr, SocketAddr) -> Result<UdpSocket, OpenError>,
) -> Result<UdpSocket, OpenError> {
    let local = options.gateway.local();
    match open(local.address(gateway), gateway) {
        Err(OpenError::Bind(taken, error)) if error.kind() == io::ErrorKind::AddrInUse => {
            let socket = open(local.with_any_port().address(gateway), gateway)?;
            stderr.note(format_args!(
                "UDP port {} is taken here, so the command goes out from a free port",
                taken.port()
            ));
            Ok(socket)
        }
        opened => opened,
    }
}
