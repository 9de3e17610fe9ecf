//! The programs as their binaries run them, with the world in place of the system.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Parser;

use super::log::Log;
use super::plan::{Item, Plan};
use super::process::{self, Door, Process};
use super::world::World;
use crate::cli::console::Console;
use crate::cli::messages::{Messages, Verbosity, finish};
use crate::cli::options::{CommonOptions, ListenOptions, RetryOptions, StopOptions};
use crate::cli::session::Session;
use crate::cli::shutdown::Shutdown;
use crate::cli::stop;
use crate::format::{Encoder, Format, PCAP_HEADER};
use crate::gateway::Connection;
use crate::output::printer::Printer;

/// The session of a plan.
pub fn run(plan: &Plan) -> Log {
    let process = Process::new(World::new(plan.clone()));
    let door = Door(Arc::clone(&process));
    if plan.has(&Item::CanStop) {
        let options = stop_options(plan);
        process::run(&process, || can_stop(&options, &door))
    } else {
        let options = listen_options(plan);
        process::run(&process, || can_listen(&options, &door))
    }
}

fn can_listen(options: &ListenOptions, door: &Door) -> u8 {
    let verbosity = match (options.quiet, options.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let messages = Messages::new("can-listen", verbosity, Arc::new(door.clone()));
    let shutdown = Arc::new(Shutdown::default());
    door.0.handle_signals(Arc::clone(&shutdown), messages.clone());
    let (gateway, channel) = (gateway(&options.common), options.common.channel);
    let mut bus = Connection::over(Box::new(door.clone()), gateway, channel);
    messages.info(format_args!("connecting to {gateway} (channel {channel}, {} kbit/s)", options.bitrate));
    let _ = shutdown.waker.set(bus.waker());
    let is_file = door.0.world().file.is_some();
    bus.set_max_rest(match options.format {
        Format::Raw if is_file => Duration::from_millis(33),
        Format::Raw => Duration::from_millis(4),
        _ => Duration::ZERO,
    });
    let encoder = Encoder::new(options.format, &options.common.target.to_string(), false);
    let preamble: &[u8] = if options.format == Format::Pcap { &PCAP_HEADER } else { b"" };
    let clock = Arc::clone(&door.0);
    let unix_time = Box::new(move || clock.unix_time());
    let printer = Printer::new(encoder, preamble, options.count, Arc::new(door.clone()), unix_time);
    let console = Console::new(&messages, printer, channel);
    let session = Session::new(options, Vec::new(), bus, console, shutdown);
    finish(&messages, session.run())
}

fn can_stop(options: &StopOptions, door: &Door) -> u8 {
    let verbosity = if options.quiet { Verbosity::Quiet } else { Verbosity::Normal };
    let messages = Messages::new("can-stop", verbosity, Arc::new(door.clone()));
    let bus = Connection::over(Box::new(door.clone()), gateway(&options.common), options.common.channel);
    finish(&messages, stop::confirm(options, &[], bus, &messages))
}

fn gateway(common: &CommonOptions) -> SocketAddr {
    let target = common.target.to_string();
    let port = target.rsplit_once(':').map_or("5000", |(_, port)| port);
    SocketAddr::from(([10, 8, 0, 109], port.parse().expect("a port")))
}

// Parsing the command line of each session would take longer than the session.

fn listen_options(plan: &Plan) -> ListenOptions {
    static DEFAULT: OnceLock<ListenOptions> = OnceLock::new();
    let mut options = DEFAULT.get_or_init(|| ListenOptions::parse_from(["can-listen"])).clone();
    let mut filters = Vec::new();
    for (name, value) in plan.options() {
        match name {
            "--format" => {
                options.format = match value {
                    "candump" => Format::Candump,
                    "influx" => Format::Influx,
                    "pcap" => Format::Pcap,
                    _ => Format::Raw,
                };
            }
            "--count" => options.count = value.parse().ok(),
            "--idle-timeout" => options.idle_timeout = Some(seconds(value)),
            "--stop-on-exit" => options.stop_on_exit = true,
            "--status-after" => options.status_after = seconds(value),
            "--quiet" => options.quiet = true,
            "--verbose" => options.verbose = true,
            "--bitrate" => options.bitrate = value.parse().expect("a bit rate"),
            "--data-bitrate" => options.data_bitrate = value.parse().ok(),
            "--listen-only" => options.listen_only = true,
            "--filter" => filters.push(value.parse().expect("a filter")),
            _ => set(&mut options.common, &mut options.retry, name, value),
        }
    }
    if !filters.is_empty() {
        options.filters = filters;
    }
    options
}

fn stop_options(plan: &Plan) -> StopOptions {
    static DEFAULT: OnceLock<StopOptions> = OnceLock::new();
    let mut options = DEFAULT.get_or_init(|| StopOptions::parse_from(["can-stop", "--confirm"])).clone();
    for (name, value) in plan.options() {
        match name {
            "--quiet" => options.quiet = true,
            _ => set(&mut options.common, &mut options.retry, name, value),
        }
    }
    options
}

fn set(common: &mut CommonOptions, retry: &mut RetryOptions, name: &str, value: &str) {
    match name {
        "--target" => common.target = crate::cli::address::parse_target(value).expect("a target"),
        "--channel" => common.channel = value.parse().expect("a channel"),
        "--timeout" => retry.timeout = seconds(value),
        "--attempts" => retry.attempts = value.parse().expect("a number"),
        _ => panic!("{name}: not known to the simulation"),
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().expect("seconds"))
}
