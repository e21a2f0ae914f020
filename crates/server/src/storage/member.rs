//! Life in the cluster: registers with the manager, renews the lease, follows the routing.

use super::Storage;
use chain::{Place, Role};
use env::watch;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use types::manager::{Heartbeat, ManagerError, ManagerReply, ManagerRequest, Registration, TargetReport};
use types::meta::{MetaError, MetaReply, MetaRequest};
use types::peer::ServerInfo;
use types::wire::{Channel, Request, decode};
use types::{ChainInfo, MemberState, Routing, TargetId};

/// How long a routing question is left open at the manager.
const WATCH_MS: u32 = 10_000;
/// Between attempts to reach a manager.
const RETRY: Duration = Duration::from_millis(200);
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// How often the manager is asked which other metadata servers there are.
const LEARN: Duration = Duration::from_secs(30);
/// So many that were told of are remembered.
const TOLD_MAX: usize = 32;
/// How often it is said that none of them is the manager.
const COMPLAIN: Duration = Duration::from_secs(30);

/// The metadata servers, of which one is the manager.
struct Managers {
    /// Those that this server was started with, then those that they named.
    all: Vec<String>,
    named: usize,
    turn: usize,
    /// When there was one, or this was said.
    complained: Instant,
}

impl Managers {
    fn new(named: Vec<String>) -> Managers {
        Managers { named: named.len(), all: named, turn: 0, complained: Instant::now() }
    }

    /// Which one to ask next.
    fn next(&mut self) -> String {
        self.turn += 1;
        self.all[(self.turn - 1) % self.all.len()].clone()
    }

    /// These are there now.
    fn learn(&mut self, told: Vec<ServerInfo>) {
        // One server alone names none.
        if told.is_empty() {
            return;
        }
        // Who is not there for a moment comes after those.
        let earlier = self.all.split_off(self.named);
        for address in told.into_iter().map(|server| server.address).chain(earlier) {
            if self.all.len() < self.named + TOLD_MAX && !self.all.contains(&address) {
                self.all.push(address);
            }
        }
    }

    /// This one was not the manager just now.
    fn is_not(&mut self, address: &str, why: &dyn std::fmt::Display) {
        tracing::debug!(%address, %why, "this is not the manager");
        if self.complained.elapsed() > COMPLAIN {
            let asked = self.all.join(", ");
            tracing::warn!(%asked, last = %address, %why, "no metadata server that was asked is the manager");
            self.complained = Instant::now();
        }
    }
}

/// Runs until the server stops.
pub(super) async fn live(storage: Arc<Storage>) {
    let mut stop = storage.stop.subscribe();
    let mut managers = Managers::new(storage.options.managers.clone());
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = with_manager(&storage, &mut managers) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// One connection to one manager, until it fails or says that it is none.
async fn with_manager(storage: &Arc<Storage>, managers: &mut Managers) {
    let address = managers.next();
    let (newest, security) = (storage.options.newest, &*storage.options.security);
    let opened =
        net::Connection::open_up_to(newest, &address, security, net::Expect::AnyNode, CALL_DEADLINE).await;
    let connection = match opened {
        Ok(connection) => connection,
        Err(error) => return managers.is_not(&address, &error),
    };
    // The manager may be one that is not known yet.
    if let Err(silent) = learn(&connection, managers).await {
        return managers.is_not(&address, &silent);
    }
    // Each loop ends at the first failure; then all begin anew, perhaps elsewhere.
    let (registered, wait) = watch::channel(None);
    let is_manager = registered.subscribe();
    let keep_learning = async {
        loop {
            tokio::time::sleep(LEARN).await;
            // If it says nothing, the heartbeats notice.
            let _ = learn(&connection, managers).await;
        }
    };
    let why = tokio::select! {
        biased;
        why = beat(storage, &connection, &registered) => why,
        why = follow(storage, &connection, wait) => why,
        () = keep_learning => return,
    };
    let is_registered = is_manager.borrow().is_some();
    if is_registered {
        managers.complained = Instant::now();
    } else if matches!(why, CallFailure::Refused(ManagerError::NotManager | ManagerError::Unavailable)) {
        return managers.is_not(&address, &why);
    }
    tracing::warn!(%address, %why, "lost the manager");
}

/// Asks which metadata servers there are. Whoever does not say leaves that as it is. `Err`: there was no answer at all.
async fn learn(connection: &net::Connection, managers: &mut Managers) -> Result<(), net::CallError> {
    let request = MetaRequest::Servers.encoded();
    match connection.start(Channel::Meta, request, bytes::Bytes::new(), CALL_DEADLINE).await {
        Ok(answer) => {
            if let Ok(Ok(MetaReply::Servers(told))) = decode::<Result<MetaReply, MetaError>>(&answer.body) {
                managers.learn(told);
            }
            Ok(())
        }
        Err(silent @ (net::CallError::Closed(_) | net::CallError::Deadline)) => Err(silent),
        Err(_) => Ok(()),
    }
}

async fn call(
    connection: &net::Connection,
    request: &ManagerRequest,
    deadline: Duration,
) -> Result<ManagerReply, CallFailure> {
    let pending = connection.start(Channel::Manager, request.encoded(), bytes::Bytes::new(), deadline);
    let reply = pending.await.map_err(|error| CallFailure::Net(error.to_string()))?;
    let answer = decode::<Result<ManagerReply, ManagerError>>(&reply.body)
        .map_err(|error| CallFailure::Net(error.to_string()))?;
    answer.map_err(CallFailure::Refused)
}

enum CallFailure {
    Net(String),
    Refused(ManagerError),
}

impl CallFailure {
    fn nonsense() -> CallFailure {
        CallFailure::Net("the manager answered with nonsense".to_owned())
    }
}

impl std::fmt::Display for CallFailure {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallFailure::Net(text) => to.write_str(text),
            CallFailure::Refused(error) => write!(to, "refused: {error:?}"),
        }
    }
}

