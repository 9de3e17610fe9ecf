//! Scenarios that once failed, shortened.

/// Each with its name.
pub const ALL: [(&str, &str); 0] = [];
