//! Bad bytes: all of them named, replaced by the same bytes and by no others, and remembered until they are.

use crate::bench::small;
use crate::faults::{CHAIN, Fixture, find, wait};
use crate::map::{bytes, chunk};
use bytes::Bytes;
use chunk::{BadBlock, Heal, OpenError, Options, ReadError, ScrubRecord, StoreError, Wait};
use env::{Disk, Operation as DiskOperation, Table};
use std::collections::BTreeSet;
use types::scrub::{Holding, SurveyOf};
use types::storage::{Durability, Operation};
use types::{ChunkId, Crc, Time, Version};

const BLOCK: u32 = 16 * 1024;
/// `EIO` of Linux.
const EIO: i32 = 5;

/// No compaction, which would meet the damage too.
fn still() -> Options {
    Options { compact_percent: 101, ..small() }
}

fn bad(fixture: &Fixture, chunk: ChunkId) -> Vec<BadBlock> {
    fixture.store().verify(CHAIN, chunk, 0, u32::MAX).unwrap().unwrap().bad
}

fn places(bad: &[BadBlock]) -> Vec<(u32, u32)> {
    bad.iter().map(|block| (block.offset, block.length)).collect()
}

/// Gives a chunk the bytes `from..to` of `content`, as another member would that has it at `version`.
fn heal(
    fixture: &Fixture,
    chunk: ChunkId,
    version: Version,
    content: &[u8],
    (from, to): (u32, u32),
) -> Result<(), StoreError> {
    let part = &content[from as usize..to as usize];
    let heal = Heal { chain: CHAIN, chunk, version, offset: from, checksums: Crc::of_blocks(part) };
    wait(|done| fixture.store().heal(heal, Bytes::copy_from_slice(part), done))
}

fn heal_all(fixture: &Fixture, chunk: ChunkId, version: Version, content: &[u8]) {
    for block in bad(fixture, chunk) {
        heal(fixture, chunk, version, content, (block.offset, block.offset + block.length)).unwrap();
    }
}

fn flip(fixture: &Fixture, content: &[u8], places: &[u64]) {
    let (path, start) = find(&fixture.disk, &fixture.segments(), content);
    places.iter().for_each(|at| fixture.disk.flip(&path, start + at));
}

/// A chunk of 100,000 bytes at version 1, flipped at two places, and a good one.
fn damaged(options: Options) -> (Fixture, Vec<u8>) {
    let mut fixture = Fixture::new(options);
    let content = bytes(7, 100_000);
    fixture.write(chunk(1, 0), 0, &content);
    fixture.sync().unwrap();
    fixture.write(chunk(2, 0), 0, &bytes(9, 50_000));
    fixture.sync().unwrap();
    flip(&fixture, &content, &[20_000, 99_999]);
    (fixture, content)
}

#[test]
fn a_look_names_every_bad_block() {
    let (fixture, content) = damaged(still());
    let found = bad(&fixture, chunk(1, 0));
    assert_eq!(places(&found), [(BLOCK, BLOCK), (6 * BLOCK, 100_000 - 6 * BLOCK)]);
    assert_eq!(found[0].checksum, Some(Crc::of(&content[BLOCK as usize..2 * BLOCK as usize])));
    assert_eq!(bad(&fixture, chunk(2, 0)), []);
    assert_eq!(fixture.store().verify(CHAIN, chunk(3, 0), 0, 9).unwrap(), None);
    // Only where it looked.
    let part = fixture.store().verify(CHAIN, chunk(1, 0), 2 * BLOCK, 3 * BLOCK).unwrap().unwrap();
    assert_eq!((part.bad, part.read, part.new), (Vec::new(), u64::from(3 * BLOCK), 0));
    let offsets: Vec<u32> = fixture.store().bad().iter().map(|bad| bad.offset).collect();
    assert_eq!(offsets, [BLOCK, 6 * BLOCK]);
    assert_eq!(fixture.store().status().damaged, 2);
}

