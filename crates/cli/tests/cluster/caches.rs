//! What a mount keeps of what it read.

use crate::apart::Apart;
use crate::cloud::noise;
use crate::mount::{Mounted, is_possible};
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// Reads all of a file that the kernel has nothing of, at a pace that every disk keeps up with.
fn read(mount: &Mounted, length: usize) -> Vec<u8> {
    let file = File::open(mount.path("file")).unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    let mut bytes = vec![0; length];
    for (index, piece) in bytes.chunks_mut(MIB).enumerate() {
        file.read_exact_at(piece, (index * MIB) as u64).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    bytes
}

#[test]
fn what_memory_has_no_room_for_is_on_the_disk_of_the_host_as_long_as_nobody_writes_it() {
    if !is_possible() {
        return;
    }
    let cluster = Apart::new(1, 1);
    let kept = cluster.path("kept");
    let at = |name: &str| cluster.path(name);
    let more =
        ["--cache", "4M", "--disk-cache", "64M", "--disk-cache-dir", kept.to_str().unwrap(), "--allow-other"];
    let mount = Mounted::by(|arguments| cluster.command(arguments), at("mnt"), &more);
    let other = Mounted::by(|arguments| cluster.command(arguments), at("other"), &[]);
    let mut bytes = noise(20 * MIB + 1000, 1);
    fs::write(other.path("file"), &bytes).unwrap();
    assert!(read(&mount, bytes.len()) == bytes);
    // Without the servers that have the bytes; each time it is opened anew.
    let again = |mount: Mounted, wanted: Vec<u8>| {
        cluster.storage[0].signal("STOP");
        let (done, is_done) = channel();
        let reading = std::thread::spawn(move || {
            let bytes = read(&mount, wanted.len());
            let _ = done.send(());
            (mount, bytes == wanted)
        });
        let answered = is_done.recv_timeout(Duration::from_secs(4));
        cluster.storage[0].signal("CONT");
        let (mount, is_same) = reading.join().unwrap();
        assert!(is_same);
        (mount, answered.is_ok())
    };
    let (mount, is_kept) = again(mount, bytes.clone());
    assert!(is_kept, "the servers were needed");
    // What is written elsewhere is not what was kept.
    cluster.wait_serving();
    let change = noise(3 * MIB, 2);
    let file = File::options().write(true).open(other.path("file")).unwrap();
    file.write_all_at(&change, 7 * MIB as u64 + 5).unwrap();
    drop(file);
    bytes[7 * MIB + 5..][..change.len()].copy_from_slice(&change);
    assert!(read(&mount, bytes.len()) == bytes);
    let (mount, is_kept) = again(mount, bytes);
    assert!(is_kept, "the servers were needed for what was written");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 0, "the cache has no name");
    drop((mount, other));
}
