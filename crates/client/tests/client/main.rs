//! The client against a cluster in this process whose servers misbehave by script.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, and its numbers are small"
)]

mod fake;
mod full;
mod moves;
mod sessions;
mod transfer;
mod trees;
mod writes;
