//! Sessions: whose they are, how long they hold, and what they cost those who have none.

use super::*;
use crate::Answer as JobAnswer;
use types::session::{Answer, Question, SessionInfo};

/// A client with a session, whose requests have a lane of their own.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) client: ClientId,
    pub(super) uid: u32,
    pub(super) session: SessionId,
}

impl Host {
    /// A client that begins a session.
    pub(super) fn new(world: &mut World, client: u64, uid: u32) -> Host {
        let mut host = Host { client: ClientId(client), uid, session: SessionId(0) };
        let begin = Change::BeginSession { name: format!("host{client}") };
        let MetaReply::Session { session, questions, .. } = host.change(world, begin).unwrap() else {
            panic!()
        };
        assert_eq!(questions, []);
        host.session = session;
        host
    }

    pub(super) fn origin(&self, world: &mut World) -> Origin {
        Origin { client: self.client, ..world.origin() }
    }

    pub(super) fn change(&self, world: &mut World, change: Change) -> Result<MetaReply, MetaError> {
        let origin = self.origin(world);
        world.retry(self.uid, origin, change)
    }

    /// A renewal: what is asked, and whether there is more.
    pub(super) fn renew(
        &self,
        world: &mut World,
        answers: Vec<Answer>,
        free: Vec<InodeId>,
    ) -> Result<(Vec<Question>, bool), MetaError> {
        let change = Change::RenewSession { session: self.session, answers, free };
        match self.change(world, change)? {
            MetaReply::Session { session, questions, more, .. } => {
                assert_eq!(session, self.session);
                Ok((questions, more))
            }
            other => panic!("{other:?}"),
        }
    }

    /// What it is asked now.
    pub(super) fn asked(&self, world: &mut World) -> Vec<Question> {
        self.renew(world, Vec::new(), Vec::new()).unwrap().0
    }

    /// Answers all it is asked; it holds these.
    pub(super) fn answer(&self, world: &mut World, held: &[InodeId]) {
        let answers = self.asked(world).into_iter().map(|question| {
            let held = question.inodes.into_iter().filter(|inode| held.contains(inode)).collect();
            Answer { question: question.number, held }
        });
        let answers = answers.collect();
        assert_eq!(self.renew(world, answers, Vec::new()), Ok((Vec::new(), false)));
    }

    pub(super) fn free(&self, world: &mut World, inode: InodeId) {
        self.renew(world, Vec::new(), vec![inode]).unwrap();
    }

    pub(super) fn end(&self, world: &mut World) {
        self.change(world, Change::EndSession { session: self.session }).map(done).unwrap();
    }
}

/// One walk of the sweep.
pub(super) fn sweep(world: &mut World) {
    let mut after = Vec::new();
    while let JobAnswer::Progress(Some(next)) = world.job(Job::SweepSessions { after, limit: 3 }).unwrap() {
        after = next;
    }
}

fn sessions(world: &mut World, uid: u32) -> Vec<SessionInfo> {
    match world.read(uid, MetaRequest::Sessions).unwrap() {
        MetaReply::Sessions(sessions) => sessions,
        other => panic!("{other:?}"),
    }
}

/// A change that runs on the state as it is now, to be committed later, at a server of its own.
pub(super) fn prepare(world: &World, shard: u32, origin: Origin, uid: u32, change: Change) -> kv::Commit {
    let context = Context { now: world.now, key: &world.key, classes: &world.classes };
    let job = Job::Change { caller: user(uid), origin, change };
    world.runtime.block_on(async {
        let mut batch = Batch::new(world.store.snapshot().await.unwrap(), IdBlock::default());
        run(&mut batch, &context, &job).await.unwrap().unwrap();
        batch.finish(shard, world.now).await.unwrap().commit.unwrap()
    })
}

pub(super) fn commit(world: &World, commit: kv::Commit) -> bool {
    let outcome = world.runtime.block_on(world.store.commit(commit)).unwrap();
    matches!(outcome, Outcome::Committed(_))
}

