//! The process in the world: what the session sees of socket, clock, stdout, stderr and signals.

use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::log::{Ending, Fact, Log, MILLISECOND, Pushed, SECOND, Time};
use super::world::World;
use crate::cli::messages::{Messages, Sink};
use crate::cli::shutdown::Shutdown;
use crate::gateway::transport::Transport;
use crate::gateway::{Drops, Waker};
use crate::output::spool::{Output, PushError, Written};

/// No session makes more calls.
const MAX_CALLS: u32 = 400_000;

/// How long a call takes.
const COST: Time = 2;

/// What ends a session at once, by unwinding.
enum Unwound {
    Quit,
    Livelock,
}

/// What runs at a signal.
#[derive(Clone)]
struct Handler {
    shutdown: Arc<Shutdown>,
    messages: Messages,
}

/// The world and the process in it.
pub struct Process {
    world: Mutex<World>,
    epoch: Instant,
    /// Until the session has ended: it holds the process.
    handler: Mutex<Option<Handler>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

/// The process as its socket and clock, its stdout, and its stderr.
#[derive(Clone, Debug)]
pub struct Door(pub Arc<Process>);

impl Process {
    pub fn new(world: World) -> Arc<Process> {
        // One base for all sessions: none of them may depend on it.
        let epoch = Instant::now() + Duration::from_secs(1000);
        Arc::new(Process { world: Mutex::new(world), epoch, handler: Mutex::new(None) })
    }

    /// From now on signals are handled.
    pub fn handle_signals(&self, shutdown: Arc<Shutdown>, messages: Messages) {
        *lock(&self.handler) = Some(Handler { shutdown, messages });
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub fn at(&self, time: Time) -> Instant {
        self.epoch + Duration::from_micros(time)
    }

    /// The time since 1970.
    pub fn unix_time(&self) -> Duration {
        Duration::from_secs(1_700_000_000) + Duration::from_micros(self.world().now)
    }

    /// Begins a call.
    fn enter(&self, cost: Time) {
        let calls = {
            let mut world = self.world();
            world.on_call(cost);
            world.calls
        };
        if calls > MAX_CALLS {
            panic::resume_unwind(Box::new(Unwound::Livelock));
        }
        self.handle_pending_signals();
    }

    fn handle_pending_signals(&self) {
        while self.world().take_signal() {
            let Some(Handler { shutdown, messages }) = lock(&self.handler).clone() else { continue };
            if let Some(text) = shutdown.on_signal(&messages) {
                messages.warn(text);
                panic::resume_unwind(Box::new(Unwound::Quit));
            }
            self.world().woken = true;
        }
    }

    /// Lets time pass, at most until then; signals are handled meanwhile.
    fn wait(&self, until: Time, stop: impl Fn(&World) -> bool) {
        loop {
            {
                let mut world = self.world();
                world.run_until(until, &stop);
                if world.signals == 0 {
                    return;
                }
            }
            self.handle_pending_signals();
        }
    }
}

fn micros(duration: Duration) -> Time {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(1_000_000 * SECOND)
}

impl Transport for Door {
    fn now(&self) -> Instant {
        self.0.enter(0);
        self.0.at(self.0.world().now)
    }

    fn sleep(&self, duration: Duration) {
        self.0.enter(0);
        let until = self.0.world().now + micros(duration);
        self.0.wait(until, |world| world.woken);
    }

    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.0.enter(COST);
        let sent = self.0.world().send(datagram);
        sent.map_err(io::Error::from)
    }

