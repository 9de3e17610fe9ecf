//! How much memory can-listen takes, and what it does in silence.

use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::compare::mib;
use crate::listener::Listener;
use crate::load::FLAT_OUT;
use crate::programs::can_listen;

pub fn memory(silence: Duration) {
    // By default it queries the gateway after 5 s of silence.
    let mut listener = Listener::start(&can_listen().with(&["--status-after=60"]), Stdio::piped());
    let mut pipe = listener.stdout();
    thread::sleep(Duration::from_secs(1));
    let idle = listener.kib("VmRSS");
    let switches_before = listener.context_switches();
    thread::sleep(silence);
    let switches = listener.context_switches() - switches_before;

    // When the output buffer fills for the first time, the writer thread is blocked with little in its own buffer. If it can
    // write for a moment, it takes all that waits, and the buffer can fill again: that is the maximum.
    listener.stream(&FLAT_OUT, Duration::from_secs(3));
    pipe.read_exact(&mut vec![0; 1 << 20]).expect("a full output buffer");
    listener.stream(&FLAT_OUT, Duration::from_secs(3));
    let full = listener.kib("VmHWM");

    let read = AtomicU64::new(0);
    let after = thread::scope(|scope| {
        scope.spawn(|| {
            let mut chunk = vec![0; 1 << 16];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                read.fetch_add(count as u64, Relaxed);
            }
        });
        let mut seen = 0;
        while seen == 0 || seen < read.load(Relaxed) {
            seen = read.load(Relaxed);
            thread::sleep(Duration::from_millis(200));
        }
        thread::sleep(Duration::from_secs(5));
        let after = listener.kib("VmRSS");
        listener.end();
        after
    });
    println!("### Memory and idleness of can-listen\n");
    println!("| what | |\n| --- | ---: |");
    println!("| resident, 1 s after START, in silence | {} |", mib(idle));
    println!("| peak, with the reader paused and the output buffer full | {} |", mib(full));
    println!("| resident, 5 s after the reader caught up | {} |", mib(after));
    println!("| context switches of all threads in {silence:?} of silence | {switches} |\n");
}
