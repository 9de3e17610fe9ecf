//! `can-listen`: everything is had that can fail, then a session runs.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::CommandFactory;

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

/// Runs a session until it ends as asked (by a signal, by its count, or because the reader of stdout went away), or
/// fails; tells what to leave with. What there is to say has been said on stderr.
///
/// Installs the process's handler for SIGINT, SIGTERM and SIGHUP, for good. Such a signal ends the whole process at
/// once, with exit code 130, unless it is the first one while the stream runs.
pub fn run(options: &ListenOptions) -> ExitCode {
    let verbosity = match (options.common.quiet, options.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    run_and_report("can-listen", verbosity, |stderr| {
        let shutdown = Arc::new(Shutdown::default());
        let can_stop = options.common.can_stop_command_line();
        let terminal = shutdown.handle_signals(stderr, can_stop).context("cannot handle signals")?;
        if options.format == Format::Pcap && io::stdout().is_terminal() {
            let words = "pcap is not for a terminal, but for a pipe: can-listen --format pcap | wireshark -k -i -";
            ListenOptions::command().error(clap::error::ErrorKind::ArgumentConflict, words).exit();
        }
        let gateway = options.common.target.resolve(&options.common.local())?;
        let bus = Connection::open(options.common.local().address(gateway), gateway)
            .map_err(|error| anyhow!(advice::open_error(&error)))?;
        let _ = shutdown.waker.set(bus.waker());
        let spool =
            Spool::new().context("not enough memory for the output buffer, which takes 64 MiB; see: ulimit -v")?;
        let spool = Arc::new(spool);
        let drops = Arc::new(DropCounter::new(bus.socket()));
        let granted = receive_buffer(bus.socket()).unwrap_or_default();
        let local = bus.socket().local_addr().context("the socket has no address")?;
        stderr.debug(format_args!("from {local} to {gateway}"));
        let of = if granted < RECEIVE_BUFFER {
            format!(" of {} KiB; {LARGER_BUFFER}", RECEIVE_BUFFER >> 10)
        } else {
            String::new()
        };
        stderr.debug(format_args!("receive buffer: {} KiB granted{of}", granted >> 10));
        if stdout_was_closed() {
            stderr.warn("stdout is closed, or leads to /dev/null: the data is discarded; redirect it, as in > bus.txt");
        }
        let record = open_record(options.format, stderr)?;
        let preamble = record.preamble();
        let waker = bus.waker();
        let after_write = drop_check(Arc::clone(&drops), bus.waker(), granted, stderr.clone());
        let writer = StdoutThread::start(record, Arc::clone(&spool), after_write, move || waker.wake())
            .context("cannot write to stdout")?;
        let device = options.common.target.to_string();
        let encoder = Encoder::new(options.format, &device, io::stdout().is_terminal());
        let printer = Printer::new(encoder, preamble, options.count, Arc::clone(&spool));
        let resources = Resources {
            options,
            gateway,
            shutdown,
            terminal,
            printer,
            spool: Arc::clone(&spool),
            drops,
            stdout: writer,
            messages: stderr,
        };
        let result = session::run(resources, bus);
        // Where the handshake failed, nobody has closed it.
        spool.close();
        result
    })
}

/// Opens stdout, and reports how the session continues the file there.
fn open_record(format: Format, messages: &Messages) -> anyhow::Result<Record> {
    let record = Record::open(format).map_err(|error| anyhow!(advice::record_error(&error)))?;
    match (record.start(), advice::record_start(record.start())) {
        (RecordStart::Unreadable, Some(message)) => messages.debug(message),
        (_, Some(message)) => messages.warn(message),
        (_, None) => {}
    }
    Ok(record)
}
