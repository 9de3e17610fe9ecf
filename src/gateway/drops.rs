//! What the kernel drops because the socket's queue is full (Linux, proc(5)).
//!
//! The count of one socket is the last column of `/proc/net/udp` or `/proc/net/udp6`, in the line with the socket's inode.
//! Reading that table takes a fifth of a second where 15,000 sockets are open. `InErrors` in `/proc/net/snmp`
//! (`Udp6InErrors` in `/proc/net/snmp6`) is the sum over all sockets and cheap, so the table is read only when that has
//! changed. Datagrams that arrive meanwhile wait in the queue, so while the stream runs it is read only where it is short.

use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::proc;

/// The maximum number of times that the table is read until it has the socket's line. The kernel hands it over in pieces
/// and can leave out a line when another socket is closed between two of them.
const TABLE_ATTEMPTS: u32 = 4;

/// The maximum number of sockets in a table that is read while the stream runs.
const MAX_SOCKETS: u64 = 200;

/// How long the last reading of such a table took, at most. A stock buffer at 20,000 datagrams a second lasts 14 ms.
const MAX_READING: Duration = Duration::from_millis(3);

/// Counts the datagrams that the kernel dropped for one socket.
#[derive(Debug, Default)]
pub(crate) struct DropCounter {
    is_ipv4: bool,
    /// Where it is known.
    inode: Option<u64>,
    /// The errors of all sockets, as of before the last reading of the table.
    all_errors: Option<u64>,
    /// How long the last reading of the table took.
    reading_took: Duration,
    drops: Drops,
}

/// What the kernel dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drops {
    /// Datagrams dropped.
    pub count: u64,
    /// Whether there may be more, since the kernel did not say.
    pub is_lower_bound: bool,
}

impl DropCounter {
    /// For a socket that was just opened: it has dropped nothing, so the table is not read.
    pub fn new(socket: &UdpSocket) -> DropCounter {
        let is_ipv4 = socket.local_addr().is_ok_and(|address| address.is_ipv4());
        let inode = fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).map(|socket| socket.ino()).ok();
        let mut counter = DropCounter { is_ipv4, inode, ..DropCounter::default() };
        counter.all_errors = counter.all_errors();
        counter
    }

    /// Datagrams dropped since the socket was opened. Reads the table if it can have changed.
    pub fn count(&mut self) -> Drops {
        // Before the table: an error that is counted between the two is seen at the next call.
        let all_errors = self.all_errors();
        if all_errors.is_some() && all_errors == self.all_errors && !self.drops.is_lower_bound {
            return self.drops;
        }
        let began = Instant::now();
        let reading = (0..TABLE_ATTEMPTS).find_map(|_| self.read_table());
        self.reading_took = began.elapsed();
        if let Some(reading) = reading {
            // The kernel's counter has 32 bits, so it must be read before it has wrapped around.
            self.drops.count += u64::from(reading.wrapping_sub(self.drops.count as u32));
            self.all_errors = all_errors;
        }
        self.drops.is_lower_bound = reading.is_none();
        self.drops
    }

    /// The same, if the table is short. Otherwise the count so far, as a lower bound.
    pub fn check(&mut self) -> Drops {
        if self.reading_took < MAX_READING && self.sockets().is_some_and(|count| count <= MAX_SOCKETS) {
            return self.count();
        }
        // It may have been slow by chance.
        self.reading_took /= 2;
        Drops { is_lower_bound: true, ..self.drops }
    }

    /// How many sockets the table has: `UDP: inuse` in `sockstat`, `UDP6: inuse` in `sockstat6`.
    fn sockets(&self) -> Option<u64> {
        if self.is_ipv4 { number("sockstat", "UDP: inuse", 0) } else { number("sockstat6", "UDP6: inuse", 0) }
    }

    /// The errors of receiving of all sockets of this network namespace, drops included.
    fn all_errors(&self) -> Option<u64> {
        /// Of `InErrors`, in the line with the values; an earlier one has the names.
        const COLUMN: usize = 2;
        if self.is_ipv4 { number("snmp", "Udp:", COLUMN) } else { number("snmp6", "Udp6InErrors", 0) }
    }

    fn read_table(&self) -> Option<u32> {
        const INODE: usize = 9;
        let inode = self.inode?.to_string();
        let table = fs::read_to_string(if self.is_ipv4 { "/proc/net/udp" } else { "/proc/net/udp6" }).ok()?;
        let mut lines = table.lines().map(str::split_ascii_whitespace);
        lines.find(|columns| columns.clone().nth(INODE) == Some(&inode))?.last()?.parse().ok()
    }
}

fn number(file: &str, prefix: &str, column: usize) -> Option<u64> {
    proc::number(&format!("/proc/net/{file}"), prefix, column, 10)
}

#[cfg(test)]
mod tests {
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
            let mut counter = DropCounter::new(&socket);
            assert_eq!(counter.count(), Drops::default());
            overflow(&socket);
            let first = counter.count();
            assert!(first.count > 150 && !first.is_lower_bound, "{address}: {first:?}");
            overflow(&socket);
            assert_eq!(counter.count(), Drops { count: first.count + 200, is_lower_bound: false }, "{address}");
        }
    }

    #[test]
    fn unreadable_table_erases_no_drops() {
        let socket = socket("127.0.0.1:0").expect("a free port");
        let mut counter = DropCounter::new(&socket);
        overflow(&socket);
        let seen = counter.count();
        assert!(seen.count > 0 && !seen.is_lower_bound, "{seen:?}");
        let inode = counter.inode.take();
        overflow(&socket);
        assert_eq!(counter.count(), Drops { count: seen.count, is_lower_bound: true });
        counter.inode = inode;
        assert_eq!(counter.count(), Drops { count: seen.count + 200, is_lower_bound: false });
    }

    #[test]
    fn without_the_sockets_line_nothing_is_known() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let mut counter = DropCounter { inode: None, all_errors: None, ..DropCounter::new(&socket) };
        assert_eq!(counter.count(), Drops { count: 0, is_lower_bound: true });
    }

    #[test]
    fn table_is_not_read_while_that_takes_long() {
        let socket = socket("127.0.0.1:0").expect("a free port");
        let mut counter = DropCounter::new(&socket);
        assert_eq!(counter.check(), Drops::default());
        counter.reading_took = MAX_READING;
        overflow(&socket);
        assert_eq!(counter.check(), Drops { count: 0, is_lower_bound: true });
        assert!(counter.count().count > 150, "the last count is exact");
    }
}
