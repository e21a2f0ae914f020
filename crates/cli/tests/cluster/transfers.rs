//! `put` and `get`: what users have lying about comes back the same, and what fails does not stop the rest.

use crate::cloud::{Cloud, client, noise, succeed};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What is at a path: kind and mode, modification time, hash of the content or the target.
type Tree = BTreeMap<String, (u32, (i64, i64), blake3::Hash)>;

/// All that is below a directory.
fn tree(root: &Path) -> Tree {
    fn add(root: &Path, directory: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                add(root, &path, tree);
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            // The times of links are kept too, but their modes mean nothing.
            let hash = blake3::hash(&content);
            tree.insert(name, (metadata.mode(), (metadata.mtime(), metadata.mtime_nsec()), hash));
        }
    }
    let mut tree_ = Tree::new();
    add(root, root, &mut tree_);
    tree_
}

/// A directory of all that makes trouble.
fn troublesome(root: &Path) {
    let long = "x".repeat(255);
    let long_utf8 = "ü".repeat(127);
    let names = [
        "plain",
        "a b",
        "-dash",
        "--",
        "#",
        ",;",
        "quo\"te's",
        "new\nline",
        "tab\t",
        "esc\x1b[31m",
        "st*r",
        "b[1]",
        "{a,b}",
        "q?",
        "back\\slash",
        "~",
        "$HOME",
        "%s",
        "日本語",
        "...",
        &long,
        &long_utf8,
    ];
    fs::create_dir_all(root.join("deep/er/st/of/all")).unwrap();
    for (name, size) in
        names.iter().zip([0, 1, 4095, 4096, 4097, 100_000, 1_048_576, 1_048_577].iter().cycle())
    {
        fs::write(root.join(name), noise(*size, 7)).unwrap();
    }
    fs::write(root.join("deep/er/st/of/all/file"), "deep").unwrap();
    fs::write(root.join("large"), noise(9_000_000, 3)).unwrap();
    fs::File::create(root.join("sparse")).unwrap().set_len(5_000_000).unwrap();
    fs::create_dir(root.join("empty directory")).unwrap();
    fs::create_dir(root.join("read-only")).unwrap();
    fs::write(root.join("read-only/file"), "kept").unwrap();
    symlink("plain", root.join("link")).unwrap();
    symlink("/no/where", root.join("dangling")).unwrap();
    symlink("deep", root.join("link to a directory")).unwrap();
    for (name, mode) in [("plain", 0o640), ("--", 0o400), ("a b", 0o777), ("#", 0o000), ("read-only", 0o555)]
    {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(981_173_106_123_456_789);
    for name in ["plain", "deep/er", "read-only"] {
        fs::File::open(root.join(name)).unwrap().set_modified(old).unwrap();
    }
}

#[test]
fn a_tree_comes_back_the_same() {
    let cloud = Cloud::new();
    let source = cloud.path("source");
    troublesome(&source);
    cloud.sr(&["put", "-r", "source", "/"]);
    cloud.sr(&["get", "-r", "/source", "copy"]);
    assert_eq!(tree(&source), tree(&cloud.path("copy")));
    // Again, over itself, and of the contents alone.
    cloud.sr(&["put", "-r", "source/.", "/source"]);
    cloud.sr(&["get", "-r", "/source/.", "copy"]);
    assert_eq!(tree(&source), tree(&cloud.path("copy")));
    // Copied within the cloud.
    cloud.sr(&["cp", "-rp", "/source", "/second"]);
    cloud.sr(&["get", "-r", "/second", "second"]);
    let without_times = |tree: Tree| -> Tree {
        let links = |mode: u32| mode & 0o170_000 == 0o120_000;
        tree.into_iter().map(|(k, (m, t, c))| (k, (m, if links(m) { (0, 0) } else { t }, c))).collect()
    };
    assert_eq!(without_times(tree(&source)), without_times(tree(&cloud.path("second"))));
    assert_eq!(
        cloud.sr(&["checksum", "-r", "/source"]).replace("/source/", "/second/"),
        cloud.sr(&["checksum", "-r", "/second"])
    );
}

#[test]
fn what_fails_is_named_and_the_rest_is_done() {
    let cloud = Cloud::new();
    let source = cloud.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("good"), "1").unwrap();
    fs::write(source.join("taken"), "2").unwrap();
    fs::write(source.join(OsStr::from_bytes(b"b\xffd")), "3").unwrap();
    assert!(Command::new("mkfifo").arg(source.join("fifo")).status().unwrap().success());
    cloud.sr(&["mkdir", "-p", "/source/taken"]);

    let errors = cloud.fails(1, &["put", "-r", "source", "missing", "/"]);
    assert!(
        errors.contains("UTF-8") && errors.contains("/source/taken") && errors.contains("missing"),
        "{errors}"
    );
    assert!(errors.contains("left out") && errors.contains("fifo"), "{errors}");
    assert_eq!(cloud.sr(&["cat", "/source/good"]), "1");

    fs::create_dir_all(cloud.path("copy/source/good")).unwrap();
    cloud.pipe(b"4", "/source/other");
    let errors = cloud.fails(1, &["get", "-r", "/source", "/nothing", "copy"]);
    assert!(errors.contains("copy/source/good") && errors.contains("/nothing"), "{errors}");
    assert_eq!(fs::read(cloud.path("copy/source/other")).unwrap(), b"4");
}

