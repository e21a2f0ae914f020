//! The writer: one thread that appends what waits to the log, in order, in groups, and applies it to the index.

use crate::apply::{Payload, apply};
use crate::keeper::Checkpoint;
use crate::locks::read;
use crate::queue::{Append, Job, Waiter, WhenDone};
use crate::record::{self, Body, RECORD_ALIGN, Seat};
use crate::segment::{Account, FIRST_RECORD, SegmentId};
use crate::shared::{Progress, Shared, StoreError};
use crate::syncer::{Positions, Written};
use bytes::Bytes;
use env::File;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::{ChainId, Version};

/// A group is written when it has this many bytes or records: later ones wait for it, earlier ones share its cost.
const GROUP_BYTES: usize = 4 << 20;
const GROUP_RECORDS: usize = 512;
/// How often, and how long apart, a write is tried again on a full disk: space may be on its way.
const FULL_RETRIES: u32 = 20;
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// Where the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    pub(crate) segment: SegmentId,
    pub(crate) position: u32,
    /// Of the last record.
    pub(crate) sequence: u64,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    file: Arc<dyn File>,
    end: LogEnd,
    /// The version that comes next, per chain.
    next: HashMap<ChainId, Version>,
    /// Rewinds, per chain that had any.
    lines: HashMap<ChainId, u64>,
    group: Group,
    /// Written to the active segment, but the disk was not told.
    unstarted: u64,
    bytes_since_checkpoint: u64,
    records_since_checkpoint: u64,
}

/// Records that are written together.
#[derive(Default)]
struct Group {
    /// Headers, gaps and padding, one record after the other.
    headers: Vec<u8>,
    records: Vec<Grouped>,
    bytes: usize,
}

struct Grouped {
    /// In `headers`.
    header_end: usize,
    payload: Bytes,
    position: u32,
    body: Body,
    done: WhenDone,
    durable: bool,
}

impl Writer {
    /// A writer that goes on behind `end`, in a new segment.
    pub(crate) fn start(shared: Arc<Shared>, end: LogEnd) -> Result<Writer, StoreError> {
        let (segment, file) = with_room(&shared, || shared.keeper.next_segment(&shared.segments))
            .map_err(|error| StoreError(format!("new segment: {error}")))?;
        let next = |chain: Arc<crate::index::Chain>| (chain.id, read(&chain.state).history.version.next());
        let next = shared.index.chains().into_iter().map(next).collect();
        let mut writer = Writer {
            shared,
            file: file.clone(),
            end,
            next,
            lines: HashMap::new(),
            group: Group::default(),
            unstarted: 0,
            bytes_since_checkpoint: 0,
            records_since_checkpoint: 0,
        };
        writer.enter(segment, file);
        writer.write_group()?;
        Ok(writer)
    }

    /// The thread's work.
    pub(crate) fn run(&mut self) {
        let shared = self.shared.clone();
        while let Some(jobs) = shared.queue.take() {
            if self.jobs(jobs).is_err() {
                return;
            }
        }
    }

    /// Does what waits now. `false` when nothing does.
    pub(crate) fn step(&mut self) -> bool {
        let jobs = self.shared.queue.take_now();
        // A failure has been told to all who wait.
        !jobs.is_empty() && self.jobs(jobs).is_ok()
    }

    fn jobs(&mut self, jobs: VecDeque<Job>) -> Result<(), StoreError> {
        let mut jobs = jobs.into_iter();
        let result = jobs.by_ref().try_for_each(|job| self.job(job)).and_then(|()| self.write_group());
        if let Err(error) = &result {
            self.shared.fail(&error.0);
            let group = std::mem::take(&mut self.group);
            group.records.into_iter().for_each(|record| record.done.fail(error));
            jobs.for_each(|job| job.fail(error));
        }
        result
    }

    fn job(&mut self, job: Job) -> Result<(), StoreError> {
        match job {
            Job::Append(append) => self.append(append),
            Job::Freeze(answer) => {
                self.write_group()?;
                let (generation, frozen) = self.shared.index.freeze();
                let closing = self.shared.segments.close_books(self.end.segment);
                self.bytes_since_checkpoint = 0;
                self.records_since_checkpoint = 0;
                // Nobody listens any more when the store is being closed.
                let _ = answer.send(Checkpoint { generation, frozen, closing, end: self.end });
                Ok(())
            }
            Job::Rotate => {
                self.write_group()?;
                self.rotate()
            }
            Job::Flush(waiter) => {
                self.write_group()?;
                self.shared.syncs.flush(waiter);
                Ok(())
            }
        }
    }

