//! All rows, and the history, for those who follow it: as long as it is kept.

use super::{PostgresStore, Shared, number, unexpected};
use crate::{Change, Export, FeedError, Follow, KEY_MAX, Key, KvError, Revision, Value};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Rows of one question.
const EXPORTED: usize = 500;
/// Writes of one question.
const TOLD: i64 = 500;

impl Export for PostgresStore {
    fn rows(&self, from: &[u8], bytes_max: usize) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
        self.runtime.block_on(rows(&self.shared, from, bytes_max))
    }

    fn follow(&self, after: Revision) -> Box<dyn Follow> {
        Box::new(Feed { shared: self.shared.clone(), runtime: self.runtime.clone(), after: number(after) })
    }
}

async fn rows(
    shared: &Shared,
    from: &[u8],
    bytes_max: usize,
) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
    let revision = shared.newest().await?;
    // After the longest and largest key.
    let end = [0xFF; KEY_MAX + 1];
    let (mut next, mut rows, mut bytes) = (from.to_vec(), Vec::new(), 0);
    loop {
        let page = shared.page(&next, &end, revision, EXPORTED).await?;
        let is_last = page.len() < EXPORTED;
        bytes += page.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        rows.extend(page);
        match rows.last() {
            Some((last, _)) if !is_last && bytes < bytes_max => next = [last, &[0][..]].concat(),
            _ => return Ok((rows, Revision(revision.unsigned_abs()))),
        }
    }
}

/// Follows the history.
struct Feed {
    shared: Arc<Shared>,
    runtime: Handle,
    after: i64,
}

impl Follow for Feed {
    fn next(&mut self, bytes_max: usize) -> Result<Vec<Change>, FeedError> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.read(bytes_max))
    }
}

impl Feed {
    async fn read(&mut self, bytes_max: usize) -> Result<Vec<Change>, FeedError> {
        let (mut all, mut bytes, mut limit) = (Vec::new(), 0, TOLD);
        loop {
            let (mut changes, is_cut) = self.ask(limit).await?;
            if is_cut {
                // Of the last commit there may be more.
                changes.pop();
                if changes.is_empty() {
                    limit = limit.saturating_mul(4);
                    continue;
                }
            }
            let sizes = changes.iter().flat_map(|change: &Change| &change.writes);
            bytes += sizes.map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum::<usize>();
            if let Some(last) = changes.last() {
                self.after = number(last.revision);
            }
            all.extend(changes);
            if !is_cut || bytes >= bytes_max {
                return Ok(all);
            }
        }
    }

    /// The next writes, and whether there are more.
    async fn ask(&self, limit: i64) -> Result<(Vec<Change>, bool), FeedError> {
        let rows = self.shared.link.read(|statements| &statements.history, &[&self.after, &limit]).await;
        let rows = rows.map_err(FeedError::Store)?;
        let failed = |error| FeedError::Store(unexpected(&error));
        let mut changes: Vec<Change> = Vec::new();
        let mut count = 0;
        for row in rows {
            let newest: i64 = row.try_get(0).map_err(failed)?;
            let oldest: i64 = row.try_get(1).map_err(failed)?;
            if self.after < oldest || self.after > newest {
                return Err(FeedError::Trimmed);
            }
            let revision: Option<i64> = row.try_get(2).map_err(failed)?;
            let Some(revision) = revision.map(|revision| Revision(revision.unsigned_abs())) else { break };
            let write = (row.try_get(3).map_err(failed)?, row.try_get(4).map_err(failed)?);
            count += 1;
            match changes.last_mut().filter(|change| change.revision == revision) {
                Some(change) => change.writes.push(write),
                None => changes.push(Change { revision, writes: vec![write] }),
            }
        }
        Ok((changes, count == limit))
    }
}
