//! Files that move while the mirror is behind.

use super::*;

/// A store that somebody commits to all the time: no two of its snapshots are of the same revision.
struct Restless(LocalStore);

impl Store for Restless {
    type Snapshot = <LocalStore as Store>::Snapshot;

    async fn snapshot(&self) -> Result<Self::Snapshot, KvError> {
        let writes = vec![(b"Zrestless".to_vec(), Some(Vec::new()))];
        self.0.commit(Commit { writes, ..Commit::default() }).await?;
        self.0.snapshot().await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        self.0.commit(commit).await
    }
}

/// A world with one file, `f`, which is to move.
async fn with_a_file() -> (World, InodeId) {
    let mut world = World::new().await;
    world.add_class();
    world.make("f").await;
    world.caught_up().await;
    world.settled().await;
    let rebuilt = world.rebuilt();
    let id = rebuilt.keys().filter_map(|key| keys::inode_of(key)).find(|id| *id != InodeId::ROOT).unwrap();
    // Its capability to write has ended.
    world.clock.advance(Duration::from_secs(1000));
    world.change(Change::SetClass { place: "/".into(), class: Some("other".to_owned()) }).await;
    (world, id)
}

#[tokio::test]
async fn a_file_that_moved_stays_when_everything_is_written_anew_while_others_commit() {
    let (mut world, id) = with_a_file().await;
    // The chain that the file leaves is away, and all others of its class.
    let away = (0..SLOTS).map(|slot| ChainId { table: TableId(1), slot: Slot(slot) });
    lock(&world.chains.down).extend(away);
    world.move_file(id).await;
    let tables = world.routing.borrow().tables.clone();
    world.routing.send_modify(|routing| Arc::make_mut(routing).tables.clear());
    world.keep_bytes = 0;
    world.start().await;
    let files = 400;
    for number in 0..files {
        world.make(&format!("new-{number}")).await;
    }
    let store = world.server.as_ref().unwrap().0.clone();
    store.checkpoint().unwrap();
    world.stop_mirror().await;
    let export = Arc::new(store.clone());
    let mirror = Mirror::new(Restless(store), export, world.routing.subscribe(), world.chains.clone());
    world.mirror = Some(tokio::spawn(mirror.every(TICK).run()));
    world.routing.send_modify(|routing| Arc::make_mut(routing).tables = tables);
    world.until(|world| world.chains.gather().count() > files).await;
    lock(&world.chains.down).clear();
    world.until_written(id).await;
    let key = keys::inode(id);
    assert_eq!(world.rebuilt().get(&key), world.rows().await.get(&key));
    world.caught_up().await;
}

#[tokio::test]
async fn a_file_that_changes_all_the_time_leaves_where_it_was() {
    let (mut world, id) = with_a_file().await;
    world.stop_mirror().await;
    let store = world.server.as_ref().unwrap().0.clone();
    let export = Arc::new(store.clone());
    let mirror = Mirror::new(store.clone(), export, world.routing.subscribe(), world.chains.clone());
    let mut run = None;
    world.move_file(id).await;
    for round in 0..3 {
        world.chmod("f", 0o600 + round).await;
        assert!(mirror.work(&mut run).await.is_ok());
        assert!(world.rebuilt().contains_key(&keys::inode(id)));
    }
    assert_eq!(store.snapshot().await.unwrap().get(&keys::mirror_moved(id)).await.unwrap(), None);
    world.caught_up().await;
}