#[test]
fn destinations_are_those_of_cp() {
    let cloud = Cloud::new();
    cloud.write("a", b"a");
    cloud.write("b", b"b");
    cloud.write("d/in", b"in");
    cloud.sr(&["put", "a", "/new"]);
    cloud.sr(&["put", "b", "/new"]);
    assert_eq!(cloud.sr(&["cat", "/new"]), "b");
    cloud.fails(1, &["put", "a", "/absent/"]);
    cloud.fails(1, &["put", "a", "/absent/a"]);
    cloud.fails(1, &["put", "a", "b", "/new"]);
    cloud.fails(1, &["put", "d", "/"]);
    cloud.fails(1, &["put", "-r", "d", "/new"]);
    cloud.sr(&["mkdir", "/dir"]);
    cloud.sr(&["put", "-r", "a", "b", "d", "/dir"]);
    cloud.sr(&["put", "-r", "d", "/renamed"]);
    let all = "/dir\n/dir/a\n/dir/b\n/dir/d\n/dir/d/in\n/renamed\n/renamed/in\n";
    assert_eq!(sorted(&cloud.sr(&["find", "/dir", "/renamed"])), all);

    cloud.sr(&["get", "/new", "fresh"]);
    assert_eq!(fs::read(cloud.path("fresh")).unwrap(), b"b");
    cloud.fails(1, &["get", "/new", "absent/"]);
    cloud.fails(1, &["get", "/dir", "."]);
    cloud.sr(&["get", "/dir/[ab]", "."]);
    cloud.sr(&["get", "-r", "/dir", "into"]);
    assert_eq!(fs::read(cloud.path("into/d/in")).unwrap(), b"in");
    cloud.sr(&["get", "-r", "/dir", "into"]);
    assert_eq!(fs::read(cloud.path("into/dir/d/in")).unwrap(), b"in");
    cloud.sr(&["get", "/new", "/dev/null"]);
    assert!(!Path::new("/dev/null").is_file());
}

fn sorted(lines: &str) -> String {
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn resuming_leaves_out_what_is_there() {
    let cloud = Cloud::new();
    for name in ["one", "two", "sub/three"] {
        cloud.write(&format!("source/{name}"), name.as_bytes());
    }
    cloud.sr(&["put", "-r", "source", "/"]);
    let inode = |path: &str| {
        let line: serde_json::Value = serde_json::from_str(&cloud.sr(&["stat", "--json", path])).unwrap();
        line["inode"].as_u64().unwrap()
    };
    let before = [inode("/source/one"), inode("/source/sub/three")];
    cloud.write("source/two", b"two, longer");
    cloud.sr(&["put", "-r", "--resume", "source", "/"]);
    assert_eq!(before, [inode("/source/one"), inode("/source/sub/three")]);
    assert_eq!(cloud.sr(&["cat", "/source/two"]), "two, longer");

    cloud.sr(&["get", "-r", "/source", "copy"]);
    let number = |path: &str| fs::metadata(cloud.path(path)).unwrap().ino();
    let before = number("copy/one");
    fs::write(cloud.path("copy/two"), "changed").unwrap();
    cloud.sr(&["get", "-r", "--resume", "/source/.", "copy"]);
    assert_eq!(number("copy/one"), before);
    assert_eq!(fs::read(cloud.path("copy/two")).unwrap(), b"two, longer");
}

/// Waits until `seen`, or the command ended.
fn until(child: &mut Child, seen: impl Fn() -> bool) {
    while !seen() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
}

#[test]
fn an_interrupted_download_leaves_no_half_file_and_goes_on() {
    let cloud = Cloud::new();
    let bytes = noise(96 << 20, 5);
    cloud.write("large", &bytes);
    cloud.sr(&["put", "large", "/large"]);
    let partial = cloud.path("copy/.large.sr-partial");
    let held = || fs::metadata(&partial).map_or(0, |metadata| metadata.len());
    for signal in ["INT", "KILL"] {
        fs::create_dir(cloud.path("copy")).unwrap();
        let mut child = cloud.command(&["get", "/large", "copy"]).stderr(Stdio::null()).spawn().unwrap();
        until(&mut child, || held() > 16 << 20);
        // It may have ended in this moment; then there is nothing to be interrupted.
        drop(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).output().unwrap());
        let status = child.wait().unwrap();
        assert!(!cloud.path("copy/large").exists() || status.success());
        if signal == "INT" && !status.success() {
            assert_eq!(status.code(), Some(130));
            assert!(held() > 0, "what was there is kept");
        }
        cloud.sr(&["get", "--resume", "/large", "copy"]);
        assert!(fs::read(cloud.path("copy/large")).unwrap() == bytes);
        assert_eq!(fs::read_dir(cloud.path("copy")).unwrap().count(), 1);
        fs::remove_dir_all(cloud.path("copy")).unwrap();
    }
}

