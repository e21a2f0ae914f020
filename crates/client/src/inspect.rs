//! What administrators and tools ask: where bytes are, whether they are well, and how the servers do.

use crate::call::attempt;
use crate::span::chunk_length;
use crate::tree::describe;
use crate::{Client, Error, ErrorKind, Result, WalkOptions};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use types::following::Following;
use types::meta::{Follow, MetaReply, MetaRequest, Place, Totals};
use types::movement::Movement;
use types::peer::ServerInfo;
use types::routing::{MemberState, NodeInfo};
use types::scrub::{ScrubOrder, ScrubStatus};
use types::storage::{ChunkState, Damage, StorageError, StorageReply, StorageRequest, StorageStatus};
use types::store::StoreStatus;
use types::wire::{Channel, Request, WireVersion};
use types::{
    Attributes, ChainId, ChunkId, ChunkIndex, Duration, Epoch, FileKind, InodeId, NodeId, Rights, Routing,
    TargetId,
};

/// A metadata server that has not told of its store after this is not going to.
const STORE: std::time::Duration = std::time::Duration::from_secs(10);
/// Bytes of a copy that are verified at a time.
const VERIFY_PIECE: usize = 1 << 20;
const VERIFY_PIECE_BYTES: u32 = 1 << 20;

/// A file's BLAKE3 hash. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Totals of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub files: u64,
    pub directories: u64,
    /// Links, devices, fifos, sockets.
    pub others: u64,
    /// The sum of the files' lengths.
    pub bytes: u64,
}

/// Where a chunk is.
#[derive(Clone, Debug)]
pub struct ChunkLocation {
    pub index: ChunkIndex,
    /// Where it starts in the file, and the bytes of the file in it.
    pub offset: u64,
    pub length: u64,
    pub chain: ChainId,
    pub epoch: Epoch,
    /// In the chain's order: serving ones first.
    pub copies: Vec<CopyLocation>,
}

/// A member of a chunk's chain.
#[derive(Clone, Debug)]
pub struct CopyLocation {
    pub target: TargetId,
    pub state: MemberState,
    /// The server, if the routing still knows it.
    pub node: Option<(NodeId, NodeInfo)>,
}

/// The cluster, as this client sees it.
#[derive(Clone, Debug)]
pub struct Status {
    pub routing: Arc<Routing>,
    pub totals: Totals,
    /// The metadata servers that are there; none, if there is one only.
    pub servers: Vec<ServerInfo>,
    pub nodes: Vec<NodeStatus>,
    /// The newest version of the messages that each server speaks, by its address; of those that do not answer there is none.
    pub speaks: BTreeMap<String, WireVersion>,
    /// How the moving of data goes.
    pub movement: Movement,
    /// Directories whose files follow their class.
    pub followings: Vec<Following>,
    /// Where the metadata is, and how that is. `None`: it is not told, by an older server or because the caller is not the administrator.
    pub store: Option<StoreStatus>,
}

/// A storage server and what it says of itself.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    pub node: NodeId,
    pub info: NodeInfo,
    /// Its own word, or why it gave none.
    pub status: Result<StorageStatus>,
    /// How well its targets are known to be.
    pub scrub: Result<Vec<ScrubStatus>>,
}

/// Bytes that a server found bad.
#[derive(Clone, Debug)]
pub struct DamageReport {
    pub node: NodeId,
    pub damage: Damage,
    /// The file, if it still has a name.
    pub path: Option<String>,
    /// Of the first bad byte in the file, if the file's layout is known.
    pub offset: Option<u64>,
}

/// The time for a server to read a piece.
const READ_TIME: Duration = Duration::from_secs(20);
/// The time for a server to say how it is.
const ANSWER_TIME: Duration = Duration::from_secs(3);

