//! Performs the handshake of `can-listen` and reports its steps.

use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::cli::advice;
use crate::cli::messages::Messages;
use crate::cli::session::{Resources, TERMINAL_CHECK_INTERVAL};
use crate::gateway::reply::{Line, lines};
use crate::gateway::{Command, Connection, Event, NetworkError};
use crate::text::escape_truncated;

/// Returns when `START` has left.
pub(crate) fn handshake(resources: &mut Resources<'_>, bus: &mut Connection) -> Result<()> {
    let Resources { options, gateway, others, messages, terminal, .. } = resources;
    let setup = options.setup();
    if let Some(warning) = advice::filter_limit(&setup.filters) {
        messages.warn(warning);
    }
    bus.begin_start(&setup);
    let mut next_terminal_check = Instant::now();
    loop {
        match bus.next_event(terminal.needs_polling().then_some(next_terminal_check)) {
            Event::Early(datagram) => {
                for line in lines(datagram).filter(|line| !matches!(Line::classify(line), Line::Frame(_))) {
                    let text = escape_truncated(line);
                    messages.debug_from_gateway(&text, format_args!("received {text}"));
                }
            }
            Event::Sent { command, attempt, left } => {
                debug_sent(messages, bus, command, attempt, left);
                if left && matches!(command, Command::Start { .. }) {
                    return Ok(());
                }
            }
            Event::InitRefused(text) => {
                messages.info("the bus was already running; restarting it with these settings");
                messages.debug(format_args!("INIT was refused: {text}"));
            }
            Event::Failed(failure) => {
                let explanation = advice::failure(*gateway, bus.retry(), &failure, bus.network_error());
                let others = advice::other_addresses(&failure, &options.common.target, others);
                return Err(anyhow!("{explanation}{}{others}", advice::takeover(bus.takeover())));
            }
            // Decided here and not by the signal handler, so that no signal falls between START and the stream.
            Event::Woken => messages.exit(
                format_args!(
                    "exited during the handshake; the bus may be running, stop it with:\n{}",
                    options.common.can_stop_command_line()
                ),
                130,
            ),
            Event::Timeout => {
                next_terminal_check = Instant::now() + TERMINAL_CHECK_INTERVAL;
                terminal.check();
            }
            _ => {}
        }
    }
}

/// Reports a command that was sent, to a user who wants each step.
pub(crate) fn debug_sent(messages: &Messages, bus: &Connection, command: Command, attempt: u32, left: bool) {
    match bus.network_error() {
        Some(error @ NetworkError::Send(_)) if !left => {
            messages.debug(format_args!("could not send {command}: {error}"))
        }
        _ => messages.debug(format_args!("sent {command} (attempt {attempt})")),
    }
}