#[test]
fn an_interrupted_upload_leaves_no_half_file_and_goes_on() {
    let cloud = Cloud::new();
    let bytes = noise(96 << 20, 6);
    cloud.write("large", &bytes);
    let mut child = cloud.command(&["put", "large", "/plain"]).stderr(Stdio::null()).spawn().unwrap();
    until(&mut child, || succeed(cloud.run(&["status", "--json"]), &[]).contains("\"chunks\":1"));
    drop(Command::new("kill").args(["-INT", &child.id().to_string()]).output().unwrap());
    let done = child.wait().unwrap().success();
    cloud.fails(if done { 0 } else { 1 }, &["stat", "/plain"]);

    // One that is to be resumed keeps what is safe, and ends its session.
    let part = "/.large.sr-partial";
    let mut child =
        cloud.command(&["put", "--resume", "large", "/large"]).stderr(Stdio::null()).spawn().unwrap();
    until(&mut child, || cloud.run(&["stat", part]).status.success());
    drop(Command::new("kill").args(["-INT", &child.id().to_string()]).output().unwrap());
    child.wait().unwrap();
    cloud.sr(&["put", "--resume", "large", "/large"]);
    cloud.fails(1, &["stat", part]);
    cloud.sr(&["get", "/large", "copy"]);
    assert!(fs::read(cloud.path("copy")).unwrap() == bytes);
    assert_eq!(cloud.sr(&["xattr", "ls", "/large"]), "");
}

#[test]
fn of_two_uploads_at_once_one_wins_whole() {
    let cloud = Cloud::new();
    let contents = [noise(3_000_000, 1), noise(2_000_000, 2)];
    cloud.write("first", &contents[0]);
    cloud.write("second", &contents[1]);
    for _ in 0..5 {
        let children =
            ["first", "second"].map(|name| cloud.command(&["put", name, "/same"]).spawn().unwrap());
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        cloud.sr(&["get", "/same", "got"]);
        assert!(contents.contains(&fs::read(cloud.path("got")).unwrap()));
    }
}

#[test]
fn a_file_that_is_replaced_comes_whole() {
    let cloud = Cloud::new();
    let contents = [noise(3_000, 1), noise(90_000, 2)];
    cloud.write("first", &contents[0]);
    cloud.write("second", &contents[1]);
    cloud.sr(&["put", "first", "/same"]);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                cloud.sr(&["put", "second", "/same"]);
                cloud.sr(&["put", "first", "/same"]);
            }
        });
        for round in 0..60 {
            let name = format!("got-{round}");
            // What comes is one or the other. It may fail when the old bytes were gone already each time: there always is a file.
            let got = cloud.run(&["get", "/same", &name]);
            assert!(!got.status.success() || contents.contains(&fs::read(cloud.path(&name)).unwrap()));
            let cat = cloud.run(&["cat", "/same"]);
            assert!(!cat.status.success() || contents.contains(&cat.stdout));
            for said in [got.stderr, cat.stderr] {
                let said = String::from_utf8(said).unwrap();
                assert!(said.is_empty() || said.contains("was removed or replaced while"), "{said}");
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn others_may_not() {
    let cloud = Cloud::new();
    cloud.user("alice", 1000);
    let context = cloud.path("alice/context.toml");
    let alice = |arguments: &[&str]| client(&context, cloud.home.path(), arguments).output().unwrap();
    let code = |arguments: &[&str]| alice(arguments).status.code().unwrap();

    cloud.write("open", b"open");
    cloud.write("shut", b"shut");
    cloud.sr(&["put", "open", "shut", "/"]);
    cloud.sr(&["chmod", "600", "/shut"]);
    cloud.sr(&["mkdir", "-m", "700", "/private"]);
    cloud.sr(&["mkdir", "-m", "1777", "/common"]);
    assert_eq!(alice(&["cat", "/open"]).stdout, b"open");
    for denied in [
        &["cat", "/shut"][..],
        &["get", "/shut", "stolen"],
        &["ls", "/private"],
        &["put", "open", "/mine"],
        &["put", "open", "/open"],
        &["rm", "/open"],
        &["mv", "/open", "/common/open"],
        &["chmod", "777", "/open"],
        &["chown", "1000", "/open"],
        &["xattr", "set", "/open", "user.x", "y"],
        &["class", "create", "mine", "--copies", "1"],
    ] {
        assert_eq!(code(denied), 4, "{denied:?}");
    }
    assert!(!cloud.path("stolen").exists());
    // Some done, some not.
    assert_eq!(code(&["cat", "/open", "/shut"]), 1);
    assert_eq!(code(&["put", "-r", "open", "/common"]), 0);
    assert_eq!(cloud.sr(&["ls", "-l", "/common"]).split_whitespace().nth(2), Some("1000"));
    assert_eq!(code(&["rm", "/common/open"]), 0);
}
