//! The seams between Steradian and the machine: clock, chance, disk, and ordered local tables, each real and simulated.
//!
//! Everything below the servers reaches the machine through these, so that tests can crash a disk at any write, tear
//! what was not synced, fill it up, or return errors.

pub mod clock;
pub mod disk;
pub mod random;
pub mod simulation;
pub mod table;
pub mod watch;

pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{Disk, File, Operation, OverlayDisk, RealDisk, SimDisk};
pub use random::Random;
pub use table::{Batch, FjallOptions, FjallTable, Pair, SimTable, Table, TableError, TableSnapshot};
