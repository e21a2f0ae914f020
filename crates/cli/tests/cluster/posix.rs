//! Suites that others keep, on the mount.

use crate::cloud::Cloud;
use crate::mount::{Mounted, is_possible};
use crate::real::input;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// What of pjdfstest may fail, and why.
const EXPECTED: &str = include_str!("../../../../tests/posix/expected.txt");

/// The suites of the kernel's features that any Linux file system has, and two users that Debian has.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
# Longer than the clock's step.
naptime = 0.01
allow_remount = false
expected_failures = []
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Every operation that a Linux file system can be asked for through fsx.
fn fsx_settings(align: u32) -> String {
    format!(
        "flen = 1048576\n[opsize]\nmax = 131072\nmin = {align}\nalign = {align}\n[weights]\nclose_open = 1\nread = 10\nwrite = 10\n\
         mapread = 10\nmapwrite = 10\ninvalidate = 1\ntruncate = 3\nfsync = 0.5\nfdatasync = 0.5\nposix_fallocate = 1\n\
         punch_hole = 3\nsendfile = 3\nposix_fadvise = 2\ncopy_file_range = 3\n"
    )
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[allow(clippy::print_stderr, reason = "a test that cannot be made says so")]
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("NOT TESTED: pjdfstest has to be root to become other users");
    }
    is_root
}

#[test]
fn pjdfstest_finds_nothing_but_what_is_expected() {
    if !is_possible() || !is_root() {
        return;
    }
    let cloud = Cloud::new();
    let mount = Mounted::of(&cloud, "mnt", &["--allow-other"]);
    // Other users come there, too.
    for folder in [cloud.home.path(), &mount.path("")] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    cloud.write("pjdfstest.toml", PJDFSTEST.as_bytes());
    let output = Command::new(input("bin/pjdfstest"))
        .arg("--configuration-file")
        .arg(cloud.path("pjdfstest.toml"))
        .arg("--secondary-fs")
        .arg(other.path())
        .arg("--path")
        .arg(mount.path(""))
        .output()
        .unwrap();
    let text = text(&output);
    let with = |end: &str| -> BTreeSet<&str> {
        let lines = text.lines().filter_map(|line| line.trim_end().strip_suffix(end));
        lines.map(str::trim_end).collect()
    };
    let (failed, passed) = (with("FAILED"), with(" ok"));
    let expected: BTreeSet<&str> = EXPECTED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(failed, expected, "{text}");
    assert!(passed.len() >= 370 && failed.len() * 200 <= passed.len(), "{} passed: {text}", passed.len());
}

#[test]
fn fsx_finds_every_byte_where_it_should_be() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let mount = Mounted::of(&cloud, "mnt", &[]);
    let runs = [1, 4096].map(|align| {
        let settings = format!("fsx-{align}.toml");
        cloud.write(&settings, fsx_settings(align).as_bytes());
        let mut fsx = Command::new(input("bin/fsx"));
        fsx.args(["-q", "-N", "3000", "-S", "7", "-f"]).arg(cloud.path(&settings));
        fsx.arg("-P").arg(cloud.path("")).arg(mount.path(&format!("file-{align}")));
        std::thread::spawn(move || fsx.output().unwrap())
    });
    for run in runs {
        let output = run.join().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
}