/// The first attempt at the whole extent fails, and then at one of its blocks: a disk with one bad sector.
#[test]
fn a_read_that_fails_is_tried_block_by_block() {
    let (fixture, content) = damaged(still());
    heal_all(&fixture, chunk(1, 0), Version(1), &content);
    fixture.store().checkpoint().unwrap();
    fixture.disk.fail(DiskOperation::Read, 0, EIO);
    assert_eq!(bad(&fixture, chunk(1, 0)), []);
    fixture.disk.fail(DiskOperation::Read, 0, EIO);
    let read = fixture.store().read(CHAIN, chunk(1, 0), 0, 9, Wait::Allowed);
    assert_eq!(read.unwrap().bytes, content[..9], "a read looks twice before it says that bytes are bad");
    assert_eq!(fixture.store().bad(), []);
}

#[test]
fn what_is_healed_reads_as_it_should_and_stays_at_its_version() {
    let (mut fixture, content) = damaged(still());
    let before = (fixture.store().positions(), fixture.store().lanes(CHAIN), fixture.store().epochs(CHAIN));
    heal_all(&fixture, chunk(1, 0), Version(1), &content);
    for seed in 0..3 {
        assert_eq!(bad(&fixture, chunk(1, 0)), []);
        assert_eq!(fixture.read(chunk(1, 0)).unwrap(), content);
        assert_eq!(fixture.store().bad(), []);
        let state = fixture.store().describe(CHAIN, chunk(1, 0)).unwrap().unwrap();
        assert_eq!((state.version, state.length), (Version(1), 100_000));
        let now = (fixture.store().positions(), fixture.store().lanes(CHAIN), fixture.store().epochs(CHAIN));
        assert_eq!(now, before);
        assert!(fixture.store().changed_since(CHAIN, Version(2), None, 9).unwrap().len() == 1);
        fixture.crash(seed).unwrap();
    }
    // The chain goes on as if nothing had happened.
    fixture.write(chunk(1, 0), 0, &bytes(1, 10));
    fixture.sync().unwrap();
}

#[test]
fn nothing_is_healed_at_another_version() {
    let (mut fixture, content) = damaged(still());
    let newer = bytes(3, 100_000);
    fixture.write(chunk(1, 0), 0, &newer);
    fixture.sync().unwrap();
    for version in [1, 2, 3, 4, 6] {
        heal(&fixture, chunk(1, 0), Version(version), &content, (0, 100_000)).unwrap();
    }
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), newer);
    // Nor beyond the chunk's end, nor where there is none.
    let beyond = Heal {
        chain: CHAIN,
        chunk: chunk(1, 0),
        version: Version(5),
        offset: 99_999,
        checksums: Crc::of_blocks(&[1, 2]),
    };
    wait(|done| fixture.store().heal(beyond, Bytes::from_static(&[1, 2]), done)).unwrap();
    heal(&fixture, chunk(8, 0), Version(5), &content, (0, 10)).unwrap();
    let chunks = vec![chunk(2, 0)];
    fixture.submit(Operation::Remove { chunks }, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    let removed = fixture.store().changed_since(CHAIN, Version::ZERO, None, 9).unwrap()[1];
    heal(&fixture, chunk(2, 0), removed.version, &content, (0, 10)).unwrap();
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), newer);
    assert_eq!(fixture.store().chunks(CHAIN, None, 9).unwrap().len(), 1);
}

/// The power fails at each change of the disk that a heal makes: the bytes are the old, bad ones, or the good ones.
#[test]
fn a_crash_in_a_heal_leaves_the_old_or_the_new() {
    let (mut cut_short, mut left, mut after) = (true, BTreeSet::new(), 0);
    while cut_short {
        let (mut fixture, content) = damaged(still());
        fixture.disk.lose_power_after(after);
        let done = heal(&fixture, chunk(1, 0), Version(1), &content, (BLOCK, 2 * BLOCK))
            .and_then(|()| heal(&fixture, chunk(1, 0), Version(1), &content, (6 * BLOCK, 100_000)))
            .and_then(|()| fixture.store().checkpoint());
        cut_short = fixture.disk.is_dead();
        fixture.crash(after).unwrap();
        let found = places(&bad(&fixture, chunk(1, 0)));
        let blocks = [(BLOCK, BLOCK), (6 * BLOCK, 100_000 - 6 * BLOCK)];
        assert!(found.is_empty() || found == blocks || found == blocks[1..], "{found:?} after {after}");
        assert!(done.is_err() || found.is_empty(), "acknowledged, and lost");
        left.insert(found.len());
        match fixture.read(chunk(1, 0)) {
            Ok(read) => assert!(found.is_empty() && read == content),
            Err(error) => assert!(matches!(error, ReadError::Corrupt { .. }) && !found.is_empty()),
        }
        assert_eq!(fixture.read(chunk(2, 0)).unwrap(), bytes(9, 50_000));
        heal_all(&fixture, chunk(1, 0), Version(1), &content);
        assert_eq!(fixture.read(chunk(1, 0)).unwrap(), content);
        after += 1;
    }
    assert_eq!(left, BTreeSet::from([0, 1, 2]), "before, between and after, in {after} changes");
}

