//! What every disk must do: run against the real one and the simulated one.

use super::{Disk, File, RealDisk, SimDisk};
use proptest::prelude::*;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

/// Runs a check in an empty directory of every disk.
fn on_every_disk(check: impl Fn(&dyn Disk, &Path)) {
    let sim = SimDisk::new();
    sim.create_directory(Path::new("/place")).unwrap();
    check(&sim, Path::new("/place"));
    let place = tempfile::tempdir().unwrap();
    check(&RealDisk::default(), place.path());
}

fn write(file: &dyn File, bytes: &[u8], offset: u64) {
    file.write_all_at(&[IoSlice::new(bytes)], offset).unwrap();
}

fn read(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0xAA; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn reads_what_was_written() {
    on_every_disk(|disk, place| {
        let file = disk.create(&place.join("f")).unwrap();
        let pieces: Vec<Vec<u8>> =
            (0..1500).map(|i: u32| i.to_le_bytes()[..(i % 5) as usize % 4].to_vec()).collect();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_all_at(&slices, 10).unwrap();
        file.sync().unwrap();
        let mut wanted = vec![0; 10];
        wanted.extend(pieces.concat());
        assert_eq!(read(&*file), wanted);
        assert_eq!(read(&*disk.open(&place.join("f")).unwrap()), wanted);
        let mut cached = vec![0; 20];
        match file.read_cached_at(&mut cached, 0) {
            Ok(()) => assert_eq!(cached, wanted[..20]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        file.start_writeback(0, 100).unwrap();
    });
}

#[test]
fn refuses_reads_past_the_end() {
    on_every_disk(|disk, place| {
        let file = disk.create(&place.join("f")).unwrap();
        write(&*file, b"four", 0);
        assert_eq!(kind(file.read_exact_at(&mut [0; 5], 0)), ErrorKind::UnexpectedEof);
        assert_eq!(kind(file.read_exact_at(&mut [0; 1], 4)), ErrorKind::UnexpectedEof);
        file.read_exact_at(&mut [], 4).unwrap();
    });
}

#[test]
fn cuts_lengthens_and_punches() {
    on_every_disk(|disk, place| {
        let file = disk.create(&place.join("f")).unwrap();
        write(&*file, &[7; 100_000], 0);
        file.sync().unwrap();
        let full = file.allocated().unwrap();
        assert!(full >= 100_000);
        file.punch(4096, 8192).unwrap();
        file.sync().unwrap();
        assert_eq!(file.allocated().unwrap(), full - 8192);
        assert_eq!(file.length().unwrap(), 100_000);
        file.set_length(50_000).unwrap();
        file.set_length(60_000).unwrap();
        let mut wanted = vec![7; 50_000];
        wanted[4096..4096 + 8192].fill(0);
        wanted.resize(60_000, 0);
        assert_eq!(read(&*file), wanted);
        file.punch(0, 1 << 30).unwrap();
        assert_eq!(read(&*file), vec![0; 60_000]);
    });
}

#[test]
fn names_are_made_moved_and_removed() {
    on_every_disk(|disk, place| {
        let (a, b) = (place.join("a"), place.join("b"));
        assert_eq!(kind(disk.open(&a)), ErrorKind::NotFound);
        let file = disk.create(&a).unwrap();
        assert_eq!(kind(disk.create(&a)), ErrorKind::AlreadyExists);
        write(&*file, b"a", 0);
        write(&*disk.create(&b).unwrap(), b"b", 0);
        disk.create_directory(&place.join("d/e")).unwrap();
        disk.create_directory(&place.join("d/e")).unwrap();
        assert_eq!(disk.list(place).unwrap(), ["a", "b", "d"].map(PathBuf::from));
        assert_eq!(disk.list(&place.join("d")).unwrap(), [PathBuf::from("e")]);
        disk.rename(&a, &b).unwrap();
        disk.sync_directory(place).unwrap();
        assert_eq!(disk.list(place).unwrap(), ["b", "d"].map(PathBuf::from));
        assert_eq!(read(&*disk.open(&b).unwrap()), b"a");
        disk.rename(&b, &place.join("d/e/f")).unwrap();
        disk.remove(&place.join("d/e/f")).unwrap();
        assert_eq!(kind(disk.remove(&place.join("d/e/f"))), ErrorKind::NotFound);
        assert_eq!(kind(disk.rename(&b, &a)), ErrorKind::NotFound);
        assert_eq!(kind(disk.create(&place.join("none/f"))), ErrorKind::NotFound);
        assert_eq!(kind(disk.list(&place.join("none"))), ErrorKind::NotFound);
        // An open file outlives its name.
        assert_eq!(read(&*file), b"a");
    });
}

#[test]
fn says_how_much_space_there_is() {
    on_every_disk(|disk, place| {
        let (total, free) = disk.space(place).unwrap();
        assert!(0 < free && free <= total);
    });
}

#[test]
fn a_directory_has_one_owner() {
    on_every_disk(|disk, place| {
        let owner = disk.lock(place).unwrap();
        let error = disk.lock(place).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(error.to_string().contains(place.to_str().unwrap()), "{error}");
        drop(owner);
        disk.lock(place).unwrap();
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Length(u64),
    Punch(u64, u64),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = 0..30_000_u64;
    prop_oneof![
        4 => (offset.clone(), any::<u8>(), 0..10_000_usize).prop_map(|(o, b, n)| Step::Write(o, vec![b; n])),
        1 => offset.clone().prop_map(Step::Length),
        1 => (offset, 1..12_000_u64).prop_map(|(o, n)| Step::Punch(o, n)),
        1 => Just(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_file_behaves_like_a_vector(steps in proptest::collection::vec(step(), 1..40)) {
        on_every_disk(|disk, place| {
            let file = disk.create(&place.join("f")).unwrap();
            let mut model: Vec<u8> = Vec::new();
            let to_index = |n: u64| usize::try_from(n).unwrap();
            for step in &steps {
                match step {
                    Step::Write(_, bytes) if bytes.is_empty() => write(&*file, bytes, 0),
                    Step::Write(offset, bytes) => {
                        write(&*file, bytes, *offset);
                        let offset = to_index(*offset);
                        model.resize(model.len().max(offset + bytes.len()), 0);
                        model[offset..offset + bytes.len()].copy_from_slice(bytes);
                    }
                    Step::Length(length) => {
                        file.set_length(*length).unwrap();
                        model.resize(to_index(*length), 0);
                    }
                    Step::Punch(offset, length) => {
                        file.punch(*offset, *length).unwrap();
                        let end = model.len().min(to_index(offset + length));
                        let start = end.min(to_index(*offset));
                        model[start..end].fill(0);
                    }
                    Step::Sync => file.sync().unwrap(),
                }
                assert_eq!(read(&*file), model);
            }
        });
    }
}
