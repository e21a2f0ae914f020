//! Bytes in and out of a cluster whose servers misbehave.

use crate::fake::{CHUNK_SIZE, Cluster, noise};
use bytes::Bytes;
use client::{CopyOptions, CreateOptions, ErrorKind, Options, PutOptions};
use std::time::{Duration, Instant};
use types::meta::{Follow, Place};
use types::storage::Durability;
use types::{ChunkId, ChunkIndex, NodeId, Rights, TargetId};

const CHUNK: usize = CHUNK_SIZE as usize;

async fn read_all(client: &client::Client, path: &str) -> client::Result<Vec<u8>> {
    let file = client.open(path, Rights::Read).await?;
    let mut reader = file.reader(0, u64::MAX);
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Puts, reads back, and checks that every change took effect once.
async fn check_round_trips(cluster: &Cluster) {
    let client = cluster.client().await;
    for (number, length) in [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 77].into_iter().enumerate()
    {
        let bytes = noise(length, 1 + number as u64);
        let path = format!("/file{number}");
        client.put(path.as_str(), Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
        assert!(read_all(&client, &path).await.unwrap() == bytes, "{length} bytes");
        let file = client.open(path.as_str(), Rights::Read).await.unwrap();
        let (from, to) = (length / 3, length - length / 4);
        let part = file.read_at(from as u64, (to - from) as u64).await.unwrap().into_bytes();
        assert!(part == bytes[from..to]);
        assert!(file.read_at(length as u64, 10).await.unwrap().is_empty());
    }
    let world = cluster.world();
    assert!(world.counts.effects.values().all(|times| *times == 1));
}

#[tokio::test]
async fn what_was_put_is_read() {
    check_round_trips(&Cluster::start().await).await;
}

#[tokio::test]
async fn lost_answers_change_nothing() {
    let cluster = Cluster::start().await;
    cluster.world().faults.lose_every = 3;
    check_round_trips(&cluster).await;
}

#[tokio::test]
async fn busy_and_unavailable_servers_are_asked_again() {
    let cluster = Cluster::start().await;
    cluster.world().faults.busy_every = 3;
    cluster.world().faults.unavailable_every = 2;
    check_round_trips(&cluster).await;
}

#[tokio::test]
async fn bytes_garbled_on_the_way_are_fetched_again() {
    let cluster = Cluster::start().await;
    cluster.world().faults.garble_every = 3;
    check_round_trips(&cluster).await;
}

#[tokio::test]
async fn a_small_file_takes_two_requests() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let put = |name: &'static str| {
        let client = client.clone();
        async move { client.put(name, Bytes::from_static(b"small"), &PutOptions::default()).await.unwrap() }
    };
    put("/first").await;
    let before = cluster.world().counts.requests;
    put("/second").await;
    assert_eq!(cluster.world().counts.requests - before, 2);
}

#[tokio::test]
async fn a_stream_is_put_whole_or_not_at_all() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(37 * CHUNK + 5, 8);
    let mut uploader = client.uploader("/big", PutOptions::default()).await.unwrap();
    for part in bytes.chunks(33_333) {
        uploader.write(Bytes::copy_from_slice(part)).await.unwrap();
        assert!(client.try_stat("/big", Follow::Yes).await.unwrap().is_none());
    }
    assert_eq!(uploader.progress().0, bytes.len() as u64);
    uploader.finish().await.unwrap();
    assert!(read_all(&client, "/big").await.unwrap() == bytes);
    let mut seen = 0;
    let options = PutOptions::default();
    client.put_stream("/again", &mut &bytes[..], options, |durable| seen = durable).await.unwrap();
    assert_eq!(seen, bytes.len() as u64);
    assert!(read_all(&client, "/again").await.unwrap() == bytes);
}

#[tokio::test]
async fn ids_that_the_server_forgot_are_leased_anew() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    cluster.world().faults.leases_over = 1;
    client.put("/a", Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap();
    assert_eq!(read_all(&client, "/a").await.unwrap(), b"x");
}

#[tokio::test]
async fn capabilities_that_ended_are_renewed() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(10 * CHUNK, 4);
    client.put("/a", Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
    let file = client.open("/a", Rights::ReadWrite).await.unwrap();
    let mut uploader = client.uploader("/b", PutOptions::default()).await.unwrap();
    {
        let mut world = cluster.world();
        world.faults.capabilities_void = world.capabilities_given();
    }
    assert!(file.read_at(0, u64::MAX).await.unwrap().into_bytes() == bytes);
    uploader.write(Bytes::from(bytes.clone())).await.unwrap();
    uploader.finish().await.unwrap();
    assert!(read_all(&client, "/b").await.unwrap() == bytes);
    cluster.world().faults.capabilities_void = u64::MAX;
    assert_eq!(file.read_at(0, 1).await.unwrap_err().kind(), ErrorKind::Denied);
}

