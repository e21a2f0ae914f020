use super::*;

#[test]
fn entries_fill_a_page_and_no_more() {
    // A record is 24 bytes and the name, rounded up to 8.
    let mut page = Directory::new(64);
    assert!(page.body.is_empty());
    assert!(page.add(7, libc::S_IFREG, b"a", 1));
    assert!(page.add(8, libc::S_IFDIR, b"bcdefgh", 2));
    assert!(!page.add(9, libc::S_IFREG, b"c", 3));
    assert_eq!(page.body.len(), 64);
    assert_eq!(page.body[16..24], [1, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(&page.body[24..25], b"a");
    assert_eq!(page.body[32..40], 8u64.to_ne_bytes());
    assert_eq!(page.body[52..56], 4u32.to_ne_bytes());
}

#[test]
fn entries_with_attributes_are_as_long_as_the_kernel_reads_them() {
    let mut page = Directory::new(4096);
    let attributes = Attributes { node: 3, size: 5, mode: libc::S_IFREG | 0o644, ..Attributes::default() };
    let entry = Entry { node: 3, attributes, ..Entry::default() };
    assert!(page.add_plus(&entry, b"name", 1));
    assert_eq!(page.body.len(), 128 + 32);
    // The attributes begin 40 bytes into the entry; the mode is 60 bytes into them.
    assert_eq!(page.body[40..48], 3u64.to_ne_bytes());
    assert_eq!(page.body[100..104], (libc::S_IFREG | 0o644).to_ne_bytes());
    assert_eq!(page.body[128..136], 3u64.to_ne_bytes());
}
