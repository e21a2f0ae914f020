//! Files that are written while something happens, and checked afterwards.

use crate::apart::Apart;
use crate::cloud::{client, noise, succeed};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const WRITERS: usize = 2;

/// The content of a file, from its name's number and how often it was written.
fn content(file: u64, round: u64) -> Vec<u8> {
    noise(usize::try_from(1000 + file % 7 * 40_000).unwrap(), file << 32 | round)
}

/// Writes files to the cluster of this home, some of them again and again, until told to stop; notes what was acknowledged.
pub(crate) fn write(home: &Path, writer: usize, stop: &AtomicBool, acknowledged: &Mutex<BTreeMap<u64, u64>>) {
    let local = home.join(format!("local-{writer}"));
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        // Half of them are new, half were there.
        let file = if round % 2 == 0 { round } else { round % 20 } * 10 + u64::try_from(writer).unwrap();
        std::fs::write(&local, content(file, round)).unwrap();
        let arguments = ["put", &local.display().to_string(), &format!("/f{file}")];
        let output = client(&home.join("admin/context.toml"), home, &arguments).output().unwrap();
        succeed(output, &arguments);
        acknowledged.lock().unwrap().insert(file, round);
    }
}

/// Every acknowledged file is there as it was last written.
pub(crate) fn verify(cluster: &Apart, acknowledged: &BTreeMap<u64, u64>) {
    let copy = cluster.path("copies");
    std::fs::create_dir(&copy).unwrap();
    cluster.sr(&["get", "-r", "/f*", &copy.display().to_string()]);
    for (file, round) in acknowledged {
        let bytes = std::fs::read(copy.join(format!("f{file}"))).unwrap();
        assert!(bytes == content(*file, *round), "/f{file} is not as it was written in round {round}");
    }
    std::fs::remove_dir_all(&copy).unwrap();
}
