//! The whole process is killed under load, again and again: everything it acknowledged is there and right.

use crate::cloud::{Cloud, noise};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KILLS: u64 = 50;
const WRITERS: u64 = 3;

/// Contents by path: the file's bytes are the noise of a seed.
type Acknowledged = Arc<Mutex<BTreeMap<String, (usize, u64)>>>;

/// Writers put files of all sizes (and put over them, and remove them) until they are stopped; what was acknowledged is
/// written down. One that a kill left unanswered may be there or not, old or new; it is not counted on.
fn write_until(
    cloud: &Cloud,
    round: u64,
    stop: &Arc<AtomicBool>,
    all: &Acknowledged,
    answered: &Arc<AtomicU64>,
) -> Vec<std::thread::JoinHandle<()>> {
    (0..WRITERS)
        .map(|writer| {
            let (stop, all, answered) = (stop.clone(), all.clone(), answered.clone());
            let directory = cloud.path(&format!("writer-{writer}"));
            std::fs::create_dir_all(&directory).unwrap();
            let context = cloud.context();
            let home = cloud.home.path().to_owned();
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    let seed = round * 1_000_000 + writer * 10_000 + count;
                    // Mostly small ones, some of several pieces, names that come again.
                    let length = match seed % 7 {
                        0 => 3_000_000,
                        1 => 0,
                        n => usize::try_from(n * 4099).unwrap(),
                    };
                    let path = format!("/w{writer}-{}", count % 11);
                    let local = directory.join("file");
                    std::fs::write(&local, noise(length, seed)).unwrap();
                    let local = local.display().to_string();
                    let removes = seed % 5 == 4;
                    let arguments: Vec<&str> =
                        if removes { vec!["rm", "-f", &path] } else { vec!["put", &local, &path] };
                    let mut command = crate::cloud::client(&context, &home, &arguments);
                    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                    all.lock().unwrap().remove(&path);
                    // A client that the kill leaves waiting is ended too: what it asked for is not counted on.
                    let done = loop {
                        match child.try_wait().unwrap() {
                            Some(status) => break status.success(),
                            None if stop.load(Ordering::SeqCst) => {
                                child.kill().unwrap();
                                child.wait().unwrap();
                                break false;
                            }
                            None => std::thread::yield_now(),
                        }
                    };
                    if done {
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                    if done && !removes {
                        all.lock().unwrap().insert(path, (length, seed));
                    } else if !done {
                        return;
                    }
                    count += 1;
                }
            })
        })
        .collect()
}

#[test]
fn nothing_acknowledged_is_lost_in_fifty_kills() {
    let mut cloud = Cloud::new();
    let all: Acknowledged = Arc::default();
    let answered = Arc::new(AtomicU64::new(0));
    for round in 0..KILLS {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = write_until(&cloud, round, &stop, &all, &answered);
        // The kill point: after some answers, however slow the machine is, and then anywhere within the next operations,
        // spread by the golden ratio so that rounds differ.
        let goal = answered.load(Ordering::SeqCst) + round % 4 + 1;
        let begin = Instant::now();
        while answered.load(Ordering::SeqCst) < goal {
            assert!(begin.elapsed() < Duration::from_secs(60), "nothing is answered");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis((round * 247) % 100));
        cloud.server().kill();
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().unwrap();
        }
        cloud.start();
        if round % 10 == 9 || round == KILLS - 1 {
            verify(&cloud, &all);
        }
    }
}

fn verify(cloud: &Cloud, all: &Acknowledged) {
    let copy = cloud.path("copy");
    let _ = std::fs::remove_dir_all(&copy);
    let to = copy.display().to_string();
    std::fs::create_dir_all(&copy).unwrap();
    let all = all.lock().unwrap();
    let paths: Vec<&str> = all.keys().map(String::as_str).collect();
    if paths.is_empty() {
        return;
    }
    cloud.sr(&[&["get"][..], &paths, &[&to]].concat());
    for (path, (length, seed)) in all.iter() {
        let found = std::fs::read(copy.join(&path[1..])).unwrap();
        assert!(found == noise(*length, *seed), "{path} is not what was put");
    }
}

#[test]
fn an_orderly_stop_keeps_everything_too() {
    let mut cloud = Cloud::new();
    let bytes = noise(2_000_000, 3);
    let local = cloud.write("local", &bytes);
    cloud.sr(&["put", &local.display().to_string(), "/file"]);
    assert!(cloud.server().interrupt(), "Ctrl-C did not end it well");
    cloud.start();
    assert!(cloud.run(&["cat", "/file"]).stdout == bytes);
}

#[test]
fn a_second_process_in_the_same_directory_is_refused() {
    let cloud = Cloud::new();
    let directory = cloud.path("cloud").display().to_string();
    let errors = cloud.fails(1, &["up", "--dir", &directory, "--listen", "127.0.0.1:0"]);
    assert!(errors.contains("in use"), "{errors}");
}

#[test]
fn metrics_are_for_those_with_a_certificate() {
    let mut cloud = Cloud::new();
    cloud.sr(&["ls", "/"]);
    let greeting = cloud.server().greeting.join("\n");
    let address = greeting.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    let file = |name: &str| cloud.path(&format!("cloud/{name}")).display().to_string();
    let url = format!("https://{address}/metrics");
    let curl = |more: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command
            .args(["--silent", "--http1.1", "--max-time", "10", "--cacert", &file("authority.pem")])
            .args(more);
        command.arg(&url).output().unwrap()
    };
    let (certificate, key) = (file("admin.pem"), file("admin.key"));
    let page = curl(&["--cert", &certificate, "--key", &key]);
    let text = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(text.contains("steradian_requests_total"), "{text} {}", String::from_utf8_lossy(&page.stderr));
    assert!(text.contains("steradian_chain_members"), "{text}");
    assert!(!curl(&[]).status.success(), "served to somebody without a certificate");
}
