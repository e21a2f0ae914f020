use super::*;
use crate::local::SPACES;
use env::{SimDisk, SimTable, Table};
use std::collections::BTreeMap;

const PLACE: &str = "/backup";

fn disk() -> Arc<SimDisk> {
    let disk = SimDisk::new();
    disk.create_directory(Path::new(PLACE)).unwrap();
    Arc::new(disk)
}

fn change(revision: u64, key: &str, value: Option<&str>) -> Change {
    Change { revision: Revision(revision), writes: vec![(key.into(), value.map(Into::into))] }
}

/// A full backup with rows of two moments, and two parts.
fn write_three(disk: &Arc<SimDisk>) -> Vec<Header> {
    let start = |kind, before: Option<&Header>| {
        Writer::start(disk.clone(), Path::new(PLACE), kind, before, 77).unwrap()
    };
    let mut full = start(Kind::Full, None);
    full.rows(&[(b"a".to_vec(), b"old".to_vec()), (b"b".to_vec(), b"1".to_vec())]).unwrap();
    full.changes(&[change(5, "a", Some("new")), change(6, "gone", Some("x"))]).unwrap();
    full.rows(&[(b"gone".to_vec(), b"x".to_vec())]).unwrap();
    full.changes(&[change(7, "gone", None)]).unwrap();
    let full = full.finish(Revision(4), Revision(7)).unwrap();
    let mut first = start(Kind::Part, Some(&full));
    first.changes(&[change(8, "c", Some("2")), change(9, "b", None)]).unwrap();
    let first = first.finish(Revision(7), Revision(9)).unwrap();
    let mut second = start(Kind::Part, Some(&first));
    second.changes(&[change(10, "d", Some("3"))]).unwrap();
    let second = second.finish(Revision(9), Revision(10)).unwrap();
    vec![full, first, second]
}

fn restored(disk: &SimDisk, through: Option<u32>) -> Result<BTreeMap<String, String>, String> {
    let table = SimTable::new(SPACES.len());
    let chain = Chain::find(disk, Path::new(PLACE), through).map_err(|error| error.to_string())?;
    let mut import = Import::new(&table).unwrap();
    let revision = chain.restore(disk, &mut import).map_err(|error| error.to_string())?;
    import.finish(revision).unwrap();
    let rows = table.scan(0, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, 100, false).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ok(rows.into_iter().map(|(key, value)| (text(key), text(value))).collect())
}

fn tree(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn restores_each_state_that_was_backed_up() {
    let disk = disk();
    write_three(&disk);
    assert_eq!(restored(&disk, Some(0)).unwrap(), tree(&[("a", "new"), ("b", "1")]));
    assert_eq!(restored(&disk, Some(1)).unwrap(), tree(&[("a", "new"), ("c", "2")]));
    assert_eq!(restored(&disk, None).unwrap(), tree(&[("a", "new"), ("c", "2"), ("d", "3")]));
    assert_eq!(restored(&disk, Some(3)).unwrap_err(), "/backup/00000003.part is missing");
}

#[test]
fn a_missing_part_is_named() {
    let disk = disk();
    write_three(&disk);
    disk.remove(Path::new("/backup/00000001.part")).unwrap();
    assert_eq!(restored(&disk, None).unwrap_err(), "/backup/00000001.part is missing");
    assert_eq!(restored(&disk, Some(0)).unwrap(), tree(&[("a", "new"), ("b", "1")]));
    disk.remove(Path::new("/backup/00000000.full")).unwrap();
    assert_eq!(restored(&disk, None).unwrap_err(), "/backup holds no full backup");
}

#[test]
fn a_newer_full_backup_needs_nothing_before_it() {
    let disk = disk();
    let before = write_three(&disk).pop();
    let mut full = Writer::start(disk.clone(), Path::new(PLACE), Kind::Full, before.as_ref(), 77).unwrap();
    full.rows(&[(b"z".to_vec(), b"9".to_vec())]).unwrap();
    full.finish(Revision(10), Revision(10)).unwrap();
    disk.remove(Path::new("/backup/00000001.part")).unwrap();
    assert_eq!(restored(&disk, None).unwrap(), tree(&[("z", "9")]));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let pristine = disk();
    write_three(&pristine);
    for name in ["00000000.full", "00000001.part", "00000002.part"] {
        let path = Path::new(PLACE).join(name);
        let length = pristine.open(&path).unwrap().length().unwrap();
        for at in 0..length {
            let disk = disk();
            write_three(&disk);
            let file = disk.open(&path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[IoSlice::new(&[byte[0] ^ 4])], at).unwrap();
            let error = restored(&disk, None).expect_err("a flipped bit is damage");
            assert!(error.contains(name) || error.contains("does not follow"), "{name} at {at}: {error}");
            file.write_all_at(&[IoSlice::new(&byte)], at).unwrap();
            file.set_length(at).unwrap();
            let error = restored(&disk, None).expect_err("a cut file is damage");
            assert!(error.contains(name), "{name} cut at {at}: {error}");
        }
    }
}

#[test]
fn an_interrupted_file_has_no_name_and_is_made_anew() {
    let disk = disk();
    let headers = write_three(&disk);
    let start = || Writer::start(disk.clone(), Path::new(PLACE), Kind::Part, headers.last(), 77).unwrap();
    let mut half = start();
    half.changes(&[change(11, "e", Some("4"))]).unwrap();
    drop(half);
    assert_eq!(list(&*disk, Path::new(PLACE)).unwrap().len(), 3);
    let mut whole = start();
    whole.changes(&[change(11, "e", Some("5"))]).unwrap();
    whole.finish(Revision(10), Revision(11)).unwrap();
    assert_eq!(restored(&disk, None).unwrap().get("e").map(String::as_str), Some("5"));
}

/// The first file as the first release wrote it.
#[test]
fn golden() {
    let disk = disk();
    write_three(&disk);
    let file = disk.open(Path::new("/backup/00000001.part")).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("golden.txt").trim());
}