#[test]
fn a_session_is_its_clients_and_its_users() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    host.renew(&mut world, Vec::new(), Vec::new()).unwrap();
    let other = Host { client: ClientId(6), ..host.clone() };
    assert_eq!(other.renew(&mut world, Vec::new(), Vec::new()), Err(MetaError::SessionOver));
    let thief = Host { uid: 2, ..host.clone() };
    assert_eq!(thief.renew(&mut world, Vec::new(), Vec::new()), Err(MetaError::SessionOver));
    assert_eq!(
        thief.change(&mut world, Change::EndSession { session: host.session }),
        Err(MetaError::SessionOver)
    );
    // A client may have several, one after the other or at a time; each is another one.
    let second = Host::new(&mut world, 5, 1);
    assert_ne!(second.session, host.session);
    host.end(&mut world);
    assert_eq!(host.renew(&mut world, Vec::new(), Vec::new()), Err(MetaError::SessionOver));
    second.renew(&mut world, Vec::new(), Vec::new()).unwrap();
    world.check();
}

#[test]
fn a_session_ends_thirty_seconds_and_the_margin_after_its_last_renewal() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    let dead = Host::new(&mut world, 6, 1);
    for _ in 0..10 {
        world.pass(Duration::from_secs(25));
        host.renew(&mut world, Vec::new(), Vec::new()).unwrap();
    }
    // Nobody looked at the other one: it is over all the same.
    assert_eq!(dead.renew(&mut world, Vec::new(), Vec::new()), Err(MetaError::SessionOver));
    // Late, but not too late.
    world.pass(crate::SESSION_LIFETIME + crate::CLOCK_MARGIN - Duration::from_secs(1));
    sweep(&mut world);
    host.renew(&mut world, Vec::new(), Vec::new()).unwrap();
    world.pass(crate::SESSION_LIFETIME + crate::CLOCK_MARGIN + Duration::from_secs(1));
    assert_eq!(host.renew(&mut world, Vec::new(), Vec::new()), Err(MetaError::SessionOver));
    sweep(&mut world);
    sweep(&mut world);
    assert_eq!(world.records(b'S'), []);
}

#[test]
fn users_see_their_own_sessions_and_the_administrator_all() {
    let mut world = World::open();
    let (one, two) = (Host::new(&mut world, 5, 1), Host::new(&mut world, 6, 2));
    let of = |sessions: Vec<SessionInfo>| sessions.into_iter().map(|s| s.session).collect::<Vec<_>>();
    let seen = sessions(&mut world, 1);
    assert_eq!((seen[0].client, seen[0].uid, seen[0].name.as_str()), (ClientId(5), Uid(1), "host5"));
    assert_eq!(of(seen), [one.session]);
    assert_eq!(of(sessions(&mut world, ROOT)), [one.session, two.session]);
    assert_eq!(of(sessions(&mut world, 3)), []);
    one.end(&mut world);
    assert_eq!(of(sessions(&mut world, ROOT)), [two.session]);
    let long = Change::BeginSession { name: "x".repeat(256) };
    assert_eq!(world.change(1, long), Err(MetaError::NameTooLong));
}

#[test]
fn there_are_at_most_so_many_sessions() {
    let mut world = World::open();
    let begin = |world: &mut World| world.change(1, Change::BeginSession { name: String::new() });
    for _ in 0..crate::SESSIONS_MAX {
        begin(&mut world).unwrap();
    }
    assert_eq!(begin(&mut world), Err(MetaError::Busy));
    // All of them are asked, and are gone in the end.
    let inode = world.make(1, "f", 0o644).unwrap().inode;
    world.unlink(1, "f").unwrap();
    world.check();
    world.pass(Duration::from_secs(61));
    sweep(&mut world);
    assert_eq!(world.stat(1, inode), Err(MetaError::NotFound));
    sweep(&mut world);
    assert_eq!((world.records(b'S'), world.records(b'O')), (vec![], vec![]));
    begin(&mut world).unwrap();
    world.check();
}

#[test]
fn a_beginning_that_is_retried_is_one_session() {
    let mut world = World::open();
    let origin = Origin { client: ClientId(5), lane: Lane(0), sequence: Sequence(1) };
    let begin = || Change::BeginSession { name: "h".to_owned() };
    let first = world.retry(1, origin, begin()).unwrap();
    assert_eq!(world.retry(1, origin, begin()), Ok(first));
    assert_eq!(sessions(&mut world, 1).len(), 1);
}

