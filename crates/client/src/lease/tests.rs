use super::*;

#[test]
fn a_new_name_goes_into_its_directory() {
    let check = |path: &str, expected: &str| assert_eq!(directory(&Place::path(path)).path, expected);
    check("/a/b/c", "/a/b");
    check("a", "");
    check("/a", "");
    check("/a/b/", "/a");
}
