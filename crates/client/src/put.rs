//! Atomic uploads: chunks first, then the name.

use crate::file::Content;
use crate::grant::{Grant, GrantSource};
use crate::lease::Leased;
use crate::pipeline::{Tail, too_large};
use crate::renewal::Renewal;
use crate::span::{piece_size, spans};
use crate::tree::{attributes, describe};
use crate::{Client, Error, ErrorKind, Result, retry};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};
use types::meta::{Change, Place, Publish, Replace};
use types::storage::Durability;
use types::{Attributes, Layout, Mode, Time};

/// What a new file is like.
#[derive(Clone, Debug)]
pub struct PutOptions {
    /// The storage class; `None`: as the directory says.
    pub class: Option<String>,
    pub mode: Mode,
    /// `None`: now.
    pub modified: Option<Time>,
    pub accessed: Option<Time>,
    /// What happens when the name is there.
    pub replace: Replace,
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Default for PutOptions {
    fn default() -> PutOptions {
        PutOptions {
            class: None,
            mode: Mode(0o644),
            modified: None,
            accessed: None,
            replace: Replace::Allowed,
            xattrs: Vec::new(),
        }
    }
}

const ACTION: &str = "upload";

/// An upload under way. Nobody sees the file before [`Uploader::finish`]; dropping the uploader gives it up, and the
/// servers collect what was written.
#[derive(Debug)]
pub struct Uploader {
    client: Client,
    place: Place,
    options: PutOptions,
    tail: Tail,
    renewal: Renewal,
}

impl Client {
    /// Makes a file of `bytes`, durable and at once: observers see the old file or the whole new one. A file of at most one
    /// piece takes two requests.
    pub async fn put(
        &self,
        place: impl Into<Place>,
        bytes: Bytes,
        options: &PutOptions,
    ) -> Result<Attributes> {
        let place = place.into();
        match self.put_once(&place, bytes.clone(), options).await {
            Err(error) if error.kind() == ErrorKind::Broken => {
                // Leased ids that the server no longer knows, after a long pause or a clock that jumped: once more with others.
                self.forget_lease(&place, options.class.as_deref());
                self.put_once(&place, bytes, options).await
            }
            other => other,
        }
    }

    async fn put_once(&self, place: &Place, bytes: Bytes, options: &PutOptions) -> Result<Attributes> {
        let subject = describe(place);
        let leased = self.lease(place, options.class.as_deref(), &subject).await?;
        let content = new_content(&leased, subject);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut all = spans(&content.layout(), 0, length).ok_or_else(|| too_large(ACTION, &content.path))?;
        match all.next() {
            None => {}
            Some(only) if u64::from(only.length) == length => {
                self.write_piece(ACTION, &content, only, bytes, Durability::Disk).await?;
            }
            Some(_) => {
                let mut uploader = self.start(place.clone(), options.clone(), content, &leased);
                uploader.write(bytes).await?;
                return uploader.finish().await;
            }
        }
        self.publish(publication(place, &content, length, options), &content.path).await
    }

    /// Starts an upload of any length.
    pub async fn uploader(&self, place: impl Into<Place>, options: PutOptions) -> Result<Uploader> {
        let place = place.into();
        let subject = describe(&place);
        let leased = self.lease(&place, options.class.as_deref(), &subject).await?;
        let content = new_content(&leased, subject);
        Ok(self.start(place, options, content, &leased))
    }

    fn start(&self, place: Place, options: PutOptions, content: Content, leased: &Leased) -> Uploader {
        let content = Arc::new(content);
        let renewal = renew_in_background(self.clone(), content.clone(), leased.life);
        let tail = Tail::new(self.clone(), ACTION, content, 0);
        Uploader { client: self.clone(), place, options, tail, renewal }
    }

    /// Uploads all that `source` gives. Also gives the number of durable bytes to `progress` as it rises.
    pub async fn put_stream(
        &self,
        place: impl Into<Place>,
        source: &mut (impl AsyncRead + Unpin),
        options: PutOptions,
        mut progress: impl FnMut(u64),
    ) -> Result<Attributes> {
        let mut uploader = self.uploader(place, options).await?;
        let piece = usize::try_from(piece_size(&uploader.tail.content.layout())).unwrap_or(usize::MAX);
        loop {
            let mut buffer = BytesMut::with_capacity(piece);
            while buffer.len() < piece {
                let unreadable = |error: std::io::Error| {
                    let cause = format!("its source cannot be read: {error}");
                    Error::new(ErrorKind::Local, ACTION, &uploader.tail.content.path, cause)
                };
                if source.read_buf(&mut buffer).await.map_err(unreadable)? == 0 {
                    break;
                }
            }
            let last = buffer.len() < piece;
            uploader.write(buffer.freeze()).await?;
            progress(uploader.tail.durable());
            if last {
                let attributes = uploader.finish().await?;
                progress(attributes.length);
                return Ok(attributes);
            }
        }
    }

    pub(crate) async fn publish(&self, publish: Publish, subject: &str) -> Result<Attributes> {
        let reply = self.change(ACTION, subject, Change::Publish(Box::new(publish))).await?;
        attributes(reply, ACTION, subject)
    }
}

pub(crate) fn publication(place: &Place, content: &Content, length: u64, options: &PutOptions) -> Publish {
    Publish {
        place: place.clone(),
        inode: content.inode,
        layout: content.layout(),
        length,
        mode: options.mode,
        modified: options.modified,
        accessed: options.accessed,
        replace: options.replace,
        xattrs: options.xattrs.clone(),
        dense: true,
    }
}

/// The bytes of a new file: its layout is computed here, with a seed of its own.
pub(crate) fn new_content(leased: &Leased, path: String) -> Content {
    let seed = u32::try_from(retry::random() >> 32).unwrap_or(0);
    let class = &leased.class;
    let (slots, chunk_size) = (class.slots, class.chunk_size);
    let layout = Layout { class: class.id, table: class.table, slots, chunk_size, seed };
    let grant = Grant::new(GrantSource::Lease { inode: leased.inode }, layout, Some(leased.capability));
    Content { path, inode: leased.inode, grant }
}

fn renew_in_background(client: Client, content: Arc<Content>, life: types::Duration) -> Renewal {
    Renewal::spawn(async move {
        loop {
            // `life` is what surely is left of the lease; renew long before it is over.
            tokio::time::sleep(life / 2).await;
            let stale = content.grant.held();
            if let Err(error) = content.grant.renew(&client, &content.path, stale).await {
                tracing::warn!(%error, inode = %content.inode, "lease not renewed");
            }
        }
    })
}

impl Uploader {
    /// Takes the next bytes; waits while [`crate::Options::window`] bytes are on their way. Whole pieces of 1 MiB go
    /// without a copy. When the future is dropped the upload can only be given up.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.tail.write(bytes).await
    }

    /// Bytes taken so far, and of these the ones that are durable.
    pub fn progress(&self) -> (u64, u64) {
        (self.tail.end(), self.tail.durable())
    }

    /// Waits until all is durable, then gives it its name. The file exists when this returns.
    pub async fn finish(mut self) -> Result<Attributes> {
        self.tail.flush().await?;
        let (content, length) = (self.tail.content.clone(), self.tail.end());
        let publish = publication(&self.place, &content, length, &self.options);
        let attributes = self.client.publish(publish, &content.path).await;
        drop(self.renewal);
        attributes
    }
}
