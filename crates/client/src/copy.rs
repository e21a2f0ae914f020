//! Copies made by the servers.

use crate::{Client, PutOptions, Result};
use types::Attributes;
use types::meta::Place;

/// How a file is copied.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// The new file's class, mode, times and attributes, and what happens when the name is there. Mode and modification
    /// time are the source's if `None` here.
    pub put: PutOptions,
    /// The new file gets the source's mode and times, not those of `put`.
    pub preserve: bool,
}

impl Client {
    /// Copies the file `from` to `to`. Where both are of one class the servers share the bytes and nothing is sent;
    /// otherwise the bytes stream through this client. The new file appears whole.
    pub async fn copy(
        &self,
        from: impl Into<Place>,
        to: impl Into<Place>,
        options: CopyOptions,
    ) -> Result<Attributes> {
        let _ = (from.into(), to.into(), options);
        unimplemented!()
    }
}
