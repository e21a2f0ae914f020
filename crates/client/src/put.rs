//! Atomic uploads: chunks first, then the name.

use crate::{Client, Result};
use bytes::Bytes;
use tokio::io::AsyncRead;
use types::meta::{Place, Replace};
use types::{Attributes, Mode, Time};

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

/// An upload under way. Nobody sees the file before [`Uploader::finish`]; dropping the uploader gives it up, and the
/// servers collect what was written.
#[derive(Debug)]
pub struct Uploader {}

impl Client {
    /// Makes a file of `bytes`, durable and at once: observers see the old file or the whole new one. A file of at most one
    /// chunk takes two requests.
    pub async fn put(
        &self,
        place: impl Into<Place>,
        bytes: Bytes,
        options: &PutOptions,
    ) -> Result<Attributes> {
        let _ = (place.into(), bytes, options);
        unimplemented!()
    }

    /// Starts an upload of any length.
    pub async fn uploader(&self, place: impl Into<Place>, options: PutOptions) -> Result<Uploader> {
        let _ = (place.into(), options);
        unimplemented!()
    }

    /// Uploads all that `source` gives. Also gives the number of bytes to `progress` as they become durable.
    pub async fn put_stream(
        &self,
        place: impl Into<Place>,
        source: &mut (impl AsyncRead + Unpin),
        options: PutOptions,
        progress: impl FnMut(u64),
    ) -> Result<Attributes> {
        let _ = (place.into(), source, options, progress);
        unimplemented!()
    }
}

impl Uploader {
    /// Takes the next bytes; waits while [`crate::Options::window`] bytes are on their way. Pieces of 1 MiB go without a
    /// copy.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let _ = bytes;
        unimplemented!()
    }

    /// Bytes taken so far, and of these the ones that are durable.
    pub fn progress(&self) -> (u64, u64) {
        unimplemented!()
    }

    /// Waits until all is durable, then gives it its name. The file exists when this returns.
    pub async fn finish(self) -> Result<Attributes> {
        unimplemented!()
    }
}
