//! Files that are written while something happens, and checked afterwards.

use crate::apart::{Apart, until};
use crate::cloud::{client, noise, succeed};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const WRITERS: usize = 2;

/// The content of a file, from its name's number and how often it was written.
fn content(file: u64, round: u64) -> Vec<u8> {
    noise(usize::try_from(1000 + file % 7 * 40_000).unwrap(), file << 32 | round)
}

/// Writes files to the cluster of this home, some of them again and again, until told to stop; notes what was acknowledged.
fn write(home: &Path, writer: usize, stop: &AtomicBool, acknowledged: &Mutex<BTreeMap<u64, u64>>) {
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

/// Runs `work` while files are written, of which some are there before it; notes what was acknowledged, in it too.
pub(crate) fn under_load(
    cluster: &mut Apart,
    acknowledged: &Mutex<BTreeMap<u64, u64>>,
    work: impl FnOnce(&mut Apart),
) {
    let stop = AtomicBool::new(false);
    let home = cluster.home.path().to_owned();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (home, stop) = (&home, &stop);
            scope.spawn(move || write(home, writer, stop, acknowledged));
        }
        // The writers must be told to stop whatever happens: they are waited for.
        let worked = catch_unwind(AssertUnwindSafe(|| {
            let before = acknowledged.lock().unwrap().len();
            until("ten more files are written", || acknowledged.lock().unwrap().len() >= before + 10);
            work(cluster);
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = worked {
            resume_unwind(panic);
        }
    });
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
