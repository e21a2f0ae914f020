use super::*;

#[test]
fn paths_have_one_form() {
    for (path, expected) in [
        ("", "/"),
        ("/", "/"),
        ("a", "/a"),
        ("//a//b/", "/a/b"),
        ("./a/./b/.", "/a/b"),
        ("/a/../b", "/a/../b"),
    ] {
        assert_eq!(normal(path), expected, "{path}");
    }
}

#[test]
fn paths_have_parts() {
    assert_eq!((base("/a/b/"), parent("/a/b/")), ("b", "/a"));
    assert_eq!((base("/a"), parent("/a")), ("a", "/"));
    assert_eq!((base("/"), parent("/")), ("", "/"));
    assert_eq!((base("/a/."), base("..")), ("", ""));
    assert_eq!(join("/", "a"), "/a");
    assert_eq!(join("/a/", "b"), "/a/b");
    assert_eq!(join("/a", ""), "/a");
    assert_eq!(join("/", ""), "/");
}

#[test]
fn knows_what_is_below() {
    assert!(is_within("/a/b", "/a"));
    assert!(is_within("/a", "/a"));
    assert!(is_within("/a", "/"));
    assert!(!is_within("/ab", "/a"));
    assert!(!is_within("/", "/a"));
}
