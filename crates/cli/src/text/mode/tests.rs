use super::*;

fn check(change: &str, before: u16, after: u16) {
    changes(change, FileKind::File, before, after);
}

fn changes(change: &str, kind: FileKind, before: u16, after: u16) {
    let mode = ModeChange::parse(change).unwrap().apply(Mode(before), kind, 0o022);
    assert_eq!(format!("{:o}", mode.0), format!("{after:o}"), "{change} on {before:o}");
}

#[test]
fn changes_modes_as_chmod_does() {
    check("644", 0o777, 0o644);
    check("0", 0o777, 0);
    check("4755", 0, 0o4755);
    check("u+x", 0o644, 0o744);
    check("+x", 0o644, 0o755);
    check("+w", 0o444, 0o644); // The umask keeps the others out.
    check("a+w", 0o444, 0o666);
    check("go-rwx", 0o777, 0o700);
    check("u=rw,go=r", 0o777, 0o644);
    check("u=g", 0o750, 0o550);
    check("g=u-w", 0o640, 0o640);
    check("a+X", 0o644, 0o644);
    check("a+X", 0o744, 0o755);
    check("u+s", 0o755, 0o4755);
    check("g+s", 0o755, 0o2755);
    check("+t", 0o777, 0o1777);
    check("ug-s", 0o6755, 0o755);
    check("u=", 0o4755, 0o055);
    check("-x", 0o755, 0o644);
    changes("a+X", FileKind::Directory, 0o644, 0o755);
    changes("g=rx", FileKind::Directory, 0o2777, 0o2757);
}

#[test]
fn refuses_what_is_no_mode() {
    for text in ["", "8", "77777", "rwx", "z+x", "u", "u+q", "u+x,", "+é", "64 4"] {
        assert!(ModeChange::parse(text).is_err(), "{text}");
    }
}

#[test]
fn shows_modes_as_ls_does() {
    assert_eq!(string(FileKind::Directory, Mode(0o1777)), "drwxrwxrwt");
    assert_eq!(string(FileKind::File, Mode(0o6644)), "-rwSr-Sr--");
    assert_eq!(string(FileKind::SymbolicLink, Mode(0o777)), "lrwxrwxrwx");
    assert_eq!(string(FileKind::File, Mode(0o7711)), "-rws--s--t");
}