/// Registers, then sends heartbeats. Ends with the reason why it cannot.
async fn beat(
    storage: &Arc<Storage>,
    connection: &net::Connection,
    registered: &watch::Sender<Option<()>>,
) -> CallFailure {
    let mut interval = match register(storage, connection).await {
        Ok(interval) => interval,
        Err(why) => return why,
    };
    registered.send_replace(Some(()));
    let mut applied = storage.applied.subscribe();
    let mut fenced = storage.fenced.subscribe();
    loop {
        let sent = storage.lease.now();
        let synced = storage.synced.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let told = *fenced.borrow();
        let heartbeat = Heartbeat {
            node: storage.options.node,
            incarnation: storage.options.incarnation,
            targets: report(storage, Positions::Leave),
            synced,
            fenced: told,
        };
        match call(connection, &ManagerRequest::Heartbeat(heartbeat), CALL_DEADLINE).await {
            Ok(ManagerReply::Lease { lease_ms, routing }) => {
                // With an old map it may have been replaced without knowing: first the map, then the lease.
                let current =
                    tokio::time::timeout(CALL_DEADLINE, applied.wait_for(|version| *version >= routing));
                if matches!(current.await, Ok(Ok(_))) {
                    storage.lease.renew(sent, Duration::from_millis(u64::from(lease_ms)));
                }
            }
            Err(CallFailure::Refused(ManagerError::Unknown)) => match register(storage, connection).await {
                Ok(fresh) => interval = fresh,
                Err(why) => return why,
            },
            Ok(_) => return CallFailure::nonsense(),
            Err(why) => return why,
        }
        // Whoever makes a snapshot waits for that.
        let risen = fenced.wait_for(|fence| *fence > told);
        let _ = tokio::time::timeout(interval, risen).await;
    }
}

