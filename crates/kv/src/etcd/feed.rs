//! All rows, and the history, for those who follow it: etcd's own, as long as it keeps it.

use super::link::Stream;
use super::{EtcdStore, Shared, api};
use crate::{Change, Export, FeedError, Follow, Key, KvError, Revision, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Rows of one question.
const EXPORTED: usize = 500;
/// A member that has not told what is known to be in the history after this is left for the next one.
const PATIENCE: Duration = Duration::from_secs(3);
/// A history that nobody tells after this is not to be had.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(20);

impl Export for EtcdStore {
    fn rows(&self, from: &[u8], bytes_max: usize) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
        self.runtime.block_on(rows(&self.shared, from, bytes_max))
    }

    fn follow(&self, after: Revision) -> Box<dyn Follow> {
        let shared = self.shared.clone();
        Box::new(Feed {
            is_before: shared.base > 0 && after.0 <= shared.base,
            after: shared.inward(after),
            shared,
            runtime: self.runtime.clone(),
            stream: None,
        })
    }
}

async fn rows(
    shared: &Shared,
    from: &[u8],
    bytes_max: usize,
) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
    let mut end = shared.rows.clone();
    // The prefix ends with a slash: what follows it begins with the next character.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let revision = shared.newest_mark().await?.revision;
    let (mut next, mut rows, mut bytes) = (shared.row(from), Vec::new(), 0);
    loop {
        let page = shared.page(next, end.clone(), revision, EXPORTED).await?;
        for row in page.kvs {
            let key = row.key.get(shared.rows.len()..).unwrap_or_default().to_vec();
            bytes += key.len() + row.value.len();
            rows.push((key, row.value));
        }
        match rows.last() {
            Some((last, _)) if page.more && bytes < bytes_max => {
                next = [&shared.row(last)[..], &[0]].concat()
            }
            _ => return Ok((rows, shared.outward(revision))),
        }
    }
}

/// Follows the history.
struct Feed {
    shared: Arc<Shared>,
    runtime: Handle,
    /// It would have to begin before the store did.
    is_before: bool,
    after: i64,
    /// Tells what comes after `after`.
    stream: Option<Stream>,
}

impl Follow for Feed {
    fn next(&mut self, bytes_max: usize) -> Result<Vec<Change>, FeedError> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.read(bytes_max))
    }
}

/// Why a watch has to be begun anew, or cannot be.
enum Broken {
    Lost(String),
    Trimmed,
}

impl Feed {
    async fn read(&mut self, bytes_max: usize) -> Result<Vec<Change>, FeedError> {
        if self.is_before {
            return Err(FeedError::Trimmed);
        }
        // Each commit moves a mark: nothing has to come after the newest of them.
        let newest = self.shared.newest_mark().await.map_err(FeedError::Store)?.committed;
        let deadline = Instant::now() + PATIENCE_IN_ALL;
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while self.after < newest && bytes < bytes_max {
            match self.take(&mut changes).await {
                Ok(more) => bytes += more,
                Err(Broken::Trimmed) => return Err(FeedError::Trimmed),
                Err(Broken::Lost(why)) => {
                    if let Some(stream) = self.stream.take() {
                        self.shared.link.pass_over(stream.asked);
                    }
                    tokio::time::sleep(PAUSE).await;
                    if Instant::now() > deadline {
                        return Err(FeedError::Store(KvError::Unavailable(why)));
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Takes what the watch tells next; gives its size.
    async fn take(&mut self, changes: &mut Vec<Change>) -> Result<usize, Broken> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let opened = self.shared.link.watch(&self.shared.prefix, self.after + 1).await;
                none.insert(opened.map_err(Broken::Lost)?)
            }
        };
        let told = timeout(PATIENCE, stream.next()).await;
        let told = told.unwrap_or_else(|_| Err("no answer".to_owned())).map_err(Broken::Lost)?;
        if told.compact_revision > 0 {
            return Err(Broken::Trimmed);
        }
        if told.canceled {
            return Err(Broken::Lost(told.cancel_reason));
        }
        let mut bytes = 0;
        // A revision is never divided among several answers.
        for event in told.events {
            let Some(row) = event.kv else { continue };
            self.after = self.after.max(row.mod_revision);
            let Some(key) = row.key.strip_prefix(&self.shared.rows[..]) else { continue };
            let revision = self.shared.outward(row.mod_revision);
            bytes += key.len() + row.value.len();
            let write = (key.to_vec(), (event.kind != api::DELETED).then_some(row.value));
            match changes.last_mut().filter(|change: &&mut Change| change.revision == revision) {
                Some(change) => change.writes.push(write),
                None => changes.push(Change { revision, writes: vec![write] }),
            }
        }
        Ok(bytes)
    }
}
