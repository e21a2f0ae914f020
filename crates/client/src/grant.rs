//! Capabilities in use, and how each is renewed when a storage server no longer takes it.

use crate::call::WhenBusy;
use crate::snapshot::ToWrite;
use crate::{Client, Error, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::meta::{Change, MetaReply, MetaRequest, Place};
use types::{Capability, InodeId, Layout, Rights};

/// Where a file's chunks are, the right to them, and where the next one comes from. Shared by all requests of one file.
///
/// A file that nobody writes may be moved to another class. Who reads it learns that from chunks that are no longer there,
/// or when his capability ends; who writes it, only then: a capability to write keeps the file where it is. So
/// whoever changes chunks takes the capability for the layout that names them ([`Grant::get_for`]).
#[derive(Debug)]
pub(crate) struct Grant {
    current: Mutex<Held>,
    /// Held while a new one is fetched, so that many requests that were refused together ask once.
    renewing: tokio::sync::Mutex<()>,
    source: GrantSource,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    layout: Layout,
    capability: Option<Capability>,
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
    /// A file whose data is copied to this layout.
    Recode { inode: InodeId, session: u64 },
}

impl Grant {
    pub(crate) fn new(source: GrantSource, layout: Layout, capability: Option<Capability>) -> Grant {
        let current = Mutex::new(Held { layout, capability });
        Grant { current, renewing: tokio::sync::Mutex::default(), source }
    }

    /// The capability as it is now, if there is one.
    pub(crate) fn held(&self) -> Option<Capability> {
        self.current().capability
    }

    /// The layout as it is known now.
    pub(crate) fn layout(&self) -> Layout {
        self.current().layout
    }

    /// The file's chunks are elsewhere, as an answer says that may be late. A capability to write is for the layout that it came
    /// with: the servers do not know which one that is.
    pub(crate) fn moved(&self, layout: Layout) {
        let mut current = self.current();
        if current.layout != layout {
            current.layout = layout;
            current.capability = current.capability.filter(|held| held.rights == Rights::Read);
        }
    }

    /// The chunks of a leased id will be there: nobody has written any.
    pub(crate) fn place(&self, layout: Layout) {
        self.current().layout = layout;
    }

    pub(crate) fn put(&self, capability: Capability) {
        self.current().capability = Some(capability);
    }

    fn current(&self) -> MutexGuard<'_, Held> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A capability to change chunks that `layout` names; `None`: they are no longer the file's. Without a layout: for what
    /// needs none.
    pub(crate) async fn get_for(
        &self,
        client: &Client,
        subject: &str,
        layout: Option<&Layout>,
        stale: Option<Capability>,
    ) -> Result<Option<Capability>> {
        let held = |held: Held| layout.is_none_or(|layout| *layout == held.layout).then_some(held.capability);
        let now = *self.current();
        match held(now) {
            None => return Ok(None),
            Some(Some(capability)) if Some(capability) != stale => return Ok(Some(capability)),
            Some(_) => drop(self.renew(client, subject, stale).await?),
        }
        // Looked at together once more: the renewal may have brought another layout.
        let now = *self.current();
        Ok(held(now).flatten())
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
                let reply = match rights {
                    Rights::Read => client.meta("open", subject, &request).await,
                    Rights::ReadWrite => {
                        client.right_to_write("open", subject, &Place::inode(inode), ToWrite::Open).await
                    }
                };
                match reply.map_err(Error::while_open)? {
                    MetaReply::Opened { attributes, capability } => {
                        let mut current = self.current();
                        current.layout = attributes.layout.unwrap_or(current.layout);
                        current.capability = capability;
                        capability
                    }
                    _ => return Err(Error::unexpected("open", subject)),
                }
            }
            GrantSource::Lease { inode } => {
                match client.change("upload", subject, Change::RenewLease { inode }).await? {
                    MetaReply::Leased { capability, .. } => Some(capability),
                    _ => return Err(Error::unexpected("upload", subject)),
                }
            }
            GrantSource::Recode { inode, session } => {
                match client.change("move", subject, Change::RenewRecode { inode, session }).await? {
                    MetaReply::Recoding { capability, .. } => Some(capability),
                    _ => return Err(Error::unexpected("move", subject)),
                }
            }
            GrantSource::Session { inode, session } => {
                // The length never shrinks by this: it only says that the session goes on.
                let change = Change::ExtendAppend { inode, session, length: 0 };
                let ask = ToWrite::Change(change, WhenBusy::Wait);
                match client.right_to_write("append to", subject, &Place::inode(inode), ask).await? {
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

#[cfg(test)]
mod tests;
