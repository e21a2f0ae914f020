//! Settling: what came of collecting garbage.

use crate::records::{Garbage, Share, encode};
use crate::view::View;
use crate::{Batch, Failure};
use kv::{Key, Snapshot};

/// Garbage records that were worked on.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    pub records: Vec<Settled>,
}

/// What came of one garbage record.
#[derive(Clone, Debug)]
pub struct Settled {
    pub key: Key,
    /// How many of its counted files are gone now.
    pub done: i64,
    /// What is left of it, to be tried again later.
    pub left: Option<(Key, Garbage)>,
}

/// Replaces the records by what is left of them. One that another server has settled meanwhile is passed over.
pub(super) async fn settle<S: Snapshot>(
    batch: &mut Batch<S>,
    settlement: &Settlement,
) -> Result<(), Failure> {
    for Settled { key, done, left } in &settlement.records {
        if batch.get(key).await?.is_none() {
            continue;
        }
        batch.remove(key.clone());
        batch.count(Share { garbage: -done, ..Share::default() });
        if let Some((key, garbage)) = left {
            batch.put(key.clone(), encode(garbage));
        }
    }
    Ok(())
}
