//! Programs that people keep their work with, on the mount: databases that are killed, version control, compilers, copies of trees.

use crate::cloud::Cloud;
use crate::mount::{Mounted, is_possible};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a database works before it is killed.
const WORK: Duration = Duration::from_secs(3);

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn mounted(more: &[&str]) -> Option<(Cloud, Mounted)> {
    is_possible().then(|| {
        let cloud = Cloud::new();
        let mount = Mounted::of(&cloud, "mnt", more);
        (cloud, mount)
    })
}

/// A PostgreSQL server with its data in the mount, and its socket elsewhere. Nothing listens but that socket.
struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    home: TempDir,
}

impl Postgres {
    fn new(mount: &Mounted) -> Postgres {
        let versions =
            fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed by `cargo xtask test`");
        let programs = versions.map(|version| version.unwrap().path().join("bin")).max().unwrap();
        let user = run(Command::new("id").args(["-u", "postgres"])).trim().parse().unwrap();
        let (data, home) = (mount.path("data"), TempDir::new().unwrap());
        fs::create_dir(&data).unwrap();
        for directory in [&data, home.path()] {
            chown(directory, Some(user), Some(user)).unwrap();
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let postgres = Postgres { programs, data, home };
        run(postgres.command("initdb").args(["--auth=trust", "--data-checksums", "-D"]).arg(&postgres.data));
        postgres
    }

    /// One of its programs, as its user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
        command.arg(self.programs.join(program)).current_dir(self.home.path());
        command.env("PGHOST", self.home.path()).env("PGDATA", &self.data).env("HOME", self.home.path());
        command.stdin(Stdio::null());
        command
    }

    fn start(&self) {
        let options = format!("-k {} -h ''", self.home.path().display());
        let log = self.home.path().join("log");
        // It goes on with this process's output otherwise.
        let mut start = self.command("pg_ctl");
        start.args(["start", "--wait", "--timeout=100", "-o", &options, "-l"]).arg(&log);
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(log).unwrap_or_default());
    }

    fn pid(&self) -> String {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }

    /// `kill -9` of all its processes.
    fn kill(&self) {
        let pid = self.pid();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &pid]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        // Some children may have ended by themselves.
        let _ = Command::new("kill").arg("-9").arg(&pid).args(children.split_whitespace()).status();
        fs::remove_file(self.data.join("postmaster.pid")).unwrap();
        for entry in fs::read_dir(self.home.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with(".s.PGSQL") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn ask(&self, query: &str) -> String {
        run(self.command("psql").args(["-At", "bench", "-c", query])).trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists() {
            // It may be down by itself.
            let _ = self.command("pg_ctl").args(["stop", "-m", "immediate"]).output();
        }
    }
}

