//! The client commands, as a user and a script see them.

use crate::cloud::{Cloud, SR};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// The objects that a command with `--json` printed.
fn objects(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn field<'a>(objects: &'a [Value], name: &str) -> Vec<&'a str> {
    objects.iter().map(|object| object[name].as_str().unwrap()).collect()
}

#[test]
fn names_are_found_by_pattern_unless_they_exist() {
    let cloud = Cloud::new();
    cloud.sr(&["mkdir", "-p", "/d/sub/deep"]);
    for name in ["a.txt", "b.txt", "c.log", "st*r", "star", "[x]", "{a,b}", "sub/d.txt", "sub/deep/e.txt"] {
        cloud.pipe(name.as_bytes(), &format!("/d/{name}"));
    }
    assert_eq!(cloud.sr(&["ls", "/d/*.txt"]), "/d/a.txt\n/d/b.txt\n");
    assert_eq!(cloud.sr(&["ls", "/d/{a,c}.*"]), "/d/a.txt\n/d/c.log\n");
    assert_eq!(cloud.sr(&["ls", "/d/?.log"]), "/d/c.log\n");
    assert_eq!(cloud.sr(&["ls", "/**/*.txt"]).lines().count(), 4);
    // Literally there: not a pattern.
    assert_eq!(cloud.sr(&["cat", "/d/st*r"]), "st*r");
    assert_eq!(cloud.sr(&["cat", "/d/[x]", "/d/{a,b}"]), "[x]{a,b}");
    cloud.sr(&["rm", "/d/st*r"]);
    assert_eq!(cloud.sr(&["cat", "/d/star"]), "star");
    assert!(cloud.fails(1, &["ls", "/d/*.none"]).contains("nothing matches"));
    cloud.sr(&["rm", "/d/*.txt"]);
    assert_eq!(cloud.sr(&["ls", "/d/*.log"]), "/d/c.log\n");
}