    /// Adds a record to the group.
    fn append(&mut self, append: Append) -> Result<(), StoreError> {
        if let Err(error) = self.check_order(&append.body) {
            append.done.fail(&error);
            return Err(error);
        }
        let body = types::wire::encode(&append.body);
        let payload_length = u32::try_from(append.payload.len()).expect("payloads are bounded");
        let position = self.next_position();
        let size = record::size_at(position, body.len(), payload_length);
        let limit = self.shared.options.segment_size;
        if u64::from(position) + u64::from(size) > u64::from(limit) && self.holds_something() {
            self.write_group()?;
            self.rotate()?;
        }
        self.place(append, &body, payload_length);
        if self.group.bytes >= GROUP_BYTES || self.group.records.len() >= GROUP_RECORDS {
            self.write_group()?;
        }
        Ok(())
    }

    /// Each chain's updates come in the order of their versions.
    fn check_order(&mut self, body: &Body) -> Result<(), StoreError> {
        match body {
            Body::Update { chain, version, .. } => {
                let next = self.next.entry(*chain).or_insert(Version::ZERO.next());
                if version != next {
                    return Err(StoreError(format!("chain {chain}: update {version} came, {next} was due")));
                }
                *next = version.next();
            }
            Body::InstallDone { chain, through, .. } | Body::InstallEnd { chain, through, .. } => {
                self.next.insert(*chain, through.next());
            }
            Body::Rewind { chain, through } => {
                let next = self.next.entry(*chain).or_insert(Version::ZERO.next());
                if through.next() > *next {
                    return Err(StoreError(format!("chain {chain}: rewind to {through}, {next} is due")));
                }
                *next = through.next();
            }
            Body::ForgetChunks { chain, .. } | Body::Forget { chain } => {
                self.next.remove(chain);
            }
            Body::Begin { .. }
            | Body::Install(_)
            | Body::InstallRemoved { .. }
            | Body::Move { .. }
            | Body::Heal { .. }
            | Body::Restore { .. } => {}
        }
        Ok(())
    }

    fn group_end(&self) -> u32 {
        self.end.position + u32::try_from(self.group.bytes).expect("groups are bounded")
    }

    fn next_position(&self) -> u32 {
        record::aligned(self.group_end(), RECORD_ALIGN)
    }

    /// Whether the active segment has more than its first record.
    fn holds_something(&self) -> bool {
        !self.group.records.is_empty() || self.end.position > FIRST_RECORD + 256
    }

    fn place(&mut self, append: Append, body: &[u8], payload_length: u32) {
        let position = self.next_position();
        let before = self.group.headers.len();
        let padding = (position - self.group_end()) as usize;
        self.group.headers.resize(before + padding, 0);
        self.end.sequence += 1;
        let seat = Seat { store: self.shared.segments.store, segment: self.end.segment, position };
        let synced = self.shared.syncs.synced();
        let payload_position =
            record::encode(&mut self.group.headers, seat, self.end.sequence, synced, body, payload_length);
        self.group.bytes += self.group.headers.len() - before + append.payload.len();
        self.group.records.push(Grouped {
            header_end: self.group.headers.len(),
            payload: append.payload,
            position: payload_position,
            body: append.body,
            done: append.done,
            durable: append.durable,
        });
    }

