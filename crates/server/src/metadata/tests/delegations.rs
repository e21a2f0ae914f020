//! Delegations: what clients keep, and what waits for them.

use super::*;
use tokio::time::{sleep, timeout};
use types::delegation::{ChangedName, DELEGATION_LIFETIME, DELEGATION_MARGIN, News, Recall, Recalls};

const SECOND: Duration = Duration::from_secs(1);

/// A client that holds what it is given.
struct Holder {
    client: u64,
    session: SessionId,
    id: HolderId,
    sequence: u64,
}

impl Holder {
    async fn begin<S: Store>(service: &MetaService<S>, client: u64) -> Holder {
        let name = format!("client {client}");
        let reply = change(service, origin(client, 7, 1), Change::BeginSession { name }).await.unwrap();
        let MetaReply::Session { session, .. } = reply else { panic!("{reply:?}") };
        let id = Holder::hold(service, session, 1).await.unwrap();
        Holder { client, session, id, sequence: 0 }
    }

    async fn hold<S: Store>(
        service: &MetaService<S>,
        session: SessionId,
        turn: u64,
    ) -> Result<HolderId, MetaError> {
        let request = MetaRequest::Hold { session, turn };
        match service.answer(&Caller::administrator(), request).await? {
            MetaReply::Recalls(Recalls { holder, recalls }) if recalls.is_empty() => Ok(holder),
            other => panic!("{other:?}"),
        }
    }

    async fn ask<S: Store>(
        &self,
        service: &MetaService<S>,
        request: MetaRequest,
    ) -> (Result<MetaReply, MetaError>, News) {
        let (answer, news) = service.tell(&Caller::administrator(), self.id, request).await;
        (answer, news.unwrap_or_default())
    }

    async fn stat<S: Store>(&self, service: &MetaService<S>, path: &str) -> (Attributes, News) {
        let request = MetaRequest::Stat { place: path.into(), follow: Follow::No };
        match self.ask(service, request).await {
            (Ok(MetaReply::Attributes(attributes)), news) => (*attributes, news),
            other => panic!("{other:?}"),
        }
    }

    async fn change<S: Store>(
        &mut self,
        service: &MetaService<S>,
        change: Change,
    ) -> (Result<MetaReply, MetaError>, News) {
        self.sequence += 1;
        let origin = origin(self.client, 0, self.sequence);
        self.ask(service, MetaRequest::Change { origin, durability: Durability::Disk, change }).await
    }

    async fn hear<S: Store>(
        &self,
        service: &MetaService<S>,
        returned: Vec<Recall>,
    ) -> Result<Vec<Recall>, MetaError> {
        let (session, holder) = (self.session, self.id);
        let request = MetaRequest::Recalls { session, holder, heard: 0, returned };
        match service.answer(&Caller::administrator(), request).await? {
            MetaReply::Recalls(Recalls { recalls, .. }) => Ok(recalls),
            other => panic!("{other:?}"),
        }
    }
}

fn chmod(path: &str, mode: u16) -> Change {
    let set = SetAttributes { mode: Some(Mode(mode)), ..SetAttributes::default() };
    Change::SetAttributes { place: path.into(), follow: Follow::No, set }
}

/// A service with `/f` and `/g`.
async fn service() -> (MetaService<Fickle>, Fickle, Arc<ManualClock>) {
    let (store, clock) = (fickle(), clock());
    let service = MetaService::start(store.clone(), options(1, clock.clone())).await.unwrap();
    for (path, sequence) in [("f", 1), ("g", 2)] {
        change(&service, origin(99, 0, sequence), create(path)).await.unwrap();
    }
    (service, store, clock)
}

