//! A store from opening to opening again.

use bytes::Bytes;
use chunk::{Options, Progress, SPACES, Store, Update, Wait};
use env::{SimDisk, SimTable};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use types::storage::{Durability, Operation};
use types::*;

#[test]
fn what_was_written_is_read_before_and_after_a_crash() {
    let (disk, table) = (SimDisk::new(), SimTable::new(SPACES.len()));
    let chain = ChainId { table: TableId(1), slot: Slot(2) };
    let chunk = ChunkId { inode: InodeId(7), index: ChunkIndex(0) };
    let bytes: Bytes = (0..1_000_000u32).map(|i| (i * 7 % 251) as u8).collect::<Vec<u8>>().into();
    let open = || {
        let (sender, receiver) = channel();
        let sender = Mutex::new(sender);
        let progress = Box::new(move |news: &[Progress]| {
            news.iter().for_each(|one| drop(sender.lock().unwrap().send(one.clone())));
        });
        let store = Store::open(
            Arc::new(disk.clone()),
            Arc::new(table.clone()),
            Path::new("/store"),
            Options::default(),
            progress,
        );
        (store.unwrap(), receiver)
    };
    let (store, progress) = open();
    store.submit(Update {
        chain,
        epoch: Epoch(1),
        version: Version(1),
        origin: Origin::default(),
        operation: Operation::Write { chunk, offset: 100, checksums: Crc::of_blocks(&bytes) },
        payload: bytes.clone(),
        durability: Durability::Disk,
    });
    assert_eq!(progress.recv(), Ok(Progress::Applied { chain, through: Version(1) }));
    assert_eq!(progress.recv(), Ok(Progress::Synced { chain, through: Version(1) }));
    check(&store, chain, chunk, &bytes);
    drop(store);
    for seed in 0..3 {
        disk.crash(seed);
        table.crash(seed);
        check(&open().0, chain, chunk, &bytes);
    }
}

fn check(store: &Store, chain: ChainId, chunk: ChunkId, bytes: &Bytes) {
    let read = store.read(chain, chunk, 100, 2_000_000, Wait::Allowed).unwrap();
    assert_eq!(read.bytes, bytes);
    assert_eq!(read.checksums, Crc::of_blocks(bytes));
    assert_eq!(read.version, Version(1));
    let read = store.read(chain, chunk, 90, 20_000, Wait::Never).unwrap();
    assert_eq!(read.bytes[..10], [0; 10]);
    assert_eq!(read.bytes[10..], bytes[..19_990]);
    assert_eq!(read.checksums, Crc::of_blocks(&read.bytes));
    assert_eq!(store.positions(), [(chain, Epoch(1), Version(1))]);
}
