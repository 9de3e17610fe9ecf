//! Whole sessions in virtual time.
