//! Random overwrites and reads of one file.

use super::Place;
use super::data;
use super::sample::{self, Figure, Until, float, mix};
use crate::outcome::Stop;
use crate::text::size::words;
use bytes::Bytes;
use std::time::Duration;
use types::Rights;
use types::storage::Durability;

/// What is measured.
pub(crate) struct Settings {
    pub(crate) size: u64,
    pub(crate) block: u64,
    pub(crate) in_flight: u32,
    pub(crate) time: Duration,
    /// A process on this machine that serves the targets.
    pub(crate) pid: Option<u32>,
}

/// Overwrites random blocks, each on disk on all copies before it counts; then reads random blocks.
pub(crate) async fn run(
    place: &Place,
    settings: Settings,
    show: &mut dyn FnMut(Figure) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let Settings { size, block, in_flight, time, pid } = settings;
    let blocks = size / block.max(1);
    if blocks == 0 {
        return Err(Stop::usage("the file must hold at least one block"));
    }
    data::upload(place, "random", size, &data::pieces()).await?;
    let file = place.client.open(place.path("random").as_str(), Rights::ReadWrite).await?;
    let content = Bytes::from(sample::noise(usize::try_from(block).unwrap_or(usize::MAX), 3));
    let before = written(pid)?;
    let of_write = file.clone();
    let write = sample::run(in_flight, Until::Time(time), move |number| {
        let (file, content) = (of_write.clone(), content.clone());
        async move { file.write_at(mix(number) % blocks * block, content, Durability::Disk).await }
    });
    let sample = write.await?;
    let bytes = block * u64::try_from(sample.latencies.len()).unwrap_or(0);
    let mut figure = sample.figure("random overwrite, durable", in_flight, bytes);
    if let (Some(before), Some(after)) = (before, written(pid)?) {
        let disk = after.saturating_sub(before);
        let amplification = float(disk) / float(bytes).max(1.0);
        figure.note = Some(format!("written to disk: {}, {amplification:.2} per byte sent", words(disk)));
    }
    show(figure)?;
    let read = sample::run(in_flight, Until::Time(time / 2), move |number| {
        let file = file.clone();
        async move { file.read_at(mix(number ^ 0x5eed) % blocks * block, block).await.map(drop) }
    });
    let sample = read.await?;
    let bytes = block * u64::try_from(sample.latencies.len()).unwrap_or(0);
    show(sample.figure("random read, verified", in_flight, bytes))
}

/// Bytes that a process has caused to be written to disks.
fn written(pid: Option<u32>) -> Result<Option<u64>, Stop> {
    let Some(pid) = pid else { return Ok(None) };
    let path = format!("/proc/{pid}/io");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Stop::message(format!("cannot read {path}: {error}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    let bytes = line.and_then(|bytes| bytes.trim().parse().ok());
    bytes.map(Some).ok_or_else(|| Stop::message(format!("{path} says nothing about writes")))
}
