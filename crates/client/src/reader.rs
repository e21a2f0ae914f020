//! Streaming reads.

use crate::file::File;
use crate::span::{PIECE, Spans};
use crate::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::task::JoinHandle;

/// A file's bytes in order, read ahead in parallel within [`crate::Options::window`].
#[derive(Debug)]
pub struct Reader {
    file: File,
    spans: Option<Spans>,
    /// Pieces under way, in order.
    ahead: VecDeque<Piece>,
    /// Pieces under way at most.
    most: usize,
    /// What the next call gives instead of bytes.
    failed: Option<Error>,
}

/// A piece on its way; given up when dropped.
#[derive(Debug)]
struct Piece(JoinHandle<Result<Bytes>>);

impl Drop for Piece {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reader {
    pub(crate) fn new(file: File, spans: Result<Spans>) -> Reader {
        let window = u64::try_from(file.client.options().window).unwrap_or(u64::MAX);
        let most = usize::try_from(window / PIECE).unwrap_or(usize::MAX).max(2);
        let (spans, failed) = match spans {
            Ok(spans) => (Some(spans), None),
            Err(error) => (None, Some(error)),
        };
        Reader { file, spans, ahead: VecDeque::new(), most, failed }
    }

    /// The next bytes, at most 1 MiB; `None` at the end. After an error the stream is over.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while self.ahead.len() < self.most
            && let Some(span) = self.spans.as_mut().and_then(Iterator::next)
        {
            let (client, state) = (self.file.client.clone(), self.file.state.clone());
            let read = async move { client.read_span(&state, span).await };
            self.ahead.push_back(Piece(tokio::spawn(read)));
        }
        let Some(piece) = self.ahead.front_mut() else { return Ok(None) };
        let read = (&mut piece.0).await;
        self.ahead.pop_front();
        let failed = |stopped: tokio::task::JoinError| {
            Error::new(ErrorKind::Broken, "read", self.file.path(), stopped.to_string())
        };
        match read.map_err(failed).flatten() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => {
                self.spans = None;
                self.ahead.clear();
                Err(error)
            }
        }
    }
}
