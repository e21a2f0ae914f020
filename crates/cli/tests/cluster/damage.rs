//! Bytes on disk that change: read from another copy and reported; with no good copy left, an error and never the bytes.

use crate::cloud::{Cloud, noise};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Flips one bit of the first file of a target that holds `pattern`, in the pattern. Whether there was one.
fn flip(target: &Path, pattern: &[u8]) -> bool {
    for path in files(target) {
        let bytes = fs::read(&path).unwrap();
        if let Some(position) = bytes.windows(pattern.len()).position(|window| window == pattern) {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[pattern[5] ^ 0x10], position as u64 + 5).unwrap();
            return true;
        }
    }
    false
}

#[test]
fn a_flipped_bit_is_never_served() {
    let cloud = Cloud::new();
    let bytes = noise(3_000_000, 9);
    let local = cloud.write("local", &bytes);
    cloud.sr(&["mkdir", "/d"]);
    cloud.sr(&["put", &local.display().to_string(), "/d/file"]);

    // One copy: the other one is read, and the bad one is named.
    let pattern = &bytes[2_000_000..2_000_064];
    let damaged: Vec<u32> = (1..=3)
        .filter(|target| flip(&cloud.path(&format!("cloud/targets/{target}")), pattern))
        .take(1)
        .collect();
    assert_eq!(damaged.len(), 1, "no target held the bytes");
    for _ in 0..6 {
        assert!(cloud.run(&["cat", "/d/file"]).stdout == bytes);
    }
    // Which copy a read takes is the client's choice: look at every one.
    cloud.run(&["locate", "--verify", "/d/file"]);
    let status = cloud.sr(&["status", "--damage"]);
    assert!(status.contains("/d/file"), "the damage is not reported by path: {status}");

    // Every copy: an error that names the file and the offset.
    let again: Vec<u32> =
        (1..=3).filter(|target| flip(&cloud.path(&format!("cloud/targets/{target}")), pattern)).collect();
    assert_eq!(again.len(), 1, "one good copy should have been left");
    let copy = cloud.path("copy").display().to_string();
    let errors = cloud.fails(1, &["get", "/d/file", &copy]);
    assert!(errors.contains("/d/file"), "the error does not name the file: {errors}");
    let near = 1_900_000..=2_000_064;
    let numbers = errors.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
    assert!(
        numbers.into_iter().any(|number| near.contains(&number)),
        "the error does not name the offset: {errors}"
    );
    assert!(!Path::new(&copy).exists(), "a file with missing bytes was left under its final name");
    // The rest of the file is good and can be had.
    let part = cloud.run(&["cat", "--offset", "0", "--length", "1000000", "/d/file"]);
    assert!(part.stdout == bytes[..1_000_000]);
}
