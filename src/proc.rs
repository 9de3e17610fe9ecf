//! Numbers in the files of proc(5).

use std::fs;

/// The number in this column of the last line that begins with `prefix`, which is no column.
pub(crate) fn number(path: &str, prefix: &str, column: usize, radix: u32) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let columns = text.lines().rev().find_map(|line| line.strip_prefix(prefix))?;
    u64::from_str_radix(columns.split_ascii_whitespace().nth(column)?, radix).ok()
}
