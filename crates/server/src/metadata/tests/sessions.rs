//! Sessions through the service: two servers, over one store.

use super::*;
use kv::Snapshot;
use types::session::{Answer, Lock, LockKind, LockMode, LockRange, Question};

/// A client at one of the servers.
struct Host {
    service: MetaService<MemoryStore>,
    client: u64,
    sequence: AtomicU32,
    session: SessionId,
}

impl Host {
    async fn begin(service: &MetaService<MemoryStore>, client: u64) -> Host {
        let (service, sequence) = (service.clone(), AtomicU32::new(0));
        let mut host = Host { service, client, sequence, session: SessionId(0) };
        let begin = Change::BeginSession { name: client.to_string() };
        let MetaReply::Session { session, .. } = host.change(begin).await.unwrap() else { panic!() };
        host.session = session;
        host
    }

    async fn change(&self, what: Change) -> Result<MetaReply, MetaError> {
        let sequence = u64::from(self.sequence.fetch_add(1, Ordering::Relaxed) + 1);
        change(&self.service, origin(self.client, 7, sequence), what).await
    }

    async fn renew(&self, answers: Vec<Answer>, free: Vec<InodeId>) -> Result<Vec<Question>, MetaError> {
        let renew = Change::RenewSession { session: self.session, answers, free };
        match self.change(renew).await? {
            MetaReply::Session { questions, .. } => Ok(questions),
            other => panic!("{other:?}"),
        }
    }

    /// Answers what it is asked now: these are held. Others may remove more meanwhile.
    async fn answer(&self, held: &[InodeId]) {
        let questions = self.renew(Vec::new(), Vec::new()).await.unwrap();
        let answers = questions.into_iter().map(|Question { number, inodes }| Answer {
            question: number,
            held: inodes.into_iter().filter(|inode| held.contains(inode)).collect(),
        });
        self.renew(answers.collect(), Vec::new()).await.unwrap();
    }

    /// Whether it gets the lock.
    async fn lock(&self, inode: InodeId) -> Result<bool, MetaError> {
        let lock = Lock {
            kind: LockKind::Whole,
            owner: LockOwner(1),
            range: LockRange::ALL,
            mode: LockMode::Exclusive,
            pid: 1,
        };
        match self.change(Change::Lock { session: self.session, inode, lock }).await? {
            MetaReply::Done => Ok(true),
            MetaReply::Locked(_) => Ok(false),
            other => panic!("{other:?}"),
        }
    }
}

async fn two_services() -> ([MetaService<MemoryStore>; 2], Arc<ManualClock>, Arc<Chains>) {
    let (store, clock) = (MemoryStore::new(), clock());
    let one = MetaService::start(store.clone(), options(1, clock.clone())).await.unwrap();
    let two = MetaService::start(store, options(2, clock.clone())).await.unwrap();
    let chains = Arc::new(Chains::default());
    one.reclaim(chains.clone());
    two.reclaim(chains.clone());
    ([one, two], clock, chains)
}

#[tokio::test]
async fn a_file_that_is_open_at_one_server_outlives_its_removal_at_another() {
    let (services, _, chains) = two_services().await;
    let (one, two) = (Host::begin(&services[0], 11).await, Host::begin(&services[1], 12).await);
    let inode = put(&services[0], 1, |_| "f".to_owned()).await;
    two.change(Change::Unlink { place: "f".into() }).await.unwrap();
    assert_eq!(stat(&services[0], "f").await, Err(MetaError::NotFound));
    two.answer(&[]).await;
    one.answer(&[inode]).await;
    for service in &services {
        let open = MetaRequest::Open { place: inode.into(), rights: Rights::Read };
        let reply = service.answer(&Caller::administrator(), open).await.unwrap();
        let MetaReply::Opened { attributes, capability } = reply else { panic!() };
        assert_eq!((attributes.links, attributes.length, capability.is_some()), (0, 100_000, true));
    }
    let totals = services[1].totals().await.unwrap();
    assert_eq!((totals.files, totals.bytes, totals.garbage), (1, 100_000, 0));
    assert!(chains.removed.lock().unwrap().is_empty());
    one.renew(Vec::new(), vec![inode]).await.unwrap();
    until(async || chains.removed.lock().unwrap().len() == 2).await;
    collected(&services[0]).await;
    assert_eq!(services[1].totals().await.unwrap().files, 0);
}

