//! What the kernel drops because the socket's queue is full: the last column of `/proc/net/udp` and `/proc/net/udp6`, in
//! the line with the socket's inode (Linux, proc(5)).

use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts the datagrams that the kernel dropped for one socket. The loop and the writer both ask.
#[derive(Debug)]
pub(crate) struct DropCounter {
    table: PathBuf,
    /// Where it is known.
    inode: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The kernel's counter as last seen. It has 32 bits, so it must be looked at before it has come round.
    seen: Option<u32>,
    drops: Drops,
}

/// What is known of the drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops {
    /// Datagrams dropped.
    pub count: u64,
    /// Whether there may be more than the count tells, since the kernel could not be asked.
    pub may_be_more: bool,
}

impl DropCounter {
    /// Counts nothing before [`DropCounter::reset`].
    pub fn of(socket: &UdpSocket) -> DropCounter {
        let is_ipv4 = socket.local_addr().is_ok_and(|address| address.is_ipv4());
        let table = PathBuf::from(if is_ipv4 { "/proc/net/udp" } else { "/proc/net/udp6" });
        let inode = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let inode = inode.and_then(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        DropCounter { table, inode, state: Mutex::default() }
    }

    /// What was dropped before is nobody's loss.
    pub fn reset(&self) {
        *self.lock() = State { seen: self.read(), drops: Drops::default() };
    }

    /// Datagrams dropped since the beginning. Costs the reading of the whole table.
    pub fn count(&self) -> Drops {
        let mut state = self.lock();
        let now = self.read();
        if let (Some(seen), Some(now)) = (state.seen, now) {
            state.drops.count += u64::from(now.wrapping_sub(seen));
            state.seen = Some(now);
        }
        state.drops.may_be_more = state.seen.is_none() || now.is_none();
        state.drops
    }

    fn read(&self) -> Option<u32> {
        const INODE: usize = 9;
        let inode = self.inode?;
        fs::read_to_string(&self.table).ok()?.lines().skip(1).find_map(|line| {
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
    use socket2::SockRef;

    use super::*;

    #[test]
    fn a_table_that_cannot_be_read_for_once_erases_no_drops() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.connect(socket.local_addr().expect("it is bound")).expect("to itself");
        SockRef::from(&socket).set_recv_buffer_size(1).expect("a small buffer");
        let mut counter = DropCounter::of(&socket);
        counter.reset();
        let overflow = || (0..200).for_each(|_| drop(socket.send(&[0; 1000])));
        overflow();
        let seen = counter.count();
        assert!(seen.count > 0 && !seen.may_be_more, "{seen:?}");
        let table = std::mem::replace(&mut counter.table, PathBuf::from("/nowhere"));
        assert_eq!(counter.count(), Drops { count: seen.count, may_be_more: true });
        overflow();
        counter.table = table;
        let both = counter.count();
        assert!(both.count >= seen.count + 200 && !both.may_be_more, "{both:?} after {seen:?}");
    }

    #[test]
    fn without_a_table_nothing_is_known() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let counter = DropCounter { inode: None, ..DropCounter::of(&socket) };
        counter.reset();
        assert_eq!(counter.count(), Drops { count: 0, may_be_more: true });
    }
}
