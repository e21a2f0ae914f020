//! Servers that reach the store, and not each other.

use super::peers::{STORE, World};
use super::*;
use crate::metadata::roll::Roll;
use kv::Snapshot;
use std::collections::BTreeMap;
use tokio::time::sleep;
use types::peer::ServerRun;

const SECOND: Duration = Duration::from_secs(1);

/// Which runs are on the roll.
async fn there(world: &World) -> BTreeMap<u32, ServerRun> {
    let row = world.store.snapshot().await.unwrap().get(&::meta::keys::roll()).await.unwrap();
    let roll = Roll::read(row.as_deref()).unwrap();
    roll.all_live().map(|entry| (entry.node.0, entry.run)).collect()
}

#[tokio::test(start_paused = true)]
async fn one_that_hears_nobody_gives_way_until_it_does() {
    for seed in 0..60 {
        let world = World::new(seed);
        for node in 1..=3 {
            world.start(node).await;
        }
        sleep(SECOND / 60 * u32::try_from(seed).unwrap()).await;
        let deaf = 1 + u32::try_from(seed % 3).unwrap();
        let mut others = there(&world).await;
        others.remove(&deaf);
        others.keys().for_each(|other| world.cut(deaf, *other));
        sleep(3 * SECOND).await;
        for _ in 0..60 {
            sleep(SECOND / 10).await;
            assert_eq!(there(&world).await, others, "seed {seed}");
        }
        if seed % 2 == 0 {
            // It tries, in case they are dead.
            for _ in 0..300 {
                sleep(SECOND / 10).await;
                let now = there(&world).await;
                assert!(others.iter().all(|(node, run)| now.get(node) == Some(run)), "seed {seed}: {now:?}");
            }
        }
        world.heal();
        sleep(if seed % 2 == 0 { 11 * SECOND } else { SECOND }).await;
        let mut all = there(&world).await;
        assert!(all.remove(&deaf).is_some(), "seed {seed}: it is back");
        assert_eq!(all, others, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_that_do_not_hear_each_other_one_stays() {
    for seed in 0..20 {
        let world = World::new(seed);
        for node in 1..=2 {
            world.start(node).await;
        }
        let both = there(&world).await;
        world.cut(1, 2);
        sleep(3 * SECOND).await;
        let one = there(&world).await;
        assert_eq!(one.len(), 1, "seed {seed}");
        assert!(one.iter().all(|(node, run)| both[node] == *run), "seed {seed}: {one:?} of {both:?}");
        // It stays, whatever the other one tries.
        let mut alone = 0;
        for _ in 0..400 {
            sleep(SECOND / 10).await;
            let now = there(&world).await;
            assert!(one.iter().all(|(node, run)| now.get(node) == Some(run)), "seed {seed}: {now:?}");
            alone += usize::from(now.len() == 1);
        }
        assert!((200..400).contains(&alone), "seed {seed}: {alone}");
        world.heal();
        sleep(11 * SECOND).await;
        assert_eq!(there(&world).await.len(), 2, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_struck_off_by_who_is_dead_since_comes_back() {
    let world = World::new(7);
    for node in 1..=3 {
        world.start(node).await;
    }
    world.cut(1, 2);
    world.cut(1, 3);
    sleep(3 * SECOND).await;
    assert_eq!(there(&world).await.into_keys().collect::<Vec<_>>(), [2, 3]);
    world.kill(2);
    world.kill(3);
    sleep(15 * SECOND).await;
    assert_eq!(there(&world).await.into_keys().collect::<Vec<_>>(), [1]);
}

#[tokio::test(start_paused = true)]
async fn one_whose_joining_was_done_without_an_answer_has_joined() {
    let mut lost = 0;
    for seed in 0..20 {
        let world = World::new(seed);
        for node in 1..=2 {
            world.start(node).await;
        }
        world.cut(2, STORE);
        sleep(3 * SECOND).await;
        assert_eq!(there(&world).await.into_keys().collect::<Vec<_>>(), [1]);
        world.kill(1);
        world.heal();
        let mut joined = there(&world).await;
        while !joined.contains_key(&2) {
            sleep(Duration::from_micros(20)).await;
            joined = there(&world).await;
        }
        world.cut(2, STORE);
        sleep(SECOND / 4).await;
        world.heal();
        let change = world.change(2, origin(99, 0, 1), mkdir("d"));
        tokio::time::timeout(9 * SECOND, change).await.expect("it goes on");
        // As the run that has joined, and not as another one.
        lost += usize::from(there(&world).await.get(&2) == joined.get(&2));
    }
    assert!(lost > 10, "{lost}");
}
