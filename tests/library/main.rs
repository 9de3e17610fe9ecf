//! What the library promises to a program that is built on it. One module for each promise:
//!
//! | module | promise |
//! | --- | --- |
//! | `wakers` | a waker stays awake until its owner has seen it, and holds no port |
//! | `commands` | what is under way is never replaced silently; a refusal that comes late is a failure |
//! | `failures` | a failure holds the facts; no configuration makes an endless or flooding session |
//! | `values` | values that the protocol does not have cannot be made; what Display writes, FromStr reads |
//! | `facts` | what the programs know, a program can know, without the programs' dependencies |
//!
//! Needs no feature: `cargo test --no-default-features --test library`.

#[path = "../support/simulator/mod.rs"]
mod simulator;

mod commands;
mod facts;
mod failures;
mod values;
mod wakers;

use std::time::{Duration, Instant};

use can_udp::gateway::{Failure, RetryConfig};
use can_udp::{Channel, Connection, Event, Setup};
use simulator::Gateway;

/// How long a test waits for what must come.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

fn open(gateway: &Gateway) -> Connection {
    open_channel(gateway, 1)
}

fn open_channel(gateway: &Gateway, channel: u8) -> Connection {
    let local = "127.0.0.1:0".parse().expect("an address");
    Connection::open(local, gateway.address(), Channel::try_from(channel).expect("1 to 4")).expect("a free port")
}

/// The default, with so many attempts of so many milliseconds.
fn setup(timeout: u64, attempts: u32) -> Setup {
    let mut setup = Setup::default();
    setup.retry = RetryConfig::new(Duration::from_millis(timeout), attempts);
    setup
}

/// The first event of which `pick` makes something.
#[track_caller]
fn wait_for<T>(bus: &mut Connection, mut pick: impl FnMut(Event<'_>) -> Option<T>) -> T {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        match bus.next_event(Some(deadline)) {
            Event::Timeout => panic!("it did not come within {TEST_TIMEOUT:?}"),
            event => {
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        }
    }
}

fn failed(event: Event<'_>) -> Option<Failure> {
    if let Event::Failed(failure) = event { Some(failure) } else { None }
}

fn count(gateway: &Gateway, prefix: &str) -> usize {
    gateway.commands().iter().filter(|command| command.starts_with(prefix)).count()
}