#[tokio::test]
async fn a_change_waits_until_others_have_let_go_of_what_it_changes() {
    let (service, ..) = service().await;
    let holder = Holder::begin(&service, 1).await;
    let (file, news) = holder.stat(&service, "f").await;
    assert_eq!(news.granted, [InodeId::ROOT, file.inode]);
    let changing = tokio::spawn({
        let service = service.clone();
        async move { change(&service, origin(99, 1, 1), chmod("f", 0o600)).await }
    });
    // A question that waits is answered at once.
    let recalls = holder.hear(&service, vec![]).await.unwrap();
    assert_eq!(recalls.iter().map(|recall| recall.inode).collect::<Vec<_>>(), [file.inode]);
    assert!(!changing.is_finished());
    assert_eq!(stat(&service, "f").await.unwrap().mode, Mode(0o644));
    // Nothing of it is given meanwhile; and what has nothing to do with it goes on.
    assert_eq!(holder.stat(&service, "f").await.1.granted, [InodeId::ROOT]);
    change(&service, origin(99, 2, 1), chmod("g", 0o600)).await.unwrap();
    assert!(!changing.is_finished());
    assert!(holder.hear(&service, recalls).await.unwrap().is_empty());
    changing.await.unwrap().unwrap();
    assert_eq!(stat(&service, "f").await.unwrap().mode, Mode(0o600));
    assert_eq!(service.counters().recalls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn ones_own_changes_wait_for_nobody_and_tell_what_they_changed() {
    let (service, ..) = service().await;
    let mut holder = Holder::begin(&service, 1).await;
    let (file, _) = holder.stat(&service, "f").await;
    let (reply, news) = holder.change(&service, create("new")).await;
    let MetaReply::Opened { attributes: made, .. } = reply.unwrap() else { panic!() };
    assert_eq!(news.granted, [InodeId::ROOT, made.inode]);
    assert_eq!(news.changed.iter().find(|changed| changed.inode == made.inode), Some(&*made));
    let root = news.changed.iter().find(|changed| changed.inode == InodeId::ROOT).unwrap();
    assert_eq!(root.length, 3);
    let named = |name: &str, inode| ChangedName { directory: InodeId::ROOT, name: name.to_owned(), inode };
    assert_eq!(news.names, [named("new", Some(made.inode))]);
    let rename = Change::Rename { from: "new".into(), to: "f".into(), replace: Replace::Allowed };
    let (reply, news) = holder.change(&service, rename).await;
    reply.unwrap();
    // It is there as long as some session may have it open.
    let replaced = news.changed.iter().find(|left| left.inode == file.inode);
    assert!(replaced.is_some_and(|left| left.links == 0), "{news:?}");
    assert!(news.names.contains(&named("f", Some(made.inode))) && news.names.contains(&named("new", None)));
    assert!(!news.granted.contains(&file.inode) || news.changed.iter().any(|left| left.inode == file.inode));
    // What was refused has changed nothing.
    let (refused, news) = holder.change(&service, mkdir("f")).await;
    assert_eq!(refused, Err(MetaError::Exists));
    assert!(news.changed.is_empty() && news.names.is_empty() && news.gone.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_change_goes_on_when_a_silent_holder_is_over() {
    let (service, _, clock) = service().await;
    let holder = Holder::begin(&service, 1).await;
    holder.stat(&service, "f").await;
    let changing = tokio::spawn({
        let service = service.clone();
        async move { change(&service, origin(99, 1, 1), chmod("f", 0o600)).await }
    });
    clock.advance(DELEGATION_LIFETIME);
    sleep(DELEGATION_LIFETIME).await;
    assert!(!changing.is_finished(), "the holder may still answer from what it keeps");
    clock.advance(DELEGATION_MARGIN + SECOND);
    sleep(DELEGATION_MARGIN + SECOND).await;
    timeout(SECOND, changing).await.unwrap().unwrap().unwrap();
    assert_eq!(holder.hear(&service, vec![]).await, Err(MetaError::SessionOver));
    // It may begin anew; as who it was it is given nothing.
    assert!(holder.stat(&service, "f").await.1.granted.is_empty());
    Holder::hold(&service, holder.session, 2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_begins_waits_for_what_the_one_before_it_gave() {
    let (service, store, clock) = service().await;
    let first = Holder::begin(&service, 1).await;
    let second = Holder::begin(&service, 2).await;
    drop(service);
    let begin =
        async |store: &Fickle| MetaService::start(store.clone(), options(1, clock.clone())).await.unwrap();
    // For as long as both may answer from it.
    let service = begin(&store).await;
    let asked = tokio::time::Instant::now();
    change(&service, origin(99, 1, 1), chmod("f", 0o600)).await.unwrap();
    assert!(asked.elapsed() >= DELEGATION_LIFETIME + DELEGATION_MARGIN);
    drop(service);
    // Or until both have begun anew.
    let service = begin(&store).await;
    let changing = tokio::spawn({
        let service = service.clone();
        async move { change(&service, origin(99, 1, 2), chmod("f", 0o640)).await }
    });
    assert_eq!(first.hear(&service, vec![]).await, Err(MetaError::SessionOver));
    Holder::hold(&service, first.session, 2).await.unwrap();
    sleep(SECOND).await;
    assert!(!changing.is_finished());
    Holder::hold(&service, second.session, 2).await.unwrap();
    timeout(SECOND / 10, changing).await.unwrap().unwrap().unwrap();
    // What is asked for is answered meanwhile.
    drop(service);
    let service = begin(&store).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(stat(&service, "f").await.unwrap().mode, Mode(0o640));
    assert!(asked.elapsed() < SECOND / 10);
}

#[tokio::test]
async fn what_may_have_been_committed_is_not_given_as_it_was() {
    let (service, store, _) = service().await;
    let holder = Holder::begin(&service, 1).await;
    let inode = stat(&service, "f").await.unwrap().inode;
    let delegations = &service.shared.delegations;
    // A read has its snapshot now, and finds out what it may give later.
    let state = delegations.granter().committed();
    store.fate.lock().unwrap().push(Fate::AppliedUnanswered);
    let unanswered = change(&service, origin(99, 1, 1), chmod("f", 0o600)).await;
    assert_eq!(unanswered, Err(MetaError::Unavailable));
    let (_, granted) = delegations.granter().grant(holder.id, state, [inode], Duration::ZERO);
    assert!(granted.is_empty());
    assert_eq!(holder.stat(&service, "f").await.1.granted, [InodeId::ROOT, inode]);
}

#[tokio::test]
async fn nobody_holds_anything_as_another_user() {
    let (service, ..) = service().await;
    let holder = Holder::begin(&service, 1).await;
    let other = Caller::user(Uid(5), vec![Gid(5)]);
    let session = holder.session;
    let requests = [
        MetaRequest::Hold { session, turn: 9 },
        MetaRequest::Recalls { session, holder: holder.id, heard: 0, returned: vec![] },
    ];
    for request in requests {
        assert_eq!(service.answer(&other, request).await, Err(MetaError::SessionOver));
    }
    // Not even with an answer that he was given before, to a change that was something else.
    let begin = Change::BeginSession { name: String::new() };
    service
        .answer(
            &other,
            MetaRequest::Change { origin: origin(6, 0, 1), durability: Durability::Disk, change: begin },
        )
        .await
        .unwrap();
    let end = Change::EndSession { session };
    service
        .answer(
            &other,
            MetaRequest::Change { origin: origin(6, 0, 1), durability: Durability::Disk, change: end },
        )
        .await
        .unwrap();
    assert_eq!(holder.stat(&service, "f").await.1.granted.len(), 2);
    let returned = vec![Recall { inode: InodeId::ROOT, number: 0 }; types::delegation::RETURNED_MAX + 1];
    assert_eq!(holder.hear(&service, returned).await, Err(MetaError::Invalid));
    let request = MetaRequest::Stat { place: "f".into(), follow: Follow::No };
    assert!(service.tell(&other, holder.id, request).await.1.is_none());
    // Who may not see something is given nothing of it.
    let service = start(MemoryStore::new(), 1).await;
    change(&service, origin(99, 0, 1), mkdir("closed")).await.unwrap();
    change(&service, origin(99, 0, 2), chmod("closed", 0o700)).await.unwrap();
    let reply = service.answer(
        &other,
        MetaRequest::Change {
            origin: origin(5, 0, 1),
            durability: Durability::Disk,
            change: Change::BeginSession { name: String::new() },
        },
    );
    let MetaReply::Session { session, .. } = reply.await.unwrap() else { panic!() };
    let request = MetaRequest::Hold { session, turn: 1 };
    let MetaReply::Recalls(Recalls { holder, .. }) = service.answer(&other, request).await.unwrap() else {
        panic!()
    };
    let directory = stat(&service, "closed").await.unwrap().inode;
    let place = Place { base: directory, path: "x".to_owned() };
    let (refused, news) = service.tell(&other, holder, MetaRequest::Stat { place, follow: Follow::No }).await;
    assert_eq!(refused, Err(MetaError::Denied));
    assert!(news.unwrap().granted.is_empty());
}

#[tokio::test]
async fn what_nobody_sees_of_a_change_nobody_waits_for() {
    let (service, ..) = service().await;
    let holder = Holder::begin(&service, 1).await;
    let (file, _) = holder.stat(&service, "f").await;
    // That a file may be written by somebody is in its record.
    let open = MetaRequest::Open { place: Place::inode(file.inode), rights: Rights::ReadWrite };
    timeout(SECOND, service.answer(&Caller::administrator(), open)).await.unwrap().unwrap();
    assert!(holder.hear(&service, vec![]).await.unwrap().is_empty());
    // What it removes it is not remembered to hold.
    let mut holder = holder;
    for (sequence, change) in
        [mkdir("d"), Change::RemoveDirectory { place: "d".into() }].into_iter().enumerate()
    {
        let (reply, news) = holder.change(&service, change).await;
        reply.unwrap();
        assert_eq!(news.gone.len(), sequence);
    }
    assert_eq!(service.shared.delegations.granter().counts(), (1, 2));
}

#[tokio::test]
async fn the_end_of_a_session_lets_go_of_all() {
    let (service, ..) = service().await;
    let mut holder = Holder::begin(&service, 1).await;
    holder.stat(&service, "f").await;
    let session = holder.session;
    holder.change(&service, Change::EndSession { session }).await.0.unwrap();
    assert_eq!(service.shared.delegations.granter().counts(), (0, 0));
    timeout(SECOND, change(&service, origin(99, 1, 1), chmod("f", 0o600))).await.unwrap().unwrap();
}
