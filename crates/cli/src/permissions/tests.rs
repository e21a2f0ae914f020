use super::*;

#[test]
fn owners_are_numbers_or_names() {
    assert_eq!(owner("1000"), Ok((Some(Uid(1000)), None)));
    assert_eq!(owner("1000:5"), Ok((Some(Uid(1000)), Some(Gid(5)))));
    assert_eq!(owner(":5"), Ok((None, Some(Gid(5)))));
    assert_eq!(owner("1000:"), Ok((Some(Uid(1000)), None)));
    assert_eq!(owner("root"), Ok((Some(Uid(0)), None)));
    assert_eq!(owner("1000:root"), Ok((Some(Uid(1000)), Some(Gid(0)))));
    for text in ["", ":", "-1", "no-such-user", "1:no-such-group", "root:root:root", "99999999999"] {
        assert!(owner(text).is_err(), "{text}");
    }
}
