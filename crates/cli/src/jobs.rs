//! Work done many at a time.

use crate::outcome::Stop;
use std::future::Future;
use tokio::task::{JoinError, JoinSet};

/// Metadata calls in flight of one command: enough for the servers to gather them into large commits.
pub(crate) const METADATA: usize = 64;

/// Jobs under way, at most so many at a time. Dropping it ends those that are left.
pub(crate) struct Jobs<T> {
    running: JoinSet<Result<T, Stop>>,
    limit: usize,
}

impl<T: Send + 'static> Jobs<T> {
    /// At most `limit` (at least 1) jobs at a time.
    pub(crate) fn new(limit: usize) -> Jobs<T> {
        Jobs { running: JoinSet::new(), limit: limit.max(1) }
    }

    /// Whether another job may start.
    pub(crate) fn has_room(&self) -> bool {
        self.running.len() < self.limit
    }

    /// Starts a job. Ask [`Jobs::has_room`] first.
    pub(crate) fn start(&mut self, job: impl Future<Output = Result<T, Stop>> + Send + 'static) {
        self.running.spawn(job);
    }

    /// What the next job to end gave; `None` when none is left.
    pub(crate) async fn next(&mut self) -> Option<Result<T, Stop>> {
        self.running.join_next().await.map(|ended| ended.unwrap_or_else(|error| Err(broken(&error))))
    }
}

/// Does `work` on each item, at most `limit` at a time. The first [`Stop`] ends it all.
pub(crate) async fn for_each<T, F>(
    items: impl IntoIterator<Item = T>,
    limit: usize,
    work: impl Fn(T) -> F,
) -> Result<(), Stop>
where
    F: Future<Output = Result<(), Stop>> + Send + 'static,
{
    let mut jobs = Jobs::new(limit);
    for item in items {
        while !jobs.has_room() {
            jobs.next().await.unwrap_or(Ok(()))?;
        }
        jobs.start(work(item));
    }
    while let Some(ended) = jobs.next().await {
        ended?;
    }
    Ok(())
}

/// Runs blocking work (local files) where it keeps nobody waiting.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stop> {
    tokio::task::spawn_blocking(work).await.map_err(|error| broken(&error))
}

/// A job panicked: our mistake, which its own message has described.
fn broken(error: &JoinError) -> Stop {
    Stop::message(format!("a job of this command broke: {error}"))
}
