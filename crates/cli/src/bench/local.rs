//! The disk below, measured without the cluster: what the other figures are compared with.

use super::sample::{self, Figure, Sample, mix};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// A copy with fsync, and random overwrites with `O_DSYNC`, one at a time.
pub(crate) fn run(directory: &Path, size: u64, block: u64, time: Duration) -> io::Result<Vec<Figure>> {
    let name = |what: &str| directory.join(format!(".sr-bench-{}-{what}", std::process::id()));
    let (source, copy) = (name("source"), name("copy"));
    let result = measure(&source, &copy, size, block, time);
    // Whatever came of it, nothing stays; what was never made cannot be removed.
    drop(fs::remove_file(&source));
    drop(fs::remove_file(&copy));
    result
}

fn measure(source: &Path, copy: &Path, size: u64, block: u64, time: Duration) -> io::Result<Vec<Figure>> {
    const PIECE: usize = 1024 * 1024;
    let piece = sample::noise(PIECE, 1);
    let mut file = File::create_new(source)?;
    let mut left = size;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.write_all(&piece[..take])?;
        left -= u64::try_from(take).unwrap_or(left);
    }
    file.sync_all()?;
    let begin = Instant::now();
    io::copy(&mut File::open(source)?, &mut File::create_new(copy)?)?;
    File::open(copy)?.sync_all()?;
    let copied = Sample { latencies: vec![begin.elapsed()], time: begin.elapsed() };
    let copied = copied.figure("local copy and fsync", 1, size);

    let blocks = size / block.max(1);
    if blocks == 0 {
        return Err(io::Error::other("the file must hold at least one block"));
    }
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(copy)?;
    let content = sample::noise(usize::try_from(block).unwrap_or(PIECE), 3);
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let begin = Instant::now();
        let number = u64::try_from(latencies.len()).unwrap_or(0);
        file.write_all_at(&content, mix(number) % blocks * block)?;
        latencies.push(begin.elapsed());
    }
    let bytes = block * u64::try_from(latencies.len()).unwrap_or(0);
    let random = Sample { latencies, time: start.elapsed() }.figure("local random O_DSYNC", 1, bytes);
    Ok(vec![copied, random])
}
