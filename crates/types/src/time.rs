//! Time as a value. Only `env` reads clocks.

use serde::{Deserialize, Serialize};
pub use std::time::Duration;

/// A moment: nanoseconds since 1970-01-01 UTC, leap seconds not counted (POSIX). Before 1970 is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub i64);

impl Time {
    /// The moment `seconds` and `nanoseconds` after the epoch; saturates at the ends of the range (years 1677 and 2262).
    pub fn from_parts(seconds: i64, nanoseconds: u32) -> Time {
        Time(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanoseconds)))
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// The nanoseconds within the second.
    pub fn subsecond_nanoseconds(self) -> u32 {
        u32::try_from(self.0.rem_euclid(1_000_000_000)).unwrap_or(0)
    }

    /// The moment `duration` later; saturates.
    pub fn after(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }
}
