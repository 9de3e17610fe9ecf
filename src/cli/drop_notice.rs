//! Reports, once, that the kernel drops datagrams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::messages::Messages;
use crate::gateway::Waker;
use crate::gateway::drops::DropCounter;
use crate::gateway::socket::RECEIVE_BUFFER;

/// How often the kernel's drop counter is read while datagrams arrive.
const DROP_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How to get a larger receive buffer.
pub(crate) const LARGER_BUFFER: &str = "more with: sudo sysctl -w net.core.rmem_max=4194304";

/// Returns what to call after each datagram. `receive_buffer` is what the kernel granted, in bytes.
pub(crate) fn drop_check(
    drops: Arc<DropCounter>,
    waker: Waker,
    receive_buffer: usize,
    messages: Messages,
) -> impl FnMut() {
    let mut next_check = Instant::now() + DROP_CHECK_INTERVAL;
    let mut is_reported = false;
    move || {
        let now = Instant::now();
        if now < next_check || waker.is_woken() {
            return;
        }
        next_check = now + DROP_CHECK_INTERVAL;
        // The kernel's counter has 32 bits: it is read even after the report, before it can wrap around.
        if drops.check().count > 0 && !is_reported {
            is_reported = true;
            report(receive_buffer, &messages);
        }
    }
}

fn report(receive_buffer: usize, messages: &Messages) {
    let size = receive_buffer >> 10;
    let hint = if receive_buffer < RECEIVE_BUFFER {
        format!("it has {size} KiB; {LARGER_BUFFER}, then start again")
    } else {
        format!("all its {size} KiB were full: this machine is too busy, or the program was stopped")
    };
    messages
        .warn(format_args!("datagrams are being lost: they come faster than the socket's queue is emptied; {hint}"));
}
