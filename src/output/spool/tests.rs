use std::fs::{self, File};
use std::time::Instant;

use super::*;
use crate::format::Format;

/// Runs `test` with a spool that writes to a regular file; returns what the file holds in the end.
fn with_file(name: &str, test: impl FnOnce(&Spool)) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("can-udp-spool-{name}-{}", std::process::id()));
    let mut stdout = Stdout::open(File::create(&path).expect("a file"), Format::Raw).expect("an empty file");
    let state = State { waiting: empty_buffer().expect("memory"), ..State::default() };
    let spool = Spool { is_file: false, state: Mutex::new(state), changed: Condvar::new() };
    thread::scope(|scope| {
        scope.spawn(|| spool.write_to(&mut stdout, empty_buffer().expect("memory")));
        test(&spool);
        spool.close();
    });
    let content = fs::read(&path).expect("the file");
    fs::remove_file(path).expect("it can be removed");
    content
}

/// Returns when the writer has taken what waits.
fn wait_until_taken(spool: &Spool) {
    while !spool.lock().waiting.is_empty() {
        thread::yield_now();
    }
}

#[test]
fn a_mebibyte_that_waits_is_written_at_once() {
    const ROUNDS: u32 = 30;
    let piece = vec![b'5'; ENOUGH_WAITING];
    let began = Instant::now();
    let content = with_file("mebibyte", |spool| {
        for _ in 0..ROUNDS {
            spool.push(&piece, 1).expect("there is room");
            wait_until_taken(spool);
        }
    });
    assert_eq!(content.len(), ROUNDS as usize * ENOUGH_WAITING);
    assert!(began.elapsed() < FILE_WRITE_INTERVAL * (ROUNDS - 1), "{:?}", began.elapsed());
}

#[test]
fn closing_ends_the_wait_after_a_write() {
    const ROUNDS: u32 = 20;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let content = with_file("close", |spool| {
            spool.push(b"first\n", 1).expect("there is room");
            wait_until_taken(spool);
            spool.push(b"last\n", 1).expect("there is room");
        });
        assert_eq!(content, b"first\nlast\n");
    }
    assert!(began.elapsed() < FILE_WRITE_INTERVAL * (ROUNDS - 1), "{:?}", began.elapsed());
}
