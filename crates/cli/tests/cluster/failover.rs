//! One of three storage servers is killed, or stopped and woken, while files are written and read.

use crate::apart::Apart;
use crate::cloud::{noise, succeed};
use std::time::{Duration, Instant};

/// Lease 2 s, margin 0.5 s, a heartbeat of 0.5 s: see `docs/protocols/cluster.md`. What an operation may take longer when
/// a server dies under it; the machine is busy, so that this is no measurement.
const PAUSE_MAX: Duration = Duration::from_secs(20);

fn survives(fail: impl Fn(&mut Apart, usize)) {
    let mut cluster = Apart::new(3, 2);
    let bytes = noise(150 * 1024 * 1024, 1);
    let local = cluster.path("large");
    std::fs::write(&local, &bytes).unwrap();
    let local = local.display().to_string();
    cluster.sr(&["put", &local, "/before"]);

    // During a put.
    let start = Instant::now();
    let put = cluster.command(&["put", &local, "/during"]).spawn().unwrap();
    fail(&mut cluster, 0);
    succeed(put.wait_with_output().unwrap(), &["put"]);
    assert!(start.elapsed() < PAUSE_MAX, "the put took {:?}", start.elapsed());

    // What was there before, and what was written meanwhile, from the two that are left.
    for path in ["/before", "/during"] {
        let start = Instant::now();
        let copy = cluster.path("copy").display().to_string();
        cluster.sr(&["get", path, &copy]);
        assert!(std::fs::read(&copy).unwrap() == bytes, "{path} came back wrong");
        std::fs::remove_file(&copy).unwrap();
        assert!(start.elapsed() < PAUSE_MAX, "the get took {:?}", start.elapsed());
    }
}

#[test]
fn a_killed_server_costs_a_pause() {
    survives(|cluster, server| cluster.storage[server].kill());
}

#[test]
fn a_stopped_server_costs_a_pause() {
    survives(|cluster, server| cluster.storage[server].signal("STOP"));
}

#[test]
fn a_get_goes_on_when_a_server_is_killed() {
    let mut cluster = Apart::new(3, 2);
    let bytes = noise(150 * 1024 * 1024, 2);
    let local = cluster.path("large");
    std::fs::write(&local, &bytes).unwrap();
    cluster.sr(&["put", &local.display().to_string(), "/file"]);
    let copy = cluster.path("copy");
    let get = cluster.command(&["get", "/file", &copy.display().to_string()]).spawn().unwrap();
    cluster.storage[1].kill();
    succeed(get.wait_with_output().unwrap(), &["get"]);
    assert!(std::fs::read(&copy).unwrap() == bytes);
}

/// A server that was stopped while the others went on wakes up: what it holds is old, and it must not serve it.
#[test]
fn a_woken_server_serves_nothing_old() {
    let cluster = Apart::new(3, 2);
    let put = |cluster: &Apart, seed: u64| {
        let local = cluster.path("file");
        let mut bytes = noise(300_000, seed);
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        std::fs::write(&local, &bytes).unwrap();
        for name in 0..20 {
            cluster.sr(&["put", &local.display().to_string(), &format!("/f{name}")]);
        }
        bytes
    };
    put(&cluster, 1);
    cluster.storage[0].signal("STOP");
    let newest = put(&cluster, 2);
    cluster.storage[0].signal("CONT");
    for _ in 0..3 {
        for name in 0..20 {
            let output = cluster.run(&["cat", &format!("/f{name}")]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == newest, "/f{name} is old or wrong");
        }
    }
    let newer = put(&cluster, 3);
    assert!(cluster.run(&["cat", "/f0"]).stdout == newer);
}

/// The metadata server is killed and comes back: storage servers and clients find it again by themselves.
#[test]
fn the_metadata_server_may_go_and_come_back() {
    let mut cluster = Apart::new(3, 2);
    let local = cluster.path("file");
    std::fs::write(&local, noise(1_000_000, 5)).unwrap();
    cluster.sr(&["put", &local.display().to_string(), "/file"]);
    cluster.restart_meta();
    assert!(cluster.run(&["cat", "/file"]).stdout == noise(1_000_000, 5));
    cluster.sr(&["put", &local.display().to_string(), "/file2"]);
}