    fn recv(&mut self, buffer: &mut [u8], wait: Option<Duration>) -> io::Result<usize> {
        self.0.enter(COST);
        let mut limit = {
            let world = self.0.world();
            match wait {
                Some(wait) if world.early_wakeups && world.calls % 3 == 0 => world.now + micros(wait) * 7 / 8,
                Some(wait) => world.now + micros(wait),
                None => Time::MAX,
            }
        };
        loop {
            {
                let mut world = self.0.world();
                match world.read() {
                    Ok(bytes) => {
                        let length = bytes.len().min(buffer.len());
                        buffer[..length].copy_from_slice(&bytes[..length]);
                        return Ok(length);
                    }
                    Err(ErrorKind::WouldBlock) => {}
                    Err(kind) => return Err(kind.into()),
                }
                if world.woken {
                    limit = limit.min(world.now + MILLISECOND);
                }
                if world.now >= limit {
                    return Err(ErrorKind::WouldBlock.into());
                }
            }
            let until = limit.min(self.0.world().now + 100_000 * SECOND);
            let was_woken = self.0.world().woken;
            self.0.wait(until, |world| world.is_readable() || world.woken != was_woken);
            let world = self.0.world();
            if limit == Time::MAX && world.now >= until {
                drop(world);
                // Nothing will ever happen again.
                panic::resume_unwind(Box::new(Unwound::Livelock));
            }
            if world.woken && !was_woken && !world.is_readable() {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
    }

    fn share_port(&mut self, on: bool) {
        self.0.enter(0);
        let mut world = self.0.world();
        let now = world.now;
        if world.shared != on {
            world.shared = on;
            world.log.add(now, Fact::Shared(on));
        }
    }

    fn waker(&self) -> Waker {
        Waker::default()
    }

    fn is_woken(&self) -> bool {
        self.0.world().woken
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 8, 0, 7], 5000)))
    }

    fn address_is_lost(&self, _gateway: SocketAddr) -> bool {
        self.0.enter(COST);
        let mut world = self.0.world();
        let (now, lost) = (world.now, world.truth().address_lost);
        world.log.add(now, Fact::Look { lost });
        lost
    }

    fn drops(&mut self) -> Drops {
        let world = self.0.world();
        Drops { count: if world.no_drop_counter { 0 } else { world.drops }, is_lower_bound: world.no_drop_counter }
    }

    fn check_drops(&mut self) -> Drops {
        self.drops()
    }

    fn receive_buffer(&self) -> usize {
        self.0.world().receive_buffer()
    }
}

impl Output for Door {
    fn push(&self, bytes: &[u8], datagrams: u64) -> Result<(), PushError> {
        match self.0.world().push(bytes, datagrams) {
            Pushed::Accepted => Ok(()),
            Pushed::Full => Err(PushError::Full),
            Pushed::Closed => Err(PushError::Closed),
        }
    }

    fn close(&self) {
        self.0.world().close();
    }

    fn wait_written(&self, timeout: Option<Duration>) -> Option<Written> {
        self.0.enter(COST);
        let until = self.0.world().now + timeout.map_or(1_000_000 * SECOND, micros);
        self.0.wait(until, World::is_written);
        let world = self.0.world();
        if !world.is_written() && timeout.is_none() {
            drop(world);
            panic::resume_unwind(Box::new(Unwound::Livelock));
        }
        let error = world.stdout.failed.map(io::Error::from);
        world.is_written().then_some(Written { datagrams: world.stdout.written, error })
    }

    fn wait_synced(&self, timeout: Option<Duration>) -> Option<io::Result<()>> {
        self.0.enter(COST);
        let (now, file) = {
            let world = self.0.world();
            (world.now, world.file)
        };
        let Some((takes, fails)) = file else { return Some(Ok(())) };
        let done = *self.0.world().stdout.synced_at.get_or_insert(now + takes);
        let until = timeout.map_or(done, |timeout| done.min(now + micros(timeout)));
        self.0.wait(until, |_| false);
        let is_done = self.0.world().now >= done;
        let result = if fails { Err(io::Error::other("Input/output error")) } else { Ok(()) };
        is_done.then_some(result)
    }

    fn take_deletion(&self) -> bool {
        std::mem::take(&mut self.0.world().stdout.is_deleted)
    }

    fn is_file(&self) -> bool {
        self.0.world().file.is_some()
    }
}

impl Sink for Door {
    fn put(&self, line: String) {
        self.0.world().say(line);
    }

    fn lost(&self) -> u64 {
        self.0.world().not_shown
    }

    fn flush(&self, _timeout: Duration) {}

    fn now(&self) -> Instant {
        self.0.at(self.0.world().now)
    }
}

/// Runs a session in the world; returns its log.
pub fn run(process: &Arc<Process>, session: impl FnOnce() -> u8) -> Log {
    let ending = match panic::catch_unwind(AssertUnwindSafe(session)) {
        Ok(code) => Ending::Code(code),
        Err(payload) => match payload.downcast::<Unwound>() {
            Ok(unwound) => match *unwound {
                Unwound::Quit => Ending::Quit,
                Unwound::Livelock => Ending::Livelock,
            },
            Err(payload) => Ending::Panic(panic_text(payload.as_ref())),
        },
    };
    *lock(&process.handler) = None;
    let mut world = process.world();
    let now = world.now;
    world.log.add(now, Fact::Ended(ending));
    std::mem::take(&mut world.log)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "?".to_owned())
}
