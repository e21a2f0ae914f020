//! Copies made by the servers.

use crate::file::clone::Cloning;
use crate::put::{new_content, publication};
use crate::tree::describe;
use crate::{Client, Error, ErrorKind, PutOptions, Result};
use std::sync::Arc;
use types::meta::Place;
use types::{Attributes, Rights};

/// How a file is copied.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// The new file's class, mode, times and attributes, and what happens when the name is there.
    pub put: PutOptions,
    pub keep: Keep,
    pub bytes: CopyBytes,
}

/// Whether the bytes of a copy may come through this client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyBytes {
    /// Where the servers cannot share them.
    #[default]
    Through,
    /// The servers share them, or it fails.
    Shared,
}

/// What a copy takes over from its source besides the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Its mode.
    #[default]
    Mode,
    /// Its mode and times.
    ModeAndTimes,
    /// Nothing: all is as [`CopyOptions::put`] says.
    Nothing,
}

const ACTION: &str = "copy";

impl Client {
    /// Copies the file `from` to `to`. Where both are of one class the servers share the bytes and nothing is sent;
    /// otherwise the bytes stream through this client. The new file appears whole.
    pub async fn copy(
        &self,
        from: impl Into<Place>,
        to: impl Into<Place>,
        options: CopyOptions,
    ) -> Result<Attributes> {
        let (from, to) = (from.into(), to.into());
        let source = self.open(from, Rights::Read).await?;
        let attributes = source.attributes();
        let Some(layout) = attributes.layout else {
            return Err(Error::new(ErrorKind::Invalid, ACTION, source.path(), "is no regular file"));
        };
        let mut put = options.put;
        if options.keep != Keep::Nothing {
            put.mode = attributes.mode;
        }
        if options.keep == Keep::ModeAndTimes {
            (put.modified, put.accessed) = (Some(attributes.modified), Some(attributes.accessed));
        }
        let subject = describe(&to);
        let leased = self.lease(&to, put.class.as_deref(), &subject).await?;
        let copy = new_content(&leased, subject);
        let drawn = copy.layout();
        let same = (drawn.class, drawn.table, drawn.slots, drawn.chunk_size)
            == (layout.class, layout.table, layout.slots, layout.chunk_size);
        let only = options.bytes == CopyBytes::Shared;
        let unshared = |cause: &str| {
            Err(Error::new(
                ErrorKind::Invalid,
                ACTION,
                source.path(),
                format!("the servers cannot share its bytes: {cause}"),
            )
            .advise("a copy without --clone sends them"))
        };
        if !same && only {
            return unshared("the copy would be of another storage class");
        }
        if same {
            // The same seed puts the copy's chunks on the chains of the source's.
            copy.grant.place(layout);
            let copy = Arc::new(copy);
            let too_large = || Error::new(ErrorKind::Invalid, ACTION, source.path(), "too large");
            let chunks = layout.chunks(attributes.length).ok_or_else(too_large)?;
            let cloning = Cloning {
                action: ACTION,
                source: source.clone(),
                target: copy.clone(),
                layout,
                length: attributes.length,
                has_chunks: false,
            };
            match cloning.run(0..chunks).await {
                // The source was moved to another class meanwhile.
                Ok(false) => {}
                // A hole may have been a chunk that had just been moved, or was half there: not if the file is where it was.
                Ok(true) if source.refresh().await?.layout != Some(layout) => {}
                Ok(true) => {
                    let mut publish = publication(&to, &copy, attributes.length, &put);
                    publish.dense = attributes.dense;
                    return self.publish(publish, &copy.path).await;
                }
                // A copy of the source is bad where the servers would clone it: reading finds a good one.
                Err(error) if !only && matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                    tracing::warn!(%error, "cannot clone; copying through this client");
                }
                Err(error) => return Err(error.about(ACTION, &format!("{} to {}", source.path(), copy.path))),
            }
            if only {
                return unshared("it is being moved to another storage class");
            }
        }
        let mut uploader = self.uploader(to, put).await?;
        let mut reader = source.reader(0, attributes.length);
        while let Some(bytes) = reader.next().await? {
            uploader.write(bytes).await?;
        }
        uploader.finish().await
    }
}