/// What it costs those who have none: one key that is read once.
#[test]
fn without_sessions_a_removal_reads_one_key_more_and_writes_nothing_more() {
    let mut world = World::open();
    for name in ["f", "g"] {
        world.make(1, name, 0o644).unwrap();
    }
    let before = world.now;
    let origin = world.origin();
    let removal = prepare(&world, 1, origin, 1, Change::Unlink { place: "f".into() });
    let of_sessions = |key: &&kv::Key| b"SOKU".contains(&key[0]);
    assert_eq!(removal.keys.iter().filter(of_sessions).collect::<Vec<_>>(), [&keys::sessions_live()]);
    assert_eq!(removal.writes.iter().map(|(key, _)| key).filter(of_sessions).count(), 0);
    assert!(commit(&world, removal));
    assert_eq!(world.now, before);
    // So it is when all sessions are over.
    let host = Host::new(&mut world, 5, 1);
    host.end(&mut world);
    sweep(&mut world);
    world.unlink(1, "g").unwrap();
    assert_eq!(world.stat(ROOT, "g"), Err(MetaError::NotFound));
    for kind in *b"SOKU" {
        assert_eq!(world.records(kind), []);
    }
    world.check();
}

#[test]
fn a_session_that_begins_at_another_server_during_a_removal_makes_it_run_again() {
    let mut world = World::open();
    world.make(1, "f", 0o644).unwrap();
    let origin = world.origin();
    let removal = prepare(&world, 7, origin, 1, Change::Unlink { place: "f".into() });
    let host = Host::new(&mut world, 5, 1);
    // Somebody opens the file in that session.
    world.stat(1, "f").unwrap();
    assert!(!commit(&world, removal), "it did not see the session");
    world.unlink(1, "f").unwrap();
    assert_eq!(host.asked(&mut world).len(), 1);
    // A renewal is in nobody's way.
    world.make(1, "g", 0o644).unwrap();
    let origin = world.origin();
    let removal = prepare(&world, 8, origin, 1, Change::Unlink { place: "g".into() });
    host.renew(&mut world, Vec::new(), Vec::new()).unwrap();
    assert!(commit(&world, removal));
    assert_eq!(host.asked(&mut world).len(), 2);
    world.check();
}

/// Scans are no part of what a transaction has read: an end that ran on an older state does not see what was added meanwhile.
#[test]
fn what_another_server_adds_while_a_session_ends_is_freed_as_well() {
    let mut world = World::open();
    for name in ["f", "g"] {
        world.make(1, name, 0o644).unwrap();
    }
    let locked = world.stat(1, "g").unwrap().inode;
    let host = Host::new(&mut world, 5, 1);
    // A lane of its own: it is not the lane's answer that they meet at.
    let origin = Origin { lane: Lane(9), ..host.origin(&mut world) };
    let ending = prepare(&world, 7, origin, 1, Change::EndSession { session: host.session });
    world.unlink(1, "f").unwrap();
    super::locks::lock(&mut world, &host, locked, 1, types::session::LockMode::Exclusive).unwrap();
    assert!(commit(&world, ending));
    assert!(!world.records(b'O').is_empty() && !world.records(b'K').is_empty());
    assert_eq!(host.renew(&mut world, Vec::new(), Vec::new()), Err(MetaError::SessionOver));
    sweep(&mut world);
    for kind in *b"SOKU" {
        assert_eq!(world.records(kind), []);
    }
    // What was begun in the session on an older state is not committed.
    let host = Host::new(&mut world, 6, 1);
    world.make(1, "h", 0o644).unwrap();
    let origin = world.origin();
    let removal = prepare(&world, 7, origin, 1, Change::Unlink { place: "h".into() });
    let origin = Origin { lane: Lane(9), ..host.origin(&mut world) };
    let locking = prepare(&world, 8, origin, 1, super::locks::change(&host, locked, 1));
    host.end(&mut world);
    assert!(!commit(&world, removal) && !commit(&world, locking));
    sweep(&mut world);
    for kind in *b"SOKU" {
        assert_eq!(world.records(kind), []);
    }
    world.check();
}

#[test]
fn an_end_and_a_sweep_in_one_batch_leave_the_rest_to_a_later_one() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    let origin = host.origin(&mut world);
    let end = Job::Change { caller: user(1), origin, change: Change::EndSession { session: host.session } };
    let answers = world.jobs(&[end, Job::SweepSessions { after: Vec::new(), limit: 10 }]);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(world.records(b'S').len(), 1, "its record waits for a transaction that sees the mark");
    sweep(&mut world);
    assert_eq!(world.records(b'S'), []);
}