#[test]
fn postgresql_is_killed_under_load_and_has_all_that_it_committed() {
    let Some((cloud, mount)) = mounted(&["--allow-other"]) else { return };
    // Its user comes there, too.
    fs::set_permissions(cloud.home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let postgres = Postgres::new(&mount);
    postgres.start();
    run(postgres.command("createdb").arg("bench"));
    run(postgres.command("pgbench").args(["-i", "-q", "-s", "1", "bench"]));
    for _ in 0..3 {
        let mut load = postgres.command("pgbench");
        load.args(["-n", "-c", "4", "-j", "2", "-T", "60", "bench"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let load = load.spawn().unwrap();
        std::thread::sleep(WORK); // Long enough to be in the midst of it.
        postgres.kill();
        let told = String::from_utf8(load.wait_with_output().unwrap().stdout).unwrap();
        let told = told.lines().find_map(|line| line.split_once("actually processed: ")).unwrap().1;
        let told: u64 = told.split('/').next().unwrap().trim().parse().unwrap();
        assert!(told > 0, "nothing was done");
        postgres.start();
        let sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), \
                    (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)";
        assert_eq!(postgres.ask(sums), "t|t");
        let counted: u64 = postgres.ask("select count(*) from pgbench_history").parse().unwrap();
        assert!(counted >= told, "{told} were told to be done, {counted} are");
        postgres.ask(
            "truncate pgbench_history; update pgbench_accounts set abalance = 0 where abalance <> 0; \
                      update pgbench_branches set bbalance = 0",
        );
    }
    run(postgres.command("pgbench").args(["-n", "-c", "4", "-j", "2", "-t", "50", "bench"]));
    postgres.ask("create extension amcheck");
    run(postgres.command("pg_amcheck").arg("bench"));
    run(postgres.command("pg_ctl").args(["stop", "--wait"]));
    run(&mut postgres.command("pg_checksums"));
}

/// Puts rows into a database, one transaction each, and says which are in it.
pub(crate) const SQLITE: &str = r"
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=30)
base.execute('pragma journal_mode=' + sys.argv[2])
base.execute('pragma synchronous=full')
base.execute('create table if not exists t (id integer primary key, a int, b int)')
base.commit()
if sys.argv[3:] == ['check']:
    print(base.execute('pragma integrity_check').fetchone()[0],
          *base.execute('select coalesce(max(id), 0), count(*), coalesce(sum(a = b), 0) from t').fetchone())
    sys.exit()
number = base.execute('select coalesce(max(id), 0) from t').fetchone()[0]
while True:
    number += 1
    with base:
        base.execute('insert into t values (?, ?, 0)', (number, number))
        base.execute('update t set b = a where id = ?', (number,))
    print(number, flush=True)
";

#[test]
fn sqlite_is_killed_in_the_midst_of_transactions_and_has_all_that_it_committed() {
    let Some((_cloud, mount)) = mounted(&[]) else { return };
    for mode in ["delete", "wal"] {
        let file = mount.path(mode);
        let program = |more: &[&str]| {
            let mut python = Command::new("python3");
            python.args(["-c", SQLITE]).arg(&file).arg(mode).args(more);
            python
        };
        for _ in 0..3 {
            let mut writer = program(&[]).stdout(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(WORK); // Long enough to be in the midst of it.
            writer.kill().unwrap();
            let told = String::from_utf8(writer.wait_with_output().unwrap().stdout).unwrap();
            let told: u64 = told.lines().last().expect("nothing was done").parse().unwrap();
            let found = run(&mut program(&["check"]));
            let [is_well, last, count, whole] = found.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("{found}")
            };
            assert_eq!((is_well, count, whole), ("ok", last, last));
            assert!(last.parse::<u64>().unwrap() >= told, "{told} was told to be in it, {last} is the last");
        }
    }
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn a_project_is_cloned_and_built() {
    let Some((_cloud, mount)) = mounted(&[]) else { return };
    let (clone, source) = (mount.path("clone"), format!("file://{}", checkout().display()));
    run(Command::new("git").args(["clone", "--quiet", "--depth", "1", &source]).arg(&clone));
    let git = |arguments: &[&str]| run(Command::new("git").arg("-C").arg(&clone).args(arguments));
    assert_eq!(git(&["status", "--porcelain"]), "");
    git(&["fsck", "--strict"]);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--offline", "--quiet", "-p", "types"]).current_dir(&clone);
    // What the tests of this project are built with is not for that one.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_")) {
        if name != "CARGO_HOME" {
            cargo.env_remove(name);
        }
    }
    run(cargo.env("CARGO_TARGET_DIR", mount.path("target")).env_remove("RUSTFLAGS"));
    // Nothing of the source has changed by that, and it is packed anew.
    assert_eq!(git(&["status", "--porcelain"]), "");
    git(&["gc", "--quiet"]);
    git(&["fsck", "--strict"]);
}

#[test]
fn a_tree_that_is_copied_in_and_out_is_the_same() {
    let Some((cloud, mount)) = mounted(&[]) else { return };
    let (source, back) = (format!("{}/", checkout().join("crates").display()), cloud.path("back"));
    let rsync = |arguments: &[&str]| run(Command::new("rsync").args(arguments));
    let (inside, outside) = (format!("{}/", mount.path("tree").display()), format!("{}/", back.display()));
    rsync(&["-a", &source, &inside]);
    rsync(&["-a", &inside, &outside]);
    for copy in [&inside, &outside] {
        assert_eq!(
            rsync(&["-a", "--dry-run", "--itemize-changes", "--checksum", "--delete", &source, copy]),
            ""
        );
    }
}

#[test]
fn fio_reads_what_it_wrote() {
    let Some((_cloud, mount)) = mounted(&["--cache", "16M"]) else { return };
    for (direct, engine) in [("0", "psync"), ("1", "psync"), ("0", "mmap")] {
        let mut fio = Command::new("fio");
        fio.args([
            "--name=f",
            "--size=32m",
            "--numjobs=2",
            "--rw=randrw",
            "--bsrange=4k-128k",
            "--verify=crc32c",
        ]);
        fio.args(["--verify_fatal=1", "--do_verify=1", "--minimal", &format!("--direct={direct}")]);
        fio.arg(format!("--ioengine={engine}")).arg(format!("--directory={}", mount.path(".").display()));
        run(fio.current_dir(mount.path("..")));
    }
}
