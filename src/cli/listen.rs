//! `can-listen`: everything is had that can fail, then a session runs.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::messages::{Stderr, Verbosity, exit_code};
pub use crate::cli::options::ListenOptions;
use crate::cli::session::{Kit, Session};
use crate::cli::shutdown::Ending;
use crate::cli::signal::{self, Signal, Terminal};
use crate::format::Format;
use crate::gateway::driver::Connection;
use crate::gateway::drops::DropCounter;
use crate::gateway::socket::{RECEIVE_BUFFER, open, receive_buffer};
use crate::output::spool::Spool;
use crate::output::stdout::{LARGER_BUFFER, Writer};

/// Runs a session until it ends as asked (by a signal, by its count, or because the reader of stdout went away), or
/// fails; tells what to leave with. What there is to say has been said on stderr.
///
/// Installs the process's handler for SIGINT, SIGTERM and SIGHUP, for good. Such a signal ends the whole process at
/// once, with exit code 130, unless it is the first one while the stream runs.
pub fn run(options: &ListenOptions) -> ExitCode {
    let verbosity = match (options.gateway.quiet, options.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    exit_code("can-listen", verbosity, |stderr| {
        let ending = Arc::new(Ending::default());
        let terminal = handle_signals(options, &ending, stderr).context("cannot handle signals")?;
        if options.format == Format::Pcap && io::stdout().is_terminal() {
            let words = "pcap is not for a terminal, but for a pipe: can-listen --format pcap | wireshark -k -i -";
            ListenOptions::command().error(clap::error::ErrorKind::ArgumentConflict, words).exit();
        }
        let gateway = options.gateway.target.resolve(&options.gateway.local())?;
        let connection = Arc::new(Connection::new(open(options.gateway.local().address(gateway), gateway)?));
        let _ = ending.connection.set(Arc::clone(&connection));
        let spool = Spool::new().context("not enough memory for the spool, which takes 64 MiB; see: ulimit -v")?;
        let spool = Arc::new(spool);
        let drops = Arc::new(DropCounter::of(&connection.socket));
        let granted = receive_buffer(&connection.socket).unwrap_or_default();
        let local = connection.socket.local_addr().context("the socket has no address")?;
        stderr.step(format_args!("from {local} to {gateway}"));
        let of = if granted < RECEIVE_BUFFER {
            format!(" of {} KiB; {LARGER_BUFFER}", RECEIVE_BUFFER >> 10)
        } else {
            String::new()
        };
        stderr.step(format_args!("receive buffer: {} KiB granted{of}", granted >> 10));
        let writer = Writer {
            spool: Arc::clone(&spool),
            connection: Arc::clone(&connection),
            drops: Arc::clone(&drops),
            receive_buffer: granted,
            stderr: stderr.clone(),
        };
        let writer = writer.start().context("cannot write to stdout")?;
        let session = Session::new(Kit {
            options,
            gateway,
            connection: &connection,
            ending,
            terminal,
            spool: Arc::clone(&spool),
            drops,
            writer,
            stderr,
        });
        let result = session.run();
        // Where the handshake failed, nobody has closed it.
        spool.close();
        result
    })
}

fn handle_signals(options: &ListenOptions, ending: &Arc<Ending>, stderr: &Stderr) -> Result<Terminal, ctrlc::Error> {
    let (ending, stderr, stop_command) = (Arc::clone(ending), stderr.clone(), options.gateway.stop_command());
    signal::handle(move |signal| match (signal, ending.connection.get()) {
        (Signal::TerminalClosed, _) => stderr.say(
            "the terminal has closed; going on, since SIGHUP was ignored from the start (nohup). The next signal ends \
             it",
        ),
        (Signal::End, None) => stderr.leave("left at once, before anything was sent", 130),
        (Signal::End, Some(connection)) if !ending.signalled.swap(true, Relaxed) => {
            if ending.begun.load(Relaxed) {
                stderr.say("it is ending already; Ctrl-C once more leaves at once");
            }
            connection.wake();
        }
        (Signal::End, Some(_)) if ending.bus_is_halted.load(Relaxed) => {
            stderr.leave("left at once: what still waited for stdout is lost; the bus is halted", 130);
        }
        (Signal::End, Some(_)) => stderr.leave(
            format_args!(
                "left at once: what still waited for stdout is lost, and the bus may still run, halt it with: \
                 {stop_command}"
            ),
            130,
        ),
    })
}
