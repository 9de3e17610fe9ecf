//! `can-listen`: acquires everything that can fail, then runs a session.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::CommandFactory;

use crate::cli::address::Resolved;
use crate::cli::advice;
use crate::cli::drop_notice::{LARGER_BUFFER, drop_check};
use crate::cli::messages::{Messages, Verbosity, run_and_report};
pub use crate::cli::options::ListenOptions;
use crate::cli::session::{self, Resources};
use crate::cli::shutdown::{Shutdown, stdout_was_closed};
use crate::format::{Encoder, Format};
use crate::gateway::Connection;
use crate::gateway::drops::DropCounter;
use crate::gateway::socket::{RECEIVE_BUFFER, receive_buffer};
use crate::output::printer::Printer;
use crate::output::record::{Record, RecordStart};
use crate::output::spool::Spool;
use crate::output::stdout::StdoutThread;

/// Runs a session until it ends as asked (by a signal, by its count, or because the reader of stdout went away) or fails.
/// Prints messages on stderr; returns the exit code.
///
/// Installs the process's handler for SIGINT, SIGTERM and SIGHUP, permanently. Such a signal ends the whole process at
/// once, with exit code 130, unless it is the first one while the stream runs.
pub fn run(options: &ListenOptions) -> ExitCode {
    let verbosity = match (options.quiet, options.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    run_and_report("can-listen", verbosity, |messages| listen(options, messages))
}

fn listen(options: &ListenOptions, messages: &Messages) -> Result<()> {
    let shutdown = Arc::new(Shutdown::default());
    let can_stop = options.common.can_stop_command_line();
    let terminal = shutdown.handle_signals(messages, can_stop).context("cannot handle signals")?;
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
    let bus = Connection::open(local, gateway).map_err(|error| anyhow!(advice::open_error(&error)))?;
    messages
        .info(format_args!("connecting to {gateway} (channel {}, {} kbit/s)", options.common.channel, options.bitrate));
    let _ = shutdown.waker.set(bus.waker());
    let granted = receive_buffer(bus.socket()).unwrap_or_default();
    debug_socket(&bus, granted, messages);
    let spool = Spool::new().context("not enough memory for the output buffer, which takes 64 MiB; see: ulimit -v")?;
    let spool = Arc::new(spool);
    let drops = Arc::new(DropCounter::new(bus.socket()));
    let record = open_record(options.format, messages)?;
    let encoder = Encoder::new(options.format, &options.common.target.to_string(), is_terminal);
    let printer = Printer::new(encoder, record.preamble(), options.count, Arc::clone(&spool));
    let after_write = drop_check(Arc::clone(&drops), bus.waker(), granted, messages.clone());
    let waker = bus.waker();
    let stdout = StdoutThread::start(record, Arc::clone(&spool), after_write, move || waker.wake())
        .context("cannot write to stdout")?;
    let resources = Resources {
        options,
        gateway,
        others,
        shutdown,
        terminal,
        printer,
        spool: Arc::clone(&spool),
        drops,
        stdout,
        messages,
    };
    let result = session::run(resources, bus);
    // A handshake that failed has not closed it.
    spool.close();
    result
}

fn debug_socket(bus: &Connection, granted: usize, messages: &Messages) {
    if let Ok(local) = bus.socket().local_addr() {
        messages.debug(format_args!("sending from {local}"));
    }
    let requested = if granted < RECEIVE_BUFFER {
        format!(" of {} KiB; {LARGER_BUFFER}", RECEIVE_BUFFER >> 10)
    } else {
        String::new()
    };
    messages.debug(format_args!("receive buffer: {} KiB granted{requested}", granted >> 10));
}

/// Opens stdout, and reports how the session continues the file there.
fn open_record(format: Format, messages: &Messages) -> Result<Record> {
    let record = Record::open(format).map_err(|error| anyhow!(advice::record_error(&error)))?;
    match (record.start(), advice::record_start(record.start())) {
        (RecordStart::Unreadable, Some(message)) => messages.debug(message),
        (_, Some(message)) => messages.warn(message),
        (_, None) => {}
    }
    Ok(record)
}
