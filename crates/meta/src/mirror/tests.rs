use super::*;
use crate::tests::World;
use types::{Gid, Mode, Slot, TableId, Time, Uid};

fn place(offset: u32) -> Place {
    let chain = ChainId { table: TableId(1), slot: Slot(7) };
    Place { chain, generation: 3, index: ChunkIndex(2), offset }
}

fn inode(name: &str) -> Inode {
    Inode {
        mode: Mode(0o640),
        uid: Uid(1000),
        gid: Gid(100),
        links: 1,
        length: 4,
        accessed: Time(1),
        modified: Time(2),
        changed: Time(3),
        born: Time(4),
        xattrs: 1,
        parent: InodeId::ROOT,
        name: name.to_owned(),
        body: Body::SymbolicLink { target: "here".to_owned() },
    }
}

/// Two batches, one after the other.
fn segment() -> (Vec<u8>, Vec<(u64, Record)>) {
    let xattrs = vec![("user.k".to_owned(), vec![1, 2])];
    let first = InodeRecord { id: InodeId(20), inode: inode("ü"), names: Vec::new(), xattrs };
    let class = StorageClass {
        id: types::ClassId(1),
        name: "default".to_owned(),
        copies: 2,
        chunk_size: 1 << 26,
        domain: FailureDomain::Host,
        sites: vec!["a".to_owned()],
        table: TableId(1),
        slots: 128,
    };
    let members = vec![TargetId(1), TargetId(2)];
    let chain =
        ChainRecord { term: 5, epoch: Epoch(9), members, class, apart: FailureDomain::Target, missing: 1 };
    let records = vec![
        (100, Record::Inode(Box::new(first))),
        (101, Record::Gone(InodeId(19))),
        (102, Record::Chain(Box::new(chain))),
    ];
    let encode = |(version, record): &(u64, Record)| encode_record(*version, record.clone());
    let encoded: Vec<Vec<u8>> = records.iter().map(encode).collect();
    let mut bytes = encode_batch(place(0), &encoded[..2]);
    assert_eq!(bytes.len(), encoded[..2].iter().map(Vec::len).sum::<usize>() + batch_overhead(2));
    let at = u32::try_from(bytes.len()).unwrap();
    bytes.extend(encode_batch(place(at), &encoded[2..]));
    (bytes, records)
}

fn decode(bytes: &[u8]) -> (Vec<(u64, Record)>, Result<(), u32>) {
    let mut found = Vec::new();
    let end = decode_segment(place(0), bytes, |version, record| found.push((version, record)));
    (found, end)
}

#[test]
fn what_was_written_is_read() {
    let (bytes, records) = segment();
    assert_eq!(decode(&bytes), (records, Ok(())));
}

#[test]
fn a_torn_or_changed_batch_ends_the_segment() {
    let (bytes, records) = segment();
    for cut in 0..bytes.len() {
        let (found, _) = decode(&bytes[..cut]);
        assert!(records.starts_with(&found), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let (found, end) = decode(&changed);
        assert!(end.is_err() && found.len() < records.len() && records.starts_with(&found), "at {at}");
    }
    // Elsewhere it is no batch.
    let elsewhere = Place { generation: 4, ..place(0) };
    assert_eq!(decode_segment(elsewhere, &bytes, |_, _| panic!("it is of another generation")), Err(0));
}

#[test]
fn golden() {
    let (bytes, _) = segment();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("golden.txt").trim());
}

#[test]
fn logs_have_inodes_that_files_never_get() {
    assert_eq!(log_generation(log_inode(0)), Some(0));
    assert_eq!(log_generation(log_inode(u32::MAX)), Some(u32::MAX));
    assert_eq!(log_generation(InodeId(u64::MAX >> 1)), None);
}

#[test]
fn a_record_is_where_the_first_chunk_is() {
    let mut world = World::open();
    let file = world.make(1, "f", 0o644).unwrap();
    let layout = file.layout.unwrap();
    let body = Body::File { layout, dense: true, writable_until: Time(0) };
    let default = &world.classes[0];
    assert_eq!(home(file.inode, Some(&body), default), layout.chain(ChunkIndex(0)));
    // An inode that ended is looked for where one that is no file was.
    assert_eq!(
        home(InodeId(77), None, default),
        home(InodeId(77), Some(&Body::Directory { class: None }), default)
    );
}