/// A segment whose bytes are gone: all of it is bad, all of it is healed, and its file goes. Nothing fails meanwhile.
#[test]
fn a_whole_segment_is_healed() {
    for zeros in [false, true] {
        let mut fixture = Fixture::new(small());
        for index in 0..12 {
            fixture.write(chunk(1, index), 0, &bytes(u8::try_from(index).unwrap(), 90_000));
            fixture.sync().unwrap();
        }
        fixture.store().checkpoint().unwrap();
        let lost = fixture.segments()[1].clone();
        let file = fixture.disk.open(&lost).unwrap();
        let length = file.length().unwrap();
        file.set_length(0).unwrap();
        if zeros {
            file.set_length(length).unwrap();
        }
        // Something dies there, so that compaction has a look at it.
        let versions: Vec<(ChunkId, Version)> = fixture
            .store()
            .chunks(CHAIN, None, 99)
            .unwrap()
            .iter()
            .map(|(chunk, state)| (*chunk, state.version))
            .collect();
        let broken: Vec<_> = versions.iter().filter(|(chunk, _)| !bad(&fixture, *chunk).is_empty()).collect();
        assert!(broken.len() >= 3, "{broken:?}");
        let chunks = vec![broken[0].0];
        fixture.submit(Operation::Remove { chunks }, Vec::new(), Durability::Disk);
        fixture.sync().unwrap();
        fixture.store().checkpoint().unwrap();
        for (chunk, version) in &broken[1..] {
            heal_all(&fixture, *chunk, *version, &bytes(u8::try_from(chunk.index.0).unwrap(), 90_000));
        }
        fixture.store().checkpoint().unwrap();
        fixture.wait_until("the lost segment goes", |fixture| !fixture.segments().contains(&lost));
        fixture.crash(2).unwrap();
        for (chunk, _) in versions.iter().filter(|(chunk, _)| *chunk != broken[0].0) {
            let content = bytes(u8::try_from(chunk.index.0).unwrap(), 90_000);
            assert_eq!(fixture.read(*chunk).unwrap(), content);
            assert_eq!(bad(&fixture, *chunk), []);
        }
        assert!(fixture.store().status().failed.is_none());
    }
}

#[test]
fn what_was_healed_is_compacted_like_the_rest() {
    let (mut fixture, content) = damaged(small());
    heal_all(&fixture, chunk(1, 0), Version(1), &content);
    for round in 0..30 {
        fixture.write(chunk(3, 0), 0, &bytes(round, 90_000));
        fixture.sync().unwrap();
    }
    fixture.wait_until("compaction", |fixture| fixture.disk.used() < 1_200_000);
    fixture.crash(4).unwrap();
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), content);
}

