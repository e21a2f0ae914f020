use super::*;
use crate::manager::{Manager, ManagerOptions};
use env::table::SimTable;
use env::{Clock, ManualClock, SimDisk};
use kv::local::{Import, LocalSnapshot, Options, SPACES};
use kv::{Export, Follow, LocalStore, Value};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

fn store(revision: u64) -> LocalStore {
    let table = SimTable::new(SPACES.len());
    if revision > 0 {
        Import::new(&table).unwrap().finish(Revision(revision)).unwrap();
    }
    let options = Options { reserve_bytes: 0, ..Options::default() };
    LocalStore::open(Arc::new(SimDisk::new()), Arc::new(table), Path::new("/kv"), options).unwrap()
}

async fn manage(store: &LocalStore) -> Result<Manager<LocalStore>, manager::LedgerError> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    Manager::open(Arc::new(store.clone()), ManagerOptions::default(), clock).await
}

async fn write(store: &LocalStore, writes: Vec<(Key, Option<Value>)>) {
    store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
}

/// A source with some thousand rows, and what is its servers' alone.
async fn source() -> LocalStore {
    let store = store(0);
    manage(&store).await.unwrap();
    for part in 0..10u32 {
        let row = |number: u32| {
            let key = [b"I", &(part * 1000 + number).to_be_bytes()[..]].concat();
            (key, Some(vec![7; (number % 90) as usize]))
        };
        write(&store, (0..1000).map(row).collect()).await;
    }
    let holding = keys::holding(types::SessionId(4));
    write(&store, vec![(holding, Some(vec![1]))]).await;
    store
}

fn places() -> Places {
    Places { from: "here".to_owned(), to: "there".to_owned() }
}

async fn closed(from: &LocalStore) -> Closed {
    close(from, &places(), Time(5)).await.unwrap()
}

async fn may_serve<S: Store>(store: &S) -> bool {
    check(&store.snapshot().await.unwrap()).await.is_ok()
}

/// A target whose process ends after some commits, the last of which may have been done.
#[derive(Clone)]
struct Ends {
    store: LocalStore,
    left: Arc<AtomicU32>,
    is_last_done: bool,
}

impl Store for Ends {
    type Snapshot = LocalSnapshot;

    async fn snapshot(&self) -> Result<LocalSnapshot, KvError> {
        self.store.snapshot().await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
            return self.store.commit(commit).await;
        }
        if self.is_last_done {
            self.store.commit(commit).await?;
        }
        Err(KvError::Corrupt("ended".to_owned()))
    }
}

impl Export for Ends {
    fn rows(&self, from: &[u8], bytes_max: usize) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
        self.store.rows(from, bytes_max)
    }

    fn follow(&self, after: Revision) -> Box<dyn Follow> {
        self.store.follow(after)
    }
}

/// All of it; whether it was done before.
async fn migrate<A, B>(from: &A, to: &B) -> Result<Option<Compared>, MigrationError>
where
    A: Store + Export + Clone,
    B: Store + Export + Clone,
{
    let closed = close(from, &places(), Time(5)).await?;
    let claimed = claim(to, &closed).await?;
    if matches!(claimed, Claimed::Whole) {
        finish(from, to, &closed).await?;
        return Ok(None);
    }
    copy(from, to, (&closed, claimed), &Progress::default()).await?;
    let compared = compare(from, to, &Progress::default()).await?;
    finish(from, to, &closed).await?;
    Ok(Some(compared))
}

#[tokio::test]
async fn everything_comes_over_and_only_one_of_both_serves() {
    let from = source().await;
    let old = manage(&from).await.unwrap();
    let to = store(from.revision().0 + 1000);
    let compared = migrate(&from, &to).await.unwrap().unwrap();
    assert!(compared.rows > 10_000, "{compared:?}");
    assert!(!may_serve(&from).await && may_serve(&to).await);
    assert!(manage(&from).await.is_err(), "it is closed");
    let new = manage(&to).await.unwrap();
    assert!(new.term() > old.term() + 1);
    assert_eq!(new.capability_key().0, old.capability_key().0);
    let held = to.snapshot().await.unwrap().get(&keys::holding(types::SessionId(4))).await.unwrap();
    assert_eq!(held, None, "of servers of the other store");
    // Once more: it is done. To another place: not from here.
    assert_eq!(migrate(&from, &to).await.unwrap(), None);
    let elsewhere = Places { to: "elsewhere".to_owned(), ..places() };
    assert!(matches!(close(&from, &elsewhere, Time(6)).await, Err(MigrationError::Left(_))));
    // It is known before anything is made in the other one.
    assert!(matches!(check_target(&from, &store(1)).await, Err(MigrationError::Left(_))));
    check_target(&from, &to).await.unwrap();
    // And back, to a third one.
    let back = store(to.revision().0 + 1);
    let compared = migrate(&to, &back).await.unwrap().unwrap();
    assert!(compared.rows > 10_000 && may_serve(&back).await && !may_serve(&to).await);
}

