//! Real data: a source tree of tens of thousands of files, the archive it came in, a bootable image and a table, stored
//! and got back while one of three storage servers is killed.

use crate::apart::Apart;
use crate::cloud::succeed;
use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, Metadata};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, UNIX_EPOCH};

/// The parts of the tree that are stored: more than a quarter of it, so that the tests stay short on two cores; the example in the README stores
/// all of it.
const PARTS: [&str; 2] = ["linux/arch", "linux/include"];
/// Fewer would be no test of many small files.
const FILES_MIN: usize = 20_000;
/// Two million lines of numbers: 28 MiB.
const TABLE_LINES: u64 = 2_000_000;

/// Something that `cargo xtask inputs` fetched.
pub(crate) fn input(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = target.join("inputs").join(name);
    assert!(path.exists(), "{} is not there: run `cargo xtask inputs` once", path.display());
    path
}

/// What is stored: all that was fetched, and what is made here in `home`.
fn sources(home: &Path) -> Vec<PathBuf> {
    let table = home.join("table.csv");
    let mut writer = BufWriter::new(File::create(&table).unwrap());
    writeln!(writer, "id,square").unwrap();
    for id in 0..TABLE_LINES {
        writeln!(writer, "{id},{}", id * id).unwrap();
    }
    writer.into_inner().unwrap();
    let odd = home.join("odd");
    make_odd(&odd);
    let fetched = PARTS.into_iter().chain(["linux.tar.xz", "rescue.iso"]).map(input);
    fetched.chain([table, odd]).collect()
}

/// What no source tree has: names, modes and times at the edges.
fn make_odd(root: &Path) {
    let file = |name: &str, mode: u32, seconds: u64, nanoseconds: u32| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let time = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    file("private", 0o600, 0, 1);
    file("read only/deep/er", 0o444, 1_000_000_000, 123_456_789);
    file("program", 0o751, 4_102_444_800, 999_999_999);
    file("two\nlines\tand 'quotes\"", 0o640, 1, 0);
    file("ünïcödé 漢字", 0o644, 1, 0);
    file(&"n".repeat(255), 0o644, 1, 0);
    fs::write(root.join("nothing"), "").unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
    symlink("empty", root.join("to a directory")).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 5);
    File::open(root.join("read only")).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// The paths below a directory, itself included (as the empty path), parents first.
fn below(root: &Path) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::from([PathBuf::new()]);
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        // It may be renamed while a get is under way.
        let Ok(entries) = fs::read_dir(root.join(&directory)) else { continue };
        for entry in entries.map_while(Result::ok) {
            let path = directory.join(entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path.clone());
            }
            paths.insert(path);
        }
    }
    paths
}

/// What must be the same of two entries, beside their bytes.
fn nature(metadata: &Metadata) -> (u32, i64, i64, Option<u64>) {
    let length = metadata.is_file().then_some(metadata.len());
    if metadata.is_symlink() {
        // Linux keeps no mode of links.
        return (0, metadata.mtime(), metadata.mtime_nsec(), length);
    }
    (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), length)
}

/// Compares two trees: names, kinds, modes, times, links and every byte. Answers how many files there are.
fn compare(wanted: &Path, found: &Path) -> usize {
    let names = if wanted.is_dir() { below(wanted) } else { BTreeSet::from([PathBuf::new()]) };
    if wanted.is_dir() {
        let there = below(found);
        let missing: Vec<_> = names.difference(&there).take(5).collect();
        let strange: Vec<_> = there.difference(&names).take(5).collect();
        assert!(missing.is_empty() && strange.is_empty(), "missing {missing:?}, strange {strange:?}");
    }
    let mut files = 0;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for name in names {
        // Joined with nothing, a path to a file would end with a slash.
        let at = |root: &Path| if name.as_os_str().is_empty() { root.to_owned() } else { root.join(&name) };
        let (wanted, found) = (at(wanted), at(found));
        let (before, after) = (fs::symlink_metadata(&wanted).unwrap(), fs::symlink_metadata(&found).unwrap());
        assert_eq!(before.file_type(), after.file_type(), "{}", wanted.display());
        assert_eq!(nature(&before), nature(&after), "{}", wanted.display());
        if before.is_symlink() {
            assert_eq!(fs::read_link(&wanted).unwrap(), fs::read_link(&found).unwrap());
        } else if before.is_file() {
            files += 1;
            for (path, bytes) in [(&wanted, &mut left), (&found, &mut right)] {
                bytes.clear();
                File::open(path).unwrap().read_to_end(bytes).unwrap();
            }
            assert!(left == right, "{} came back wrong", wanted.display());
        }
    }
    files
}

/// Compares everything that was put below `/real` with what came back.
fn compare_all(sources: &[PathBuf], copy: &Path) {
    let files: usize =
        sources.iter().map(|source| compare(source, &copy.join(source.file_name().unwrap()))).sum();
    assert!(files > FILES_MIN, "only {files} files");
    assert_eq!(fs::read_dir(copy).unwrap().count(), sources.len());
}

fn put(cluster: &Apart, sources: &[PathBuf]) -> Child {
    cluster.sr(&["mkdir", "/real"]);
    let mut command = cluster.command(&["put", "-r"]);
    command.args(sources).arg("/real/").spawn().unwrap()
}

/// Waits until `count` is `least`; the work must still go on then.
fn wait_for(work: &mut Child, least: usize, count: impl Fn() -> usize) {
    while count() < least {
        assert!(work.try_wait().unwrap().is_none(), "it ended before the middle");
        // Only the files tell how far it is.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn files_stored(cluster: &Apart) -> usize {
    let status = cluster.sr(&["status", "--json"]);
    let cluster: serde_json::Value = serde_json::from_str(status.lines().next().unwrap()).unwrap();
    usize::try_from(cluster["files"].as_u64().unwrap()).unwrap()
}

#[test]
fn a_put_of_real_data_goes_on_when_a_server_is_killed() {
    let mut cluster = Apart::new(3, 2);
    let sources = sources(cluster.home.path());
    let mut work = put(&cluster, &sources);
    wait_for(&mut work, FILES_MIN / 4, || files_stored(&cluster));
    cluster.storage[0].kill();
    assert!(work.try_wait().unwrap().is_none(), "the put was over before the server died");
    succeed(work.wait_with_output().unwrap(), &["put"]);
    let copy = cluster.path("copy");
    cluster.sr(&["get", "-r", "/real", &copy.display().to_string()]);
    compare_all(&sources, &copy);
}

#[test]
fn a_get_of_real_data_goes_on_when_a_server_is_killed() {
    let mut cluster = Apart::new(3, 2);
    let sources = sources(cluster.home.path());
    succeed(put(&cluster, &sources).wait_with_output().unwrap(), &["put"]);
    let copy = cluster.path("copy");
    let mut work = cluster.command(&["get", "-r", "/real", &copy.display().to_string()]).spawn().unwrap();
    wait_for(&mut work, FILES_MIN / 4, || below(&copy).len());
    cluster.storage[1].kill();
    assert!(work.try_wait().unwrap().is_none(), "the get was over before the server died");
    succeed(work.wait_with_output().unwrap(), &["get"]);
    compare_all(&sources, &copy);
}
