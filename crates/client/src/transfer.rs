//! Moving pieces: one update of a chain, one read of a span, each carried through until its deadline.

mod read;
mod update;

pub(crate) use update::{Update, Updated};

use crate::call::Trouble;
use crate::{Client, Error, ErrorKind};
use net::{CallError, Pool};
use types::{ChainId, Duration};

/// A request that has no answer after this long is doubted: another copy is asked too, or the routing looked at.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest that one attempt waits for its answer. A stopped server is noticed sooner, by its silence.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);
/// How long to wait for a newer routing before the old one is tried again.
const ROUTING_PATIENCE: Duration = Duration::from_millis(500);
/// Payloads up to this go with the small calls: they are done before a bulk connection is through its queue.
const SMALL: u32 = 64 * 1024;

impl Client {
    fn pool_for(&self, bytes: u32) -> &Pool {
        if bytes <= SMALL { &self.shared.small } else { &self.shared.bulk }
    }
}

/// The chain has no member that serves: all its copies are away.
fn no_copy(action: &str, subject: &str, chain: ChainId) -> Error {
    let cause = format!("no copy is being served (chain {chain}): the storage servers that hold it are down");
    Error::new(ErrorKind::NotReachable, action, subject, cause)
        .advise("start them, or wait until they are back (`sr status` names them)")
}

/// Whether the server, or the way to it, is gone: it is worth asking others first.
fn is_silence(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Connect(_) => true,
        Trouble::Call(CallError::Closed(_) | CallError::Deadline | CallError::NoService) => true,
        Trouble::Call(
            CallError::NoAnswer | CallError::Overloaded | CallError::TooLarge | CallError::Older { .. },
        )
        | Trouble::Malformed => false,
    }
}

/// Whether the server is there but could not do it now: the routing need not be doubted.
fn is_load(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Call(CallError::NoAnswer | CallError::Overloaded))
}
