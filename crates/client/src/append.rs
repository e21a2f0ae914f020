//! Append sessions: one writer at a time lengthens a file.

use crate::call::WhenBusy;
use crate::file::Content;
use crate::grant::{Grant, GrantSource};
use crate::pipeline::Tail;
use crate::renewal::Renewal;
use crate::snapshot::ToWrite;
use crate::tree::{attributes, describe, done};
use crate::{Client, Error, ErrorKind, Result};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use types::Duration;
use types::meta::{Change, Follow, MetaReply, MetaRequest, Place};

const ACTION: &str = "append to";
/// A session that is idle is renewed this often. The servers let it run for 60 s.
const RENEW_EVERY: Duration = Duration::from_secs(15);

/// The one append session of a file. Dropping it leaves it to its lease to end; [`Appender::close`] ends it at once.
#[derive(Debug)]
pub struct Appender {
    session: Arc<Session>,
    tail: Tail,
    renewal: Renewal,
}

#[derive(Debug)]
struct Session {
    client: Client,
    content: Arc<Content>,
    number: u64,
    /// What others may see.
    length: AtomicU64,
}

impl Client {
    /// Opens the append session of a file. Refused with `Busy` when another client has it.
    pub async fn append(&self, place: impl Into<Place>) -> Result<Appender> {
        let place = place.into();
        let path = describe(&place);
        let ask = ToWrite::Change(Change::OpenAppend { place: place.clone() }, WhenBusy::GiveUp);
        let reply = self.right_to_write(ACTION, &path, &place, ask).await?;
        let MetaReply::Appending { attributes, capability, session: number, .. } = reply else {
            return Err(Error::unexpected(ACTION, &path));
        };
        let no_file = || Error::new(ErrorKind::Invalid, ACTION, &path, "is no regular file");
        let layout = attributes.layout.ok_or_else(no_file)?;
        let inode = attributes.inode;
        let grant = Grant::new(GrantSource::Session { inode, session: number }, layout, Some(capability));
        let content = Arc::new(Content { path, inode, grant });
        let length = AtomicU64::new(attributes.length);
        let session = Arc::new(Session { client: self.clone(), content: content.clone(), number, length });
        let tail = Tail::new(self.clone(), ACTION, content, attributes.length);
        let idle = session.clone();
        let renewal = Renewal::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                if let Err(error) = idle.extend(idle.length.load(Ordering::Acquire)).await {
                    tracing::warn!(%error, "append session not renewed");
                }
            }
        });
        Ok(Appender { session, tail, renewal })
    }
}

impl Session {
    /// Says that the file is written up to `length`; gets a new capability for it.
    async fn extend(&self, length: u64) -> Result<()> {
        let Content { path, inode, .. } = &*self.content;
        let change = Change::ExtendAppend { inode: *inode, session: self.number, length };
        match self.client.change(ACTION, path, change).await? {
            MetaReply::Appending { capability, .. } => {
                self.content.grant.put(capability);
                self.length.fetch_max(length, Ordering::AcqRel);
                Ok(())
            }
            _ => Err(Error::unexpected(ACTION, path)),
        }
    }
}

impl Appender {
    /// The length of the file with all that was appended so far.
    pub fn length(&self) -> u64 {
        self.tail.end()
    }

    /// Appends bytes; others see them after [`Appender::flush`]. Fails from the first failure on.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.tail.write(bytes).await
    }

    /// Makes all that was appended durable, and visible. Fails if anything ever did since the session was opened: the file is then
    /// as long as it was at the last flush that did not.
    pub async fn flush(&mut self) -> Result<()> {
        self.tail.flush().await?;
        let end = self.tail.end();
        if end > self.session.length.load(Ordering::Acquire) {
            self.session.extend(end).await
        } else {
            Ok(())
        }
    }

    /// Flushes, and ends the session, whether or not that went well. When a future of [`Appender::write`] or [`Appender::flush`] was dropped
    /// while bytes were on their way, none that was not flushed before comes to be seen.
    pub async fn close(mut self) -> Result<()> {
        let flushed = self.flush().await;
        // Who gave up may have lost the right to touch the file; and a length of which no answer came may be known any moment.
        let is_too_much = flushed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full);
        if (self.tail.is_refused() || is_too_much)
            && let Err(left) = self.take_back().await
        {
            tracing::warn!(error = %left, "what is left of a refused append may be seen where the file grows by a hole");
        }
        drop(self.renewal);
        let Session { client, content, number, .. } = &*self.session;
        let change = Change::CloseAppend { inode: content.inode, session: *number };
        let closed = client.change(ACTION, &content.path, change).await;
        flushed.and(closed.and_then(|reply| done(reply, ACTION, &content.path)))
    }

    /// Removes what was written of bytes that were refused in part: it lies beyond the end, and would be seen if the file grew over it by
    /// a hole.
    async fn take_back(&mut self) -> Result<()> {
        let end = self.tail.give_up().await;
        let Session { client, content, length, .. } = &*self.session;
        let from = length.load(Ordering::Acquire);
        let request = MetaRequest::Stat { place: Place::inode(content.inode), follow: Follow::No };
        let attributes =
            attributes(client.meta(ACTION, &content.path, &request).await?, ACTION, &content.path)?;
        // Otherwise somebody has written there meanwhile, or the end came to be known after all.
        if attributes.length == from {
            while !client.punch_chunks(ACTION, content, from, end).await? {}
        }
        Ok(())
    }
}
