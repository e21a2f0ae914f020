//! One large file, there and back.

use super::Place;
use super::sample::{self, Figure, Sample};
use crate::outcome::Stop;
use bytes::Bytes;
use client::PutOptions;
use std::time::Instant;
use types::Rights;

/// Bytes made before the clock runs, and sent again and again: making them would be measured too.
const STOCK: usize = 64 * 1024 * 1024;
const PIECE: usize = 1024 * 1024;

/// Pieces of content, as many as fit into [`STOCK`].
pub(crate) fn pieces() -> Vec<Bytes> {
    let stock = Bytes::from(sample::noise(STOCK, 1));
    (0..STOCK / PIECE).map(|at| stock.slice(at * PIECE..(at + 1) * PIECE)).collect()
}

/// Uploads `size` bytes, durable with their name when this returns.
pub(crate) async fn upload(place: &Place, name: &str, size: u64, pieces: &[Bytes]) -> Result<(), Stop> {
    let options = PutOptions { class: place.class.clone(), ..PutOptions::default() };
    let mut upload = place.client.uploader(place.path(name).as_str(), options).await?;
    let mut left = size;
    for piece in pieces.iter().cycle() {
        if left == 0 {
            break;
        }
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        upload.write(piece.slice(..take)).await?;
        left -= u64::try_from(take).unwrap_or(left);
    }
    upload.finish().await?;
    Ok(())
}

/// Durable uploads, one after the other.
pub(crate) async fn put(place: &Place, size: u64, repeat: u32) -> Result<Figure, Stop> {
    let pieces = pieces();
    let mut latencies = Vec::new();
    let start = Instant::now();
    for round in 0..repeat {
        let begin = Instant::now();
        upload(place, &format!("put-{round}"), size, &pieces).await?;
        latencies.push(begin.elapsed());
    }
    let sample = Sample { latencies, time: start.elapsed() };
    Ok(sample.figure("put, durable", 1, size * u64::from(repeat)))
}

/// Downloads of a file that was just uploaded.
pub(crate) async fn get(place: &Place, size: u64, repeat: u32) -> Result<Figure, Stop> {
    upload(place, "get", size, &pieces()).await?;
    let mut latencies = Vec::new();
    let start = Instant::now();
    for _ in 0..repeat {
        let begin = Instant::now();
        let file = place.client.open(place.path("get").as_str(), Rights::Read).await?;
        let mut reader = file.reader(0, u64::MAX);
        let mut bytes = 0;
        while let Some(piece) = reader.next().await? {
            bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
        if bytes != size {
            return Err(Stop::message(format!("{bytes} bytes came back of {size}")));
        }
        latencies.push(begin.elapsed());
    }
    let sample = Sample { latencies, time: start.elapsed() };
    Ok(sample.figure("get, verified", 1, size * u64::from(repeat)))
}