#[tokio::test]
async fn wherever_it_ends_it_goes_on() {
    for is_last_done in [false, true] {
        for count in 0.. {
            let from = source().await;
            let to = store(from.revision().0 + 1000);
            let left = Arc::new(AtomicU32::new(count));
            let (mut ends_from, mut ends_to) = (
                Ends { store: from.clone(), left: left.clone(), is_last_done },
                Ends { store: to.clone(), left, is_last_done },
            );
            let ended = migrate(&ends_from, &ends_to).await.is_err();
            let begun = !is_empty(&to).await.unwrap();
            assert!(!(may_serve(&from).await && begun && may_serve(&to).await), "after {count}");
            for end in [&mut ends_from, &mut ends_to] {
                end.left = Arc::new(AtomicU32::new(u32::MAX));
            }
            migrate(&ends_from, &ends_to).await.unwrap();
            assert!(!may_serve(&from).await && may_serve(&to).await, "after {count}");
            assert!(compare(&from, &to, &Progress::default()).await.is_ok());
            if !ended {
                assert!(count > 5, "{count} commits in all");
                break;
            }
        }
    }
}

#[tokio::test]
async fn it_is_taken_back_wherever_it_is() {
    // The sixth leaves the source.
    for count in 1..5 {
        let from = source().await;
        let to = store(from.revision().0 + 1000);
        let left = Arc::new(AtomicU32::new(count));
        let ends_from = Ends { store: from.clone(), left: left.clone(), is_last_done: true };
        let ends_to = Ends { store: to.clone(), left, is_last_done: true };
        migrate(&ends_from, &ends_to).await.unwrap_err();
        abandon(&from, &to, &places()).await.unwrap();
        assert!(may_serve(&from).await, "after {count}");
        assert!(is_empty(&to).await.unwrap());
        assert!(matches!(abandon(&from, &to, &places()).await, Err(MigrationError::Nothing)));
        manage(&from).await.unwrap();
        check_target(&from, &to).await.unwrap();
        migrate(&from, &to).await.unwrap();
        assert!(matches!(abandon(&from, &to, &places()).await, Err(MigrationError::Left(_))));
    }
}

#[tokio::test]
async fn a_difference_is_found() {
    let from = source().await;
    let to = store(from.revision().0 + 1000);
    let closed = closed(&from).await;
    let claimed = claim(&to, &closed).await.unwrap();
    copy(&from, &to, (&closed, claimed), &Progress::default()).await.unwrap();
    for value in [Some(vec![9]), None] {
        let key = [b"I", &4321u32.to_be_bytes()[..]].concat();
        let before = to.snapshot().await.unwrap().get(&key).await.unwrap();
        write(&to, vec![(key.clone(), value)]).await;
        let found = compare(&from, &to, &Progress::default()).await;
        assert!(matches!(found, Err(MigrationError::Differs(at)) if at == "49000010e1"));
        write(&to, vec![(key, before)]).await;
    }
    compare(&from, &to, &Progress::default()).await.unwrap();
}

#[tokio::test]
async fn of_two_that_fill_it_one_goes_on() {
    let from = source().await;
    let to = store(from.revision().0 + 1000);
    let closed = closed(&from).await;
    let (first, second) = (claim(&to, &closed).await.unwrap(), claim(&to, &closed).await.unwrap());
    copy(&from, &to, (&closed, first), &Progress::default()).await.unwrap();
    let late = copy(&from, &to, (&closed, second), &Progress::default()).await;
    assert!(matches!(late, Err(MigrationError::Overtaken)));
    compare(&from, &to, &Progress::default()).await.unwrap();
}

#[tokio::test]
async fn what_is_not_empty_is_no_target() {
    let from = source().await;
    let to = store(from.revision().0 + 1000);
    write(&to, vec![(b"I1".to_vec(), Some(vec![1]))]).await;
    assert!(matches!(check_target(&from, &to).await, Err(MigrationError::NotEmpty)));
    let closed = closed(&from).await;
    assert!(matches!(claim(&to, &closed).await, Err(MigrationError::NotEmpty)));
    assert!(matches!(claim(&store(0), &closed).await, Err(MigrationError::Revisions)));
    assert!(matches!(close(&store(0), &places(), Time(1)).await, Err(MigrationError::Nothing)));
}
