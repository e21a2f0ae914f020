//! Settling: what came of collecting garbage.

use crate::records::{Garbage, Share, encode};
use crate::view::View;
use crate::{Batch, Failure};
use kv::{Key, Snapshot};

/// Garbage records that were worked on.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    /// For each: its key, how many counted files of it are gone now, and what is left, to be tried again later.
    pub records: Vec<(Key, i64, Vec<(Key, Garbage)>)>,
}

/// Replaces the records by what is left of them. One that another server has settled meanwhile is passed over.
pub(super) async fn settle<S: Snapshot>(
    batch: &mut Batch<S>,
    settlement: &Settlement,
) -> Result<(), Failure> {
    for (key, done, left) in &settlement.records {
        if batch.get(key).await?.is_none() {
            continue;
        }
        batch.remove(key.clone());
        batch.count(Share { garbage: -done, ..Share::default() });
        for (key, garbage) in left {
            batch.put(key.clone(), encode(garbage));
        }
    }
    Ok(())
}
