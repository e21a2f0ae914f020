//! Random overwrites and reads of one file.

use super::Place;
use super::data;
use super::sample::{self, Figure, Until, float, mix};
use crate::outcome::Stop;
use bytes::Bytes;
use client::Client;
use std::time::Duration;
use types::Rights;
use types::storage::Durability;

/// What is measured.
pub(crate) struct Settings {
    pub(crate) size: u64,
    pub(crate) block: u64,
    pub(crate) in_flight: u32,
    pub(crate) time: Duration,
}

/// Overwrites random blocks, each on disk on all copies before it counts; then reads random blocks.
pub(crate) async fn run(
    place: &Place,
    settings: Settings,
    show: &mut dyn FnMut(Figure) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let Settings { size, block, in_flight, time } = settings;
    let blocks = size / block.max(1);
    if blocks == 0 {
        return Err(Stop::usage("the file must hold at least one block"));
    }
    data::upload(place, "random", size, &data::pieces()).await?;
    let file = place.client.open(place.path("random").as_str(), Rights::ReadWrite).await?;
    let content = Bytes::from(sample::noise(usize::try_from(block).unwrap_or(usize::MAX), 3));
    let before = written(&place.client).await?;
    let of_write = file.clone();
    let write = sample::run(in_flight, Until::Time(time), move |number| {
        let (file, content) = (of_write.clone(), content.clone());
        async move { file.write_at(mix(number) % blocks * block, content, Durability::Disk).await }
    });
    let sample = write.await?;
    let bytes = block * u64::try_from(sample.latencies.len()).unwrap_or(0);
    let disk = written(&place.client).await?.saturating_sub(before);
    let mut figure = sample.figure("random overwrite, durable", in_flight, bytes);
    let amplification = float(disk) / float(bytes).max(1.0);
    figure.note = Some(format!("written by all targets: {disk} bytes, {amplification:.2} per byte sent"));
    show(figure)?;
    let read = sample::run(in_flight, Until::Time(time / 2), move |number| {
        let file = file.clone();
        async move { file.read_at(mix(number ^ 0x5eed) % blocks * block, block).await.map(drop) }
    });
    let sample = read.await?;
    let bytes = block * u64::try_from(sample.latencies.len()).unwrap_or(0);
    show(sample.figure("random read, verified", in_flight, bytes))
}

/// Bytes that all targets have written since their servers started.
async fn written(client: &Client) -> Result<u64, Stop> {
    let status = client.status().await?;
    let known = status.nodes.iter().filter_map(|node| node.status.as_ref().ok());
    Ok(known.flat_map(|status| &status.targets).map(|target| target.bytes_written).sum())
}
