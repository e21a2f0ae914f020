//! The scrub: each target's chunks are read from the disk and checked within a period, in order, evenly, beside clients.
//!
//! A pass takes half a period at most, and one begins half a period after the one before began: so no byte waits longer
//! than a period for its turn. `docs/operating/health.md` has the invariants (HE-1 to HE-3).

use super::Storage;
use super::target::Target;
use chunk::{ScrubRecord, StoreError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use types::scrub::{Difference, ScrubOrder, ScrubState, ScrubStatus};
use types::{ChainId, ChunkId, TargetId, Time};

/// Bytes of a chunk looked at in one go.
pub(super) const PIECE: u32 = 1024 * 1024;
/// Looks in one go: small chunks are many.
const BATCH: usize = 64;
/// Chunks listed at a time.
const PAGE: usize = 512;
/// A small target is not read slower than this: its pass ends the sooner.
const RATE_MIN: u64 = 1024 * 1024;
/// How often a pass's progress is kept: what is verified again after a crash.
const KEEP: Duration = Duration::from_secs(10);
/// How often the clock is looked at while nothing is due. Orders wake the scrub at once.
const LOOK: Duration = Duration::from_secs(30);

/// How targets are scrubbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Everything is verified once in this time.
    pub period: Duration,
    /// Bytes a second of one target at most.
    pub limit: u64,
}

impl Default for ScrubOptions {
    fn default() -> ScrubOptions {
        // A disk of 16 TB needs 27 MB a second.
        ScrubOptions { period: Duration::from_secs(14 * 86_400), limit: 64 << 20 }
    }
}

/// What is done for a target's health.
#[derive(Default)]
pub(super) struct Care {
    record: Mutex<ScrubRecord>,
    /// Rises with each order: who works by an older one stops.
    orders: AtomicU64,
    pub(super) scrub: Notify,
    pub(super) heal: Notify,
    pub(super) compare: Notify,
    /// What could not be healed shall be tried again at once.
    pub(super) heal_all: AtomicBool,
    /// Blocks healed since the start.
    pub(super) healed: AtomicU64,
    pub(super) differences: Mutex<BTreeMap<(ChainId, ChunkId, TargetId), Difference>>,
}

impl Care {
    fn record(&self) -> MutexGuard<'_, ScrubRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    /// Reads how far the scrub was. Blocks.
    pub(super) fn load_scrub(&self, now: Time) -> Result<(), StoreError> {
        // Nothing was written before the store was made: until then all of it counts as verified.
        let fresh = ScrubRecord { since: now, ..ScrubRecord::default() };
        *self.care.record() = self.store().scrub_record()?.unwrap_or(fresh);
        Ok(())
    }

    /// The record with the totals as they are now.
    fn scrub_record(&self) -> ScrubRecord {
        let mut record = self.care.record().clone();
        record.found += self.store().found();
        record.healed += self.care.healed.load(Ordering::Relaxed);
        record
    }

    /// Keeps the record. Blocks.
    pub(super) fn keep_scrub(&self) {
        if let Err(error) = self.store().keep_scrub(&self.scrub_record()) {
            tracing::warn!(target = %self.id, %error, "the scrub's progress was not kept");
        }
    }

    /// Does what was ordered, durably. Blocks.
    pub(super) fn order_scrub(&self, order: ScrubOrder) {
        {
            let mut record = self.care.record();
            match order {
                ScrubOrder::Show => return,
                ScrubOrder::Heal => {
                    self.care.heal_all.store(true, Ordering::SeqCst);
                    self.care.heal.notify_one();
                    self.care.compare.notify_one();
                    return;
                }
                ScrubOrder::Start => {
                    (record.started, record.position, record.bytes) = (None, None, 0);
                    (record.hurried, record.paused) = (true, false);
                }
                ScrubOrder::Pause => record.paused = true,
                ScrubOrder::Resume => record.paused = false,
                ScrubOrder::Limit(rate) => record.limit = Some(rate.max(1)),
            }
            self.care.orders.fetch_add(1, Ordering::SeqCst);
        }
        self.keep_scrub();
        self.care.scrub.notify_one();
        self.care.heal.notify_one();
    }

    /// How the scrub is.
    pub(super) fn scrub_status(&self, options: &ScrubOptions, now: Time) -> ScrubStatus {
        let record = self.scrub_record();
        let (bad, more) = self.store().bad_count();
        let state = match (&record, self.failed()) {
            (_, Some(_)) => ScrubState::Failed,
            (ScrubRecord { paused: true, .. }, None) => ScrubState::Paused,
            (ScrubRecord { started: Some(_), .. } | ScrubRecord { hurried: true, .. }, None) => {
                ScrubState::Running
            }
            (ScrubRecord { .. }, None) => ScrubState::Resting,
        };
        let differences = self.care.differences.lock().unwrap_or_else(PoisonError::into_inner).len();
        ScrubStatus {
            target: self.id,
            state,
            hurried: record.hurried,
            position: record.position,
            bytes: record.bytes,
            live: self.store().status().live,
            bytes_total: record.bytes_total,
            found: record.found,
            healed: record.healed,
            bad,
            more,
            differences: differences as u64,
            passes: record.passes,
            since: record.since,
            started: record.started,
            finished: record.finished,
            period: options.period,
            limit: record.limit.unwrap_or(options.limit),
            overdue: now > record.since.after(options.period),
        }
    }
}

