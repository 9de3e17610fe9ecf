//! What the kernel drops because the socket's queue is full (Linux, proc(5)).
//!
//! The count of one socket is the last column of `/proc/net/udp` or `/proc/net/udp6`, in the line with the socket's inode.
//! Reading that table takes a fifth of a second where 15,000 sockets are open. `InErrors` in `/proc/net/snmp`
//! (`Udp6InErrors` in `/proc/net/snmp6`) is the sum over all sockets and cheap, so the table is read only when that has
//! changed, and seldom enough to cost about 1 % of a processor where other sockets change it all the time.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The time between two readings of the table, in durations of the last one.
const TABLE_INTERVAL: u32 = 100;

/// The maximum number of times that the table is read until it has the socket's line. The kernel hands it over in pieces
/// and can leave out a line when another socket is closed between two of them.
const TABLE_ATTEMPTS: u32 = 4;

/// Counts the datagrams that the kernel dropped for one socket. Several threads can ask.
#[derive(Debug)]
pub(crate) struct DropCounter {
    is_ipv4: bool,
    /// `/proc/net`.
    proc_path: PathBuf,
    /// Where it is known.
    inode: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The errors of all sockets, as of before the last reading of the table.
    all_errors: Option<u64>,
    /// The kernel's counter. It has 32 bits, so it must be read before it has wrapped around.
    last_reading: Option<u32>,
    /// When [`DropCounter::check`] can read the table again.
    next_table: Instant,
    drops: Drops,
}

/// What is known of the drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops {
    /// Datagrams dropped.
    pub count: u64,
    /// Whether there may be more, since the kernel did not say.
    pub is_lower_bound: bool,
}

impl DropCounter {
    /// For a socket that was just opened: it has dropped nothing, so the table is not read.
    pub fn new(socket: &UdpSocket) -> DropCounter {
        let is_ipv4 = socket.local_addr().is_ok_and(|address| address.is_ipv4());
        let inode = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let inode = inode.and_then(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        let state =
            State { all_errors: None, last_reading: Some(0), next_table: Instant::now(), drops: Drops::default() };
        let mut counter = DropCounter { is_ipv4, proc_path: "/proc/net".into(), inode, state: state.into() };
        let all_errors = counter.all_errors();
        counter.state.get_mut().unwrap_or_else(PoisonError::into_inner).all_errors = all_errors;
        counter
    }

    /// Counts from here on.
    pub fn reset(&self) {
        let mut state = self.lock();
        self.update(&mut state);
        state.drops.count = 0;
    }

    /// Datagrams dropped since [`DropCounter::reset`]. Reads the table if it can have changed.
    pub fn count(&self) -> Drops {
        let mut state = self.lock();
        self.update(&mut state);
        state.drops
    }

    /// Like [`DropCounter::count`], but what came since the table was last read can be missing: for a caller that asks
    /// again and again.
    pub fn check(&self) -> Drops {
        let mut state = self.lock();
        if state.next_table <= Instant::now() {
            self.update(&mut state);
        }
        state.drops
    }

    fn update(&self, state: &mut State) {
        // Before the table: an error that is counted between the two is seen at the next call.
        let all_errors = self.all_errors();
        if all_errors.is_some() && all_errors == state.all_errors && !state.drops.is_lower_bound {
            return;
        }
        let began = Instant::now();
        let reading = (0..TABLE_ATTEMPTS).find_map(|_| self.read_table());
        let now = Instant::now();
        state.next_table = now + (now - began) * TABLE_INTERVAL;
        if let (Some(last), Some(reading)) = (state.last_reading, reading) {
            state.drops.count += u64::from(reading.wrapping_sub(last));
        }
        if reading.is_some() {
            (state.all_errors, state.last_reading) = (all_errors, reading);
        }
        state.drops.is_lower_bound = reading.is_none();
    }

    /// The errors of receiving of all sockets of this network namespace, drops included.
    fn all_errors(&self) -> Option<u64> {
        if self.is_ipv4 {
            let text = fs::read_to_string(self.proc_path.join("snmp")).ok()?;
            // One line with the names, one with the values.
            let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
            let column = lines.next()?.split(' ').position(|name| name == "InErrors")?;
            lines.next()?.split(' ').nth(column)?.parse().ok()
        } else {
            let text = fs::read_to_string(self.proc_path.join("snmp6")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("Udp6InErrors"))?.trim().parse().ok()
        }
    }

    fn read_table(&self) -> Option<u32> {
        const INODE: usize = 9;
        let inode = self.inode?;
        let table = File::open(self.proc_path.join(if self.is_ipv4 { "udp" } else { "udp6" })).ok()?;
        BufReader::new(table).lines().skip(1).map_while(Result::ok).find_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            (columns.nth(INODE)?.parse() == Ok(inode)).then(|| columns.last()?.parse().ok()).flatten()
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    /// A socket that is connected to itself and has a small queue.
    fn socket(address: &str) -> Option<UdpSocket> {
        let socket = UdpSocket::bind(address).ok()?;
        socket.connect(socket.local_addr().expect("it is bound")).expect("to itself");
        SockRef::from(&socket).set_recv_buffer_size(1).expect("a small buffer");
        Some(socket)
    }

    fn overflow(socket: &UdpSocket) {
        (0..200).for_each(|_| drop(socket.send(&[0; 1000])));
    }

    #[test]
    fn drops_are_counted_over_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some(socket) = socket(address) else { continue };
            let counter = DropCounter::new(&socket);
            assert_eq!(counter.count(), Drops::default());
            overflow(&socket);
            let first = counter.count();
            assert!(first.count > 150 && !first.is_lower_bound, "{address}: {first:?}");
            overflow(&socket);
            assert_eq!(counter.count(), Drops { count: first.count + 200, is_lower_bound: false }, "{address}");
            counter.reset();
            assert_eq!(counter.count(), Drops::default());
        }
    }

