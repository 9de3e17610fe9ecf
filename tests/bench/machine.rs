//! Describes this machine, and changes the one setting that matters here.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;
use std::thread;

const RMEM_MAX: &str = "/proc/sys/net/core/rmem_max";
static RMEM_MAX_BEFORE: OnceLock<usize> = OnceLock::new();

/// The largest receive buffer that the kernel grants.
pub fn rmem_max() -> usize {
    proc_file(RMEM_MAX).trim().parse().unwrap_or_default()
}

pub fn set_rmem_max(bytes: usize) -> io::Result<()> {
    RMEM_MAX_BEFORE.get_or_init(rmem_max);
    fs::write(RMEM_MAX, bytes.to_string())
}

pub fn restore_rmem_max() {
    if let Some(before) = RMEM_MAX_BEFORE.get() {
        let _ = fs::write(RMEM_MAX, before.to_string());
    }
}

/// Restores it at the end of `main`, after a panic too.
pub struct RestoreRmemMax;

impl Drop for RestoreRmemMax {
    fn drop(&mut self) {
        restore_rmem_max();
    }
}

/// Processor, cores, kernel.
pub fn describe() -> String {
    let information = proc_file("/proc/cpuinfo");
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "{}, {} cores, Linux {}",
        model.map_or("unknown processor", |(_, name)| name),
        thread::available_parallelism().map_or(0, usize::from),
        proc_file("/proc/sys/kernel/osrelease").trim()
    )
}

/// Empty if it cannot be read.
pub fn proc_file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A folder in memory if there is one: no disk is measured.
pub fn sink_folder() -> PathBuf {
    let shared_memory = PathBuf::from("/dev/shm");
    if shared_memory.is_dir() { shared_memory } else { env::temp_dir() }
}

/// A file without a name, which is removed when it is closed.
pub fn unlinked_file() -> File {
    let path = sink_folder().join(format!("can-udp-bench-{}", process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file for the sink");
    fs::remove_file(&path).expect("a file that can be removed");
    file
}
