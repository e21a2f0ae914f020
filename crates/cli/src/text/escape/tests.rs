use super::{for_terminal, inline};

#[test]
fn leaves_harmless_names_alone() {
    for name in ["plain", "a b", "#;,\"'", "日本語", "--", "it's", "back\\slash"] {
        assert_eq!(for_terminal(name), name);
    }
}

#[test]
fn quotes_what_a_terminal_would_obey() {
    assert_eq!(for_terminal("a\nb"), "$'a\\nb'");
    assert_eq!(for_terminal("a\x1b[31mb'\\"), "$'a\\x1b[31mb\\'\\\\'");
    assert_eq!(for_terminal("cod\u{202e}exe"), "$'cod\\u202eexe'");
    assert_eq!(for_terminal("\u{9b}x"), "$'\\u009bx'");
}

#[test]
fn keeps_messages_on_their_line() {
    assert_eq!(inline("cannot read /a\nb: no"), "cannot read /a\\nb: no");
    assert_eq!(inline("cannot read /a b: no"), "cannot read /a b: no");
}
