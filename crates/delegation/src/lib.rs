//! Delegations: what clients keep of the metadata, and how it never differs from what the servers say.
//!
//! A metadata server lets a client keep the attributes of an inode, and the entries of a directory, and does not forget it
//! ([`Granter`]). Before a change of somebody else's is committed, it has them back, or waits until they are over. The
//! client ([`Kept`]) answers from what it keeps as long as it hears from the server. Both are values: messages, clocks
//! and tasks are the business of who has them.
//!
//! What holds (D-numbers, tested in `tests`):
//! - D-1: what a client answers from what it keeps is what the server would answer, unless a change that the client itself has asked
//!   for is under way: then it may be as before it.
//! - D-2: a change waits for nobody longer than two lifetimes: a holder that does not answer is over after one, and one that answers
//!   and lets go of nothing after two.
//! - D-3: answers and recalls may overtake each other, and be repeated.
//!
//! Numbers: the server counts its answers, changes and recalls with one counter, so that a client can tell which came first.
//! A state is named by the number of the last change in it.
//!
//! Sources: leases as in Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache
//! consistency" (1989); recalls as of NFSv4 delegations (RFC 8881, section 10).

mod granter;
mod kept;

pub use granter::{Changes, Committed, Granter};
pub use kept::{Answered, Kept};

#[cfg(test)]
mod tests;
