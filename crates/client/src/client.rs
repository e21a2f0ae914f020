//! The client: what all calls share.

use crate::{Context, Options, Result};
use std::sync::Arc;
use types::meta::Entry;
use types::{ClientId, Rights, Routing};

/// A connection to a Steradian cloud. Clones share everything; when the last is dropped its connections close.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) id: ClientId,
}

impl Client {
    /// Connects, and fetches the routing: fails within [`Options::deadline`] when no metadata server answers. Later
    /// losses of connections are repaired silently.
    pub async fn connect(context: &Context, options: Options) -> Result<Client> {
        let _ = (context, options);
        unimplemented!()
    }

    /// This client's id: drawn at random when it connected.
    pub fn id(&self) -> ClientId {
        self.shared.id
    }

    /// How this client behaves.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The routing this client uses now.
    pub fn routing(&self) -> Arc<Routing> {
        unimplemented!()
    }

    /// A file of a listing with [`types::meta::Detail::Capabilities`], open for reading without another request. `None`
    /// when the entry is no file or the user may not read it. `path` is how errors name it.
    pub fn listed(&self, path: impl Into<String>, entry: &Entry) -> Option<crate::File> {
        let capability = entry.capability?;
        let attributes = entry.attributes.clone();
        attributes.layout?;
        Some(crate::File::new(self.clone(), path.into(), attributes, Rights::Read, Some(capability)))
    }
}
