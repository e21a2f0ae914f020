//! Servers that were away come back, and are brought up to date while their chains are written.

use crate::apart::Apart;
use crate::load::{WRITERS, verify, write};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
                let (home, stop, acknowledged) = (cluster.home.path(), &stop, &acknowledged);
                scope.spawn(move || write(home, writer, stop, acknowledged));
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