/// The chunk of `path` that holds byte `offset`, and the targets that hold it.
fn copies(cluster: &Cluster, path: &str, offset: usize) -> (ChunkId, Vec<TargetId>) {
    let world = cluster.world();
    let (inode, layout) = world.layout_of(&Place::path(path));
    let index = ChunkIndex(u32::try_from(offset / CHUNK).unwrap());
    let targets = world.routing.chain(layout.chain(index)).unwrap().serving().collect();
    (ChunkId { inode, index }, targets)
}

#[tokio::test]
async fn a_bad_copy_is_passed_over_and_two_halves_make_a_whole() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(3 * CHUNK, 5);
    client.put("/a", Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
    let (chunk, targets) = copies(&cluster, "/a", CHUNK + 5);
    cluster.world().bad.push((targets[0], chunk, 5));
    assert!(read_all(&client, "/a").await.unwrap() == bytes);
    // Each copy is bad, but in different blocks.
    cluster.world().bad.push((targets[1], chunk, 40_000));
    assert!(read_all(&client, "/a").await.unwrap() == bytes);
    // Now one block has no good copy.
    cluster.world().bad.push((targets[1], chunk, 7));
    let error = read_all(&client, "/a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let text = error.to_string();
    assert!(text.contains("/a") && text.contains(&format!("byte {}", CHUNK + 7)), "{text}");
    let file = client.open("/a", Rights::Read).await.unwrap();
    let around = file.read_at(0, CHUNK as u64).await.unwrap().into_bytes();
    assert!(around == bytes[..CHUNK]);
}

#[tokio::test]
async fn a_missing_chunk_is_damage_in_a_dense_file_and_a_hole_in_another() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(3 * CHUNK, 5);
    client.put("/a", Bytes::from(bytes), &PutOptions::default()).await.unwrap();
    let (chunk, targets) = copies(&cluster, "/a", CHUNK);
    for target in targets {
        cluster.world().lose_chunk(target, chunk);
    }
    let error = read_all(&client, "/a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains(&format!("byte {CHUNK}")), "{error}");
    let file = client.create("/holes", CreateOptions::default()).await.unwrap();
    file.write_at(4 * CHUNK as u64 + 9, Bytes::from_static(b"end"), Durability::Disk).await.unwrap();
    let read = read_all(&client, "/holes").await.unwrap();
    assert!(read[..4 * CHUNK + 9].iter().all(|byte| *byte == 0) && read.ends_with(b"end"));
}

#[tokio::test]
async fn a_node_that_dies_costs_a_pause() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(60 * CHUNK, 6);
    client.put("/before", Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
    let mut uploader = client.uploader("/during", PutOptions::default()).await.unwrap();
    uploader.write(Bytes::copy_from_slice(&bytes[..30 * CHUNK])).await.unwrap();
    cluster.kill(NodeId(2));
    let world = cluster.world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.lock().unwrap().cut_out(NodeId(2));
    });
    let start = Instant::now();
    assert!(read_all(&client, "/before").await.unwrap() == bytes);
    uploader.write(Bytes::copy_from_slice(&bytes[30 * CHUNK..])).await.unwrap();
    uploader.finish().await.unwrap();
    assert!(read_all(&client, "/during").await.unwrap() == bytes);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(cluster.world().counts.effects.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_node_that_hangs_costs_a_pause() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(60 * CHUNK, 6);
    client.put("/before", Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
    cluster.world().faults.hanging.push(NodeId(2));
    let start = Instant::now();
    assert!(read_all(&client, "/before").await.unwrap() == bytes);
    let read_in = start.elapsed();
    let world = cluster.world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.lock().unwrap().cut_out(NodeId(2));
    });
    client.put("/after", Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
    assert!(read_all(&client, "/after").await.unwrap() == bytes);
    assert!(read_in < Duration::from_secs(4), "{read_in:?}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let mut cluster = Cluster::start().await;
    let options = Options { deadline: Duration::from_millis(700), ..Options::default() };
    let client = cluster.client_with(options.clone()).await;
    assert_eq!(client.stat("/none", Follow::Yes).await.unwrap_err().kind(), ErrorKind::NotFound);
    client.put("/a", Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap();
    cluster.world().faults.hanging = vec![NodeId(1), NodeId(2), NodeId(3)];
    let start = Instant::now();
    let error = client.stat("/a", Follow::Yes).await.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotReachable, "/a"));
    assert!(start.elapsed() < Duration::from_secs(2));
    let context = cluster.context();
    cluster.kill(NodeId(1));
    let options = Options { connect_deadline: Duration::from_millis(300), ..options };
    let error = client::Client::connect(&context, options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReachable);
}

