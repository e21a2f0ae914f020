use super::*;

const USERS: &str =
    "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1001:,,,:/home/alice:/bin/sh\nbob:x::\nshort\n";

#[test]
fn a_line_gives_the_number_of_its_name() {
    assert_eq!(find(USERS, "root"), Some(0));
    assert_eq!(find(USERS, "alice"), Some(1000));
    for name in ["x", "ali", "bob", "short", "", "1000"] {
        assert_eq!(find(USERS, name), None, "{name}");
    }
}

#[test]
fn this_machine_knows_root_and_takes_numbers_unseen() {
    for kind in [Kind::User, Kind::Group] {
        assert_eq!(number(kind, "root"), Ok(0));
        assert_eq!(number(kind, "4294967295"), Ok(u32::MAX));
        assert!(number(kind, "4294967296").unwrap_err().contains("highest"));
        for name in ["no-such-name", "-1", "--help", "-i", "a b"] {
            let why = number(kind, name).unwrap_err();
            assert!(why.contains(&format!("{name:?}")) && why.contains(kind.word()), "{why}");
        }
    }
}
