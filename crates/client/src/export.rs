//! The metadata store itself, for backups. Administrator only.

use crate::{Client, Error, Result};
use types::meta::{ExportedChange, MetaReply, MetaRequest};

const ACTION: &str = "read the metadata store";

impl Client {
    /// Some megabytes of the store's rows from the key `from` on, in order, and the revision they are of; none when there
    /// are no more.
    pub async fn export_rows(&self, from: Vec<u8>) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, u64)> {
        match self.meta(ACTION, "", &MetaRequest::ExportRows { from }).await? {
            MetaReply::Rows { rows, revision } => Ok((rows, revision)),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }

    /// Some megabytes of the store's commits after the revision `after`. `None` when they are not kept any more.
    pub async fn export_changes(&self, after: u64) -> Result<Option<Vec<ExportedChange>>> {
        match self.meta(ACTION, "", &MetaRequest::ExportChanges { after }).await? {
            MetaReply::Changes { changes } => Ok(changes),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }
}
