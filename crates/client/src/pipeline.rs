//! Writing many pieces of one file at the same time, within a bound.

use crate::file::Content;
use crate::span::{PIECE, Span, piece_size, spans};
use crate::transfer::{Update, Updated};
use crate::{Client, Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};
use types::storage::{Durability, Operation};
use types::{ChunkId, Crc, Layout};

/// A piece that was written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) layout: Layout,
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
    running: JoinSet<Result<Vec<Written>>>,
    /// Pieces under way at most.
    most: usize,
}

impl Client {
    /// Writes a piece: exactly once, whatever happens on the way. It is several if the file was moved to a class with smaller
    /// chunks since it was cut.
    pub(crate) async fn write_piece(
        &self,
        action: &str,
        content: &Content,
        piece: Span,
        bytes: Bytes,
        durability: Durability,
    ) -> Result<Vec<Written>> {
        let mut written = Vec::with_capacity(1);
        let (mut position, mut rest) = (piece.position, bytes);
        while !rest.is_empty() {
            let layout = content.layout();
            let length = u64::try_from(rest.len()).unwrap_or(u64::MAX);
            let span = spans(&layout, position, length).and_then(|mut spans| spans.next());
            let span = span.ok_or_else(|| too_large(action, &content.path))?;
            let part = rest.slice(..rest.len().min(usize::try_from(span.length).unwrap_or(usize::MAX)));
            // What was written before the file was moved was moved with it.
            if let Some(updated) =
                self.write_span(action, content, &layout, span, part.clone(), durability).await?
            {
                position += u64::from(span.length);
                rest = rest.split_off(part.len());
                written.push(Written { layout, span, bytes: part, updated });
            }
        }
        Ok(written)
    }