impl Client {
    /// Whether this user is the administrator.
    pub async fn is_administrator(&self) -> Result<bool> {
        // Only the administrator may ask what became of inodes: of none, here.
        match self.meta("ask who this is", "", &MetaRequest::Fates { inodes: Vec::new() }).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One question to a storage server, asked once.
    pub(crate) async fn ask_storage(
        &self,
        action: &str,
        address: &str,
        request: &StorageRequest,
    ) -> Result<StorageReply> {
        let sent = attempt::<std::result::Result<StorageReply, StorageError>>(
            &self.shared.small,
            address,
            Channel::Storage,
            request.encoded(),
            Bytes::new(),
            ANSWER_TIME,
        );
        match sent.await {
            Ok((Ok(reply), _)) => Ok(reply),
            Ok((Err(StorageError::Denied), _)) => {
                Err(Error::new(ErrorKind::Denied, action, "", format!("server {address}: permission denied")))
            }
            Ok((Err(refused), _)) => {
                Err(Error::new(ErrorKind::Busy, action, "", format!("server {address}: {refused:?}")))
            }
            Err(trouble) => Err(trouble.into_error(action, "", address)),
        }
    }

    /// The same, with the payload; a refusal is an answer.
    pub(crate) async fn ask_storage_once(
        &self,
        address: &str,
        request: &StorageRequest,
    ) -> Result<std::result::Result<(StorageReply, Bytes), StorageError>> {
        let sent = attempt::<std::result::Result<StorageReply, StorageError>>(
            &self.shared.bulk,
            address,
            Channel::Storage,
            request.encoded(),
            Bytes::new(),
            READ_TIME,
        );
        match sent.await {
            Ok((answer, payload)) => Ok(answer.map(|reply| (reply, payload))),
            Err(trouble) => Err(trouble.into_error("read", "", address)),
        }
    }

    /// Where the chunks of a file are, from chunk `first`, at most `count` of them.
    pub async fn locate(
        &self,
        place: impl Into<Place>,
        first: ChunkIndex,
        count: u32,
    ) -> Result<Vec<ChunkLocation>> {
        let place = place.into();
        let subject = describe(&place);
        let attributes = self.stat(place, Follow::Yes).await?;
        let no_file = |cause| Error::new(ErrorKind::Invalid, "locate", &subject, cause);
        let layout = attributes.layout.ok_or_else(|| no_file("is no regular file"))?;
        let chunks = layout.chunks(attributes.length).ok_or_else(|| no_file("too large"))?;
        let routing = self.newest_routing().await?;
        let locations = (first.0..chunks.min(first.0.saturating_add(count))).map(|index| {
            let index = ChunkIndex(index);
            let chain = layout.chain(index);
            let info = routing.chain(chain).cloned().unwrap_or_default();
            let copies = info.members.iter().map(|member| CopyLocation {
                target: member.target,
                state: member.state,
                node: node_of(&routing, member.target),
            });
            ChunkLocation {
                index,
                offset: u64::from(index.0) * u64::from(layout.chunk_size),
                length: u64::from(chunk_length(&layout, index, attributes.length)),
                chain,
                epoch: info.epoch,
                copies: copies.collect(),
            }
        });
        Ok(locations.collect())
    }

    /// What each serving member of a chunk's chain says of its copy, in the chain's order, after reading all of it.
    pub async fn copies(
        &self,
        place: impl Into<Place>,
        index: ChunkIndex,
    ) -> Result<Vec<(TargetId, Result<Option<ChunkState>>)>> {
        let file = self.open(place, Rights::Read).await?;
        let content = &file.state.content;
        let capability = content.grant.get(self, &content.path).await?;
        let routing = self.newest_routing().await?;
        let chain = content.layout().chain(index);
        let Some(info) = routing.chain(chain) else { return Ok(Vec::new()) };
        let chunk = ChunkId { inode: content.chunks(Some(&capability)), index };
        let mut copies = Vec::new();
        for target in info.serving() {
            let Some(node) = routing.node_of(target) else { continue };
            let request = StorageRequest::Describe { chain, epoch: info.epoch, target, chunk, capability };
            let mut state = match self.ask_storage("describe", &node.address, &request).await {
                Ok(StorageReply::Chunk { state }) => Ok(state),
                Ok(_) => Err(Error::unexpected("describe", &content.path)),
                Err(error) => Err(error),
            };
            if let Ok(Some(ChunkState { length, .. })) = state {
                // The server checks each block that it reads, and notes what is bad.
                let pieces = (0..length).step_by(VERIFY_PIECE).map(|offset| StorageRequest::Read {
                    chain,
                    epoch: info.epoch,
                    target,
                    chunk,
                    offset,
                    length: (length - offset).min(VERIFY_PIECE_BYTES),
                    capability,
                });
                for piece in pieces {
                    if let Err(error) = self.ask_storage("verify", &node.address, &piece).await {
                        state = Err(error);
                        break;
                    }
                }
            }
            copies.push((target, state));
        }
        Ok(copies)
    }

    /// Asks each storage server one thing, all at the same time.
    pub(crate) async fn ask_nodes(
        &self,
        action: &'static str,
        routing: &Routing,
        request: StorageRequest,
    ) -> Vec<(NodeId, Result<StorageReply>)> {
        let mut asked = JoinSet::new();
        for (node, info) in &routing.nodes {
            let (client, node, address, request) =
                (self.clone(), *node, info.address.clone(), request.clone());
            asked.spawn(async move { (node, client.ask_storage(action, &address, &request).await) });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(node, _)| *node);
        answers
    }

    /// The cluster's state: routing, totals, and each storage server's own word. A server that does not answer does not
    /// fail the call.
    pub async fn status(&self) -> Result<Status> {
        let routing = self.newest_routing().await?;
        let (answers, scrubs, store) = tokio::join!(
            self.ask_nodes("ask for the state", &routing, StorageRequest::Status),
            self.scrub(&[], ScrubOrder::Show),
            self.store()
        );
        let mut scrubs: BTreeMap<NodeId, Result<Vec<ScrubStatus>>> = scrubs?.into_iter().collect();
        let nodes = answers.into_iter().filter_map(|(node, answer)| {
            let info = routing.nodes.get(&node)?.clone();
            let status = match answer {
                Ok(StorageReply::Status(status)) => Ok(*status),
                Ok(_) => Err(Error::unexpected("ask for the state", &info.address)),
                Err(error) => Err(error),
            };
            let unknown = || Err(Error::unexpected("ask for the scrub", &info.address));
            let scrub = scrubs.remove(&node).unwrap_or_else(unknown);
            Some(NodeStatus { node, info, status, scrub })
        });
        let nodes: Vec<NodeStatus> = nodes.collect();
        let totals = self.totals().await?;
        let servers = self.servers().await?;
        let movement = self.movement().await?;
        let followings = self.followings().await?;
        let addresses = nodes.iter().map(|node| &node.info.address);
        let speaks = self.speaks(addresses.chain(servers.iter().map(|server| &server.address))).await;
        Ok(Status { routing, totals, servers, nodes, speaks, movement, followings, store })
    }

    /// The newest version of the messages that these servers speak, as they say themselves.
    async fn speaks(&self, addresses: impl Iterator<Item = &String>) -> BTreeMap<String, WireVersion> {
        let mut asked = JoinSet::new();
        for address in addresses {
            let (shared, address) = (self.shared.clone(), address.clone());
            asked.spawn(async move {
                let connecting = tokio::time::timeout(ANSWER_TIME, shared.small.get(&address)).await;
                connecting.ok()?.ok().map(|connection| (address, connection.peer().newest))
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// The metadata servers that are there, as far as one of them knows; none, if there is one only.
    pub async fn servers(&self) -> Result<Vec<ServerInfo>> {
        const ACTION: &str = "ask which metadata servers there are";
        match self.meta(ACTION, "", &MetaRequest::Servers).await? {
            MetaReply::Servers(servers) => Ok(servers),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }

    /// How the store of the metadata is, if a metadata server tells.
    async fn store(&self) -> Option<StoreStatus> {
        const ACTION: &str = "ask how the metadata is kept";
        match timeout(STORE, self.meta(ACTION, "", &MetaRequest::Store)).await {
            Ok(Ok(MetaReply::Store(status))) => Some(*status),
            _ => None,
        }
    }

    /// What servers know to be bad. Servers that do not answer are left out. Paths are known only to the
    /// administrator.
    pub async fn damage(&self) -> Result<Vec<DamageReport>> {
        const ACTION: &str = "ask for damage";
        let routing = self.newest_routing().await?;
        let mut reports = Vec::new();
        let mut files: BTreeMap<InodeId, (Option<String>, Option<u64>)> = BTreeMap::new();
        for (node, answer) in self.ask_nodes(ACTION, &routing, StorageRequest::Damage).await {
            let found = match answer {
                Ok(StorageReply::Damage(found)) => found,
                Ok(_) => return Err(Error::unexpected(ACTION, "")),
                Err(error) => {
                    tracing::warn!(%error, %node, "no word on damage");
                    continue;
                }
            };
            for damage in found {
                let (path, chunk_size) = match files.get(&damage.inode) {
                    Some(known) => known.clone(),
                    None => {
                        let known =
                            (self.path_of(damage.inode).await, self.chunk_size_of(damage.inode).await);
                        files.insert(damage.inode, known.clone());
                        known
                    }
                };
                let offset =
                    chunk_size.map(|size| u64::from(damage.index.0) * size + u64::from(damage.offset));
                reports.push(DamageReport { node, damage, path, offset });
            }
        }
        Ok(reports)
    }

    pub async fn path_of(&self, inode: InodeId) -> Option<String> {
        let request = MetaRequest::PathOf { inode };
        match self.meta("name", &format!("inode {inode}"), &request).await {
            Ok(MetaReply::Path(path)) => Some(path),
            // It was removed, or only the administrator may know: the report gives the inode then.
            Ok(_) | Err(_) => None,
        }
    }

    async fn chunk_size_of(&self, inode: InodeId) -> Option<u64> {
        let attributes = self.stat(inode, Follow::No).await.ok()?;
        Some(u64::from(attributes.layout?.chunk_size))
    }

    /// A file's BLAKE3 hash, computed here from verified bytes.
    pub async fn checksum(&self, place: impl Into<Place>) -> Result<ContentHash> {
        let file = self.open(place, Rights::Read).await?;
        let mut reader = file.reader(0, u64::MAX);
        let mut hasher = blake3::Hasher::new();
        while let Some(bytes) = reader.next().await? {
            hasher.update(&bytes);
        }
        Ok(ContentHash(*hasher.finalize().as_bytes()))
    }

    /// Counts and lengths of all below `path` (the path itself too). A file with several names counts once. Fails at the
    /// first directory that cannot be read.
    pub async fn usage(&self, path: &str) -> Result<Usage> {
        let start = self.stat(path, Follow::Yes).await?;
        let mut usage = Usage::default();
        usage.add(&start);
        if start.kind != FileKind::Directory {
            return Ok(usage);
        }
        let mut seen = HashSet::new();
        let mut walk = self.walk(path, WalkOptions::default());
        while let Some(page) = walk.next().await {
            for entry in page?.entries {
                let attributes = &entry.attributes;
                let several = attributes.kind != FileKind::Directory && attributes.links > 1;
                if !several || seen.insert(attributes.inode) {
                    usage.add(attributes);
                }
            }
        }
        Ok(usage)
    }
}

impl Usage {
    /// Counts one more.
    pub fn add(&mut self, attributes: &Attributes) {
        match attributes.kind {
            FileKind::File => {
                self.files += 1;
                self.bytes += attributes.length;
            }
            FileKind::Directory => self.directories += 1,
            FileKind::SymbolicLink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharacterDevice
            | FileKind::BlockDevice => self.others += 1,
        }
    }
}

fn node_of(routing: &Routing, target: TargetId) -> Option<(NodeId, NodeInfo)> {
    let node = routing.targets.get(&target)?.node;
    Some((node, routing.nodes.get(&node)?.clone()))
}
