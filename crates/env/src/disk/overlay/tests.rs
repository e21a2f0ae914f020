use super::*;

fn contents(disk: &OverlayDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn the_base_never_changes() {
    let (base, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |name: &str| base.path().join(name);
    fs::write(path("a"), b"hello").unwrap();
    fs::write(path("b"), b"other").unwrap();
    let disk = OverlayDisk::new(base.path(), scratch.path());

    let a = disk.open(&path("a")).unwrap();
    a.set_length(2).unwrap();
    assert_eq!(contents(&disk, &path("a")), b"he");
    assert_eq!(a.read_exact_at(&mut [0; 3], 0).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(a.write_all_at(&[IoSlice::new(b"x")], 0).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    a.punch(0, 1).unwrap();
    a.sync().unwrap();

    disk.remove(&path("b")).unwrap();
    assert_eq!(disk.open(&path("b")).err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(disk.remove(&path("b")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.create(&path("a")).err().unwrap().kind(), ErrorKind::AlreadyExists);
    for name in ["b", "c"] {
        disk.create(&path(name)).unwrap().write_all_at(&[IoSlice::new(b"new")], 0).unwrap();
        assert_eq!(contents(&disk, &path(name)), b"new");
    }
    assert_eq!(disk.list(base.path()).unwrap(), ["a", "b", "c"].map(PathBuf::from));
    disk.remove(&path("c")).unwrap();
    assert_eq!(disk.list(base.path()).unwrap(), ["a", "b"].map(PathBuf::from));
    assert!(disk.create(Path::new("/elsewhere")).is_err());

    assert_eq!(fs::read(path("a")).unwrap(), b"hello");
    assert_eq!(fs::read(path("b")).unwrap(), b"other");
    assert!(!path("c").exists());
}

#[test]
fn a_directory_in_use_is_refused() {
    let (base, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = OverlayDisk::new(base.path(), scratch.path());
    drop(disk.lock(base.path()).unwrap());
    let owner = RealDisk::default().lock(base.path()).unwrap();
    assert_eq!(disk.lock(base.path()).err().unwrap().kind(), ErrorKind::WouldBlock);
    drop(owner);
    drop(disk.lock(base.path()).unwrap());
}
