//! Access control lists on the mount, as the kernel and programs use them.

use crate::cloud::{Cloud, client};
use crate::mount::{Mounted, is_possible};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Does the same things as the same users on a local disk and on a mount, and compares all that anybody can see after each.
const PROGRAM: &str = include_str!("lists.py");

/// Whether somebody may do something, and what a list is, each as it is seen through one mount right after it was changed through the other;
/// also by who has the file open for long and never looks at its name or its attributes again.
const TWO: &str = r#"
import os, random, struct, sys, time
mounts = sys.argv[1:3]
random.seed(1)
ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
def acl(user, mask):
    entries = [(1, 7, -1), (2, user, 5001), (4, 0, -1), (16, mask, -1), (32, 0, -1)]
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *entry) for entry in entries)

os.mkdir(mounts[0] + '/two')
os.chmod(mounts[0] + '/two', 0o755)
open(mounts[0] + '/two/f', 'w').close()
held = [os.open(mount + '/two/f', os.O_RDONLY) for mount in mounts]
def may(mount):
    os.setegid(5001)
    os.seteuid(5001)
    found = [os.access(mount + '/two/f', mode, effective_ids=True) for mode in (4, 2, 1)]
    os.seteuid(0)
    os.setegid(0)
    return found

for number in range(60):
    user, mask = random.randrange(8), random.randrange(8)
    one, other = random.sample([0, 1], 2)
    if number % 3 == 2:
        # Of a list that is there the mode changes the mask.
        user = wanted[0]
        os.chmod(mounts[one] + '/two/f', 0o700 | mask << 3)
    else:
        os.setxattr(mounts[one] + '/two/f', ACCESS, acl(user, mask))
    wanted = (user, mask)
    # What the kernel keeps of others has come and gone, or is still there.
    for mount, file in [(mounts[other], held[other]), (mounts[one], held[one])]:
        assert os.getxattr(file, ACCESS) == acl(user, mask), (number, mount, os.getxattr(file, ACCESS), wanted)
        # The kernel looks past a list whose mask gives nothing to anybody.
        rights = [mask and user & mask & bit != 0 for bit in (4, 2, 1)]
        assert may(mount) == [bool(right) for right in rights], (number, mount, may(mount), wanted)
        assert os.getxattr(mount + '/two/f', ACCESS) == acl(user, mask), (number, mount, wanted)
        assert os.stat(mount + '/two/f').st_mode & 0o777 == 0o700 | mask << 3, (number, mount, wanted)
    if number % 5 == 4:
        time.sleep(random.choice([0.5, 1.1, 1.7, 2.2]))
    if number == 30:
        os.removexattr(mounts[one] + '/two/f', ACCESS)
        for file in held:
            try:
                raise AssertionError(os.getxattr(file, ACCESS))
            except OSError as error:
                assert error.errno == 61, error
"#;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn shell(at: &Path, script: &str) -> String {
    run(Command::new("sh").args(["-ec", script]).current_dir(at))
}

/// A mount that everybody can come to.
fn open_to_all(cloud: &Cloud, name: &str) -> Mounted {
    let mount = Mounted::of(cloud, name, &["--allow-other"]);
    for folder in [cloud.home.path(), &mount.path("")] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    mount
}

#[allow(clippy::print_stderr, reason = "a test that cannot be made says so")]
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("NOT TESTED: who compares what several users may do has to be root to become them");
    }
    is_root
}

#[test]
fn access_control_lists_are_as_on_a_local_disk() {
    if !is_possible() || !is_root() {
        return;
    }
    let cloud = Cloud::new();
    let mount = open_to_all(&cloud, "mnt");
    // In memory, as Linux keeps them itself.
    let local = TempDir::new_in("/dev/shm").unwrap();
    fs::set_permissions(local.path(), Permissions::from_mode(0o755)).unwrap();
    for seed in ["1", "2"] {
        let mut program = Command::new("python3");
        program.args(["-c", PROGRAM]).arg(local.path()).arg(mount.path(""));
        run(program.args([seed, "1500"]));
    }
}

#[test]
fn what_one_mount_changes_of_a_list_the_other_sees_at_once() {
    if !is_possible() || !is_root() {
        return;
    }
    let cloud = Cloud::new();
    let mounts = ["one", "other"].map(|name| open_to_all(&cloud, name));
    run(Command::new("python3").args(["-c", TWO]).args(mounts.each_ref().map(|mount| mount.path(""))));
}

