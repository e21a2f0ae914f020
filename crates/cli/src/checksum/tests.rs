use super::*;

#[test]
fn lines_come_back_whatever_the_path() {
    let hash = "0123456789abcdef".repeat(4);
    for path in ["/a", "/a  b", "/a\nb", "/back\\slash", "/\\n", " x"] {
        let line = line(&hash, path);
        assert!(!line.contains('\n'));
        assert_eq!(parse_line(&line), Some((hash.clone(), path.to_owned())), "{path:?}");
    }
}

#[test]
fn refuses_what_is_no_line() {
    let hash = "0123456789abcdef".repeat(4);
    for line in ["", "x  /a", &hash, &format!("{hash} /a"), &format!("{hash}  "), &format!("\\{hash}  a\\x")]
    {
        assert_eq!(parse_line(line), None, "{line:?}");
    }
}
