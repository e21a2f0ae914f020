//! Capabilities in use, and how each is renewed when a storage server no longer takes it.

use crate::{Client, Error, Result};
use std::sync::{Mutex, PoisonError};
use types::meta::{Change, MetaReply, MetaRequest, Place};
use types::{Capability, InodeId, Rights};

/// A capability and where the next one comes from. Shared by all requests of one file.
#[derive(Debug)]
pub(crate) struct Grant {
    current: Mutex<Option<Capability>>,
    /// Held while a new one is fetched, so that many requests that were refused together ask once.
    renewing: tokio::sync::Mutex<()>,
    source: GrantSource,
}

/// What a capability was given for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GrantSource {
    /// A file that was opened.
    Open { inode: InodeId, rights: Rights },
    /// A leased id.
    Lease { inode: InodeId },
    /// An append session.
    Session { inode: InodeId, session: u64 },
}

impl Grant {
    pub(crate) fn new(source: GrantSource, capability: Option<Capability>) -> Grant {
        Grant { current: Mutex::new(capability), renewing: tokio::sync::Mutex::default(), source }
    }

    /// The capability as it is now, if there is one.
    pub(crate) fn held(&self) -> Option<Capability> {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, capability: Capability) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(capability);
    }

    /// A capability to use.
    pub(crate) async fn get(&self, client: &Client, subject: &str) -> Result<Capability> {
        match self.held() {
            Some(capability) => Ok(capability),
            None => self.renew(client, subject, None).await,
        }
    }

    /// Another capability than `stale`, which was refused: the one that another request fetched meanwhile, or a new one.
    pub(crate) async fn renew(
        &self,
        client: &Client,
        subject: &str,
        stale: Option<Capability>,
    ) -> Result<Capability> {
        let _renewing = self.renewing.lock().await;
        if let Some(held) = self.held()
            && Some(held) != stale
        {
            return Ok(held);
        }
        let fresh = match self.source {
            GrantSource::Open { inode, rights } => {
                let request = MetaRequest::Open { place: Place::inode(inode), rights };
                match client.meta("open", subject, &request).await? {
                    MetaReply::Opened { capability, .. } => capability,
                    _ => return Err(Error::unexpected("open", subject)),
                }
            }
            GrantSource::Lease { inode } => {
                match client.change("upload", subject, Change::RenewLease { inode }).await? {
                    MetaReply::Leased { capability, .. } => Some(capability),
                    _ => return Err(Error::unexpected("upload", subject)),
                }
            }
            GrantSource::Session { inode, session } => {
                // The length never shrinks by this: it only says that the session goes on.
                let change = Change::ExtendAppend { inode, session, length: 0 };
                match client.change("append to", subject, change).await? {
                    MetaReply::Appending { capability, .. } => Some(capability),
                    _ => return Err(Error::unexpected("append to", subject)),
                }
            }
        };
        let denied = || Error::new(crate::ErrorKind::Denied, "open", subject, "permission denied");
        let fresh = fresh.ok_or_else(denied)?;
        self.put(fresh);
        Ok(fresh)
    }
}