#[test]
fn each_of_two_that_share_bytes_is_healed() {
    let (mut fixture, content) = damaged(still());
    let clone = Operation::Clone { from: chunk(1, 0), to: chunk(4, 0), length: 90_000 };
    fixture.submit(clone, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    assert_eq!(bad(&fixture, chunk(4, 0)).len(), 1);
    heal_all(&fixture, chunk(1, 0), Version(1), &content);
    assert_eq!(bad(&fixture, chunk(1, 0)), []);
    assert_eq!(bad(&fixture, chunk(4, 0)).len(), 1);
    heal_all(&fixture, chunk(4, 0), Version(5), &content);
    fixture.crash(1).unwrap();
    assert_eq!(fixture.read(chunk(4, 0)).unwrap(), content[..90_000]);
}

#[test]
fn a_block_that_is_used_in_part_is_healed_in_part() {
    let mut fixture = Fixture::new(still());
    let (old, new) = (bytes(7, 60_000), bytes(9, 30_000));
    fixture.write(chunk(1, 0), 0, &old);
    fixture.sync().unwrap();
    flip(&fixture, &old, &[42_000]);
    fixture.write(chunk(1, 0), 10_000, &new);
    fixture.sync().unwrap();
    let mut content = old.clone();
    content[10_000..40_000].copy_from_slice(&new);
    let found = bad(&fixture, chunk(1, 0));
    assert_eq!(places(&found), [(40_000, 3 * BLOCK - 40_000)]);
    assert_eq!(found[0].checksum, None);
    heal_all(&fixture, chunk(1, 0), Version(3), &content);
    fixture.crash(1).unwrap();
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), content);
}

#[test]
fn what_is_known_to_be_bad_outlives_a_restart() {
    let (mut fixture, content) = damaged(still());
    bad(&fixture, chunk(1, 0));
    let record = ScrubRecord { since: Time(3), bytes: 77, ..ScrubRecord::default() };
    assert_eq!(fixture.store().scrub_record().unwrap(), None);
    fixture.store().keep_scrub(&record).unwrap();
    let known = fixture.store().bad();
    assert_eq!(known.len(), 2);
    fixture.crash(1).unwrap();
    assert_eq!(fixture.store().bad(), known);
    assert_eq!(fixture.store().scrub_record().unwrap(), Some(record));
    heal_all(&fixture, chunk(1, 0), Version(1), &content);
    bad(&fixture, chunk(1, 0));
    fixture.store().keep_bad().unwrap();
    fixture.crash(2).unwrap();
    assert_eq!(fixture.store().bad(), []);
}

#[test]
fn damage_of_what_was_removed_is_forgotten() {
    let (mut fixture, _) = damaged(still());
    bad(&fixture, chunk(1, 0));
    let chunks = vec![chunk(1, 0)];
    fixture.submit(Operation::Remove { chunks }, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    assert_eq!(fixture.store().verify(CHAIN, chunk(1, 0), 0, u32::MAX).unwrap(), None);
    assert_eq!(fixture.store().bad(), []);
}

/// Takes a chunk out of the index, as if the table had lost it.
fn lose(fixture: &mut Fixture, chunk: ChunkId) -> Result<(), OpenError> {
    fixture.store().checkpoint().unwrap();
    fixture.store = None;
    let mut key = vec![0, 1, 0, 0];
    key.extend(chunk.inode.0.to_be_bytes());
    key.extend(chunk.index.0.to_be_bytes());
    assert!(fixture.table.get(0, &key).unwrap().is_some());
    let mut batch = env::Batch::default();
    batch.remove(0, key);
    fixture.table.apply(batch).unwrap();
    fixture.open()
}

#[test]
fn a_lost_chunk_is_unreadable_until_it_is_healed() {
    let mut fixture = Fixture::new(still());
    let content = bytes(7, 100_000);
    fixture.write(chunk(1, 0), 0, &content);
    fixture.sync().unwrap();
    lose(&mut fixture, chunk(1, 0)).unwrap();
    assert!(matches!(fixture.read(chunk(1, 0)), Err(ReadError::NoChunk)));
    // What the store has not come to yet, it cannot have lost.
    let restore = |fixture: &Fixture, version, length| {
        wait(|done| fixture.store().restore(CHAIN, chunk(1, 0), Version(version), length, done)).unwrap();
    };
    restore(&fixture, 3, 100_000);
    assert!(matches!(fixture.read(chunk(1, 0)), Err(ReadError::NoChunk)));
    restore(&fixture, 1, 100_000);
    restore(&fixture, 2, 5);
    for seed in 0..2 {
        let state = fixture.store().describe(CHAIN, chunk(1, 0)).unwrap().unwrap();
        assert_eq!((state.version, state.length), (Version(1), 100_000));
        assert!(matches!(fixture.read(chunk(1, 0)), Err(ReadError::Disk(_))));
        assert_eq!(bad(&fixture, chunk(1, 0)).len(), 7);
        fixture.store().checkpoint().unwrap();
        fixture.crash(seed).unwrap();
    }
    heal(&fixture, chunk(1, 0), Version(1), &content, (0, 50_000)).unwrap();
    assert_eq!(places(&bad(&fixture, chunk(1, 0)))[0].0, 50_000);
    heal(&fixture, chunk(1, 0), Version(1), &content, (50_000, 100_000)).unwrap();
    fixture.store().checkpoint().unwrap();
    fixture.crash(3).unwrap();
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), content);
    assert_eq!(bad(&fixture, chunk(1, 0)), []);
}