    #[test]
    fn drops_before_a_reset_are_not_counted() {
        let socket = socket("127.0.0.1:0").expect("a free port");
        let counter = DropCounter::new(&socket);
        overflow(&socket);
        counter.reset();
        assert_eq!(counter.count(), Drops::default());
        overflow(&socket);
        assert_eq!(counter.count(), Drops { count: 200, is_lower_bound: false });
    }

    #[test]
    fn unreadable_table_erases_no_drops() {
        let socket = socket("127.0.0.1:0").expect("a free port");
        let mut counter = DropCounter::new(&socket);
        overflow(&socket);
        let seen = counter.count();
        assert!(seen.count > 0 && !seen.is_lower_bound, "{seen:?}");
        let proc_path = std::mem::replace(&mut counter.proc_path, PathBuf::from("/nowhere"));
        assert_eq!(counter.count(), Drops { count: seen.count, is_lower_bound: true });
        overflow(&socket);
        counter.proc_path = proc_path;
        assert_eq!(counter.count(), Drops { count: seen.count + 200, is_lower_bound: false });
    }

    #[test]
    fn without_proc_nothing_is_known() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let counter = DropCounter { proc_path: PathBuf::from("/nowhere"), inode: None, ..DropCounter::new(&socket) };
        counter.reset();
        assert_eq!(counter.count(), Drops { count: 0, is_lower_bound: true });
    }

    #[test]
    fn periodic_check_rests_100_times_as_long_as_the_table_took() {
        let socket = socket("127.0.0.1:0").expect("a free port");
        let counter = DropCounter::new(&socket);
        overflow(&socket);
        let seen = counter.count();
        // As if the table had taken long.
        counter.lock().next_table = Instant::now() + Duration::from_secs(1000);
        overflow(&socket);
        assert_eq!(counter.check(), seen);
        assert_eq!(counter.count().count, seen.count + 200, "the last count is exact");
    }
}
