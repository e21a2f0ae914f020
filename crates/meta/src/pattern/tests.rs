use super::*;
use proptest::prelude::*;

#[track_caller]
fn check(pattern: &str, yes: &[&str], no: &[&str]) {
    let compiled = Pattern::new(pattern).unwrap();
    for name in yes {
        assert!(compiled.matches(name), "{pattern} should match {name}");
        assert!(name.starts_with(&compiled.prefix()));
    }
    for name in no {
        assert!(!compiled.matches(name), "{pattern} should not match {name}");
    }
}

#[test]
fn wildcards_match_as_in_a_shell() {
    check("*", &["", "a", ".b", "ü#"], &[]);
    check("*.txt", &["a.txt", ".txt", "a.txt.txt"], &["a.txt.gz", "txt"]);
    check("a?c", &["abc", "aüc"], &["ac", "abbc"]);
    check("[a-cx]1", &["a1", "b1", "x1"], &["d1", "a2"]);
    check("[!a-c]1", &["d1"], &["a1", "1"]);
    check("[]]", &["]"], &["a"]);
    check("[a", &["[a"], &["a"]);
    check("{a,b}*", &["a", "bcd"], &["ca"]);
    check("x{1,2{3,4}}y", &["x1y", "x23y", "x24y"], &["x2y", "x3y"]);
    check("{a}", &["{a}"], &["a"]);
    check("a{b", &["a{b"], &["ab"]);
    check("\\*", &["*"], &["a"]);
    check("\\{a,b}", &["{a,b}"], &["a"]);
    check("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a", "b"]);
    check("", &[""], &["a"]);
}

#[test]
fn braces_that_stand_for_too_much_are_refused() {
    assert_eq!(Pattern::new(&"{a,b}".repeat(9)).unwrap_err(), MetaError::Invalid);
    assert!(Pattern::new(&"{a,b}".repeat(8)).is_ok());
    assert_eq!(Pattern::new(&"a".repeat(PATH_MAX + 1)).unwrap_err(), MetaError::Invalid);
}

/// The plainest possible matcher.
fn model(pattern: &[char], name: &[char]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some('*'), _) => model(&pattern[1..], name) || (!name.is_empty() && model(pattern, &name[1..])),
        (Some('?'), Some(_)) => model(&pattern[1..], &name[1..]),
        (Some(p), Some(n)) => p == n && model(&pattern[1..], &name[1..]),
        (Some(_), None) => false,
    }
}

proptest! {
    #[test]
    fn stars_and_question_marks_equal_the_model(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
        let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
        prop_assert_eq!(Pattern::new(&pattern).unwrap().matches(&name), model(&p, &n));
    }

    #[test]
    fn nothing_panics(pattern in "[ab*?\\[\\]{},!^\\\\-]{0,20}", name in "[ab\\[\\]{},-]{0,10}") {
        if let Ok(pattern) = Pattern::new(&pattern) {
            pattern.matches(&name);
            pattern.prefix();
        }
    }
}
