//! `can-listen`: acquires everything that can fail, then runs a session.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use clap::CommandFactory;

use crate::cli::address::Resolved;
use crate::cli::advice;
use crate::cli::console::Console;
use crate::cli::losses::LARGER_BUFFER;
use crate::cli::messages::{Exit, Messages, Verbosity, run_and_finish};
pub use crate::cli::options::ListenOptions;
use crate::cli::session::Session;
use crate::cli::shutdown::{Shutdown, stdout_was_closed};
use crate::format::{Encoder, Format};
use crate::gateway::Connection;
use crate::gateway::socket::RECEIVE_BUFFER;
use crate::output::printer::Printer;
use crate::output::spool::Spool;
use crate::output::stdout::{Found, Stdout};

/// The longest time that datagrams wait in the socket's queue, so that several are read at once.
const MAX_REST: Duration = Duration::from_millis(4);

/// The same into a regular file, whose readers come later. If a flood of 300,000 datagrams a second begins during
/// the rest, a receive buffer of 4 MiB has room for it and for a late wake-up.
const MAX_REST_INTO_FILE: Duration = Duration::from_millis(33);

/// Runs a session until it ends as asked (by a signal, by its count, or because the reader of stdout went away) or fails.
/// Prints messages on stderr; returns the exit code.
///
/// Installs the process's handler for SIGINT, SIGTERM and SIGHUP, permanently. Before the handshake such
/// a signal ends the whole process at once, with exit code 130. Later the first one ends the session, with 130 if `START`
/// has not left, and the second one ends the process at once, with 130.
pub fn run(options: &ListenOptions) -> ExitCode {
    let verbosity = match (options.quiet, options.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    run_and_finish("can-listen", verbosity, |messages| listen(options, messages))
}

fn listen(options: &ListenOptions, messages: &Messages) -> Result<Exit> {
    let shutdown = Arc::new(Shutdown::default());
    shutdown.handle_signals(messages).context("cannot handle signals")?;
    let is_terminal = io::stdout().is_terminal();
    if options.format == Format::Pcap && is_terminal {
        let message = "pcap is not for a terminal, but for a pipe: can-listen --format pcap | wireshark -k -i -";
        ListenOptions::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit();
    }
    if stdout_was_closed() {
        messages.warn("stdout is closed, or leads to /dev/null: the data is discarded; redirect it, as in > bus.txt");
    }
    let resolved = options.common.resolve()?;
    if resolved.is_own_address() {
        return Err(anyhow!(advice::own_address(&resolved)));
    }
    let Resolved { gateway, local, others } = resolved;
    let channel = options.common.channel;
    let mut bus = Connection::open(local, gateway, channel)
        .map_err(|error| anyhow!(advice::network_error(gateway, &error, false)))?;
    // Before the session's first message, which may lead to the same file.
    let file = io::stdout().as_fd().try_clone_to_owned().context("cannot write to stdout")?;
    let stdout = Stdout::open(file.into(), options.format)
        .context("cannot continue the file on stdout; write to another one")?;
    match (stdout.found, advice::found(stdout.found)) {
        (Found::Unreadable, Some(message)) => messages.debug(message),
        (_, Some(message)) => messages.warn(message),
        (_, None) => {}
    }
    messages.info(format_args!("connecting to {gateway} (channel {channel}, {} kbit/s)", options.bitrate));
    if let Ok(local) = bus.local_addr() {
        messages.debug(format_args!("sending from {local}"));
    }
    let granted = bus.receive_buffer();
    let hint = if granted < RECEIVE_BUFFER { LARGER_BUFFER } else { "as large as requested" };
    messages.debug(format_args!("receive buffer: {} KiB; {hint}", granted >> 10));
    // A time stamp is the time of reading, and people read a terminal.
    if options.format == Format::Raw && !is_terminal {
        bus.set_max_rest(if stdout.is_regular { MAX_REST_INTO_FILE } else { MAX_REST });
    }
    let preamble = stdout.preamble();
    let output = Spool::start(stdout, bus.waker())
        .context("not enough memory for the output buffer (64 MiB; see: ulimit -v) or its thread")?;
    let encoder = Encoder::new(options.format, &options.common.target.to_string(), is_terminal);
    let unix_time = || SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let printer = Printer::new(encoder, preamble, options.count, output, Box::new(unix_time));
    let console = Console::new(messages, printer, channel);
    let _ = shutdown.waker.set(bus.waker());
    Ok(Session::new(options, others, bus, console, shutdown).run())
}
