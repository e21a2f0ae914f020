//! Messages to a successor: within this process without a network, else over one connection per server.

use super::pace::Pace;
use super::target::Answerer;
use super::turns::Turns;
use super::{Storage, Target};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use types::storage::{LinkBody, LinkRequest, StorageError, StorageReply, StorageRequest};
use types::wire::{Channel, Request, WireVersion, decode};
use types::{ChainId, Epoch, NodeId, TargetId};

/// Between two attempts to link: a dead successor is cut out by the manager within seconds.
pub(super) const RETRY: Duration = Duration::from_millis(100);
/// A successor that does not answer in this time is taken for lost; the link is made anew.
const DEADLINE: Duration = Duration::from_secs(30);
/// Chains that bring a successor up to date at a time: each may hold its window of pieces in memory.
const CATCH_UPS_MAX: usize = 8;
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// A message to a chain's next member.
pub(super) struct LinkCall {
    pub(super) chain: ChainId,
    pub(super) epoch: Epoch,
    pub(super) target: TargetId,
    pub(super) session: u64,
    pub(super) body: LinkBody,
    pub(super) payload: Bytes,
}

/// All links of this server.
pub(super) struct Links {
    security: Arc<net::Security>,
    newest: WireVersion,
    /// Messages are sent from any thread, a store's too.
    runtime: Handle,
    storage: OnceLock<Weak<Storage>>,
    /// Chains of this server's that may bring a successor up to date at a time, and how fast.
    pub(super) catch_ups: Arc<Turns>,
    pub(super) pace: Pace,
    /// One connection per server and place in the chain, so that what is sent first arrives first. By place (the number of
    /// members behind the receiver), because a server that waits for those behind it stops reading: were all places on
    /// one connection, servers could wait for each other in a circle.
    connections: Mutex<HashMap<(NodeId, usize), Peer>>,
}

enum Peer {
    Open(net::Connection),
    /// Being opened: what waits is sent in order.
    Opening(Vec<(LinkCall, Answerer)>),
}

impl Links {
    /// Must be called in a runtime.
    pub(super) fn new(security: Arc<net::Security>, newest: WireVersion) -> Links {
        Links {
            security,
            newest,
            runtime: Handle::current(),
            storage: OnceLock::new(),
            catch_ups: Turns::new(CATCH_UPS_MAX),
            pace: Pace::new(),
            connections: Mutex::default(),
        }
    }

    pub(super) fn bind(&self, storage: &Arc<Storage>) {
        if self.storage.set(Arc::downgrade(storage)).is_err() {
            unreachable!("bound twice");
        }
    }

    fn storage(&self) -> Option<Arc<Storage>> {
        self.storage.get().and_then(Weak::upgrade)
    }

    pub(super) fn report_synced(&self, chain: ChainId, epoch: Epoch, target: TargetId) {
        if let Some(storage) = self.storage() {
            storage.synced.lock().unwrap_or_else(PoisonError::into_inner).insert((chain, epoch, target));
        }
    }

    /// How many members serve a chain now.
    pub(super) fn serving(&self, chain: ChainId) -> usize {
        let routing = self.storage().map(|storage| storage.routing());
        routing.and_then(|routing| Some(routing.chain(chain)?.serving().count())).unwrap_or(0)
    }

    /// Sends at once: messages of one caller to one target arrive in order. The answer comes later, from any thread.
    pub(super) fn send(self: &Arc<Self>, call: LinkCall, answerer: Answerer) {
        let Some(storage) = self.storage() else { return answerer(Err(StorageError::NotServing)) };
        if let Some(target) = storage.target(call.target) {
            return Target::linked(target, call, answerer);
        }
        let routing = storage.routing();
        let Some(node) = routing.targets.get(&call.target).map(|target| target.node) else {
            return answerer(Err(StorageError::NotServing));
        };
        let Some(address) = routing.nodes.get(&node).map(|node| node.address.clone()) else {
            return answerer(Err(StorageError::NotServing));
        };
        let behind = routing.chain(call.chain).map_or(0, |info| {
            info.active().skip_while(|member| member.target != call.target).count().saturating_sub(1)
        });
        let place = (node, behind);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        match connections.get_mut(&place) {
            Some(Peer::Open(connection)) if !connection.is_closed() => {
                transmit(&self.runtime, connection, call, answerer)
            }
            Some(Peer::Opening(waiting)) => waiting.push((call, answerer)),
            Some(Peer::Open(_)) | None => {
                connections.insert(place, Peer::Opening(vec![(call, answerer)]));
                self.runtime.spawn(self.clone().connect(place, address));
            }
        }
    }

    async fn connect(self: Arc<Self>, place: (NodeId, usize), address: String) {
        let node = place.0;
        let expect = net::Expect::Node(node);
        let security = &*self.security;
        let opened =
            net::Connection::open_up_to(self.newest, &address, security, expect, CONNECT_DEADLINE).await;
        let waiting = {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(Peer::Opening(waiting)) = connections.remove(&place) else { return };
            match opened {
                Ok(connection) => {
                    for (call, answerer) in waiting {
                        transmit(&self.runtime, &connection, call, answerer);
                    }
                    connections.insert(place, Peer::Open(connection));
                    return;
                }
                Err(error) => {
                    tracing::warn!(%node, %address, %error, "cannot reach the successor's server");
                    waiting
                }
            }
        };
        for (_, answerer) in waiting {
            answerer(Err(StorageError::NotServing));
        }
    }
}

fn transmit(runtime: &Handle, connection: &net::Connection, call: LinkCall, answerer: Answerer) {
    let LinkCall { chain, epoch, target, session, body, payload } = call;
    let request = StorageRequest::Link(LinkRequest { chain, epoch, target, session, body });
    let pending = connection.start(Channel::Storage, request.encoded(), payload, DEADLINE);
    runtime.spawn(async move {
        let answer = match pending.await {
            Ok(reply) => decode::<Result<StorageReply, StorageError>>(&reply.body)
                .unwrap_or(Err(StorageError::Invalid)),
            Err(_) => Err(StorageError::NotServing),
        };
        answerer(answer);
    });
}
