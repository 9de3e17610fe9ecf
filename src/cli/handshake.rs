//! Performs the handshake of `can-listen` and reports its steps.

use std::time::Instant;

use anyhow::anyhow;

use crate::cli::advice;
use crate::cli::messages::{Exit, Messages};
use crate::cli::session::{Resources, TERMINAL_CHECK_INTERVAL};
use crate::gateway::reply::{Line, lines};
use crate::gateway::{Command, Connection, Event, NetworkError};
use crate::text::escape_truncated;

/// Returns when `START` has left.
pub(crate) fn handshake(resources: &mut Resources<'_>, bus: &mut Connection) -> Result<(), Exit> {
    let Resources { options, gateway, messages, terminal, limiter, began, .. } = resources;
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
                    if limiter.admits(Instant::now(), &text) {
                        messages.debug(began.elapsed(), format_args!("received {text}"));
                    }
                }
            }
            Event::Sent { command, attempt, left } => {
                debug_sent(messages, *began, bus, command, attempt, left);
                if left && matches!(command, Command::Start { .. }) {
                    return Ok(());
                }
            }
            Event::InitRefused(text) => {
                messages.info("the bus was already running; restarting it with these settings");
                messages.debug(began.elapsed(), format_args!("INIT was refused: {text}"));
            }
            Event::Failed(failure) => {
                let explanation = advice::failure(*gateway, bus.retry(), &failure, bus.network_error());
                return Err(Exit::Failure(anyhow!("{explanation}{}", advice::takeover(bus.takeover()))));
            }
            // Decided here and not by the signal handler, so that no signal falls between START and the stream.
            Event::Woken => {
                return Err(Exit::Quit(format!(
                    "exited during the handshake; the bus may be running, stop it with:\n{}",
                    options.common.can_stop_command_line()
                )));
            }
            Event::Timeout => {
                next_terminal_check = Instant::now() + TERMINAL_CHECK_INTERVAL;
                terminal.check();
            }
            _ => {}
        }
    }
}

/// Reports a command that was sent, to a user who wants each step.
pub(crate) fn debug_sent(
    messages: &Messages,
    began: Instant,
    bus: &Connection,
    command: Command,
    attempt: u32,
    left: bool,
) {
    match bus.network_error() {
        Some(error @ NetworkError::Send(_)) if !left => {
            messages.debug(began.elapsed(), format_args!("could not send {command}: {error}"))
        }
        _ => messages.debug(began.elapsed(), format_args!("sent {command} (attempt {attempt})")),
    }
}
