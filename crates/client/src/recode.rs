//! Recoding: copies a file's data to the class of its path, as an administrator or a server.
//!
//! The chunks of the new layout are read by nobody before the metadata server exchanges the layouts. Each is written from its
//! beginning on, piece after piece, all the same: a reader who missed two moves of the file may look at chunks of the
//! class that it is just coming back to, and must find them short, not with holes.

use crate::call::WhenBusy;
use crate::file::Content;
use crate::grant::{Grant, GrantSource};
use crate::span::{Span, chunk_length, spans};
use crate::transfer::Update;
use crate::{Client, Error, ErrorKind, File, Result};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::task::JoinSet;
use types::meta::{Change, MetaReply};
use types::storage::{Durability, Operation};
use types::{BLOCK_SIZE, ChunkId, ChunkIndex, Duration, InodeId, Layout, Rights};

const ACTION: &str = "move";
/// Chunks of one file that are copied at the same time, each with two pieces of at most 1 MiB in memory.
const CHUNKS_AT_ONCE: usize = 4;
/// The session is renewed this often. The servers let it run for 60 s.
const RENEW_EVERY: Duration = Duration::from_secs(15);

/// How fast data may be moved.
pub trait Pace: Send + Sync + 'static {
    /// Waits until so many bytes may be sent.
    fn admit(&self, bytes: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// What came of moving a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recoded {
    Moved,
    /// It is where it should be, or it is gone.
    Nothing,
    /// Not now, and why.
    NotNow(&'static str),
}

impl Client {
    /// Moves a file's data to the class of its path, counted for the walk `following`. Others read it all the time. When
    /// somebody is about to write it, nothing is moved.
    pub async fn recode(
        &self,
        inode: InodeId,
        following: (InodeId, u64),
        pace: Arc<dyn Pace>,
    ) -> Result<Recoded> {
        const CHANGED: Recoded = Recoded::NotNow("was changed while it was moved");
        let subject = format!("inode {inode}");
        let begin = Change::BeginRecode { inode };
        let reply = match self.change_unless_busy(ACTION, &subject, begin, WhenBusy::GiveUp).await {
            Err(error) if error.kind() == ErrorKind::Busy => {
                return Ok(Recoded::NotNow("may be written by somebody, or was moved a moment ago"));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Recoded::Nothing),
            reply => reply?,
        };
        let MetaReply::Recoding { attributes, layout, capability, session, .. } = reply else {
            return Ok(Recoded::Nothing);
        };
        let source = File::new(self.clone(), subject.clone(), *attributes, Rights::Read, None);
        let grant = Grant::new(GrantSource::Recode { inode, session }, layout, Some(capability));
        let target = Arc::new(Content { path: subject.clone(), inode, grant });
        let copied = tokio::select! {
            biased;
            copied = self.copy_content(&source, &target, layout, pace) => copied,
            lost = self.renew_until_lost(&target) => Err(lost),
        };
        let ended = match copied {
            Ok(()) => {
                let end = Change::EndRecode { inode, session, following: Some(following) };
                self.change(ACTION, &subject, end).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => Ok(Recoded::Moved),
            Err(error) => {
                // If this gets no answer, the session ends by itself.
                let _ = self.change(ACTION, &subject, Change::DropRecode { inode, session }).await;
                match error.kind() {
                    ErrorKind::NotFound => Ok(Recoded::Nothing),
                    // The session was ended, or the walk was.
                    ErrorKind::Broken => Ok(CHANGED),
                    _ => Err(error),
                }
            }
        }
    }

    /// Renews the session; comes back when it is lost.
    async fn renew_until_lost(&self, target: &Content) -> Error {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match target.grant.renew(self, &target.path, target.grant.held()).await {
                // Another try is in time: the session runs four times as long.
                Err(error) if matches!(error.kind(), ErrorKind::NotReachable | ErrorKind::Full) => {}
                Err(error) => return error,
                Ok(_) => {}
            }
        }
    }

    async fn copy_content(
        &self,
        source: &File,
        target: &Arc<Content>,
        layout: Layout,
        pace: Arc<dyn Pace>,
    ) -> Result<()> {
        let too_large = || crate::pipeline::too_large(ACTION, source.path());
        let chunks = layout.chunks(source.length()).ok_or_else(too_large)?;
        let stopped = |stopped: tokio::task::JoinError| {
            Error::new(ErrorKind::Broken, ACTION, source.path(), stopped.to_string())
        };
        let mut running: JoinSet<Result<()>> = JoinSet::new();
        for index in (0..chunks).map(ChunkIndex) {
            if running.len() >= CHUNKS_AT_ONCE
                && let Some(joined) = running.join_next().await
            {
                joined.map_err(stopped)??;
            }
            let copy =
                ChunkCopy { source: source.clone(), target: target.clone(), layout, pace: pace.clone() };
            running.spawn(async move { copy.run(index).await });
        }
        while let Some(joined) = running.join_next().await {
            joined.map_err(stopped)??;
        }
        Ok(())
    }
}

/// One chunk on its way.
struct ChunkCopy {
    source: File,
    target: Arc<Content>,
    layout: Layout,
    pace: Arc<dyn Pace>,
}

impl ChunkCopy {
    async fn run(self, index: ChunkIndex) -> Result<()> {
        let start = u64::from(index.0) * u64::from(self.layout.chunk_size);
        let length = u64::from(chunk_length(&self.layout, index, self.source.length()));
        let sparse = !self.source.attributes().dense;
        // Holes are not written, and what is written may be shorter: nothing may be there, not even what a metadata server
        // left that was lost since.
        self.update(index, Operation::Remove { chunks: vec![self.chunk(index)] }, Bytes::new()).await?;
        let too_large = || crate::pipeline::too_large(ACTION, &self.target.path);
        let mut pieces = spans(&self.layout, start, length).ok_or_else(too_large)?;
        let Some(first) = pieces.next() else { return Ok(()) };
        let mut piece = (first, self.read(first).await?);
        loop {
            let next = pieces.next();
            let read = async {
                match next {
                    Some(span) => Ok(Some((span, self.read(span).await?))),
                    None => Ok(None),
                }
            };
            let (_, next) = tokio::try_join!(self.write(piece.0, piece.1, sparse), read)?;
            match next {
                Some(next) => piece = next,
                None => return Ok(()),
            }
        }
    }

    async fn read(&self, span: Span) -> Result<Bytes> {
        self.source.client.read_span(&self.source.state, span).await
    }

    async fn write(&self, span: Span, bytes: Bytes, sparse: bool) -> Result<()> {
        let (skipped, bytes) = if sparse { without_zeros(&bytes) } else { (0, bytes) };
        if bytes.is_empty() {
            return Ok(());
        }
        self.pace.admit(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).await;
        let checksums = types::Crc::of_blocks(&bytes);
        let offset = span.offset.saturating_add(u32::try_from(skipped).unwrap_or(u32::MAX));
        let write = Operation::Write { chunk: self.chunk(span.index), offset, checksums };
        self.update(span.index, write, bytes).await
    }

    fn chunk(&self, index: ChunkIndex) -> ChunkId {
        ChunkId { inode: self.target.inode, index }
    }

    async fn update(&self, index: ChunkIndex, operation: Operation, payload: Bytes) -> Result<()> {
        let update = Update {
            action: ACTION,
            subject: &self.target.path,
            layout: None,
            chain: self.layout.chain(index),
            operation,
            payload,
            durability: Durability::Disk,
            grant: &self.target.grant,
            source: None,
        };
        self.source.client.update(update).await.map(drop)
    }
}

/// The bytes without blocks of zeros at both ends, and how many were taken from the front.
fn without_zeros(bytes: &Bytes) -> (usize, Bytes) {
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let front = bytes.chunks(BLOCK_SIZE).take_while(|block| is_zero(block)).count() * BLOCK_SIZE;
    let Some(rest) = bytes.len().checked_sub(front).filter(|rest| *rest > 0) else {
        return (0, Bytes::new());
    };
    let blocks = rest.div_ceil(BLOCK_SIZE);
    let back = bytes[front..].chunks(BLOCK_SIZE).rev().take_while(|block| is_zero(block)).count();
    let end = bytes.len().min(front + (blocks - back) * BLOCK_SIZE);
    (front, bytes.slice(front..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_at_the_ends_are_not_written() {
        let check = |blocks: &[u8], tail: usize, expected: (usize, usize)| {
            let mut bytes: Vec<u8> = blocks.iter().flat_map(|byte| vec![*byte; BLOCK_SIZE]).collect();
            bytes.truncate(bytes.len() - tail);
            let (front, rest) = without_zeros(&bytes.clone().into());
            assert_eq!((front, rest.len()), expected);
            assert_eq!(rest, bytes[front..front + rest.len()]);
        };
        check(&[0, 0, 1, 0, 1, 0], 0, (2 * BLOCK_SIZE, 3 * BLOCK_SIZE));
        check(&[1, 0], 7, (0, BLOCK_SIZE));
        check(&[0, 1], 7, (BLOCK_SIZE, BLOCK_SIZE - 7));
        check(&[0, 0], 7, (0, 0));
        check(&[1], 7, (0, BLOCK_SIZE - 7));
    }
}
