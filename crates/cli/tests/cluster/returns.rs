//! Servers that were away come back, and are brought up to date while their chains are written.

use crate::apart::Apart;
use crate::cloud::{noise, succeed};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WRITERS: usize = 2;

/// The content of a file, from its name's number and how often it was written.
fn content(file: u64, round: u64) -> Vec<u8> {
    noise(usize::try_from(1000 + file % 7 * 40_000).unwrap(), file << 32 | round)
}

/// Writes files, some of them again and again, until told to stop; notes what was acknowledged.
fn write(cluster: &Apart, writer: usize, stop: &AtomicBool, acknowledged: &Mutex<BTreeMap<u64, u64>>) {
    let local = cluster.path(&format!("local-{writer}"));
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        // Half of them are new, half were there.
        let file = if round % 2 == 0 { round } else { round % 20 } * 10 + u64::try_from(writer).unwrap();
        std::fs::write(&local, content(file, round)).unwrap();
        let arguments = ["put", &local.display().to_string(), &format!("/f{file}")];
        succeed(cluster.run(&arguments), &arguments);
        acknowledged.lock().unwrap().insert(file, round);
    }
}

/// Every acknowledged file is there as it was last written.
fn verify(cluster: &Apart, acknowledged: &BTreeMap<u64, u64>) {
    let copy = cluster.path("copies");
    std::fs::create_dir(&copy).unwrap();
    cluster.sr(&["get", "-r", "/f*", &copy.display().to_string()]);
    for (file, round) in acknowledged {
        let bytes = std::fs::read(copy.join(format!("f{file}"))).unwrap();
        assert!(bytes == content(*file, *round), "/f{file} is not as it was written in round {round}");
    }
    std::fs::remove_dir_all(&copy).unwrap();
}

#[test]
fn killed_servers_come_back_while_files_are_written() {
    let mut cluster = Apart::new(3, 2);
    let acknowledged = Mutex::new(BTreeMap::new());
    for server in 0..3 {
        let stop = AtomicBool::new(false);
        // Killed while files are written, away until it was cut out, back while files are written.
        let mut away = std::mem::take(&mut cluster.storage);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (cluster, stop, acknowledged) = (&cluster, &stop, &acknowledged);
                scope.spawn(move || write(cluster, writer, stop, acknowledged));
            }
            let before = acknowledged.lock().unwrap().len();
            while acknowledged.lock().unwrap().len() < before + 10 {
                std::thread::yield_now();
            }
            away[server].kill();
            while cluster.degraded() == 0 {
                std::thread::sleep(Duration::from_millis(100)); // It is given up when its lease is over.
            }
            away[server] = cluster.storage_again(server);
            cluster.wait_whole();
            stop.store(true, Ordering::Relaxed);
        });
        cluster.storage = away;
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    verify(&cluster, &acknowledged);
    // Each copy is good: whichever server is missing, the others have everything.
    for server in 0..3 {
        cluster.storage[server].kill();
        verify(&cluster, &acknowledged);
        cluster.start_storage(server, &[]);
        cluster.wait_whole();
    }
}
