//! Many small files.

use super::Place;
use super::sample::{self, Figure, Sample, Until};
use crate::outcome::Stop;
use bytes::Bytes;
use client::{Parents, PutOptions, WalkOptions};
use std::sync::Arc;
use std::time::Instant;
use types::{Mode, Rights};

/// Files of one directory: as in a large source tree's larger ones.
const PER_DIRECTORY: u64 = 1000;

/// Puts, lists, gets and removes `files` files of `size` bytes.
pub(crate) async fn run(
    place: &Place,
    files: u64,
    size: u64,
    in_flight: u32,
    show: &mut dyn FnMut(Figure) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let base = place.path("small");
    let client = &place.client;
    client.make_directory(base.as_str(), Mode(0o700), Parents::Require).await?;
    for directory in 0..files.div_ceil(PER_DIRECTORY) {
        client.make_directory(format!("{base}/{directory}").as_str(), Mode(0o700), Parents::Require).await?;
    }
    let path = {
        let base = base.clone();
        Arc::new(move |number: u64| format!("{base}/{}/{number}", number / PER_DIRECTORY))
    };
    let all = Until::Numbers { from: 0, to: files };
    let content = Bytes::from(sample::noise(usize::try_from(size).unwrap_or(usize::MAX), 2));
    let options = Arc::new(PutOptions { class: place.class.clone(), ..PutOptions::default() });

    let (of_client, of_path, of_content) = (client.clone(), path.clone(), content.clone());
    let put = sample::run(in_flight, all, move |number| {
        let (client, path, content, options) =
            (of_client.clone(), of_path(number), of_content.clone(), options.clone());
        async move { client.put(path.as_str(), content, &options).await.map(drop) }
    });
    show(put.await?.figure("small put, durable", in_flight, size * files))?;

    let begin = Instant::now();
    let mut walk = client.walk(base.as_str(), WalkOptions::default());
    let mut found = 0;
    while let Some(page) = walk.next().await {
        found += page?.entries.len();
    }
    let listed = Sample { latencies: vec![begin.elapsed()], time: begin.elapsed() };
    let mut figure = listed.figure("list", 1, 0);
    figure.note = Some(format!("{found} entries"));
    show(figure)?;

    let (of_client, of_path) = (client.clone(), path.clone());
    let get = sample::run(in_flight, all, move |number| {
        let (client, path, content) = (of_client.clone(), of_path(number), content.clone());
        async move {
            let file = client.open(path.as_str(), Rights::Read).await?;
            let pieces = file.read_at(0, size).await?;
            assert!(pieces.into_bytes() == content, "{path} came back different");
            Ok(())
        }
    });
    show(get.await?.figure("small get, verified", in_flight, size * files))?;

    let begin = Instant::now();
    client.remove_tree(base.as_str()).await?;
    let removed = Sample { latencies: vec![begin.elapsed()], time: begin.elapsed() };
    show(removed.figure("remove the tree", 1, 0))
}
