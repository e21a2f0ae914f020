//! Many operations at a time, and what came of it.

use crate::jobs::Jobs;
use crate::outcome::Stop;
use crate::text::size;
use serde::Serialize;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A measured workload.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) in_flight: u32,
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) operations_per_second: f64,
    pub(crate) bytes_per_second: f64,
    /// Latencies in milliseconds.
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// What else is to be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Operations that were done: how long each took, and all together.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) time: Duration,
}

impl Sample {
    /// The figure of operations that moved `bytes` in all.
    pub(crate) fn figure(mut self, what: impl Into<String>, in_flight: u32, bytes: u64) -> Figure {
        self.latencies.sort_unstable();
        let operations = u64::try_from(self.latencies.len()).unwrap_or(u64::MAX);
        let seconds = self.time.as_secs_f64().max(1e-9);
        let at = |per_mille: usize| {
            // The smallest latency that so many of a thousand do not exceed.
            let rank = (self.latencies.len() * per_mille).div_ceil(1000).saturating_sub(1);
            let latency = self.latencies.get(rank).copied().unwrap_or_default();
            latency.as_secs_f64() * 1000.0
        };
        Figure {
            what: what.into(),
            in_flight,
            operations,
            bytes,
            seconds,
            operations_per_second: float(operations) / seconds,
            bytes_per_second: float(bytes) / seconds,
            p50_ms: at(500),
            p90_ms: at(900),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1000),
            note: None,
        }
    }
}

/// A count as a fraction; counts beyond 2^53 are not measured here.
#[allow(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<28}", self.what)?;
        if self.bytes > 0 {
            let megabytes = self.bytes_per_second / 1e6;
            write!(f, " {megabytes:>8.1} MB/s ({} in {:.2} s)", size::words(self.bytes), self.seconds)?;
        }
        if self.operations > 1 {
            write!(
                f,
                " {:>9.0} /s ({} in {:.2} s, {} in flight)",
                self.operations_per_second, self.operations, self.seconds, self.in_flight
            )?;
        }
        let Figure { p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = self;
        write!(
            f,
            "  ms: p50 {p50_ms:.2} p90 {p90_ms:.2} p99 {p99_ms:.2} p99.9 {p999_ms:.2} max {max_ms:.2}"
        )?;
        match &self.note {
            Some(note) => write!(f, "  {note}"),
            None => Ok(()),
        }
    }
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After the operations of these numbers.
    Numbers { from: u64, to: u64 },
    /// After this time.
    Time(Duration),
}

/// Runs operations, `in_flight` at a time, each told its number.
pub(crate) async fn run<O, F>(in_flight: u32, until: Until, operation: O) -> Result<Sample, Stop>
where
    O: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = client::Result<()>> + Send,
{
    let (from, to, time) = match until {
        Until::Numbers { from, to } => (from, to, Duration::MAX),
        Until::Time(time) => (0, u64::MAX, time),
    };
    let next = Arc::new(AtomicU64::new(from));
    let lanes = usize::try_from(in_flight).unwrap_or(usize::MAX);
    let mut jobs = Jobs::new(lanes);
    let start = Instant::now();
    for _ in 0..lanes {
        let (next, operation) = (next.clone(), operation.clone());
        jobs.start(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let begin = Instant::now();
                if number >= to || begin - start >= time {
                    return Ok(latencies);
                }
                operation(number).await?;
                latencies.push(begin.elapsed());
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(lane) = jobs.next().await {
        latencies.append(&mut lane?);
    }
    Ok(Sample { latencies, time: start.elapsed() })
}

/// Numbers that look random: SplitMix64.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes that do not compress, different for each `seed`.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
