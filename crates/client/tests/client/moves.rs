//! Files that move to other chains, with other chunk sizes, while they are open.

use crate::fake::{CHUNK_SIZE, Cluster, SLOTS, noise};
use bytes::Bytes;
use client::{CopyOptions, CreateOptions, ErrorKind, PutOptions};
use env::random::Random;
use types::storage::Durability;
use types::{ClassId, InodeId, Layout, Rights, TableId};

const LENGTH: usize = CHUNK_SIZE as usize * 9 + 1234;

/// A layout of one of the two classes.
fn layout(number: u64) -> Layout {
    let second = number % 2 == 1;
    let (id, chunk_size) = if second { (2, 4 * CHUNK_SIZE) } else { (1, CHUNK_SIZE) };
    Layout { class: ClassId(id), table: TableId(id), slots: SLOTS, chunk_size, seed: number as u32 + 5 }
}

fn move_to(cluster: &Cluster, inode: InodeId, number: u64) {
    cluster.world().move_file(inode, layout(number));
}

#[tokio::test]
async fn whoever_has_a_file_open_reads_on_when_it_moves() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(LENGTH, 1);
    client.put("/dense", Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
    let dense = client.open("/dense", Rights::Read).await.unwrap();
    // In three places, with holes between.
    let sparse = client.create("/sparse", CreateOptions::default()).await.unwrap();
    let mut holed = vec![0; LENGTH];
    for at in [0, LENGTH / 2, LENGTH - 500] {
        holed[at..at + 500].copy_from_slice(&bytes[at..at + 500]);
        sparse
            .write_at(at as u64, Bytes::copy_from_slice(&bytes[at..at + 500]), Durability::Disk)
            .await
            .unwrap();
    }
    let sparse = client.open("/sparse", Rights::Read).await.unwrap();
    for number in 1..7 {
        // In the midst of a stream, too.
        let mut stream = dense.reader(0, u64::MAX);
        let mut streamed = stream.next().await.unwrap().unwrap().to_vec();
        move_to(&cluster, dense.inode(), number);
        move_to(&cluster, sparse.inode(), number);
        assert!(sparse.read_at(0, u64::MAX).await.unwrap().into_bytes() == holed, "move {number}");
        assert!(dense.read_at(0, u64::MAX).await.unwrap().into_bytes() == bytes, "move {number}");
        while let Some(next) = stream.next().await.unwrap() {
            streamed.extend_from_slice(&next);
        }
        assert!(streamed == bytes, "move {number}");
        let before = cluster.world().counts.meta;
        dense.read_at(0, u64::MAX).await.unwrap();
        assert_eq!(cluster.world().counts.meta, before, "where it is is known by then");
    }
    // What was a hole is none when the file is gone.
    client.unlink("/sparse").await.unwrap();
    cluster.world().inodes.remove(&sparse.inode());
    assert_eq!(sparse.read_at(2 * u64::from(CHUNK_SIZE), 500).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn whoever_writes_goes_on_where_the_file_is_when_his_capability_has_ended() {
    for seed in 0..8 {
        let cluster = Cluster::start().await;
        cluster.world().faults.lose_every = [0, 9][seed as usize % 2];
        let client = cluster.client().await;
        let file = client.create("/f", CreateOptions::default()).await.unwrap();
        let mut random = Random::new(seed);
        let mut model = Vec::new();
        for number in 0..30 {
            if random.one_in(3) {
                // Files that are written stay where they are until no capability holds.
                let mut world = cluster.world();
                world.faults.capabilities_void = world.capabilities_given();
                drop(world);
                move_to(&cluster, file.inode(), number);
            }
            if random.one_in(6) {
                let length = random.below(LENGTH as u64);
                file.truncate(length).await.unwrap();
                model.resize(length as usize, 0);
            } else {
                let offset = random.below(LENGTH as u64) as usize;
                let bytes = noise(1 + random.below(300_000) as usize, random.number());
                let durability = if random.one_in(2) { Durability::Disk } else { Durability::Memory };
                file.write_at(offset as u64, Bytes::from(bytes.clone()), durability).await.unwrap();
                model.resize(model.len().max(offset + bytes.len()), 0);
                model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            if random.one_in(4) {
                file.sync().await.unwrap();
            }
            let reader = client.open("/f", Rights::Read).await.unwrap();
            let found = reader.read_at(0, u64::MAX).await.unwrap().into_bytes();
            assert!(found == model, "seed {seed}, round {number}");
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_file_that_moved_since_it_was_opened_is_whole() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let sparse = client.create("/sparse", CreateOptions::default()).await.unwrap();
    let mut holed = vec![0; LENGTH];
    holed[70_000..70_500].copy_from_slice(&noise(500, 3));
    sparse.write_at(70_000, Bytes::copy_from_slice(&holed[70_000..70_500]), Durability::Disk).await.unwrap();
    sparse.truncate(LENGTH as u64).await.unwrap();
    for number in 1..5 {
        move_to(&cluster, sparse.inode(), number);
        client.copy("/sparse", "/copy", CopyOptions::default()).await.unwrap();
        let copy = client.open("/copy", Rights::Read).await.unwrap();
        assert!(copy.read_at(0, u64::MAX).await.unwrap().into_bytes() == holed);
    }
}

#[tokio::test]
async fn what_was_written_beyond_the_end_is_written_again_when_the_file_moved_before_that_was_known() {
    for durability in [Durability::Disk, Durability::Memory] {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let file = client.create("/f", CreateOptions::default()).await.unwrap();
        let mut model = noise(100_000, 1);
        file.write_at(0, Bytes::from(model.clone()), durability).await.unwrap();
        for number in 1..5 {
            cluster.world().faults.move_before_growth = Some(layout(number));
            // Over the end, in one piece and in several.
            let bytes = noise(if number % 2 == 0 { 1000 } else { 3 * CHUNK_SIZE as usize }, number + 1);
            let offset = model.len() - 500;
            file.write_at(offset as u64, Bytes::from(bytes.clone()), durability).await.unwrap();
            model.resize(offset + bytes.len(), 0);
            model[offset..].copy_from_slice(&bytes);
            let reader = client.open("/f", Rights::Read).await.unwrap();
            assert!(reader.read_at(0, u64::MAX).await.unwrap().into_bytes() == model, "move {number}");
        }
    }
}