#[test]
fn programs_that_copy_lists_find_them() {
    if !is_possible() || !is_root() {
        return;
    }
    let cloud = Cloud::new();
    let mount = open_to_all(&cloud, "mnt");
    let at = mount.path("");
    shell(
        &at,
        "mkdir p; setfacl -m u:5001:rwx,g:6001:rx,d:u:5001:rwX,d:g:6001:rX p
         umask 077; echo hi > p/file; mkdir p/sub; touch p/sub/other; setfacl -m u:5002:rw,m::r p/sub/other
         setfacl -R -m g:6002:rX p",
    );
    let lists = |folder: &str| shell(&at, &format!("cd {folder}; getfacl -R -n . | grep -v '^# file: \\.$'"));
    let wanted = lists("p");
    for line in ["default:user:5001:rwx", "group:6002:r-x", "user:5002:rw-"] {
        assert!(wanted.contains(line), "{line} in {wanted}");
    }
    // The umask took nothing: the list of the directory has said what is taken.
    assert_eq!(fs::metadata(mount.path("p/file")).unwrap().permissions().mode() & 0o777, 0o674);
    let copies = TempDir::new_in("/dev/shm").unwrap();
    let local = copies.path().display();
    for (name, how) in [
        ("cp", "cp -a p cp".to_owned()),
        ("rsync", "rsync -aA p/ rsync/".to_owned()),
        ("tar", "mkdir tar; tar -C p --acls -cf - . | tar -C tar --acls -xpf -".to_owned()),
        ("back", format!("cp -a p {local}/p; cp -a {local}/p back")),
        (
            "restored",
            "cp -r p restored; (cd p; getfacl -R -n .) > acls; (cd restored; setfacl --restore=../acls)"
                .to_owned(),
        ),
    ] {
        shell(&at, &how);
        assert_eq!(lists(name), wanted, "{name}");
    }
    shell(&at, "setfacl -R -b p; [ -z \"$(getfacl -R -s p)\" ]");
    assert_eq!(fs::metadata(mount.path("p/file")).unwrap().permissions().mode() & 0o777, 0o654);
}

#[test]
fn lists_hold_for_the_command_line_and_for_the_mounts_of_users() {
    if !is_possible() || !is_root() {
        return;
    }
    let cloud = Cloud::new();
    let mount = open_to_all(&cloud, "mnt");
    let at = mount.path("");
    shell(
        &at,
        "mkdir d; setfacl -m u:1000:rwx,d:u:1000:rwx d; echo one > d/f; mkdir closed; chmod 755 closed; echo x > closed/x",
    );
    cloud.user("alice", 1000);
    let alice = |arguments: &[&str]| client(&cloud.path("alice/context.toml"), cloud.home.path(), arguments);
    // What is made by a command inherits as what is made on a mount does.
    let mode = |path: &str| fs::metadata(mount.path(path)).unwrap().permissions().mode() & 0o7777;
    cloud.write("local", b"local");
    for (path, how, wanted) in [
        ("d/touched", &["touch", "/d/touched"][..], 0o664),
        ("d/made", &["mkdir", "/d/made"], 0o775),
        ("d/exact", &["mkdir", "-m", "750", "/d/exact"], 0o750),
        ("d/put", &["put", "local", "/d/put"], 0o644),
        ("d/copied", &["cp", "/d/f", "/d/copied"], 0o664),
    ] {
        cloud.sr(how);
        let list = shell(&at, &format!("getfacl -n {path}"));
        assert!(mode(path) == wanted && list.contains("user:1000:rwx"), "{path} {:o} {list}", mode(path));
    }
    assert!(cloud.sr(&["ls", "-l", "/d/touched"]).starts_with("-rw-rw-r--+ "));
    assert!(cloud.sr(&["stat", "/d/touched"]).contains("Mode: 0664 -rw-rw-r--+"));
    // She may what the list says, by commands and by a mount of hers.
    run(&mut alice(&["touch", "/d/hers"]));
    assert!(!alice(&["touch", "/closed/hers"]).status().unwrap().success());
    let hers = Mounted::by(alice, cloud.path("hers"), &[]);
    fs::write(hers.path("d/f"), "two").unwrap();
    assert_eq!(fs::read_to_string(mount.path("d/f")).unwrap(), "two");
    assert!(fs::read(hers.path("closed/x")).is_ok());
    shell(&at, "setfacl -m u:1000:- closed d/f");
    assert_eq!(File::open(hers.path("closed/x")).unwrap_err().raw_os_error(), Some(libc::EACCES));
    assert_eq!(File::open(hers.path("d/f")).unwrap_err().raw_os_error(), Some(libc::EACCES));
    shell(&at, "setfacl -x u:1000 closed d/f");
    File::open(hers.path("closed/x")).unwrap();
    // Her own she changes herself, and no others'.
    chown(mount.path("d/touched"), Some(1000), Some(1000)).unwrap();
    shell(&hers.path("d"), "setfacl -m u:1234:rw touched; getfacl -n touched | grep -q 'user:1234:rw-'");
    assert!(shell(&at, "getfacl -n d/touched").contains("user:1234:rw-"));
    let refused = Command::new("setfacl").args(["-m", "u:1234:rw"]).arg(hers.path("d/f")).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("Operation not permitted"), "{said}");
}
