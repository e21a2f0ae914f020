use super::*;
use std::collections::BTreeSet;
use std::io::ErrorKind;

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_directory(Path::new("/d")).unwrap();
    disk
}

fn path() -> &'static Path {
    Path::new("/d/f")
}

fn write(file: &Arc<dyn File>, bytes: &[u8], offset: u64) {
    file.write_all_at(&[IoSlice::new(bytes)], offset).unwrap();
}

fn read(file: &Arc<dyn File>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A file of `1`s that is safe on the disk.
fn durable_file(disk: &SimDisk, length: usize) -> Arc<dyn File> {
    let file = disk.create(path()).unwrap();
    write(&file, &vec![1; length], 0);
    file.sync().unwrap();
    disk.sync_directory(Path::new("/d")).unwrap();
    file
}

#[test]
fn synced_bytes_survive_every_crash() {
    for seed in 0..100 {
        let disk = disk();
        durable_file(&disk, 10_000);
        disk.crash(seed);
        assert_eq!(read(&disk.open(path()).unwrap()), vec![1; 10_000]);
    }
}

#[test]
fn unsynced_writes_are_lost_kept_reordered_and_torn_at_sectors() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let disk = disk();
        let file = durable_file(&disk, 8192);
        write(&file, &[2; 4096], 0);
        write(&file, &[3; 4096], 4096);
        disk.crash(seed);
        let left = read(&disk.open(path()).unwrap());
        assert_eq!(left.len(), 8192);
        for sector in left.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "torn inside a sector");
        }
        let first = left[..4096].iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        let second = left[4096..].iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        seen.insert((first, second));
    }
    for wanted in [(vec![1], vec![1]), (vec![2], vec![3]), (vec![2], vec![1]), (vec![1], vec![3])] {
        assert!(seen.contains(&wanted), "never {wanted:?}");
    }
    assert!(seen.iter().any(|(first, _)| first == &[1, 2]), "never torn");
}

#[test]
fn an_unsynced_length_may_be_lost_or_come_without_its_bytes() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk();
        let file = durable_file(&disk, 4096);
        write(&file, &[2; 4096], 4096);
        disk.crash(seed);
        let left = read(&disk.open(path()).unwrap());
        assert_eq!(left[..4096], [1; 4096]);
        seen.insert(left.get(4096).copied());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [None, Some(0), Some(2)]);
}

#[test]
fn unsynced_names_may_be_lost_but_a_rename_is_whole() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk();
        durable_file(&disk, 1);
        disk.create(Path::new("/d/g")).unwrap();
        disk.rename(path(), Path::new("/d/h")).unwrap();
        disk.crash(seed);
        let names = disk.list(Path::new("/d")).unwrap();
        seen.insert(names.iter().map(|name| name.to_str().unwrap().to_string()).collect::<String>());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["f", "fg", "gh", "h"]);
}

#[test]
fn open_files_and_locks_end_with_a_crash() {
    let disk = disk();
    let file = durable_file(&disk, 1);
    let old = disk.lock(Path::new("/d")).unwrap();
    disk.crash(0);
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    assert!(file.sync().is_err());
    let _owner = disk.lock(Path::new("/d")).unwrap();
    drop(old);
    assert!(disk.lock(Path::new("/d")).is_err());
}

#[test]
fn power_is_lost_at_the_planned_change() {
    for after in 0..5 {
        let disk = disk();
        disk.lose_power_after(after);
        let steps = || -> io::Result<()> {
            let file = disk.create(path())?;
            file.write_all_at(&[IoSlice::new(b"x")], 0)?;
            file.sync()?;
            disk.sync_directory(Path::new("/d"))
        };
        assert_eq!(steps().is_ok(), after >= 4);
        assert_eq!(disk.is_dead(), after < 4);
        disk.crash(after);
        assert!(disk.open(path()).is_ok() || after < 4);
    }
}

#[test]
fn fails_the_planned_operation_alone() {
    let disk = disk();
    let file = durable_file(&disk, 1);
    disk.fail(Operation::Read, 1, libc::EIO);
    file.read_exact_at(&mut [0], 0).unwrap();
    assert_eq!(file.read_exact_at(&mut [0], 0).unwrap_err().raw_os_error(), Some(libc::EIO));
    file.read_exact_at(&mut [0], 0).unwrap();
    assert_eq!(disk.count(Operation::Read), 3);
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = disk();
        let file = durable_file(&disk, 8192);
        write(&file, &[2; 4096], 0);
        disk.fail(Operation::Sync, 0, libc::EIO);
        assert!(file.sync().is_err());
        write(&file, &[3; 4096], 4096);
        file.sync().unwrap();
        assert_eq!(read(&file)[0], 2);
        disk.crash(seed);
        let left = read(&disk.open(path()).unwrap());
        assert_eq!(left[4096..], [3; 4096]);
        lost += usize::from(left[0] == 1);
    }
    assert!(lost > 0);
}

#[test]
fn a_full_disk_takes_what_fits_and_punching_makes_room() {
    let disk = disk();
    disk.set_capacity(Some(3 * 4096));
    let file = durable_file(&disk, 2 * 4096);
    assert_eq!(disk.space(path()).unwrap(), (3 * 4096, 4096));
    let error = file.write_all_at(&[IoSlice::new(&[2; 8192])], 2 * 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.length().unwrap(), 3 * 4096);
    write(&file, &[3; 100], 0);
    file.punch(4096, 4096).unwrap();
    write(&file, &[2; 4096], 3 * 4096);
    let other = disk.create(Path::new("/d/g")).unwrap();
    assert!(other.write_all_at(&[IoSlice::new(b"x")], 0).is_err());
    disk.remove(path()).unwrap();
    assert!(other.write_all_at(&[IoSlice::new(b"x")], 0).is_err(), "the open file keeps its space");
    drop(file);
    write(&other, b"x", 0);
    assert_eq!(disk.used(), 4096);
}

#[test]
fn flips_a_bit_of_a_byte() {
    let disk = disk();
    let file = durable_file(&disk, 10);
    disk.flip(path(), 3);
    assert_eq!(read(&file), [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]);
    disk.crash(0);
    assert_eq!(read(&disk.open(path()).unwrap())[3], 0);
}

#[test]
fn a_lying_disk_loses_what_it_said_was_safe() {
    let lost = |seed| {
        let disk = disk();
        let file = durable_file(&disk, 10);
        disk.lie_about_syncs(true);
        write(&file, &[9; 10], 0);
        file.sync().unwrap();
        disk.crash(seed);
        read(&disk.open(path()).unwrap())[0] == 1
    };
    assert!((0..20).any(lost));
}

#[test]
fn a_cold_disk_has_nothing_cached() {
    let disk = disk();
    let file = durable_file(&disk, 10);
    file.read_cached_at(&mut [0], 0).unwrap();
    disk.set_cold(true);
    assert_eq!(file.read_cached_at(&mut [0], 0).unwrap_err().kind(), ErrorKind::WouldBlock);
}