#[tokio::test]
async fn a_copy_moves_no_bytes_within_a_class() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(7 * CHUNK + 9, 2);
    client.put("/a", Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
    let before = cluster.world().counts.bytes_written;
    client.copy("/a", "/b", CopyOptions::default()).await.unwrap();
    assert_eq!(cluster.world().counts.bytes_written, before);
    assert!(read_all(&client, "/b").await.unwrap() == bytes);
    let put = PutOptions { class: Some("other".into()), ..PutOptions::default() };
    client.copy("/a", "/c", CopyOptions { put, ..CopyOptions::default() }).await.unwrap();
    assert!(cluster.world().counts.bytes_written > before);
    assert!(read_all(&client, "/c").await.unwrap() == bytes);
    // A file with holes keeps them.
    let file = client.create("/holes", CreateOptions::default()).await.unwrap();
    file.write_at(4 * CHUNK as u64, Bytes::from_static(b"end"), Durability::Disk).await.unwrap();
    client.copy("/holes", "/d", CopyOptions::default()).await.unwrap();
    assert!(read_all(&client, "/d").await.unwrap() == read_all(&client, "/holes").await.unwrap());
}

#[tokio::test]
async fn appends_follow_each_other_and_have_one_session() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let bytes = noise(5 * CHUNK + 123, 3);
    client.put("/log", Bytes::copy_from_slice(&bytes[..1000]), &PutOptions::default()).await.unwrap();
    let mut appender = client.append("/log").await.unwrap();
    let start = Instant::now();
    assert_eq!(client.append("/log").await.unwrap_err().kind(), ErrorKind::Busy);
    assert!(start.elapsed() < Duration::from_secs(1));
    for (number, part) in bytes[1000..].chunks(7777).enumerate() {
        appender.write(Bytes::copy_from_slice(part)).await.unwrap();
        if number % 5 == 0 {
            appender.flush().await.unwrap();
            assert_eq!(client.stat("/log", Follow::Yes).await.unwrap().length, appender.length());
        }
    }
    appender.close().await.unwrap();
    assert!(read_all(&client, "/log").await.unwrap() == bytes);
    client.append("/log").await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn an_append_that_is_given_up_is_not_in_the_file() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.put("/log", Bytes::from_static(b"first"), &PutOptions::default()).await.unwrap();
    for length in [10, 100 * CHUNK] {
        let mut appender = client.append("/log").await.unwrap();
        cluster.world().faults.hanging = vec![NodeId(1), NodeId(2), NodeId(3)];
        let appending = async {
            appender.write(Bytes::from(noise(length, 1))).await.unwrap();
            appender.flush().await
        };
        assert!(tokio::time::timeout(Duration::from_millis(200), appending).await.is_err());
        cluster.world().faults.hanging.clear();
        assert_eq!(appender.close().await.unwrap_err().kind(), ErrorKind::Broken);
        assert_eq!(read_all(&client, "/log").await.unwrap(), b"first");
    }
    // Nobody waits for the end of a session.
    let mut appender = client.append("/log").await.unwrap();
    appender.write(Bytes::from_static(b"second")).await.unwrap();
    appender.close().await.unwrap();
    assert_eq!(read_all(&client, "/log").await.unwrap(), b"firstsecond");
}

#[tokio::test]
async fn an_append_session_outlives_its_capability_but_not_its_end() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.put("/log", Bytes::new(), &PutOptions::default()).await.unwrap();
    let mut appender = client.append("/log").await.unwrap();
    {
        let mut world = cluster.world();
        world.faults.capabilities_void = world.capabilities_given();
    }
    appender.write(Bytes::from_static(b"one")).await.unwrap();
    appender.flush().await.unwrap();
    assert_eq!(read_all(&client, "/log").await.unwrap(), b"one");
    {
        let mut world = cluster.world();
        world.faults.capabilities_void = world.capabilities_given();
        world.end_sessions();
    }
    appender.write(Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(appender.flush().await.unwrap_err().kind(), ErrorKind::Broken);
    assert_eq!(read_all(&client, "/log").await.unwrap(), b"one");
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_no_name() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let mut uploader = client.uploader("/a", PutOptions::default()).await.unwrap();
    uploader.write(Bytes::from(noise(10 * CHUNK, 1))).await.unwrap();
    drop(uploader);
    cluster.world().faults.hanging = vec![NodeId(2), NodeId(3)];
    let options = PutOptions::default();
    let put = client.put("/b", Bytes::from(noise(10 * CHUNK, 2)), &options);
    assert!(tokio::time::timeout(Duration::from_millis(200), put).await.is_err());
    cluster.world().faults.hanging.clear();
    assert!(client.try_stat("/a", Follow::Yes).await.unwrap().is_none());
    // The lanes of what was given up are used again.
    let bytes = noise(10 * CHUNK, 3);
    client.put("/b", Bytes::from(bytes.clone()), &PutOptions::default()).await.unwrap();
    assert!(read_all(&client, "/b").await.unwrap() == bytes);
    assert!(cluster.world().counts.effects.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_source_that_cannot_be_read_is_a_local_error() {
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("torn tape")))
        }
    }
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let error = client.put_stream("/a", &mut Broken, PutOptions::default(), |_| {}).await.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Local, "/a"));
    assert!(error.to_string().contains("torn tape"));
    assert!(client.try_stat("/a", Follow::Yes).await.unwrap().is_none());
}
