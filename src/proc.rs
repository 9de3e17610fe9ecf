//! Numbers in the files of proc(5).

use std::fs::File;
use std::io::Read;

/// Enough for most of them. A file that tells no size is read in small pieces otherwise.
const USUAL_SIZE: usize = 8 << 10;

/// The number in this column of the last line that begins with `prefix`, which is no column.
pub(crate) fn number(path: &str, prefix: &str, column: usize, radix: u32) -> Option<u64> {
    let mut text = String::with_capacity(USUAL_SIZE);
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    let columns = text.lines().rev().find_map(|line| line.strip_prefix(prefix))?;
    u64::from_str_radix(columns.split_ascii_whitespace().nth(column)?, radix).ok()
}
