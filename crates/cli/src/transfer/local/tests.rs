use super::*;
use crate::item::tests::attributes;
use tempfile::TempDir;
use types::FileKind;

#[test]
fn tells_kinds_apart() {
    let place = TempDir::new().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("file"), "12345").unwrap();
    fs::create_dir(at("directory")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut found = entries(place.path()).unwrap();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let kinds: Vec<Kind> = found.into_iter().map(|(_, local)| local.unwrap().kind).collect();
    let expected = [Kind::Directory, Kind::Special("fifo"), Kind::File, Kind::Link("nowhere".into())];
    assert_eq!(kinds, expected);
    assert_eq!(Local::find(&at("file")).unwrap().length, 5);
    assert!(Local::find(&at("link")).is_err()); // Followed, and leads nowhere.
}

#[test]
fn links_replace_links_and_files_but_no_directories() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("link");
    let source = attributes(FileKind::SymbolicLink, 1);
    for target in ["a", "a", "b"] {
        make_link(&path, target, &source).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new(target));
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(make_link(&path, "a", &source).is_err());
}

#[test]
fn names_stay_where_they_are_put() {
    assert!(is_name("a") && is_name("..a") && is_name("-") && is_name("a\nb"));
    for name in ["", ".", "..", "a/b", "/", "a\0"] {
        assert!(!is_name(name), "{name:?}");
    }
}
