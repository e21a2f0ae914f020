use super::*;

#[test]
fn an_error_says_what_to_which_path_why_and_what_next() {
    let check = |error: Error, expected: &str| assert_eq!(error.to_string(), expected);
    check(Error::meta("stat", "/a/b", &MetaError::NotFound), "cannot stat /a/b: no such file or directory");
    check(
        Error::new(ErrorKind::Full, "upload", "/a", "the disk is full"),
        "cannot upload /a: the disk is full; remove files, or add space with another target",
    );
    check(
        Error::new(ErrorKind::Invalid, "expand", "", "too much").advise("name the directory"),
        "cannot expand: too much; name the directory",
    );
    let moved = Error::meta("list", "inode 7", &MetaError::Denied).about("list", "/home");
    check(moved.clone(), "cannot list /home: permission denied");
    assert_eq!(
        (moved.kind(), moved.path(), moved.cause()),
        (ErrorKind::Denied, "/home", "permission denied")
    );
    assert_eq!(moved.advice(), None);
}
