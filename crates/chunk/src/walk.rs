//! A walk over a segment's records: for recovery and compaction.

use crate::record::{self, FIXED, Header, NoRecord, RECORD_ALIGN, Seat};
use crate::segment::{FIRST_RECORD, SegmentId};
use env::File;
use std::io;
use std::sync::Arc;
use types::checksum::first_mismatch;

/// Read ahead when records are small, and when they are large.
const WINDOW_LARGE: usize = 256 * 1024;
const WINDOW_SMALL: usize = 8 * 1024;
/// Payloads from which on reading ahead would read mostly payload.
const LARGE_PAYLOAD: u32 = 32 * 1024;

pub(crate) struct Walk {
    file: Arc<dyn File>,
    length: u64,
    /// Of the next record.
    pub(crate) seat: Seat,
    window: Vec<u8>,
    window_at: u64,
    window_size: usize,
}

impl Walk {
    /// From the record at `position`, or the first one.
    pub(crate) fn new(
        file: Arc<dyn File>,
        store: u64,
        segment: SegmentId,
        position: Option<u32>,
    ) -> io::Result<Walk> {
        let length = file.length()?;
        let position = position.unwrap_or(FIRST_RECORD);
        let seat = Seat { store, segment, position };
        Ok(Walk { file, length, seat, window: Vec::new(), window_at: 0, window_size: WINDOW_LARGE })
    }

    /// The record at the walk's position, which moves behind it. `None`: there is none.
    pub(crate) fn step(&mut self) -> io::Result<Option<(Seat, Header)>> {
        let seat = self.seat;
        let Some(header) = self.peek(seat.position)? else { return Ok(None) };
        let end = u64::from(seat.position) + u64::from(header.payload_at) + u64::from(header.payload_length);
        if end > self.length {
            return Ok(None);
        }
        self.seat.position += header.extent();
        self.window_size = if header.payload_length >= LARGE_PAYLOAD { WINDOW_SMALL } else { WINDOW_LARGE };
        Ok(Some((seat, header)))
    }

    /// The record at a position.
    fn peek(&mut self, position: u32) -> io::Result<Option<Header>> {
        let seat = Seat { position, ..self.seat };
        let mut needed = FIXED;
        loop {
            let Some(bytes) = self.view(u64::from(position), needed)? else { return Ok(None) };
            match record::decode(bytes, seat) {
                Ok(header) => return Ok(Some(header)),
                Err(NoRecord::Needs(more)) if more > needed => needed = more,
                Err(NoRecord::Needs(_) | NoRecord::Invalid) => return Ok(None),
            }
        }
    }

    /// At least `needed` bytes from `position`, if the file has them.
    fn view(&mut self, position: u64, needed: usize) -> io::Result<Option<&[u8]>> {
        if position + needed as u64 > self.length {
            return Ok(None);
        }
        let inside = position >= self.window_at
            && position + needed as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let left = usize::try_from(self.length - position).unwrap_or(usize::MAX);
            self.window.resize(needed.max(self.window_size).min(left), 0);
            self.window_at = position;
            self.file.read_exact_at(&mut self.window, position)?;
        }
        let start = usize::try_from(position - self.window_at).expect("inside the window");
        Ok(Some(&self.window[start..]))
    }

    /// Whether a record's payload matches its checksums.
    pub(crate) fn payload_is_whole(&self, seat: Seat, header: &Header) -> io::Result<bool> {
        if header.payload_length == 0 {
            return Ok(true);
        }
        let mut payload = vec![0; header.payload_length as usize];
        let at = u64::from(seat.position) + u64::from(header.payload_at);
        self.file.read_exact_at(&mut payload, at)?;
        Ok(first_mismatch(&payload, header.body.checksums()).is_none())
    }

    /// The highest "synced" of any record from the walk's position on, wherever it starts: what a header says that
    /// came to the disk although one before it did not.
    pub(crate) fn search_synced(&mut self) -> io::Result<Option<u64>> {
        let mut found = None;
        let mut position = record::aligned(self.seat.position, RECORD_ALIGN);
        let mut block = vec![0; 1 << 20];
        while u64::from(position) + (FIXED as u64) <= self.length {
            let left = usize::try_from(self.length - u64::from(position)).unwrap_or(usize::MAX);
            let size = left.min(block.len());
            self.file.read_exact_at(&mut block[..size], u64::from(position))?;
            let starts = block[..size].chunks_exact(RECORD_ALIGN as usize).enumerate();
            let candidates: Vec<usize> = starts
                .filter(|(_, bytes)| bytes[..4] == record::MAGIC)
                .map(|(index, _)| index * RECORD_ALIGN as usize)
                .collect();
            for candidate in candidates {
                let at = position + u32::try_from(candidate).expect("inside the block");
                if let Some(header) = self.peek(at)? {
                    found = found.max(Some(header.synced));
                }
            }
            let advance = u32::try_from(size).expect("inside the block") / RECORD_ALIGN * RECORD_ALIGN;
            position = match position.checked_add(advance.max(RECORD_ALIGN)) {
                Some(next) => next,
                None => break,
            };
        }
        Ok(found)
    }
}
