//! `can-listen`: everything is had that can fail, then a session runs.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, anyhow};
use clap::CommandFactory;

use crate::cli::advice;
use crate::cli::drop_notice::{LARGER_BUFFER, drop_check};
use crate::cli::messages::{Messages, Verbosity, run_and_report};
pub use crate::cli::options::ListenOptions;
use crate::cli::session::{self, Resources};
use crate::cli::shutdown::Shutdown;
use crate::cli::signal::{self, Signal, Terminal};
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
        let ending = Arc::new(Shutdown::default());
        let terminal = handle_signals(options, &ending, stderr).context("cannot handle signals")?;
        if options.format == Format::Pcap && io::stdout().is_terminal() {
            let words = "pcap is not for a terminal, but for a pipe: can-listen --format pcap | wireshark -k -i -";
            ListenOptions::command().error(clap::error::ErrorKind::ArgumentConflict, words).exit();
        }
        let gateway = options.common.target.resolve(&options.common.local())?;
        let bus = Connection::open(options.common.local().address(gateway), gateway)
            .map_err(|error| anyhow!(advice::open_error(&error)))?;
        let _ = ending.waker.set(bus.waker());
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
            shutdown: ending,
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

fn handle_signals(
    options: &ListenOptions,
    ending: &Arc<Shutdown>,
    stderr: &Messages,
) -> Result<Terminal, ctrlc::Error> {
    let (ending, stderr, stop_command) = (Arc::clone(ending), stderr.clone(), options.common.can_stop_command_line());
    signal::handle(move |signal| match (signal, ending.waker.get()) {
        (Signal::TerminalClosed, _) => stderr.warn(
            "the terminal has closed; going on, since SIGHUP was ignored from the start (nohup). The next signal ends \
             it",
        ),
        (Signal::End, None) => stderr.exit("exited before anything was sent", 130),
        (Signal::End, Some(waker)) if !ending.signalled.swap(true, Relaxed) => {
            if ending.in_progress.load(Relaxed) {
                stderr.warn("shutting down; press Ctrl-C again to quit now");
            }
            waker.wake();
        }
        (Signal::End, Some(_)) if ending.bus_is_stopped.load(Relaxed) => {
            stderr.exit("exited; unwritten output was discarded; the bus is halted", 130);
        }
        (Signal::End, Some(_)) => stderr.exit(
            format_args!(
                "exited; unwritten output was discarded; the bus may still run, stop it with:\n{stop_command}"
            ),
            130,
        ),
    })
}
