//! Settling: what came of collecting garbage.

use super::recode;
use crate::keys;
use crate::records::{Garbage, GarbageBody, Share, decode, encode};
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
        let Some(bytes) = batch.get(key).await? else { continue };
        let garbage: Garbage = decode(&bytes, "garbage")?;
        tell_files(batch, &garbage.body, left.as_ref().map(|(_, left)| &left.body)).await?;
        batch.remove(key.clone());
        batch.count(Share { garbage: -done, ..Share::default() });
        if let Some((key, garbage)) = left {
            batch.put(key.clone(), encode(garbage));
        }
    }
    Ok(())
}

/// Files that are there, and left chunks in another table, may be given chunks there again.
async fn tell_files<S: Snapshot>(
    batch: &mut Batch<S>,
    body: &GarbageBody,
    left: Option<&GarbageBody>,
) -> Result<(), Failure> {
    match body {
        GarbageBody::Files(files) => {
            let late = match left {
                Some(GarbageBody::Files(late)) => late.as_slice(),
                Some(GarbageBody::Inodes { .. }) | None => &[],
            };
            for file in files.iter().filter(|file| !late.contains(file)) {
                recode::removed(batch, file.inode, file.layout.table).await?;
            }
        }
        GarbageBody::Inodes { .. } if left.is_some() => {}
        GarbageBody::Inodes { table, ranges, .. } => {
            for range in ranges {
                // Few of them are of files that are there.
                let end = types::InodeId(range.first.0.saturating_add(u64::from(range.count)));
                let limit = usize::try_from(range.count).unwrap_or(usize::MAX);
                let found = batch.scan(&keys::recode(range.first), &keys::recode(end), limit).await?;
                for inode in found.iter().filter_map(|(key, _)| keys::recode_inode(key)) {
                    recode::removed(batch, inode, *table).await?;
                }
            }
        }
    }
    Ok(())
}
