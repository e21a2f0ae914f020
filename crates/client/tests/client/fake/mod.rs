//! A cluster in this process with servers that obey a script: they lose answers, refuse, hang, die, forget and lie. It
//! keeps what it is told in maps, and counts how often each request took effect.

mod meta;
mod session;
mod storage;

use bytes::Bytes;
use client::{Client, Context, ContextSecurity, Options};
use net::{Identity, Peer, Reply, Request, Responder, Security, Server, ServerOptions, Service};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use types::manager::{ManagerError, ManagerReply, ManagerRequest};
use types::routing::{ChainInfo, Member, MemberState, NodeInfo, Table, TargetInfo};
use types::storage::StorageReply;
use types::wire::{Channel, decode, encode};
use types::{
    Attributes, Capability, CapabilityKey, ChainId, ChunkId, ClassId, Epoch, FailureDomain, InodeId, NodeId,
    Origin, Routing, StorageClass, TableId, TargetId, Time, Uid, Version,
};

pub(crate) const CHUNK_SIZE: u32 = 64 * 1024;
pub(crate) const SLOTS: u16 = 5;

/// What a storage server answered.
type Answer = Result<StorageReply, types::storage::StorageError>;

/// What goes wrong. Counts go down as it happens.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Every n-th answer is lost after the request took effect; 0: none.
    pub(crate) lose_every: u64,
    /// Every n-th storage request is refused as busy; 0: none.
    pub(crate) busy_every: u64,
    /// Every n-th metadata request is refused as unavailable; 0: none.
    pub(crate) unavailable_every: u64,
    /// The store of the metadata is full: no change is taken.
    pub(crate) store_full: bool,
    /// Every n-th payload read is changed on its way; 0: none.
    pub(crate) garble_every: u64,
    /// Nodes that take requests and never answer.
    pub(crate) hanging: Vec<NodeId>,
    /// The next publications are refused: the lease is over.
    pub(crate) leases_over: u32,
    /// Capabilities given before this count are refused by the storage servers.
    pub(crate) capabilities_void: u64,
    /// Where the file is moved to before its next growth is known.
    pub(crate) move_before_growth: Option<types::Layout>,
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) meta: u64,
    pub(crate) storage: u64,
    pub(crate) updates: u64,
    pub(crate) reads: u64,
    pub(crate) bytes_written: u64,
    pub(crate) lists: u64,
    /// How often each change took effect: at the metadata server, at the storage servers.
    pub(crate) effects: HashMap<(Channel, Origin), u32>,
}

pub(crate) struct World {
    pub(crate) routing: Routing,
    pub(crate) faults: Faults,
    pub(crate) counts: Counts,
    pub(crate) key: CapabilityKey,
    pub(crate) inodes: BTreeMap<InodeId, Attributes>,
    pub(crate) entries: BTreeMap<(InodeId, String), InodeId>,
    pub(crate) next_inode: u64,
    pub(crate) appending: HashMap<InodeId, u64>,
    pub(crate) sessions: session::Sessions,
    pub(crate) meta_lanes: HashMap<(u64, u32), (u64, Vec<u8>)>,
    /// What each target holds now, and what of it is on disk.
    pub(crate) memory: BTreeMap<TargetId, BTreeMap<ChunkId, Vec<u8>>>,
    pub(crate) disk: BTreeMap<TargetId, BTreeMap<ChunkId, Vec<u8>>>,
    pub(crate) storage_lanes: HashMap<(ChainId, u64, u32), (u64, Answer)>,
    pub(crate) versions: BTreeMap<ChainId, Version>,
    /// Blocks that do not match their checksum: target, chunk, position in it.
    pub(crate) bad: Vec<(TargetId, ChunkId, u32)>,
    pub(crate) capabilities: u64,
    pub(crate) page_max: usize,
}

/// A running cluster of three nodes with one target each; the first is the metadata server and the manager too.
pub(crate) struct Cluster {
    pub(crate) world: Arc<Mutex<World>>,
    servers: Vec<Option<Server>>,
}

struct Node {
    id: NodeId,
    world: Arc<Mutex<World>>,
}

