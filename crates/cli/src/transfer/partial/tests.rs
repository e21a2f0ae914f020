use super::*;
use crate::item::tests::attributes;
use tempfile::TempDir;
use types::{FileKind, Mode, Time};

const LENGTH: u64 = RESUMABLE_MIN + 1000;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn source() -> Attributes {
    Attributes { mode: Mode(0o4640), modified: Time(1_000_000_000_000), ..attributes(FileKind::File, LENGTH) }
}

#[test]
fn partial_names_are_names() {
    assert_eq!(name("a.csv"), ".a.csv.sr-partial");
    for length in 1..=NAME_MAX / 2 {
        let long = "é".repeat(length);
        assert!(name(&long).len() <= NAME_MAX, "{length}");
    }
    assert_ne!(name(&"x".repeat(255)), name(&format!("{}y", "x".repeat(254))));
}

#[test]
fn a_file_appears_whole_with_mode_and_time() {
    let place = TempDir::new().unwrap();
    let to = place.path().join("f");
    fs::write(&to, "old").unwrap();
    let mut partial = Partial::open(&to, &source(), Earlier::Discarded).unwrap();
    partial.write(&content()).unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"old");
    partial.finish(&source(), true).unwrap();
    assert_eq!(fs::read(&to).unwrap(), content());
    let metadata = fs::metadata(&to).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o640); // Never set-id: the owner here is another.
    assert_eq!(metadata.mtime(), 1000);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn an_interrupted_file_goes_on_where_it_was() {
    let place = TempDir::new().unwrap();
    let to = place.path().join("f");
    let mut partial = Partial::open(&to, &source(), Earlier::Used).unwrap();
    partial.write(&content()[..5_000_000]).unwrap();
    drop(partial);
    assert!(!to.exists());
    let mut partial = Partial::open(&to, &source(), Earlier::Used).unwrap();
    assert_eq!(partial.position(), 5_000_000);
    partial.write(&content()[5_000_000..]).unwrap();
    partial.finish(&source(), false).unwrap();
    assert_eq!(fs::read(&to).unwrap(), content());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn what_does_not_match_is_thrown_away() {
    let place = TempDir::new().unwrap();
    let to = place.path().join("f");
    let start = |earlier, source: &Attributes| Partial::open(&to, source, earlier).unwrap();
    let interrupt = || {
        let mut partial = start(Earlier::Discarded, &source());
        partial.write(&content()[..5_000_000]).unwrap();
    };
    interrupt();
    assert_eq!(start(Earlier::Discarded, &source()).position(), 0);
    interrupt();
    let changed = Attributes { modified: Time(5), ..source() };
    assert_eq!(start(Earlier::Used, &changed).position(), 0);
    interrupt();
    let partial = place.path().join(name("f"));
    let mut bytes = fs::read(&partial).unwrap();
    bytes[77] ^= 1;
    fs::write(&partial, bytes).unwrap();
    assert_eq!(start(Earlier::Used, &source()).position(), 0);
}

#[test]
fn a_short_file_never_gets_its_name() {
    let place = TempDir::new().unwrap();
    let to = place.path().join("f");
    let mut partial = Partial::open(&to, &source(), Earlier::Discarded).unwrap();
    partial.write(b"too short").unwrap();
    assert!(partial.finish(&source(), false).is_err());
    assert!(!to.exists());
}

#[test]
fn small_files_leave_nothing_behind() {
    let place = TempDir::new().unwrap();
    let to = place.path().join("f");
    let small = attributes(FileKind::File, 10);
    let mut partial = Partial::open(&to, &small, Earlier::Discarded).unwrap();
    partial.write(b"12345").unwrap();
    drop(partial);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn two_downloads_to_one_place_do_not_mix() {
    let place = TempDir::new().unwrap();
    let to = place.path().join("f");
    let first = Partial::open(&to, &source(), Earlier::Discarded).unwrap();
    assert!(Partial::open(&to, &source(), Earlier::Discarded).is_err());
    drop(first);
    assert!(Partial::open(&to, &source(), Earlier::Discarded).is_ok());
}

#[test]
fn whole_files_appear_or_nothing_stays() {
    let place = TempDir::new().unwrap();
    let to = place.path().join("f");
    let source = Attributes { mode: Mode(0o4640), ..attributes(FileKind::File, 10) };
    let piece = || Bytes::from_static(b"12345");
    assert!(write_whole(&to, &source, &[piece()], false).is_err());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    // What an earlier process of the same number left does no harm.
    let left = place.path().join(name(&format!("f.{}", std::process::id())));
    fs::write(&left, "left").unwrap();
    for _ in 0..2 {
        write_whole(&to, &source, &[piece(), piece()], true).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"1234512345");
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o640);
        drop(fs::remove_file(&left));
    }
    fs::create_dir(place.path().join("d")).unwrap();
    assert!(write_whole(&place.path().join("d"), &source, &[piece(), piece()], false).is_err());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
}
