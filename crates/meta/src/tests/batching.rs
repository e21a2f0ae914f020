//! Batches: what conflicts, and what does not.

use super::*;

/// Runs a change on a snapshot taken now; the commit is made by the caller.
fn prepare(world: &World, ids: IdBlock, shard: u32, change: Change, sequence: u64) -> kv::Commit {
    let context = Context { now: world.now, key: &world.key, classes: &world.classes };
    let origin =
        Origin { client: ClientId(u64::from(shard) + 50), lane: Lane(0), sequence: Sequence(sequence) };
    let job = Job::Change { caller: user(1), origin, change };
    world.runtime.block_on(async {
        let mut batch = Batch::new(world.store.snapshot().await.unwrap(), ids);
        run(&mut batch, &context, &job).await.unwrap().unwrap();
        batch.finish(shard, world.now).await.unwrap().commit.unwrap()
    })
}

fn commit(world: &World, commit: kv::Commit) -> bool {
    let outcome = world.runtime.block_on(world.store.commit(commit)).unwrap();
    matches!(outcome, Outcome::Committed(_))
}

fn conflict(first: Change, second: Change) -> bool {
    let mut world = World::open();
    for path in ["a", "a/b", "x", "x/y"] {
        world.mkdir(1, path, 0o777).unwrap();
    }
    world.make(1, "f", 0o644).unwrap();
    world.make(1, "a/f", 0o644).unwrap();
    world.make(1, "x/g", 0o644).unwrap();
    let one = prepare(&world, IdBlock::default(), 2, first, 1);
    let ids = world.ids;
    let two = prepare(&world, ids, 3, second, 1);
    assert!(commit(&world, one));
    let fine = commit(&world, two);
    world.check();
    !fine
}

fn mkdir(path: &str) -> Change {
    Change::MakeDirectory { place: path.into(), mode: Mode(0o755), parents: false }
}

fn rename(from: &str, to: &str) -> Change {
    Change::Rename { from: from.into(), to: to.into(), replace: Replace::Allowed }
}

#[test]
fn changes_that_depend_on_each_other_conflict() {
    let rmdir = |path: &str| Change::RemoveDirectory { place: path.into() };
    let unlink = |path: &str| Change::Unlink { place: path.into() };
    // Each pair is one that must not both happen as seen from the same state.
    assert!(conflict(rmdir("a/b"), mkdir("a/b/c")));
    assert!(conflict(mkdir("a/b/c"), rmdir("a/b")));
    assert!(conflict(mkdir("a/n"), mkdir("a/n")));
    assert!(conflict(rename("a", "x/y/a"), rename("x", "a/b/x")));
    assert!(conflict(unlink("f"), Change::Link { from: "f".into(), to: "x/f".into() }));
    assert!(conflict(unlink("f"), rename("f", "x/f")));
    assert!(conflict(Change::RemoveTree { place: "x".into() }, mkdir("x/n")));
    let close = SetAttributes { mode: Some(Mode(0o000)), ..SetAttributes::default() };
    let close = Change::SetAttributes { place: "x".into(), follow: Follow::No, set: close };
    assert!(conflict(close, unlink("x/g")));
}

#[test]
fn changes_in_different_directories_do_not_conflict() {
    let set = |path: &str| {
        let set = SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() };
        Change::SetAttributes { place: path.into(), follow: Follow::No, set }
    };
    assert!(!conflict(set("f"), set("x/g")));
    assert!(!conflict(Change::Unlink { place: "a/f".into() }, set("x/g")));
    assert!(!conflict(mkdir("a/n"), set("x/g")));
}

#[test]
fn a_refused_operation_leaves_its_batch_as_it_was() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o755).unwrap();
    let job = |world: &mut World, change| Job::Change { caller: user(1), origin: world.origin(), change };
    let long = "x".repeat(256);
    let jobs = [
        job(&mut world, mkdir("d/1")),
        // Makes two directories, then is refused.
        job(
            &mut world,
            Change::MakeDirectory { place: format!("d/2/3/{long}").into(), mode: Mode(0o755), parents: true },
        ),
        job(&mut world, mkdir("d/2")),
        job(&mut world, rename("d/1", "d/2/1")),
        job(&mut world, rename("d/2", "d/2/1/2")),
        job(&mut world, mkdir("d/2/1/z")),
    ];
    let answers = world.jobs(&jobs);
    let refused: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().cloned()).collect();
    let expected = [None, Some(MetaError::NameTooLong), None, None, Some(MetaError::IntoItself), None];
    assert_eq!(refused, expected);
    assert_eq!(world.list(1, "d").unwrap(), ["2"]);
    assert_eq!(world.list(1, "d/2/1").unwrap(), ["z"]);
    world.check();
}

#[test]
fn a_tree_of_a_newer_build_is_refused() {
    let mut world = World::new();
    let commit = kv::Commit {
        writes: vec![(keys::format(), Some(crate::records::encode(&2u32)))],
        ..kv::Commit::default()
    };
    world.runtime.block_on(world.store.commit(commit)).unwrap();
    let answer = world.runtime.block_on(format(&world.store, world.now));
    assert!(matches!(answer, Err(kv::KvError::Corrupt(_))));
    world.records(b'F');
}
