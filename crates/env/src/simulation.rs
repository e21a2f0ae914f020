//! The simulated machine that a thread is, if it is one: its clock, its chance, and the mistakes planted in it.
//!
//! A simulation runs many processes on one thread, one at a time, and says before each turn whose it is. What would ask
//! the system then asks the machine, and the same seed gives the same run. Without the feature `simulation`, which only
//! the simulator turns on, nothing of this is compiled: every question is a constant.

use std::time::Duration;

/// A mistake that can be planted, so that the simulator shows that it would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// An update counts as held by the successor as soon as it is sent there.
    EarlyAcknowledgement,
    /// A read is answered whatever the chain's epoch and this member's part in it.
    OldEpochRead,
    /// Bringing a member up to date leaves one chunk out.
    SkippedChunk,
    /// A lease that was once given never ends.
    EndlessLease,
    /// Garbage is collected before it is due.
    EarlyGarbage,
    /// A change does not wait until others have let go of what they keep of what it changes.
    UnaskedChange,
}

#[cfg(feature = "simulation")]
pub use on::{Machine, Turn};
#[cfg(feature = "simulation")]
pub(crate) use on::{fill, monotonic, wall};
#[cfg(feature = "simulation")]
pub use on::{has, is_on};

/// Whether this thread is a simulated machine now.
#[cfg(not(feature = "simulation"))]
#[inline]
pub const fn is_on() -> bool {
    false
}

/// Whether a mistake is planted in the machine that this thread is.
#[cfg(not(feature = "simulation"))]
#[inline]
pub const fn has(_: Mistake) -> bool {
    false
}

#[cfg(not(feature = "simulation"))]
#[inline]
pub(crate) fn wall() -> Option<i64> {
    None
}

#[cfg(not(feature = "simulation"))]
#[inline]
pub(crate) fn monotonic() -> Option<Duration> {
    None
}

#[cfg(not(feature = "simulation"))]
#[inline]
pub(crate) fn fill(_: &mut [u8]) -> bool {
    false
}

#[cfg(feature = "simulation")]
mod on {
    use super::{Duration, Mistake};
    use crate::{Clock, Random};
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    thread_local! {
        static CURRENT: RefCell<Option<Rc<Machine>>> = const { RefCell::new(None) };
    }

    /// A simulated machine.
    pub struct Machine {
        clock: Arc<dyn Clock>,
        random: RefCell<Random>,
        mistake: Option<Mistake>,
    }

    impl Machine {
        /// A machine with this clock, and chance from this seed.
        pub fn new(clock: Arc<dyn Clock>, seed: u64, mistake: Option<Mistake>) -> Rc<Machine> {
            Rc::new(Machine { clock, random: RefCell::new(Random::new(seed)), mistake })
        }

        /// Makes this thread this machine until what is returned is dropped.
        pub fn enter(self: &Rc<Machine>) -> Turn {
            Turn { before: CURRENT.replace(Some(self.clone())) }
        }
    }

    /// While it lives, this thread is a machine.
    pub struct Turn {
        before: Option<Rc<Machine>>,
    }

    impl Drop for Turn {
        fn drop(&mut self) {
            CURRENT.set(self.before.take());
        }
    }

    fn current<T>(ask: impl FnOnce(&Machine) -> T) -> Option<T> {
        // While a thread ends there is no machine any more.
        CURRENT.try_with(|current| current.borrow().as_deref().map(ask)).ok().flatten()
    }

    /// Whether this thread is a simulated machine now.
    pub fn is_on() -> bool {
        current(|_| ()).is_some()
    }

    /// Whether a mistake is planted in the machine that this thread is.
    pub fn has(mistake: Mistake) -> bool {
        current(|machine| machine.mistake == Some(mistake)).unwrap_or(false)
    }

    pub(crate) fn wall() -> Option<i64> {
        current(|machine| machine.clock.wall())
    }

    pub(crate) fn monotonic() -> Option<Duration> {
        current(|machine| machine.clock.monotonic())
    }

    pub(crate) fn fill(bytes: &mut [u8]) -> bool {
        let filled = current(|machine| {
            let mut random = machine.random.borrow_mut();
            for piece in bytes.chunks_mut(8) {
                let number = random.number().to_le_bytes();
                piece.copy_from_slice(&number[..piece.len()]);
            }
        });
        filled.is_some()
    }
}
