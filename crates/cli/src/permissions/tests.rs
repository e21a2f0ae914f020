use super::*;

#[test]
fn owners_are_numbers() {
    assert_eq!(owner("1000"), Ok((Some(Uid(1000)), None)));
    assert_eq!(owner("1000:5"), Ok((Some(Uid(1000)), Some(Gid(5)))));
    assert_eq!(owner(":5"), Ok((None, Some(Gid(5)))));
    assert_eq!(owner("1000:"), Ok((Some(Uid(1000)), None)));
    for text in ["", ":", "-1", "alice", "1:x", "99999999999"] {
        assert!(owner(text).is_err(), "{text}");
    }
}