#[test]
fn listings_are_for_people_and_for_scripts() {
    let cloud = Cloud::new();
    cloud.sr(&["mkdir", "/d"]);
    cloud.pipe(b"12345", "/d/new\nline");
    cloud.pipe(&[7; 20_000], "/d/plain");
    cloud.sr(&["ln", "-s", "plain", "/d/link"]);
    cloud.sr(&["chmod", "640", "/d/plain"]);

    let long = cloud.sr(&["ls", "-l", "/d/plain", "/d/link"]);
    let lines: Vec<&str> = long.lines().collect();
    assert!(lines[0].starts_with("-rw-r----- 1 0 0 20000 ") && lines[0].ends_with(" /d/plain"), "{long}");
    assert!(
        lines[1].starts_with("lrwxrwxrwx 1 0 0     5 ") && lines[1].ends_with(" /d/link -> plain"),
        "{long}"
    );
    assert!(cloud.sr(&["ls", "-lh", "/d/plain"]).contains(" 20K "));
    assert_eq!(cloud.sr(&["ls", "-0", "/d"]), "/d/link\0/d/new\nline\0/d/plain\0");
    let all = objects(&cloud.sr(&["ls", "-R", "--json", "/"]));
    assert_eq!(field(&all, "path"), ["/d", "/d/link", "/d/new\nline", "/d/plain"]);
    assert_eq!(field(&all, "kind"), ["directory", "symbolic link", "file", "file"]);

    let found = objects(&cloud.sr(&["find", "/", "-type", "f", "-size", "-1K", "--json"]));
    assert_eq!(field(&found, "path"), ["/d/new\nline"]);
    assert_eq!(cloud.sr(&["find", "/d", "-name", "p*", "-size", "+10K"]), "/d/plain\n");
    assert_eq!(cloud.sr(&["find", "/d", "-name", "new*", "-print0"]), "/d/new\nline\0");
    cloud.sr(&["touch", "-d", "2001-02-03 04:05", "/d/plain"]);
    assert_eq!(cloud.sr(&["find", "/d", "-newer", "/d/plain", "-type", "l"]), "/d/link\n");
    assert_eq!(cloud.sr(&["find", "/d", "-newer", "2000-01-01", "-name", "plain"]), "/d/plain\n");
    assert_eq!(cloud.sr(&["find", "/d", "-newer", "2002-01-01", "-name", "plain"]), "");

    let total = objects(&cloud.sr(&["du", "-s", "--json", "/d"]));
    assert_eq!((total[0]["bytes"].as_u64(), total[0]["files"].as_u64()), (Some(20_005), Some(2)));
    assert!(cloud.sr(&["tree", "/"]).contains("└── plain"));
    let space = &objects(&cloud.sr(&["df", "--json"]))[0];
    assert!(space["capacity"].as_u64() > space["used"].as_u64());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let cloud = Cloud::new();
    cloud.pipe(&b"line\n".repeat(2_000_000), "/many");
    for arguments in [&["cat", "/many"][..], &["completion", "bash"]] {
        let mut child =
            cloud.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
}

#[test]
fn the_tree_is_changed_as_asked() {
    let cloud = Cloud::new();
    cloud.pipe(b"a", "/a");
    cloud.fails(1, &["mkdir", "/x/y"]);
    cloud.sr(&["mkdir", "-p", "/x/y/z"]);
    cloud.fails(1, &["mkdir", "/x"]);
    cloud.sr(&["mv", "/a", "/x"]);
    assert_eq!(cloud.sr(&["cat", "/x/a"]), "a");
    cloud.fails(1, &["mv", "/x", "/x/y"]);
    cloud.fails(1, &["mv", "/x/a", "/none/"]);
    cloud.fails(1, &["cp", "/x", "/copy"]);
    cloud.fails(1, &["cp", "-r", "/x", "/x/y"]);
    cloud.fails(1, &["cp", "/x/a", "/x/a"]);
    cloud.sr(&["cp", "-r", "/x", "/copy"]);
    assert_eq!(cloud.sr(&["cat", "/copy/a"]), "a");
    cloud.pipe(b"b", "/b");
    cloud.sr(&["mv", "-n", "/b", "/copy/a"]);
    cloud.sr(&["cp", "-n", "/b", "/copy/a"]);
    assert_eq!(cloud.sr(&["cat", "/copy/a"]), "a");

    cloud.sr(&["ln", "/b", "/b2"]);
    cloud.sr(&["ln", "-s", "b", "/soft"]);
    cloud.fails(1, &["ln", "/b", "/b2"]);
    cloud.sr(&["ln", "-f", "/copy/a", "/b2"]);
    cloud.sr(&["ln", "-f", "/copy/a", "/b2"]);
    assert_eq!(cloud.sr(&["cat", "/b2", "/soft"]), "ab");
    cloud.sr(&["touch", "-c", "/none"]);
    cloud.fails(1, &["stat", "/none"]);
    cloud.sr(&["touch", "/--", "/b"]);

    cloud.fails(1, &["rm", "/x"]);
    cloud.fails(1, &["rm", "-r", "/"]);
    cloud.fails(1, &["rm", "-rf", "/x/.."]);
    cloud.fails(1, &["rm", "/none"]);
    cloud.sr(&["rm", "-f", "/none", "/soft"]);
    assert_eq!(cloud.sr(&["cat", "/b"]), "b", "the link went, not what it leads to");
    cloud.sr(&["rm", "-r", "/x", "/copy"]);
    assert_eq!(cloud.sr(&["ls", "/"]), "--\nb\nb2\n");

    cloud.sr(&["chmod", "u+x,go-r", "/b"]);
    assert!(cloud.sr(&["ls", "-l", "/b"]).starts_with("-rwx------"));
    cloud.sr(&["mkdir", "-p", "/t/u"]);
    cloud.pipe(b"", "/t/u/f");
    cloud.sr(&["chmod", "-R", "a-rwx,u=rwX", "/t"]);
    assert!(cloud.sr(&["ls", "-l", "/t/u/f"]).starts_with("-rw-------"));
    assert!(cloud.sr(&["ls", "-ld", "/t/u"]).starts_with("drwx------"));
    cloud.sr(&["chown", "-R", "5:6", "/t"]);
    assert_eq!(objects(&cloud.sr(&["stat", "--json", "/t/u/f"]))[0]["gid"], 6);
    cloud.fails(2, &["chown", "somebody", "/t"]);
    cloud.fails(2, &["chmod", "rwx", "/t"]);
}

#[test]
fn attributes_checksums_places_and_classes() {
    let cloud = Cloud::new();
    cloud.pipe(b"hello\n", "/f");
    cloud.sr(&["xattr", "set", "/f", "user.a", "-1"]);
    assert_eq!(cloud.sr(&["xattr", "get", "/f", "user.a"]), "-1");
    cloud.fails(1, &["xattr", "set", "--create", "/f", "user.a", "2"]);
    let line = &objects(&cloud.sr(&["xattr", "ls", "--json", "/f"]))[0];
    assert_eq!((line["name"].as_str(), line["value"].as_str()), (Some("user.a"), Some("-1")));
    cloud.sr(&["xattr", "rm", "/f", "user.a"]);
    cloud.fails(1, &["xattr", "get", "/f", "user.a"]);

    let hash = blake3::hash(b"hello\n").to_hex();
    assert_eq!(cloud.sr(&["checksum", "/f"]), format!("{hash}  /f\n"));
    cloud.pipe(b"", "/odd\n\\name");
    let list = cloud.sr(&["checksum", "-r", "/"]);
    cloud.write("list", list.as_bytes());
    assert_eq!(
        cloud.sr(&["checksum", "--check", "list"]).lines().filter(|line| line.ends_with(": OK")).count(),
        2
    );
    cloud.pipe(b"other\n", "/f");
    assert!(cloud.fails(1, &["checksum", "-qc", "list"]).contains("/f"));

    let chunk = &objects(&cloud.sr(&["locate", "--json", "--verify", "/f"]))[0];
    assert_eq!((chunk["length"].as_u64(), chunk["copies"].as_array().unwrap().len()), (Some(6), 2));
    cloud.sr(&["class", "create", "small", "--copies", "1", "--chunk-size", "64K", "--domain", "target"]);
    cloud.sr(&["mkdir", "/small"]);
    cloud.sr(&["class", "set", "small", "/small"]);
    cloud.pipe(&[1; 200_000], "/small/f");
    assert_eq!(objects(&cloud.sr(&["locate", "--json", "/small/f"])).len(), 4);
    assert_eq!(objects(&cloud.sr(&["class", "explain", "--json", "/small/new"]))[0]["set_by"], "/small");
    cloud.sr(&["class", "set", "--inherit", "/small"]);
    assert_eq!(objects(&cloud.sr(&["class", "explain", "--json", "/small"]))[0]["name"], "default");
    assert!(cloud.fails(1, &["class", "show", "none"]).contains("default"));
    cloud.fails(2, &["class", "create", "odd", "--chunk-size", "100K"]);

    // Three targets on one host.
    cloud.sr(&["class", "create", "three", "--copies", "3"]);
    let why = cloud.fails(1, &["class", "create", "four", "--copies", "4"]);
    assert!(why.contains("3 targets") && why.contains("--force"), "{why}");
    let why = cloud.fails(1, &["class", "create", "hosts", "--copies", "2", "--domain", "host"]);
    assert!(why.contains("3 targets") && why.contains("1 copies"), "{why}");
    assert!(!cloud.sr(&["class", "ls"]).contains("hosts"));
    let forced = cloud.run(&["class", "create", "four", "--copies", "4", "--force"]);
    assert!(forced.status.success());
    assert!(String::from_utf8_lossy(&forced.stderr).contains("3 targets"), "{forced:?}");
    assert!(cloud.sr(&["class", "ls"]).contains("four"));

    cloud.sr(&["chown", "1234:root", "/f"]);
    let owners = |cloud: &Cloud| {
        let stat = objects(&cloud.sr(&["stat", "--json", "/f"])).remove(0);
        (stat["uid"].as_u64(), stat["gid"].as_u64())
    };
    assert_eq!(owners(&cloud), (Some(1234), Some(0)));
    cloud.sr(&["chown", "root:5678", "/f"]);
    assert_eq!(owners(&cloud), (Some(0), Some(5678)));
    let why = cloud.fails(2, &["chown", "no-such-user", "/f"]);
    assert!(why.contains("no-such-user"), "{why}");
}

#[test]
fn parts_and_pipes() {
    let cloud = Cloud::new();
    cloud.pipe(b"0123456789", "/digits");
    assert_eq!(cloud.sr(&["cat", "--offset", "3", "--length", "4", "/digits"]), "3456");
    assert_eq!(cloud.sr(&["cat", "--offset", "99", "/digits"]), "");
    assert_eq!(cloud.sr(&["cat", "/digits", "/digits"]), "01234567890123456789");
    cloud.fails(1, &["cat", "/"]);
    cloud.fails(1, &["pipe", "-n", "/digits"]);
    cloud.fails(2, &["pipe", "/directory/"]);
    cloud.sr(&["pipe", "-a", "/log"]);
    for _ in 0..2 {
        let local = cloud.write("line", b"line\n");
        let status =
            cloud.command(&["pipe", "-a", "/log"]).stdin(fs::File::open(local).unwrap()).status().unwrap();
        assert!(status.success());
    }
    assert_eq!(cloud.sr(&["cat", "/log"]), "line\nline\n");
}

#[test]
fn state_and_measures() {
    let cloud = Cloud::new();
    let status = objects(&cloud.sr(&["status", "--json", "--damage"]));
    assert_eq!(status[0]["health"], "healthy", "{}", status[0]);
    assert_eq!(status.iter().filter(|object| object["record"] == "target").count(), 3);
    for workload in [
        &["put", "--size", "3M", "--repeat", "1"][..],
        &["get", "--size", "3M", "--repeat", "1"],
        &["small", "--files", "50"],
        &["metadata", "--files", "200", "--every", "100"],
        &["random", "--size", "1M", "--seconds", "1"],
    ] {
        let figures = objects(&cloud.sr(&[&["bench", "--json"], workload].concat()));
        assert!(!figures.is_empty());
        for figure in figures {
            assert!(
                figure["operations"].as_u64().unwrap() > 0 && figure["p50_ms"].as_f64().unwrap() > 0.0,
                "{figure}"
            );
        }
    }
    assert_eq!(cloud.sr(&["ls", "/"]), "", "nothing stays");
    cloud.sr(&["bench", "local", "--size", "1M", "--seconds", "1"]);
}

#[test]
fn no_cluster_no_success() {
    let home = tempfile::TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(SR);
        command
            .args(arguments)
            .env("HOME", home.path())
            .env_remove("SR_CONTEXT")
            .env_remove("XDG_CONFIG_HOME");
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, errors) = run(&["ls"]);
    assert_eq!(code, 3);
    assert!(errors.contains("context.toml") && errors.contains("sr up"), "{errors}");
    let context = home.path().join("context.toml");
    // Port 1 of loopback: nobody listens there.
    fs::write(
        &context,
        "servers = [\"127.0.0.1:1\"]\n[security]\nmode = \"plain\"\nname = \"root\"\nuser = 0\ngroups = [0]\n",
    )
    .unwrap();
    let (code, errors) = run(&["--context", context.to_str().unwrap(), "ls"]);
    assert_eq!(code, 3, "{errors}");
    assert!(errors.contains("127.0.0.1:1"), "{errors}");
    assert_eq!(run(&["frobnicate"]).0, 2);
    assert_eq!(run(&["put", "alone"]).0, 2);
    assert_eq!(run(&["--help"]).0, 0);
    assert_eq!(run(&["version"]).0, 0);
}
