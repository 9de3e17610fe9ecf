//! One `STOP` command, confirmed if asked.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::Verbosity;
use crate::exchange::drive;
use crate::handshake::{Handshake, Retry};
use crate::protocol::Command;
use crate::socket::{Bind, OpenError, Target, open, open_for_sending, unreachable_words};

/// What `can-stop` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway.
    pub target: Target,
    /// Our own end.
    pub bind: Bind,
    /// The gateway's CAN port, 1 to 4.
    pub channel: u8,
    /// Wait for the gateway's answer, this patiently.
    pub confirm: Option<Retry>,
    /// How much is said on stderr.
    pub verbosity: Verbosity,
}

/// Halts the bus.
///
/// # Errors
///
/// What happened, to whom, and what to try: the name does not resolve, no way to the gateway, a port that was asked for
/// is taken; if a confirmation was asked for, also that none came or that the gateway refused.
pub fn run(options: &Options) -> Result<()> {
    let gateway = options.target.resolve(&options.bind)?;
    let command = Command::Stop { channel: options.channel };
    let tell = |words: &str| {
        if options.verbosity > Verbosity::Quiet {
            crate::say("can-stop", words);
        }
    };
    match options.confirm {
        None => {
            let socket = with_own_or_any_port(options, gateway, &tell, open_for_sending)?;
            socket
                .send_to(&command.datagram(), gateway)
                .map_err(|error| anyhow!(unreachable_words(gateway, &error)))?;
            tell(&format!("sent {command} to {gateway}; no answer was waited for (--confirm waits)"));
        }
        Some(retry) => {
            // Beside a listener on our port its socket would be given the answer, so this takes a port for itself.
            let socket = with_own_or_any_port(options, gateway, &tell, open)?;
            let machine = Handshake::stop(Instant::now(), retry, options.channel);
            drive(machine, &socket, gateway, |_| ())?;
            tell(&format!("sent {command} to {gateway}; the gateway confirmed it"));
        }
    }
    Ok(())
}

/// Halting the bus matters more than the port: unless the user insists on one, any will do when ours is taken.
fn with_own_or_any_port(
    options: &Options,
    gateway: SocketAddr,
    tell: &dyn Fn(&str),
    open: fn(&Bind, SocketAddr) -> Result<UdpSocket, OpenError>,
) -> Result<UdpSocket, OpenError> {
    match open(&options.bind, gateway) {
        Err(OpenError::Bind(taken, error))
            if error.kind() == io::ErrorKind::AddrInUse && options.bind.port().is_none() =>
        {
            let socket = open(&options.bind.with_any_port(), gateway)?;
            tell(&format!("UDP port {} is taken here, so the command goes out from a free port", taken.port()));
            Ok(socket)
        }
        opened => opened,
    }
}
