//! Servers that were away come back, and are brought up to date while their chains are written.

use crate::apart::{Apart, until};
use crate::load::{under_load, verify};
use std::collections::BTreeMap;
use std::sync::Mutex;

#[test]
fn killed_servers_come_back_while_files_are_written() {
    let mut cluster = Apart::new(3, 2);
    let acknowledged = Mutex::new(BTreeMap::new());
    for server in 0..3 {
        // Killed while files are written, away until it was cut out, back while files are written.
        under_load(&mut cluster, &acknowledged, |cluster| {
            cluster.storage[server].kill();
            until("the server that was killed is given up", || cluster.degraded() > 0);
            cluster.start_storage(server, &[]);
            cluster.wait_whole();
        });
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