    /// Writes the group, applies it, and tells those who wait.
    fn write_group(&mut self) -> Result<(), StoreError> {
        if self.group.records.is_empty() {
            return Ok(());
        }
        self.write_pieces()?;
        let shared = self.shared.clone();
        let bytes = self.group.bytes as u64;
        self.end.position = self.group_end();
        let mut account = Account::default();
        let mut positions = Positions::new();
        let (mut applied, mut synced): (Vec<Waiter>, Vec<Waiter>) = Default::default();
        let mut wanted = false;
        let records = std::mem::take(&mut self.group.records);
        self.records_since_checkpoint += records.len() as u64;
        for record in records {
            match &record.body {
                Body::Update { chain, version, .. } => {
                    let line = self.lines.get(chain).copied().unwrap_or(0);
                    positions.insert(*chain, (line, *version));
                }
                Body::Rewind { chain, .. } => {
                    *self.lines.entry(*chain).or_default() += 1;
                    positions.remove(chain);
                }
                // Whoever comes to the chain next knows of no rewind.
                Body::ForgetChunks { chain, .. } | Body::Forget { chain } => {
                    self.lines.remove(chain);
                    positions.remove(chain);
                }
                Body::Begin { .. }
                | Body::Install(_)
                | Body::InstallRemoved { .. }
                | Body::InstallDone { .. }
                | Body::InstallEnd { .. }
                | Body::Heal { .. }
                | Body::Restore { .. }
                | Body::Move { .. } => {}
            }
            let payload = Payload {
                segment: self.end.segment,
                position: record.position,
                length: u32::try_from(record.payload.len()).expect("payloads are bounded"),
            };
            wanted |= record.durable;
            match record.done {
                WhenDone::Nobody => {}
                WhenDone::Applied(waiter) => applied.push(waiter),
                WhenDone::Synced(waiter) => synced.push(waiter),
            }
            apply(&shared.index, &mut account, record.body, payload)?;
        }
        self.group.headers.clear();
        self.group.bytes = 0;
        let died = account.live.values().any(|change| *change < 0);
        shared.segments.settle(account, self.end.segment, self.end.position);
        let news: Vec<Progress> = positions
            .iter()
            .map(|(chain, (line, through))| Progress::Applied {
                chain: *chain,
                line: *line,
                through: *through,
            })
            .collect();
        shared.report(&news);
        applied.into_iter().for_each(|waiter| waiter.tell(Ok(())));
        shared.syncs.wrote(Written {
            sequence: self.end.sequence,
            file: &self.file,
            positions: &positions,
            waiters: synced,
            wanted,
        });
        shared.counters.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.start_writeback(bytes);
        self.call_keeper(bytes, died);
        Ok(())
    }

    fn write_pieces(&mut self) -> Result<(), StoreError> {
        let mut pieces = Vec::with_capacity(self.group.records.len() * 2);
        let mut from = 0;
        for record in &self.group.records {
            pieces.push(IoSlice::new(&self.group.headers[from..record.header_end]));
            pieces.push(IoSlice::new(&record.payload));
            from = record.header_end;
        }
        let at = u64::from(self.end.position);
        let write = || self.file.write_all_at(&pieces, at);
        with_room(&self.shared, write).map_err(|error| StoreError(format!("write: {error}")))
    }

    /// Lets the disk begin, so that the sync at the end is short.
    fn start_writeback(&mut self, bytes: u64) {
        self.unstarted += bytes;
        if self.unstarted >= self.shared.options.writeback_bytes {
            let from = u64::from(self.end.position) - self.unstarted;
            // A hint: whether it is taken does not matter.
            let _ = self.file.start_writeback(from, self.unstarted);
            self.unstarted = 0;
        }
    }

    fn call_keeper(&mut self, bytes: u64, died: bool) {
        let options = &self.shared.options;
        self.bytes_since_checkpoint += bytes;
        let due = self.bytes_since_checkpoint >= options.checkpoint_bytes
            || self.records_since_checkpoint >= options.checkpoint_records;
        if due {
            self.bytes_since_checkpoint = 0;
            self.records_since_checkpoint = 0;
        }
        self.shared.keeper.wrote(due, died.then_some(options.reclaim_delay));
    }

    /// Goes on in a new segment.
    fn rotate(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let (segment, file) = with_room(&shared, || shared.keeper.next_segment(&shared.segments))
            .map_err(|error| StoreError(format!("new segment: {error}")))?;
        // A hint: whether it is taken does not matter.
        let _ = self.file.start_writeback(u64::from(self.end.position) - self.unstarted, self.unstarted);
        self.unstarted = 0;
        self.enter(segment, file);
        shared.keeper.want_chores();
        Ok(())
    }

    /// Begins a segment, with the record that ties it to the log.
    fn enter(&mut self, segment: SegmentId, file: Arc<dyn File>) {
        let begin = Body::Begin { previous: self.end.segment, end: self.end.position };
        self.end = LogEnd { segment, position: FIRST_RECORD, sequence: self.end.sequence };
        self.file = file;
        let body = types::wire::encode(&begin);
        let append = Append { body: begin, payload: Bytes::new(), durable: false, done: WhenDone::Nobody };
        self.place(append, &body, 0);
    }
}

/// Runs a write; when the disk is full, frees the reserve and tries again.
fn with_room<T>(shared: &Shared, write: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                if shared.reserve.release(&*shared.disk) {
                    tracing::warn!(target = shared.options.target.0, "the disk is full: the reserve is used");
                } else if tries == FULL_RETRIES {
                    return Err(error);
                } else {
                    tries += 1;
                    if shared.stepped_by().is_none() {
                        // The keeper may be freeing space: nobody tells when. In steps it does nothing meanwhile.
                        std::thread::sleep(FULL_PAUSE);
                    }
                }
            }
            other => return other,
        }
    }
}
