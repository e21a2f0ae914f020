//! Whether large writes go past the page cache: only while the disk takes them fast.
//!
//! Past the cache a write costs no copy, but its thread waits for the disk. Through the cache it costs a copy, and the
//! kernel sends what many threads wrote in large requests. The first is right where memory is the limit, the second where
//! the disk's time per request is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A disk that takes longer for a mebibyte is written to through the cache: copying one takes a tenth of this.
const SLOW_PER_MIB: Duration = Duration::from_millis(4);
/// So many bytes go through the cache before the disk is tried again.
const TRY_AFTER: u64 = 32 << 20;
/// A newer write has one part in so many of the average.
const WEIGHT: u64 = 8;

/// How long a disk took for a mebibyte lately, and what it means for the next write. Races between writers lose a
/// measurement, no more.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Nanoseconds per MiB, averaged; 0 before the first.
    average: AtomicU64,
    /// Bytes that go through the cache before the next try.
    cached: AtomicU64,
}

impl Pace {
    /// Whether to write the next `length` bytes past the cache.
    pub(super) fn direct(&self, length: usize) -> bool {
        let cached = self.cached.load(Ordering::Relaxed);
        self.cached.store(cached.saturating_sub(length as u64), Ordering::Relaxed);
        cached == 0
    }

    /// Notes that `length` bytes, at least one, took this long past the cache.
    pub(super) fn took(&self, length: usize, time: Duration) {
        let slow = u64::try_from(SLOW_PER_MIB.as_nanos()).unwrap_or(u64::MAX);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // One stall says little: what it counts is bounded.
        let now = (nanos.saturating_mul(1 << 20) / length as u64).clamp(1, 2 * slow);
        let average = match self.average.load(Ordering::Relaxed) {
            0 => now,
            before => (before * (WEIGHT - 1) + now) / WEIGHT,
        };
        self.average.store(average, Ordering::Relaxed);
        if average > slow {
            self.cached.store(TRY_AFTER, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Writes mebibytes to a disk that takes `per_mib` for each; answers how many went past the cache.
    fn write(pace: &Pace, count: usize, per_mib: Duration) -> usize {
        let direct = (0..count).filter(|_| {
            let direct = pace.direct(MIB);
            if direct {
                pace.took(MIB, per_mib);
            }
            direct
        });
        direct.count()
    }

    #[test]
    fn a_fast_disk_is_written_directly_and_a_slow_one_is_tried_now_and_then() {
        let pace = Pace::default();
        assert_eq!(write(&pace, 1000, Duration::from_millis(2)), 1000);
        let slow = write(&pace, 1000, Duration::from_millis(7));
        assert!((20..60).contains(&slow), "{slow}");
        // Fast again: found out after some tries.
        write(&pace, 500, Duration::from_millis(1));
        assert_eq!(write(&pace, 100, Duration::from_millis(1)), 100);
    }

    #[test]
    fn one_stall_changes_nothing() {
        let pace = Pace::default();
        write(&pace, 100, Duration::from_millis(2));
        assert_eq!(write(&pace, 1, Duration::from_secs(5)), 1);
        assert_eq!(write(&pace, 100, Duration::from_millis(2)), 100);
    }

    #[test]
    fn smaller_pieces_are_measured_by_the_mebibyte() {
        let pace = Pace::default();
        pace.took(MIB / 4, Duration::from_millis(2));
        assert!(!pace.direct(MIB / 4));
    }
}
