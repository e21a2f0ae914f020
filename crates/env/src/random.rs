//! Chance: from the system, and from a seed that repeats it.

use crate::simulation;

/// Bytes that nobody can guess, from the system; in a [simulated](simulation) machine, from its seed. `false` when the
/// system gives none.
#[must_use]
pub fn fill(bytes: &mut [u8]) -> bool {
    if simulation::fill(bytes) {
        return true;
    }
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::rand::getrandom(&mut *left, rustix::rand::GetRandomFlags::empty()) {
            Ok(0) => return false,
            Ok(count) => left = &mut left[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// A number by which things are told apart, from where [`fill`] takes its bytes.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    // Without chance from the system its hash maps would not have keys either: it has some.
    assert!(fill(&mut bytes), "the system gives no random numbers");
    u64::from_le_bytes(bytes)
}

/// A generator of numbers that depend on its seed alone (SplitMix64): for simulation and tests, never for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next number, any of all.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0. Slightly uneven for huge ends.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "no number is below 0");
        self.number() % end
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