pub(crate) fn class(id: u16, name: &str, chunk_size: u32) -> StorageClass {
    StorageClass {
        id: ClassId(id),
        name: name.into(),
        copies: 2,
        chunk_size,
        domain: FailureDomain::Target,
        sites: Vec::new(),
        table: TableId(id),
        slots: SLOTS,
    }
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        let mut routing = Routing { version: 1, ..Routing::default() };
        routing.classes = vec![class(1, "default", CHUNK_SIZE), class(2, "other", 4 * CHUNK_SIZE)];
        for table in [TableId(1), TableId(2)] {
            let chains = (0..u32::from(SLOTS)).map(|slot| {
                let member =
                    |n: u32| Member { target: TargetId(1 + (slot + n) % 3), state: MemberState::Serving };
                ChainInfo { epoch: Epoch(1), members: vec![member(0), member(1)] }
            });
            routing.tables.insert(table, Table { chains: chains.collect() });
        }
        let world = World {
            routing,
            faults: Faults::default(),
            counts: Counts::default(),
            key: CapabilityKey([7; 32]),
            inodes: BTreeMap::new(),
            entries: BTreeMap::new(),
            next_inode: 100,
            appending: HashMap::new(),
            sessions: session::Sessions::default(),
            meta_lanes: HashMap::new(),
            memory: BTreeMap::new(),
            disk: BTreeMap::new(),
            storage_lanes: HashMap::new(),
            versions: BTreeMap::new(),
            bad: Vec::new(),
            capabilities: 0,
            page_max: usize::MAX,
        };
        let world = Arc::new(Mutex::new(world));
        world.lock().unwrap().make_root();
        let mut servers = Vec::new();
        for id in (1..=3).map(NodeId) {
            let service = Arc::new(Node { id, world: world.clone() });
            let server = Server::bind(
                "127.0.0.1:0",
                Arc::new(Security::Plain(Identity::Node(id))),
                service,
                ServerOptions::default(),
            );
            let server = server.await.unwrap();
            let info = NodeInfo {
                address: server.address().to_string(),
                alive: true,
                site: "s".into(),
                rack: "r".into(),
                host: format!("h{id}"),
            };
            let mut world = world.lock().unwrap();
            world.routing.nodes.insert(id, info);
            let target = TargetInfo { node: id, capacity: 1 << 30, used: 0, full: false };
            world.routing.targets.insert(TargetId(id.0), target);
            servers.push(Some(server));
        }
        Cluster { world, servers }
    }

    pub(crate) fn context(&self) -> Context {
        let address = self.world().routing.nodes[&NodeId(1)].address.clone();
        Context {
            servers: vec![address],
            security: ContextSecurity::Plain { name: "root".into(), user: 0, groups: vec![0] },
            directory: Default::default(),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with(Options { deadline: Duration::from_secs(20), ..Options::default() }).await
    }

    pub(crate) async fn client_with(&self, options: Options) -> Client {
        Client::connect(&self.context(), options).await.unwrap()
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Stops a node's server: its connections break, and nobody listens there any more.
    pub(crate) fn kill(&mut self, node: NodeId) {
        self.servers[usize::try_from(node.0).unwrap() - 1] = None;
    }
}

impl World {
    /// What the manager does when a node is gone: its targets leave their chains, in a new epoch.
    pub(crate) fn cut_out(&mut self, node: NodeId) {
        let routing = &mut self.routing;
        routing.version += 1;
        routing.nodes.get_mut(&node).unwrap().alive = false;
        let targets = &routing.targets;
        for chain in routing.tables.values_mut().flat_map(|table| &mut table.chains) {
            let before = chain.members.len();
            chain.members.retain(|member| targets[&member.target].node != node);
            if chain.members.len() != before {
                chain.epoch = chain.epoch.next();
            }
        }
    }

    /// All members crash and come back: what was not on disk is lost, and the chains have new epochs.
    pub(crate) fn crash(&mut self) {
        self.memory = self.disk.clone();
        self.storage_lanes.clear();
        self.routing.version += 1;
        for chain in self.routing.tables.values_mut().flat_map(|table| &mut table.chains) {
            chain.epoch = chain.epoch.next();
        }
    }

    pub(crate) fn grant(&mut self, inode: InodeId, count: u32, rights: types::Rights) -> Capability {
        self.capabilities += 1;
        // The number of the capability stands in for the user, so that old ones can be told.
        let user = Uid(u32::try_from(self.capabilities).unwrap());
        match rights {
            types::Rights::Read => self.key.grant_read(inode, count, user, Time(i64::MAX)),
            types::Rights::ReadWrite => self.key.grant_write(inode, count, user, Time(i64::MAX), 0),
        }
    }

    pub(crate) fn capabilities_given(&self) -> u64 {
        self.capabilities
    }

    pub(crate) fn layout_of(&self, place: &types::meta::Place) -> (InodeId, types::Layout) {
        let inode = self.find(place).unwrap();
        (inode, self.inodes[&inode].layout.unwrap())
    }

    pub(crate) fn end_sessions(&mut self) {
        self.appending.clear();
    }

    pub(crate) fn lose_chunk(&mut self, target: TargetId, chunk: ChunkId) {
        self.memory.get_mut(&target).unwrap().remove(&chunk);
    }

    /// What a metadata server does when a file has followed its class: its chunks are where another layout names them, and
    /// nowhere else.
    pub(crate) fn move_file(&mut self, inode: InodeId, layout: types::Layout) {
        let attributes = self.inodes.get_mut(&inode).unwrap();
        let old = attributes.layout.replace(layout).unwrap();
        let (length, dense) = (attributes.length as usize, attributes.dense);
        let mut content = vec![0; length];
        for (index, bytes) in content.chunks_mut(old.chunk_size as usize).enumerate() {
            let chunk = ChunkId { inode, index: types::ChunkIndex(index as u32) };
            let head = self.routing.chain(old.chain(chunk.index)).unwrap().head().unwrap();
            if let Some(there) = self.memory.get(&head).and_then(|chunks| chunks.get(&chunk)) {
                let count = there.len().min(bytes.len());
                bytes[..count].copy_from_slice(&there[..count]);
            }
        }
        for chunks in self.memory.values_mut().chain(self.disk.values_mut()) {
            chunks.retain(|chunk, _| chunk.inode != inode);
        }
        for (index, bytes) in content.chunks(layout.chunk_size as usize).enumerate() {
            let chunk = ChunkId { inode, index: types::ChunkIndex(index as u32) };
            if !dense && bytes.iter().all(|byte| *byte == 0) {
                continue; // A hole.
            }
            let members: Vec<_> = self.routing.chain(layout.chain(chunk.index)).unwrap().serving().collect();
            for target in members {
                self.memory.entry(target).or_default().insert(chunk, bytes.to_vec());
                self.disk.entry(target).or_default().insert(chunk, bytes.to_vec());
            }
        }
    }

    fn every(count: u64, every: u64) -> bool {
        every > 0 && count.is_multiple_of(every)
    }
}

impl Service for Node {
    fn handle(&self, _peer: &Arc<Peer>, request: Request, responder: Responder) {
        let mut world = self.world.lock().unwrap();
        world.counts.requests += 1;
        if world.faults.hanging.contains(&self.id) {
            // Kept for ever: the caller waits.
            std::mem::forget(responder);
            return;
        }
        let (body, payload) = match request.channel {
            Channel::Meta => (world.meta_request(&request.body), Bytes::new()),
            Channel::Storage => world.storage_request(self.id, &request.body, request.payload),
            Channel::Manager => {
                let answer: Result<ManagerReply, ManagerError> = match decode(&request.body) {
                    Ok(ManagerRequest::Watch { known, wait_ms }) => {
                        drop(world);
                        tokio::spawn(watch(self.world.clone(), known, wait_ms, responder));
                        return;
                    }
                    Ok(ManagerRequest::Movement) => Ok(ManagerReply::Movement(Box::default())),
                    _ => Err(ManagerError::Invalid),
                };
                (encode(&answer), Bytes::new())
            }
        };
        if World::every(world.counts.requests, world.faults.lose_every) {
            // Dropping the responder tells the caller that there is no answer.
            return;
        }
        drop(world);
        responder.send(Reply { body, payload });
    }
}

async fn watch(world: Arc<Mutex<World>>, known: u64, wait_ms: u32, responder: Responder) {
    let mut waited = 0;
    loop {
        let routing = world.lock().unwrap().routing.clone();
        if routing.version > known || waited >= wait_ms {
            let newer = (routing.version > known).then(|| Box::new(routing));
            let answer: Result<ManagerReply, ManagerError> = Ok(ManagerReply::Routing(newer));
            responder.send(Reply { body: encode(&answer), payload: Bytes::new() });
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        waited += 10;
    }
}

/// Bytes that differ everywhere.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = env::random::Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.number().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