impl Storage {
    pub(super) fn now(&self) -> Time {
        Time(self.options.clock.wall())
    }

    /// Gives the scrub of some targets (none named: of all) an order, and tells how it is then. Blocks.
    pub fn scrub(&self, targets: &[TargetId], order: ScrubOrder) -> Vec<ScrubStatus> {
        let chosen =
            self.targets.values().filter(|target| targets.is_empty() || targets.contains(&target.id));
        let ordered = chosen.map(|target| {
            target.order_scrub(order);
            target.scrub_status(&self.options.scrub, self.now())
        });
        ordered.collect()
    }
}

/// What is to be done next.
enum Next {
    /// Nothing, for so long.
    Rest(Duration),
    Begin,
    GoOn,
}

/// Scrubs a target until the server stops.
pub(super) async fn run(storage: Arc<Storage>, target: Arc<Target>) {
    let mut stop = storage.stop.subscribe();
    let work = async {
        loop {
            let rest = step(&storage, &target).await;
            // An order wakes it.
            let _ = tokio::time::timeout(rest, target.care.scrub.notified()).await;
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// Does what is due; answers how long to rest.
async fn step(storage: &Arc<Storage>, target: &Arc<Target>) -> Duration {
    let orders = target.care.orders.load(Ordering::SeqCst);
    let due = next(&target.care.record(), storage.now(), storage.options.scrub.period);
    match due {
        _ if target.failed().is_some() => return LOOK,
        Next::Rest(rest) => return rest.min(LOOK),
        Next::Begin => {
            target.store().begin_pass();
            let mut record = target.care.record();
            (record.started, record.position, record.bytes) = (Some(storage.now()), None, 0);
        }
        Next::GoOn => {}
    }
    let mut pass = Pass { storage, target, orders, kept: Instant::now(), owed: 0, worked: Duration::ZERO };
    match pass.run().await {
        Ok(Ended::Whole) => {
            {
                let mut record = target.care.record();
                if target.care.orders.load(Ordering::SeqCst) != orders {
                    return Duration::ZERO;
                }
                target.store().end_pass();
                let started = record.started.take().unwrap_or_else(|| storage.now());
                (record.since, record.finished) = (started, Some(storage.now()));
                (record.position, record.hurried) = (None, false);
                record.passes += 1;
                tracing::info!(target = %target.id, bytes = record.bytes, "scrubbed");
            }
            blocking(target, Target::keep_scrub).await;
            target.care.heal.notify_one();
            target.care.compare.notify_one();
            Duration::ZERO
        }
        Ok(Ended::Ordered) => Duration::ZERO,
        Err(error) => {
            tracing::warn!(target = %target.id, %error, "cannot scrub now");
            LOOK
        }
    }
}

fn next(record: &ScrubRecord, now: Time, period: Duration) -> Next {
    let due = match record.finished {
        // The first pass of a store's life.
        None => record.since,
        Some(_) => record.since.after(period / 2),
    };
    match record {
        ScrubRecord { paused: true, .. } => Next::Rest(LOOK),
        ScrubRecord { started: Some(_), .. } => Next::GoOn,
        ScrubRecord { hurried: true, .. } => Next::Begin,
        ScrubRecord { .. } if now >= due => Next::Begin,
        ScrubRecord { .. } => Next::Rest(until(now, due)),
    }
}

fn until(now: Time, then: Time) -> Duration {
    u64::try_from(then.0.saturating_sub(now.0)).map_or(Duration::ZERO, Duration::from_nanos)
}

/// How a stretch of a pass ended.
enum Ended {
    Whole,
    /// There was an order.
    Ordered,
}

/// A part of a chunk to be looked at.
#[derive(Clone, Copy)]
struct Look {
    chain: ChainId,
    chunk: ChunkId,
    offset: u32,
    length: u32,
    /// Nothing of the chunk comes after it.
    ends: bool,
}

struct Pass<'a> {
    storage: &'a Arc<Storage>,
    target: &'a Arc<Target>,
    orders: u64,
    kept: Instant,
    /// Bytes read, and the time that took, since the last rest.
    owed: u64,
    worked: Duration,
}

impl Pass<'_> {
    /// Goes on from where the record says.
    async fn run(&mut self) -> Result<Ended, StoreError> {
        loop {
            let position = self.target.care.record().position;
            let page = blocking(self.target, move |target| page(target, position)).await?;
            let Some((chain, chunks)) = page else { return Ok(Ended::Whole) };
            let mut looks = Vec::new();
            for (chunk, length) in chunks {
                // An empty chunk is one look, too.
                for offset in (0..length.max(1)).step_by(PIECE as usize) {
                    let piece = PIECE.min(length - offset);
                    looks.push(Look { chain, chunk, offset, length: piece, ends: offset + piece == length });
                    let bytes: u32 = looks.iter().map(|look| look.length).sum();
                    if (bytes >= PIECE || looks.len() >= BATCH) && !self.look(&mut looks).await? {
                        return Ok(Ended::Ordered);
                    }
                }
            }
            if !self.look(&mut looks).await? {
                return Ok(Ended::Ordered);
            }
        }
    }

    /// Looks, and rests. False: there was an order.
    async fn look(&mut self, looks: &mut Vec<Look>) -> Result<bool, StoreError> {
        let passed = looks.iter().rfind(|look| look.ends).map(|look| (look.chain, look.chunk));
        let work = std::mem::take(looks);
        let begun = Instant::now();
        let (bytes, new) = blocking(self.target, move |target| look(target, &work)).await?;
        self.worked += begun.elapsed();
        self.owed += bytes;
        if new > 0 {
            self.target.care.heal.notify_one();
        }
        {
            let mut record = self.target.care.record();
            if self.target.care.orders.load(Ordering::SeqCst) != self.orders {
                return Ok(false);
            }
            record.bytes += bytes;
            record.bytes_total += bytes;
            record.position = passed.or(record.position);
        }
        if self.kept.elapsed() >= KEEP {
            self.kept = Instant::now();
            blocking(self.target, Target::keep_scrub).await;
        }
        self.rest().await;
        Ok(self.target.failed().is_none())
    }

    /// Waits as long as the pace wants, and at least as long as the disk worked: half of it is the clients'.
    async fn rest(&mut self) {
        let rate = self.rate();
        let paced = Duration::from_secs_f64(self.owed as f64 / rate as f64);
        let rest = paced.saturating_sub(self.worked).max(self.worked);
        if rest < Duration::from_millis(5) {
            return; // Timers are not finer. It is owed.
        }
        (self.owed, self.worked) = (0, Duration::ZERO);
        let orders = async {
            while self.target.care.orders.load(Ordering::SeqCst) == self.orders {
                self.target.care.scrub.notified().await;
            }
        };
        // The next look sees an order.
        let _ = tokio::time::timeout(rest, orders).await;
    }

    /// Bytes a second: so that the pass ends in time.
    fn rate(&self) -> u64 {
        let options = &self.storage.options.scrub;
        let live = self.target.store().status().live;
        let record = self.target.care.record();
        let limit = record.limit.unwrap_or(options.limit).max(1);
        let started = record.started.unwrap_or_else(|| self.storage.now());
        if record.hurried {
            return limit;
        }
        // A tenth is kept for surprises.
        let end = started.after(options.period / 2 * 9 / 10);
        let left = until(self.storage.now(), end).as_secs().max(1);
        (live.saturating_sub(record.bytes) / left).max(RATE_MIN).min(limit)
    }
}

/// The next chunks after `position`, of one chain, with their lengths. `None`: there are none.
#[allow(clippy::type_complexity, reason = "said above")]
fn page(
    target: &Target,
    position: Option<(ChainId, ChunkId)>,
) -> Result<Option<(ChainId, Vec<(ChunkId, u32)>)>, StoreError> {
    let mut chains: Vec<ChainId> =
        target.store().positions().into_iter().map(|(chain, _, _)| chain).collect();
    chains.sort();
    for chain in chains {
        let after = match position {
            Some((at, _)) if chain < at => continue,
            Some((at, chunk)) if chain == at => Some(chunk),
            Some(_) | None => None,
        };
        let chunks = target.store().chunks(chain, after, PAGE)?;
        if !chunks.is_empty() {
            let lengths = chunks.into_iter().map(|(chunk, state)| (chunk, state.length));
            return Ok(Some((chain, lengths.collect())));
        }
    }
    Ok(None)
}

/// Looks at parts of chunks: bytes read, and bad places that nobody knew.
fn look(target: &Target, looks: &[Look]) -> Result<(u64, u64), StoreError> {
    let mut all = (0, 0);
    for look in looks {
        let verified = target.store().verify(look.chain, look.chunk, look.offset, look.length)?;
        if let Some(verified) = verified {
            all = (all.0 + verified.read, all.1 + verified.new);
        }
    }
    Ok(all)
}

pub(super) async fn blocking<T: Send + 'static>(
    target: &Arc<Target>,
    work: impl FnOnce(&Target) -> T + Send + 'static,
) -> T {
    let target = target.clone();
    crate::blocking::run(move || work(&target)).await
}

#[cfg(test)]
mod tests;