async fn register(storage: &Arc<Storage>, connection: &net::Connection) -> Result<Duration, CallFailure> {
    let options = &storage.options;
    let registration = Registration {
        node: options.node,
        incarnation: options.incarnation,
        address: options.address.clone(),
        site: options.site.clone(),
        rack: options.rack.clone(),
        host: options.host.clone(),
        targets: report(storage, Positions::Give),
    };
    match call(connection, &ManagerRequest::Register(registration), CALL_DEADLINE * 10).await {
        Ok(ManagerReply::Registered { key, heartbeat_ms, .. }) => {
            *storage.key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
            tracing::info!(node = %options.node, "registered with the manager");
            Ok(Duration::from_millis(u64::from(heartbeat_ms)))
        }
        Ok(_) => Err(CallFailure::nonsense()),
        Err(why) => Err(why),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Positions {
    Give,
    Leave,
}

fn report(storage: &Storage, positions: Positions) -> Vec<TargetReport> {
    let of = |target: &super::Target| {
        // A disk that does not even tell its size is taken for full. One that several targets share counts once.
        let space = target.store().space().ok();
        let sharers = target.sharers();
        TargetReport {
            target: target.id,
            capacity: space.map_or(0, |space| space.capacity / sharers),
            used: space.map_or(0, |space| space.capacity.saturating_sub(space.free) / sharers),
            full: space.is_none_or(|space| space.full),
            failed: target.failed().is_some(),
            chains: match positions {
                Positions::Give => target.store().holdings(),
                Positions::Leave => Vec::new(),
            },
        }
    };
    // Of what is not there nothing is known, and nothing can be written to it.
    let missing = |missing: &super::MissingTarget| TargetReport {
        target: missing.target,
        capacity: 0,
        used: 0,
        full: true,
        failed: true,
        chains: Vec::new(),
    };
    let open = storage.targets.values().map(|target| of(target));
    open.chain(storage.options.missing.iter().map(missing)).collect()
}

/// Follows the routing. Ends with the reason why it cannot.
async fn follow(
    storage: &Arc<Storage>,
    connection: &net::Connection,
    mut registered: watch::Receiver<Option<()>>,
) -> CallFailure {
    if registered.wait_for(Option::is_some).await.is_err() {
        return CallFailure::Net("never registered".to_owned());
    }
    loop {
        let request = ManagerRequest::Watch { known: storage.routing().version, wait_ms: WATCH_MS };
        // Clocks may run a quarter apart.
        let deadline = Duration::from_millis(u64::from(WATCH_MS)) * 5 / 4 + CALL_DEADLINE;
        match call(connection, &request, deadline).await {
            Ok(ManagerReply::Routing(Some(routing))) => apply(storage, Arc::new(*routing)).await,
            Ok(ManagerReply::Routing(None)) => {}
            Ok(_) => return CallFailure::nonsense(),
            Err(why) => return why,
        }
    }
}

/// Gives each replica of this server its part, and returns when each has it.
pub(super) async fn apply(storage: &Arc<Storage>, routing: Arc<Routing>) {
    storage.set_routing(routing.clone());
    storage.raise_fence(routing.fence);
    storage.links.pace.set_limit(routing.transfer_limit);
    storage.note_left(&routing);
    let mut configured = Vec::new();
    for (chain, info) in routing.chains() {
        let complete = info.members.iter().all(|member| member.state == MemberState::Serving);
        for member in &info.members {
            if let Some(target) = storage.target(member.target) {
                target.configure(chain, info.epoch, place_of(info, member.target), complete);
                configured.push((target.clone(), chain, info.epoch));
            }
        }
    }
    for target in storage.targets.values() {
        for chain in target.replicas() {
            let info = routing.chain(chain);
            let named = info.is_some_and(|info| info.members.iter().any(|member| member.target == target.id));
            if let (Some(info), false) = (info, named) {
                target.configure(chain, info.epoch, None, false);
                configured.push((target.clone(), chain, info.epoch));
            }
        }
    }
    for (target, chain, epoch) in configured {
        while !target.goes_by(chain, epoch) {
            // Whoever attends the target's queue is about to come to it.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    storage.applied.send_replace(routing.version);
    let mut synced = storage.synced.lock().unwrap_or_else(PoisonError::into_inner);
    synced.retain(|(chain, epoch, _)| routing.chain(*chain).is_some_and(|info| info.epoch == *epoch));
}

/// A target's place in a chain; `None` when it is no active member.
fn place_of(info: &ChainInfo, target: TargetId) -> Option<Place> {
    let role_of = |state: MemberState| match state {
        MemberState::Serving => Some(Role::Serving),
        MemberState::Syncing => Some(Role::Syncing),
        MemberState::Waiting | MemberState::Offline | MemberState::LastServing => None,
    };
    let active: Vec<(TargetId, Role)> =
        info.active().filter_map(|member| Some((member.target, role_of(member.state)?))).collect();
    let position = active.iter().position(|(id, _)| *id == target)?;
    Some(Place {
        role: active[position].1,
        head: position == 0,
        successor: active.get(position + 1).copied(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::NodeId;

    fn server(address: &str) -> ServerInfo {
        ServerInfo { node: NodeId(1), address: address.to_owned() }
    }

    #[test]
    fn all_are_asked_in_turn_those_that_were_told_of_too() {
        let mut managers = Managers::new(vec!["a".to_owned(), "b".to_owned()]);
        let mut round = |told: &[&str], count: usize| {
            managers.learn(told.iter().map(|address| server(address)).collect());
            let mut asked: Vec<String> = (0..count).map(|_| managers.next()).collect();
            asked.sort_unstable();
            asked.concat()
        };
        assert_eq!(round(&["b", "c"], 3), "abc");
        // Who tells nothing changes nothing; and who is not there now may be there again.
        assert_eq!(round(&[], 6), "aabbcc");
        assert_eq!(round(&["d"], 4), "abcd");
        let many: Vec<String> = (0..100).map(|number| format!("e{number}")).collect();
        round(&many.iter().map(String::as_str).collect::<Vec<_>>(), 0);
        assert_eq!(managers.all.len(), 2 + TOLD_MAX);
    }
}
