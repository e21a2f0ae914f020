use super::{human, parse, words};

#[test]
fn reads_sizes_as_people_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("4k", 4096),
        ("4K", 4096),
        ("4 KiB", 4096),
        ("4kB", 4000),
        ("1.5G", 3 << 29),
        (".5M", 1 << 19),
        ("1T", 1 << 40),
        ("2 MiB", 2 << 20),
    ] {
        assert_eq!(parse(text), Ok(bytes), "{text}");
    }
}

#[test]
fn refuses_what_is_no_size() {
    for text in ["", "K", "4X", "-4", "4KiBB", "99999999999T", "1..5", "é", "4é", "."] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn writes_sizes_as_ls_does() {
    for (bytes, text) in [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (1025, "1.1K"),
        (10 * 1024, "10K"),
        (10 * 1024 + 1, "11K"),
        (1024 * 1024 - 1, "1.0M"),
        (1 << 30, "1.0G"),
        (u64::MAX, "16E"),
    ] {
        assert_eq!(human(bytes), text, "{bytes}");
    }
    assert_eq!(words(1), "1 byte");
    assert_eq!(words(1536), "1.5 KiB");
}
