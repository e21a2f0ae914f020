//! Writing many pieces of one file at the same time, within a bound.

use crate::file::Content;
use crate::span::{PIECE, Span, piece_size, spans};
use crate::transfer::{Update, Updated};
use crate::{Client, Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};
use types::storage::{Durability, Operation};
use types::{ChunkId, Crc};

/// A piece that was written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) span: Span,
    pub(crate) bytes: Bytes,
    pub(crate) updated: Updated,
}

/// Pieces on their way to the chains of one file. Dropping it gives up those that have not been sent.
#[derive(Debug)]
pub(crate) struct Pipeline {
    client: Client,
    action: &'static str,
    content: Arc<Content>,
    durability: Durability,
    running: JoinSet<Result<Written>>,
    /// Pieces under way at most.
    most: usize,
}

impl Client {
    /// Writes a piece: exactly once, whatever happens on the way.
    pub(crate) async fn write_span(
        &self,
        action: &str,
        content: &Content,
        span: Span,
        bytes: Bytes,
        durability: Durability,
    ) -> Result<Updated> {
        let chunk = ChunkId { inode: content.inode, index: span.index };
        let checksums = Crc::of_blocks(&bytes);
        let update = Update {
            action,
            subject: &content.path,
            chain: content.layout.chain(span.index),
            operation: Operation::Write { chunk, offset: span.offset, checksums },
            payload: bytes,
            durability,
            grant: &content.grant,
            source: None,
        };
        self.update(update).await
    }
}

impl Pipeline {
    pub(crate) fn new(
        client: Client,
        action: &'static str,
        content: Arc<Content>,
        durability: Durability,
    ) -> Pipeline {
        let window = u64::try_from(client.options().window).unwrap_or(u64::MAX);
        let piece = piece_size(&content.layout).min(PIECE);
        let most = usize::try_from(window / piece).unwrap_or(usize::MAX).max(2);
        Pipeline { client, action, content, durability, running: JoinSet::new(), most }
    }

    /// Starts a piece; first waits while too many are under way. Gives one that finished meanwhile, if any. A failure is of
    /// any piece started before.
    pub(crate) async fn push(&mut self, span: Span, bytes: Bytes) -> Result<Option<Written>> {
        let finished = match self.running.try_join_next() {
            Some(joined) => Some(self.flatten(joined)?),
            None if self.running.len() >= self.most => self.finished().await?,
            None => None,
        };
        let (client, content) = (self.client.clone(), self.content.clone());
        let (action, durability) = (self.action, self.durability);
        self.running.spawn(async move {
            let updated = client.write_span(action, &content, span, bytes.clone(), durability).await?;
            Ok(Written { span, bytes, updated })
        });
        Ok(finished)
    }

    /// The next piece to finish; `None` when none is under way.
    pub(crate) async fn finished(&mut self) -> Result<Option<Written>> {
        match self.running.join_next().await {
            Some(joined) => self.flatten(joined).map(Some),
            None => Ok(None),
        }
    }

    fn flatten(&self, joined: std::result::Result<Result<Written>, JoinError>) -> Result<Written> {
        let stopped = |error: JoinError| {
            Error::new(ErrorKind::Broken, self.action, &self.content.path, error.to_string())
        };
        joined.map_err(stopped)?
    }
}

/// Bytes that come one after the other, cut into pieces and written in parallel: the end of a file that grows.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) content: Arc<Content>,
    pipeline: Pipeline,
    /// What has not made a piece yet.
    partial: BytesMut,
    /// Where `partial` starts in the file.
    position: u64,
    /// Bytes that are on disk, of those taken by this.
    durable: u64,
}

impl Tail {
    /// Goes on at `position` of the file.
    pub(crate) fn new(client: Client, action: &'static str, content: Arc<Content>, position: u64) -> Tail {
        let pipeline = Pipeline::new(client, action, content.clone(), Durability::Disk);
        Tail { content, pipeline, partial: BytesMut::new(), position, durable: 0 }
    }

    /// Where the next byte goes.
    pub(crate) fn end(&self) -> u64 {
        self.position + u64::try_from(self.partial.len()).unwrap_or(0)
    }

    /// Bytes that are on disk.
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Takes bytes; waits while too many are under way. Whole pieces are not copied.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let piece = piece_size(&self.content.layout);
        let mut rest = bytes;
        while !rest.is_empty() {
            // Up to the next boundary of a piece in the file.
            let room = usize::try_from(piece - self.position % piece).unwrap_or(usize::MAX);
            if self.partial.is_empty() && rest.len() >= room {
                let whole = rest.split_to(room);
                self.send(whole).await?;
                continue;
            }
            let part = rest.split_to(rest.len().min(room - self.partial.len()));
            self.partial.reserve(room - self.partial.len());
            self.partial.extend_from_slice(&part);
            if self.partial.len() == room {
                let whole = self.partial.split().freeze();
                self.send(whole).await?;
            }
        }
        Ok(())
    }

    /// Sends what has not made a piece yet, and waits until everything is on disk.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        if !self.partial.is_empty() {
            let last = self.partial.split().freeze();
            self.send(last).await?;
        }
        while let Some(written) = self.pipeline.finished().await? {
            self.durable += u64::from(written.span.length);
        }
        Ok(())
    }

    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let spans = spans(&self.content.layout, self.position, length);
        let span = spans.and_then(|mut spans| spans.next());
        let span = span.ok_or_else(|| too_large(self.pipeline.action, &self.content.path))?;
        self.position += length;
        if let Some(written) = self.pipeline.push(span, bytes).await? {
            self.durable += u64::from(written.span.length);
        }
        Ok(())
    }
}

pub(crate) fn too_large(action: &str, subject: &str) -> Error {
    Error::new(ErrorKind::Invalid, action, subject, "the file is larger than its class allows")
        .advise("use a class with larger chunks (`sr class ls`)")
}
