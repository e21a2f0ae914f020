//! Streaming reads.

use crate::Result;
use bytes::Bytes;

/// A file's bytes in order, read ahead in parallel within [`crate::Options::window`].
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// The next bytes, at most 1 MiB; `None` at the end. After an error the stream is over.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        unimplemented!()
    }
}
