//! The client: what all calls share.

use crate::keeping::Keeping;
use crate::lanes::Lanes;
use crate::lease::Leases;
use crate::nearness::Nearness;
use crate::routes::Routes;
use crate::servers::Servers;
use crate::{Context, ContextSecurity, File, Options, Result, retry};
use net::{Credentials, Identity, Pool, PoolOptions, Security, User};
use std::sync::Arc;
use tokio::sync::Semaphore;
use types::meta::Entry;
use types::storage::Durability;
use types::{ClientId, Gid, Mode, Rights, Routing, Uid};

/// A connection to a Steradian cloud. Clones share everything; when the last is dropped its connections close.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    /// Whose is what is made: others than the user this is, for an administrator.
    pub(crate) owner: Option<(Uid, Gid)>,
    /// What is taken from the mode of what is made.
    pub(crate) umask: Mode,
    /// When changes of names and attributes are acknowledged.
    pub(crate) durability: Durability,
    /// What is kept of the metadata, for a session: see [`Session::keeping`](crate::Session::keeping).
    pub(crate) keeping: Option<Arc<Keeping>>,
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) id: ClientId,
    pub(crate) servers: Servers,
    /// One connection per server: for calls that are small, and must not wait behind bulk data.
    pub(crate) small: Pool,
    /// Several connections per server, so that several cores encrypt.
    pub(crate) bulk: Pool,
    pub(crate) routes: Routes,
    pub(crate) meta_lanes: Arc<Lanes>,
    pub(crate) storage_lanes: Arc<Lanes>,
    pub(crate) nearness: Nearness,
    pub(crate) leases: Leases,
    /// Pieces that may be asked of a second copy because the first is slow.
    pub(crate) second_tries: Semaphore,
}

/// Changes of the tree under way at most: more would only wait in the server.
const META_LANES: usize = 1024;
/// Updates of chunks under way at most: 256 of 1 MiB.
const STORAGE_LANES: usize = 256;
/// See [`Shared::second_tries`]: 8 MiB of waste at most on a path that is merely slow.
const SECOND_TRIES: usize = 8;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects, and fetches the routing: fails within [`Options::connect_deadline`] when no metadata server answers.
    /// Later losses of connections are repaired silently.
    pub async fn connect(context: &Context, options: Options) -> Result<Client> {
        Client::connect_as(Arc::new(security(context)?), context.servers.clone(), options).await
    }

    /// The same with credentials that the caller has: a server's own, say. `servers` are metadata servers, `host:port`.
    pub async fn connect_as(
        security: Arc<Security>,
        servers: Vec<String>,
        options: Options,
    ) -> Result<Client> {
        let newest = options.newest;
        let pool = |connections| {
            let options = PoolOptions { connections, newest, ..PoolOptions::default() };
            Pool::new(security.clone(), options)
        };
        let id = ClientId(retry::random());
        let shared = Arc::new(Shared {
            id,
            servers: Servers::new(servers),
            small: pool(1),
            bulk: pool(options.bulk_connections.max(1)),
            routes: Routes::new(),
            meta_lanes: Lanes::new(id, META_LANES),
            storage_lanes: Lanes::new(id, STORAGE_LANES),
            nearness: Nearness::new(options.host.clone()),
            leases: Leases::default(),
            second_tries: Semaphore::new(SECOND_TRIES),
            options,
        });
        let umask = Mode(0);
        let client = Client { shared, owner: None, umask, durability: Durability::Disk, keeping: None };
        client.first_routing().await?;
        Ok(client)
    }

    /// The same client, whose changes are made in the name of another user and group: what it makes is theirs. Whether they
    /// may do so was checked by whoever calls this. The administrator's: others are refused.
    #[must_use]
    pub fn in_the_name_of(&self, uid: Uid, gid: Gid) -> Client {
        Client { owner: Some((uid, gid)), ..self.clone() }
    }

    /// The same client, which takes the rights of `umask` from the mode of whatever it makes, except where the directory has a
    /// default list of rights, which says by itself what is taken.
    #[must_use]
    pub fn with_umask(&self, umask: Mode) -> Client {
        Client { umask, ..self.clone() }
    }

    /// The same client, whose changes of names, attributes and lengths are acknowledged so. With [`Durability::Memory`] a failure of
    /// the metadata server's machine (not of its process) may take back those of the last moments, the last ones first, but
    /// none that were made before a [`Client::flush`] or a [`File::sync`].
    #[must_use]
    pub fn acknowledged(&self, durability: Durability) -> Client {
        Client { durability, ..self.clone() }
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
        self.shared.routes.current()
    }

    /// A file of a listing with [`types::meta::Detail::Capabilities`], open for reading without another request. `None`
    /// when the entry is no file or the user may not read it. `path` is how errors name it.
    pub fn listed(&self, path: impl Into<String>, entry: &Entry) -> Option<File> {
        let capability = entry.capability?;
        let attributes = entry.attributes.clone();
        attributes.layout?;
        Some(File::new(self.clone(), path.into(), attributes, Rights::Read, Some(capability)))
    }
}

fn security(context: &Context) -> Result<Security> {
    match &context.security {
        ContextSecurity::Tls { authority, certificate, key } => Ok(Security::Tls(Credentials {
            authority: context.resolve(authority)?,
            certificate: context.resolve(certificate)?,
            key: context.resolve(key)?,
        })),
        ContextSecurity::Plain { name, user, groups } => Ok(Security::Plain(Identity::User(User {
            name: name.clone(),
            uid: Uid(*user),
            groups: groups.iter().copied().map(Gid).collect(),
        }))),
    }
}
