use super::*;
use proptest::prelude::*;

fn check(pattern: &str, yes: &[&str], no: &[&str]) {
    let parsed = Pattern::parse(pattern).unwrap();
    for name in yes {
        assert!(parsed.matches(name), "{pattern} should match {name}");
    }
    for name in no {
        assert!(!parsed.matches(name), "{pattern} should not match {name}");
    }
}

#[test]
fn matches_as_documented() {
    check("*", &["", "a", "a b"], &[]);
    check("*.c", &[".c", "a.c", "a.c.c"], &["a.cc", "c"]);
    check("a?c", &["abc", "aéc"], &["ac", "abbc"]);
    check("[a-c]x", &["ax", "cx"], &["dx", "x"]);
    check("[!a-c]x", &["dx"], &["ax"]);
    check("[]x]", &["]", "x"], &["y"]);
    check("[a-]", &["a", "-"], &["b"]);
    check("[\\]]", &["]"], &["\\"]);
    check("{a,b*,}x", &["ax", "bx", "bbx", "x"], &["cx"]);
    check("{a{b,c},d}", &["ab", "ac", "d"], &["a", "ad"]);
    check("\\*\\{", &["*{"], &["a{"]);
    check("[{]a[,}]", &["{a,", "{a}"], &["a"]);
    check("a*b*c*d", &["abcd", "axbxcxd", "abcbcd"], &["abc", "dcba"]);
    check("", &[""], &["a"]);
}

#[test]
fn what_is_never_closed_stands_for_itself() {
    for text in ["[a", "[", "[]", "[!", "{a", "a\\", "[a-", "}a,b", "a]b", "{a}x"] {
        check(text, &[text], &["a", "b", ""]);
        assert!(!is_pattern(text), "{text}");
    }
    check("{a{b,c}", &["{ab", "{ac"], &["a", "ab"]);
    assert!(is_pattern("{a{b,c}"));
}

#[test]
fn refuses_braces_without_end() {
    assert!(Pattern::parse(&"{a,b}".repeat(20)).is_err());
}

#[test]
fn cuts_levels() {
    let name = |text: &str| Level::Name(text.to_string());
    let names = |text: &str| Level::Names(Pattern::parse(text).unwrap(), text.to_string());
    let check = |text: &str, expected: &[Vec<Level>]| assert_eq!(levels(text).unwrap(), expected, "{text}");
    check("/a/b", &[vec![name("a"), name("b")]]);
    check("//a\\*/", &[vec![name("a*")]]);
    check("a/*.{c,h}/**/x", &[vec![name("a"), names("*.{c,h}"), Level::Deep, name("x")]]);
    check("{a/b,c}/d", &[vec![name("a"), name("b"), name("d")], vec![name("c"), name("d")]]);
    check("/", &[vec![]]);
}

#[test]
fn a_long_match_does_not_take_for_ever() {
    let pattern = Pattern::parse(&"a*".repeat(100)).unwrap();
    assert!(!pattern.matches(&format!("{}b", "a".repeat(255).replace("aaaa", "aaab"))[..1]));
    assert!(!Pattern::parse(&format!("{}b", "a*".repeat(100))).unwrap().matches(&"a".repeat(255)));
}

/// A slow matcher that is plainly right.
fn model(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|taken| model(rest, &name[taken..])),
        ['?', rest @ ..] => !name.is_empty() && model(rest, &name[1..]),
        [letter, rest @ ..] => name.first() == Some(letter) && model(rest, &name[1..]),
    }
}

proptest! {
    #[test]
    fn agrees_with_the_slow_matcher(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
        let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
        prop_assert_eq!(Pattern::parse(&pattern).unwrap().matches(&name), model(&p, &n));
    }

    #[test]
    fn escaped_text_matches_just_itself(text in "\\PC{0,12}", other in "\\PC{0,12}") {
        let escaped = escape(&text);
        prop_assert!(!is_pattern(&escaped));
        prop_assert_eq!(&unescape(&escaped), &text);
        let pattern = Pattern::parse(&escaped).unwrap();
        prop_assert!(pattern.matches(&text));
        prop_assert_eq!(pattern.matches(&other), text == other);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[ab*?\\[\\]{},\\\\!^/é-]{0,16}", name in "[ab,é]{0,5}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            pattern.matches(&name);
        }
        let _ = levels(&text);
        is_pattern(&text);
    }
}
