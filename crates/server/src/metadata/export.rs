//! The store's rows and history, for backups.

use super::MetaService;
use kv::{Export, FeedError, KvError, Revision, Store};
use meta::Caller;
use std::sync::Arc;
use types::meta::{MetaError, MetaReply};

/// Bytes of one answer: far from what a frame carries, even if its last row is of the longest.
const BYTES_MAX: usize = 4 << 20;

impl<S: Store> MetaService<S> {
    pub(super) async fn export_rows(&self, caller: &Caller, from: Vec<u8>) -> Result<MetaReply, MetaError> {
        let export = self.exported(caller)?;
        let (rows, Revision(revision)) =
            reading(move || export.rows(&from, BYTES_MAX)).await?.map_err(|error| failed(&error))?;
        // A backup must not have what a failure can still take back.
        self.shared.flush().await.map_err(|error| failed(&error))?;
        Ok(MetaReply::Rows { rows, revision })
    }

    pub(super) async fn export_changes(&self, caller: &Caller, after: u64) -> Result<MetaReply, MetaError> {
        let export = self.exported(caller)?;
        match reading(move || export.follow(Revision(after)).next(BYTES_MAX)).await? {
            Ok(changes) => {
                let changes = changes.into_iter().map(|change| (change.revision.0, change.writes)).collect();
                Ok(MetaReply::Changes { changes: Some(changes) })
            }
            Err(FeedError::Trimmed) => Ok(MetaReply::Changes { changes: None }),
            Err(FeedError::Store(error)) => Err(failed(&error)),
        }
    }

    fn exported(&self, caller: &Caller) -> Result<Arc<dyn Export>, MetaError> {
        if !caller.is_administrator() {
            return Err(MetaError::Denied);
        }
        self.shared.options.export.clone().ok_or(MetaError::Invalid)
    }
}

/// Reads where it may wait for the disk.
async fn reading<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, MetaError> {
    tokio::task::spawn_blocking(read).await.map_err(|_| MetaError::Unavailable)
}

fn failed(error: &KvError) -> MetaError {
    tracing::error!(%error, "the metadata cannot be read for a backup");
    MetaError::Unavailable
}