fn holdings(fixture: &Fixture, of: SurveyOf) -> Vec<Holding> {
    let survey = fixture.store().survey(CHAIN, &of).unwrap();
    assert_eq!((survey.from, survey.through), (fixture.version, fixture.version));
    survey.chunks.iter().map(|surveyed| surveyed.holding).collect()
}

/// Members that got the same bytes in other pieces say the same of them.
#[test]
fn a_survey_tells_the_checksum_of_the_bytes() {
    let mut fixture = Fixture::new(still());
    let content = bytes(7, 100_000);
    fixture.write(chunk(1, 0), 0, &content);
    for (from, to) in [(0, 30_000), (30_000, 30_001), (30_001, 100_000)] {
        fixture.write(chunk(2, 0), u32::try_from(from).unwrap(), &content[from..to]);
    }
    fixture.write(chunk(3, 0), 9, &content);
    fixture.write(chunk(4, 0), 0, &content);
    fixture.write(chunk(4, 0), 0, &content[..10]);
    fixture.sync().unwrap();
    for _ in 0..2 {
        let all = holdings(&fixture, SurveyOf::All { after: None, limit: 9 });
        let there = |version, length, content| Holding::There { version: Version(version), length, content };
        let crc = Some(Crc::of(&content));
        let wanted = [
            there(1, 100_000, crc),
            there(4, 100_000, crc),
            there(5, 100_009, None),
            there(7, 100_000, None),
        ];
        assert_eq!(all, wanted);
        fixture.crash(1).unwrap();
    }
    let part = fixture.store().survey(CHAIN, &SurveyOf::All { after: Some(chunk(1, 0)), limit: 2 }).unwrap();
    let names: Vec<ChunkId> = part.chunks.iter().map(|one| one.chunk).collect();
    assert_eq!((names, part.more), (vec![chunk(2, 0), chunk(3, 0)], true));
}

#[test]
fn what_was_removed_is_not_restored() {
    let mut fixture = Fixture::new(still());
    fixture.write(chunk(1, 0), 0, &bytes(7, 1000));
    fixture.submit(Operation::Remove { chunks: vec![chunk(1, 0)] }, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    let holdings = holdings(&fixture, SurveyOf::These(vec![chunk(1, 0), chunk(2, 0)]));
    assert_eq!(holdings, [Holding::Removed { version: Version(2) }, Holding::Nothing]);
    wait(|done| fixture.store().restore(CHAIN, chunk(1, 0), Version(1), 1000, done)).unwrap();
    assert!(matches!(fixture.read(chunk(1, 0)), Err(ReadError::NoChunk)));
}

/// A lost chunk that is removed, cloned or overwritten gives nothing back that was never there.
#[test]
fn a_lost_chunk_can_be_changed() {
    let mut fixture = Fixture::new(still());
    fixture.write(chunk(1, 0), 0, &bytes(7, 100_000));
    fixture.sync().unwrap();
    lose(&mut fixture, chunk(1, 0)).unwrap();
    wait(|done| fixture.store().restore(CHAIN, chunk(1, 0), Version(1), 100_000, done)).unwrap();
    let clone = Operation::Clone { from: chunk(1, 0), to: chunk(2, 0), length: 90_000 };
    fixture.submit(clone, Vec::new(), Durability::Disk);
    fixture.write(chunk(1, 0), 0, &bytes(8, 100_000));
    fixture.submit(Operation::Remove { chunks: vec![chunk(2, 0)] }, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    fixture.store().checkpoint().unwrap();
    fixture.crash(1).unwrap();
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), bytes(8, 100_000));
    assert!(fixture.store().status().failed.is_none());
}
