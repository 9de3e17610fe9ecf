//! The thread that writes the spool to stdout and, since it has the time, looks at what the kernel drops.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::messages::Messages;
use crate::gateway::Waker;
use crate::gateway::drops::DropCounter;
use crate::gateway::socket::RECEIVE_BUFFER;
use crate::output::spool::Spool;

/// How often the kernel's drops are looked at while datagrams arrive.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a larger receive buffer is had.
pub(crate) const LARGER_BUFFER: &str = "more with: sudo sysctl -w net.core.rmem_max=4194304";

/// The thread's work. It ends when the spool is closed and empty, or when writing fails, which wakes the loop.
pub(crate) struct StdoutThread {
    pub spool: Arc<Spool>,
    pub waker: Waker,
    pub drops: Arc<DropCounter>,
    /// What the kernel granted, in bytes.
    pub receive_buffer: usize,
    pub stderr: Messages,
}

impl StdoutThread {
    /// Starts the thread; the result of its writing comes out of the other end.
    ///
    /// # Errors
    ///
    /// The system's: stdout is closed, or there is no thread to be had.
    pub fn start(self) -> io::Result<Receiver<io::Result<()>>> {
        let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let (result, ended) = mpsc::sync_channel(1);
        thread::Builder::new().name("writer".to_owned()).spawn(move || {
            let mut next_look = Instant::now() + LOOK_EVERY;
            let mut drops_are_told = false;
            let written = self.spool.write_out(&mut stdout, || {
                let now = Instant::now();
                if now >= next_look && !self.waker.is_woken() {
                    next_look = now + LOOK_EVERY;
                    let drops = self.drops.count();
                    if drops.count > 0 && !drops_are_told {
                        drops_are_told = true;
                        self.tell_of_drops();
                    }
                }
            });
            let failed = written.is_err();
            let _ = result.send(written);
            if failed {
                self.waker.wake();
            }
        })?;
        Ok(ended)
    }

    fn tell_of_drops(&self) {
        let size = self.receive_buffer >> 10;
        let cure = if self.receive_buffer < RECEIVE_BUFFER {
            format!("it has {size} KiB; {LARGER_BUFFER}, then start again")
        } else {
            format!("all its {size} KiB were full: this machine is too busy, or the program was stopped")
        };
        self.stderr.warn(format_args!(
            "datagrams are being lost: they come faster than the socket's queue is emptied; {cure}"
        ));
    }
}
