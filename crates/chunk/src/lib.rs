//! The local chunk store of one target: append-only segments, an index, group commit, checksums verified on every read,
//! recovery by replay.
//!
//! Promises. Updates of a chain are applied in the order of their versions, and a crash leaves a prefix of them: at least
//! through the last [`Progress::Synced`]. Bytes that are read are the bytes that were written: each block is checked, and
//! damage is an error, never wrong bytes. Space comes back only after nothing durable names it. After an error of a write
//! or sync the store acknowledges nothing more.
//!
//! Reading order: [`record`] (what the log is made of), `segment` (its files), `extent` and `entry` (which bytes of a
//! chunk are where), `history` (what a chain remembers), `index`, `apply` (what records do), then the threads: `writer`,
//! `syncer`, `keeper` with `compact`; `recovery` with `walk`; `read`; `verify`, `ledger`, `heal` and
//! `survey`; `store`; `forget`; `stepper`. `docs/formats/chunk-store.md` has the bytes.

mod apply;
mod compact;
mod entry;
mod extent;
mod forget;
mod heal;
mod history;
mod index;
mod keeper;
mod ledger;
mod locks;
mod pool;
mod queue;
mod read;
mod record;
mod recovery;
mod reserve;
mod segment;
mod shared;
mod stepper;
mod store;
mod survey;
mod syncer;
mod verify;
mod walk;
mod writer;

pub use heal::Heal;
pub use index::SPACES;
pub use ledger::{Bad, ScrubRecord};
pub use read::{ReadBlocks, ReadError, Wait};
pub use record::Install;
pub use recovery::OpenError;
pub use segment::SegmentId;
pub use shared::{Done, Listener, Options, Progress, StoreError};
pub use stepper::{Step, Stepper, Work};
pub use store::{Changed, Space, Store, Update};
pub use verify::{BadBlock, Verified};