#[tokio::test]
async fn what_a_client_had_that_is_gone_is_free_after_a_minute() {
    let (services, clock, chains) = two_services().await;
    let (one, two) = (Host::begin(&services[0], 11).await, Host::begin(&services[1], 12).await);
    let inode = put(&services[0], 1, |_| "f".to_owned()).await;
    two.change(create("locked")).await.unwrap();
    let locked = stat(&services[0], "locked").await.unwrap().inode;
    assert_eq!(one.lock(locked).await, Ok(true));
    two.change(Change::Unlink { place: "f".into() }).await.unwrap();
    two.answer(&[]).await;
    one.answer(&[inode]).await;
    let sweep = || services.iter().for_each(|service| service.shared.sessions.notify_one());
    for _ in 0..12 {
        assert_eq!(two.lock(locked).await, Ok(false));
        clock.advance(Duration::from_secs(5));
        two.renew(Vec::new(), Vec::new()).await.unwrap();
        sweep();
    }
    assert!(chains.removed.lock().unwrap().is_empty());
    clock.advance(Duration::from_secs(1));
    until(async || {
        sweep();
        two.lock(locked).await.unwrap()
    })
    .await;
    assert_eq!(one.renew(Vec::new(), Vec::new()).await, Err(MetaError::SessionOver));
    until(async || chains.removed.lock().unwrap().len() == 2).await;
    // The other one lives on; the first is off the list.
    two.renew(Vec::new(), Vec::new()).await.unwrap();
    let reply = services[0].answer(&Caller::administrator(), MetaRequest::Sessions).await.unwrap();
    let MetaReply::Sessions(sessions) = reply else { panic!() };
    assert_eq!(sessions.into_iter().map(|session| session.session).collect::<Vec<_>>(), [two.session]);
}

#[tokio::test]
async fn the_end_of_a_session_frees_at_once() {
    let (services, _, chains) = two_services().await;
    let (one, two) = (Host::begin(&services[0], 11).await, Host::begin(&services[1], 12).await);
    let inode = put(&services[0], 1, |_| "f".to_owned()).await;
    assert_eq!(one.lock(inode).await, Ok(true));
    assert_eq!(two.lock(inode).await, Ok(false));
    one.change(Change::EndSession { session: one.session }).await.unwrap();
    assert_eq!(two.lock(inode).await, Ok(true));
    assert_eq!(one.lock(inode).await, Err(MetaError::SessionOver));
    two.change(Change::Unlink { place: "f".into() }).await.unwrap();
    two.change(Change::EndSession { session: two.session }).await.unwrap();
    until(async || chains.removed.lock().unwrap().len() == 2).await;
    // By and by the servers forget them.
    until(async || {
        let snapshot = services[0].shared.store.snapshot().await.unwrap();
        let left: Vec<_> = snapshot.scan(b"S", b"T", 10).await.unwrap();
        left.is_empty()
    })
    .await;
}

/// Clients that open, remove and lock the same names at two servers, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_two_servers_leave_nothing_behind() {
    let (services, _, _) = two_services().await;
    let mut tasks = JoinSet::new();
    for client in 0..6u64 {
        let service = services[usize::try_from(client % 2).unwrap()].clone();
        tasks.spawn(async move {
            let host = Host::begin(&service, 20 + client).await;
            let mut held = Vec::new();
            for number in 0..40u64 {
                let path = format!("{}", number % 3);
                let _ = host.change(create(path.as_str())).await;
                // It is held before the servers are asked, as far as the answers go: they come only after.
                if let Ok(found) = stat(&service, &path).await {
                    host.lock(found.inode).await.unwrap_or_default();
                    held.push(found.inode);
                }
                let _ = host.change(Change::Unlink { place: path.as_str().into() }).await;
                host.answer(&held).await;
                for inode in &held {
                    // Somebody holds it: we do.
                    let there = MetaRequest::Stat { place: (*inode).into(), follow: Follow::No };
                    service.answer(&Caller::administrator(), there).await.unwrap();
                }
                if number % 5 == 4 {
                    host.renew(Vec::new(), std::mem::take(&mut held)).await.unwrap();
                }
            }
            host.change(Change::EndSession { session: host.session }).await.unwrap();
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    for number in 0..3 {
        let unlink = Change::Unlink { place: format!("{number}").into() };
        let _ = change(&services[0], origin(1, 1, number + 1), unlink).await;
    }
    until(async || {
        let snapshot = services[0].shared.store.snapshot().await.unwrap();
        let mut left = Vec::new();
        for kind in *b"SOKU" {
            left.extend(snapshot.scan(&[kind], &[kind + 1], 10).await.unwrap());
        }
        left.is_empty()
    })
    .await;
    assert_eq!(services[1].totals().await.unwrap().files, 0);
}