    /// Writes a span of one chunk. `None`: the layout is no longer the file's.
    pub(crate) async fn write_span(
        &self,
        action: &str,
        content: &Content,
        layout: &Layout,
        span: Span,
        bytes: Bytes,
        durability: Durability,
    ) -> Result<Option<Updated>> {
        let chunk = ChunkId { inode: content.inode, index: span.index };
        let checksums = Crc::of_blocks(&bytes);
        let update = Update {
            action,
            subject: &content.path,
            layout: Some(*layout),
            chain: layout.chain(span.index),
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
        let piece = piece_size(&content.layout()).min(PIECE);
        let most = usize::try_from(window / piece).unwrap_or(usize::MAX).max(2);
        Pipeline { client, action, content, durability, running: JoinSet::new(), most }
    }

    /// Writes bytes to the spans that they make up. Gives what was written, whether or not all was.
    pub(crate) async fn write(
        mut self,
        spans: impl Iterator<Item = Span>,
        bytes: Bytes,
    ) -> (Vec<Written>, Result<()>) {
        let (mut all, mut result) = (Vec::new(), Ok(()));
        let mut rest = bytes;
        for span in spans {
            let piece = rest.split_to(rest.len().min(usize::try_from(span.length).unwrap_or(usize::MAX)));
            match self.push(span, piece).await {
                Ok(written) => all.extend(written),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        loop {
            match self.finished().await {
                Ok(Some(written)) => all.extend(written),
                Ok(None) => return (all, result),
                Err(error) => result = result.and(Err(error)),
            }
        }
    }

    /// Starts a piece; first waits while too many are under way. Gives one that finished meanwhile, if any. A failure is of
    /// any piece started before.
    pub(crate) async fn push(&mut self, span: Span, bytes: Bytes) -> Result<Vec<Written>> {
        let finished = match self.running.try_join_next() {
            Some(joined) => self.flatten(joined)?,
            None if self.running.len() >= self.most => self.finished().await?.unwrap_or_default(),
            None => Vec::new(),
        };
        let (client, content) = (self.client.clone(), self.content.clone());
        let (action, durability) = (self.action, self.durability);
        self.running
            .spawn(async move { client.write_piece(action, &content, span, bytes, durability).await });
        Ok(finished)
    }

    /// The next piece to finish; `None` when none is under way.
    pub(crate) async fn finished(&mut self) -> Result<Option<Vec<Written>>> {
        match self.running.join_next().await {
            Some(joined) => self.flatten(joined).map(Some),
            None => Ok(None),
        }
    }

    fn flatten(&self, joined: std::result::Result<Result<Vec<Written>>, JoinError>) -> Result<Vec<Written>> {
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
    standing: Standing,
}

/// Whether all that was taken was written, or will be. If not, nothing is taken any more: it would lie behind a gap.
#[derive(Debug)]
enum Standing {
    Good,
    /// A call was given up before its end: what of it was sent is not known.
    Interrupted,
    Failed(Error),
}

impl Tail {
    /// Goes on at `position` of the file.
    pub(crate) fn new(client: Client, action: &'static str, content: Arc<Content>, position: u64) -> Tail {
        let pipeline = Pipeline::new(client, action, content.clone(), Durability::Disk);
        Tail { content, pipeline, partial: BytesMut::new(), position, durable: 0, standing: Standing::Good }
    }

    /// Where the next byte goes.
    pub(crate) fn end(&self) -> u64 {
        self.position + u64::try_from(self.partial.len()).unwrap_or(0)
    }

    /// Bytes that are on disk.
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Takes bytes; waits while too many are under way. Whole pieces are not copied. Fails from the first failure on, and once a future of
    /// this or of [`Tail::flush`] was dropped.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.begin()?;
        let written = self.take(bytes).await;
        self.conclude(written)
    }

    /// Sends what has not made a piece yet, and waits until everything is on disk. Fails if anything ever did.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.begin()?;
        let flushed = self.settle().await;
        self.conclude(flushed)
    }

    /// Something of what was taken was refused.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.standing, Standing::Failed(_))
    }

    /// After a failure: waits until nothing is under way. Some of the bytes up to this position may be there.
    pub(crate) async fn give_up(&mut self) -> u64 {
        while !matches!(self.pipeline.finished().await, Ok(None)) {}
        self.position
    }

    fn begin(&mut self) -> Result<()> {
        match &self.standing {
            Standing::Good => {}
            Standing::Interrupted => {
                let (action, path) = (self.pipeline.action, &self.content.path);
                return Err(Error::new(ErrorKind::Broken, action, path, "it was given up before its end"));
            }
            Standing::Failed(error) => return Err(error.clone()),
        }
        self.standing = Standing::Interrupted;
        Ok(())
    }

    fn conclude(&mut self, result: Result<()>) -> Result<()> {
        self.standing = result.as_ref().err().cloned().map_or(Standing::Good, Standing::Failed);
        result
    }

    async fn take(&mut self, bytes: Bytes) -> Result<()> {
        let piece = piece_size(&self.content.layout());
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

    async fn settle(&mut self) -> Result<()> {
        if !self.partial.is_empty() {
            let last = self.partial.split().freeze();
            self.send(last).await?;
        }
        while let Some(written) = self.pipeline.finished().await? {
            self.durable += length_of(&written);
        }
        Ok(())
    }

    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let spans = spans(&self.content.layout(), self.position, length);
        let span = spans.and_then(|mut spans| spans.next());
        let span = span.ok_or_else(|| too_large(self.pipeline.action, &self.content.path))?;
        self.position += length;
        let written = self.pipeline.push(span, bytes).await?;
        self.durable += length_of(&written);
        Ok(())
    }
}

fn length_of(written: &[Written]) -> u64 {
    written.iter().map(|written| u64::from(written.span.length)).sum()
}

pub(crate) fn too_large(action: &str, subject: &str) -> Error {
    Error::new(ErrorKind::Invalid, action, subject, "the file is larger than its class allows")
        .advise("use a class with larger chunks (`sr class ls`)")
}
