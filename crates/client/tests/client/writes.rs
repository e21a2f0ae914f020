//! Random writes, truncations, syncs and crashes against a plain vector.

use crate::fake::{CHUNK_SIZE, Cluster, noise};
use bytes::Bytes;
use client::{Client, CreateOptions, File};
use env::random::Random;
use types::Rights;
use types::storage::Durability;

const LENGTH_MAX: u64 = CHUNK_SIZE as u64 * 7;

async fn read_all(client: &Client) -> Vec<u8> {
    let file = client.open("/f", Rights::Read).await.unwrap();
    file.read_at(0, u64::MAX).await.unwrap().into_bytes().to_vec()
}

async fn step(file: &File, model: &mut Vec<u8>, random: &mut Random) {
    match random.below(9) {
        0 => {
            let length = random.below(LENGTH_MAX);
            file.truncate(length).await.unwrap();
            model.resize(length as usize, 0);
        }
        1 => file.sync().await.unwrap(),
        2 => {
            let (offset, length) = (random.below(LENGTH_MAX), random.below(LENGTH_MAX / 2));
            let (grows, end) = (random.one_in(3), (offset + length) as usize);
            file.punch(offset, length, grows).await.unwrap();
            if grows && model.len() < end {
                model.resize(end, 0);
            }
            let end = model.len().min(end);
            model[end.min(offset as usize)..end].fill(0);
        }
        _ => {
            let offset = random.below(LENGTH_MAX);
            let length = 1 + if random.one_in(3) { random.below(200_000) } else { random.below(5000) };
            let bytes = noise(length as usize, random.number());
            let durability = if random.one_in(3) { Durability::Disk } else { Durability::Memory };
            file.write_at(offset, Bytes::from(bytes.clone()), durability).await.unwrap();
            let end = (offset + length) as usize;
            if model.len() < end {
                model.resize(end, 0);
            }
            model[offset as usize..end].copy_from_slice(&bytes);
        }
    }
}

#[tokio::test]
async fn a_file_is_as_a_vector_whatever_the_servers_do() {
    for seed in 0..12 {
        let cluster = Cluster::start().await;
        cluster.world().faults.lose_every = [0, 7, 5][seed as usize % 3];
        cluster.world().faults.busy_every = [0, 0, 11, 6][seed as usize % 4];
        let client = cluster.client().await;
        let file = client.create("/f", CreateOptions::default()).await.unwrap();
        let (mut random, mut model) = (Random::new(seed), Vec::new());
        for _ in 0..40 {
            step(&file, &mut model, &mut random).await;
            if random.one_in(10) {
                // What was in memory only is lost at all members at once; a sync must bring it back.
                cluster.world().crash();
                file.sync().await.unwrap();
            }
            assert!(read_all(&client).await == model, "seed {seed}");
        }
        file.sync().await.unwrap();
        cluster.world().crash();
        assert!(read_all(&client).await == model, "seed {seed}");
        assert!(cluster.world().counts.effects.values().all(|times| *times == 1));
    }
}

#[tokio::test]
async fn writes_at_the_same_time_all_take_effect() {
    let cluster = Cluster::start().await;
    cluster.world().faults.lose_every = 9;
    let client = cluster.client().await;
    let file = client.create("/f", CreateOptions::default()).await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..200u64 {
        let file = file.clone();
        running.spawn(async move {
            let bytes = Bytes::from(noise(4096, number));
            file.write_at(number * 4096, bytes, Durability::Disk).await.unwrap();
        });
    }
    running.join_all().await;
    let bytes = read_all(&client).await;
    assert_eq!(bytes.len(), 200 * 4096);
    for (number, block) in bytes.chunks(4096).enumerate() {
        assert!(block == noise(4096, number as u64), "{number}");
    }
}

#[tokio::test]
async fn files_are_synced_together_and_what_was_lost_is_named() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let mut files = Vec::new();
    for number in 0..5u64 {
        let file = client.create(format!("/{number}").as_str(), CreateOptions::default()).await.unwrap();
        file.write_at(0, noise(1000, number).into(), Durability::Memory).await.unwrap();
        files.push(file);
    }
    // One is named twice, and nobody waits for himself.
    files.push(files[0].clone());
    let together = tokio::time::timeout(std::time::Duration::from_secs(20), Client::sync_together(&files));
    assert_eq!(together.await.unwrap(), vec![true; 6]);
    cluster.world().crash();
    for (number, file) in (0..5u64).zip(&files) {
        assert!(file.read_at(0, 1000).await.unwrap().into_bytes() == noise(1000, number));
        file.write_at(0, noise(1000, number + 10).into(), Durability::Memory).await.unwrap();
    }
    // What was lost before it was synced is not called synced, and each sync brings it back.
    cluster.world().crash();
    assert!(Client::sync_together(&files).await.contains(&false));
    for (number, file) in (0..5u64).zip(&files) {
        file.sync().await.unwrap();
        assert!(file.read_at(0, 1000).await.unwrap().into_bytes() == noise(1000, number + 10));
    }
}
