//! Following the history: commits in order, read from the log beside the writer.

use super::log::Segments;
use super::{Shared, record};
use crate::{Change, FeedError, Follow, KvError, Revision};
use env::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::checksum::Crc;

/// Bytes of the log read at once.
const WINDOW: u64 = 1 << 20;

/// The commits of a store after some revision. Reads what is durable, and nothing else.
pub struct Feed {
    shared: Arc<Shared>,
    /// The last commit that was given out.
    position: Revision,
    place: Option<Place>,
}

/// Where the next record is.
struct Place {
    first: Revision,
    path: PathBuf,
    file: Arc<dyn File>,
    offset: u64,
    /// The sequence of the record at `offset`.
    next: Revision,
    previous: Crc,
}

impl Feed {
    pub(super) fn new(shared: Arc<Shared>, after: Revision) -> Feed {
        Feed { shared, position: after, place: None }
    }

    /// The last commit that was given out.
    pub fn position(&self) -> Revision {
        self.position
    }
}

impl Follow for Feed {
    fn next(&mut self, bytes_max: usize) -> Result<Vec<Change>, FeedError> {
        self.shared.check_running().map_err(FeedError::Store)?;
        // What a failure could still take back is not given out. Published is what is durable, and maybe more.
        let published = self.shared.view().revision;
        let durable = self.shared.durable().min(published);
        if self.position > published {
            return Err(FeedError::Trimmed); // It is another store's history.
        }
        let mut changes = Vec::new();
        let mut bytes = 0;
        while self.position < durable && bytes < bytes_max {
            bytes += self.read(durable, bytes_max - bytes, &mut changes)?;
        }
        Ok(changes)
    }
}

impl Feed {
    /// Reads one window. Answers how many bytes of records it gave out.
    fn read(
        &mut self,
        durable: Revision,
        bytes_max: usize,
        changes: &mut Vec<Change>,
    ) -> Result<usize, FeedError> {
        let wanted = Revision(self.position.0 + 1);
        let place = match self.place.take() {
            Some(place) if place.next <= wanted => place,
            _ => enter(&self.shared.segments, wanted)?,
        };
        let place = self.place.insert(place);
        let window = place.window().map_err(|error| failed(&place.path, &error))?;
        let (mut at, mut given) = (0, 0);
        while place.next <= durable && given < bytes_max {
            let Some((found, crc, length)) = record::decode(&window[at..]) else { break };
            if found.sequence != place.next || found.previous != place.previous {
                break;
            }
            at += length;
            place.offset += length as u64;
            place.previous = crc;
            place.next = Revision(place.next.0 + 1);
            if found.sequence >= wanted {
                given += length;
                self.position = found.sequence;
                changes.push(Change { revision: found.sequence, writes: found.writes });
            }
        }
        if at == 0 && self.position < durable {
            // The segment ends here: what follows is in the next one.
            let next = enter(&self.shared.segments, place.next)?;
            if next.first != place.next && window.iter().all(|byte| *byte == 0) {
                // Of needless segments that were being removed when the power failed some may be left.
                return Err(FeedError::Trimmed);
            }
            if next.first != place.next {
                let text = format!("{} at byte {}: no record", place.path.display(), place.offset);
                return Err(FeedError::Store(KvError::Corrupt(text)));
            }
            self.place = Some(next);
        }
        Ok(given)
    }
}

impl Place {
    /// Bytes from the place on: one record at least, if there is a whole one.
    fn window(&self) -> io::Result<Vec<u8>> {
        let left = self.file.length()?.saturating_sub(self.offset);
        let mut length = left.min(WINDOW);
        if let Some(header) =
            self.read(left.min(record::HEADER as u64)).ok().as_deref().and_then(record::announced)
        {
            length = left.min(length.max(header as u64));
        }
        self.read(length)
    }

    fn read(&self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// The start of the segment in which `wanted` is.
fn enter(segments: &Segments, wanted: Revision) -> Result<Place, FeedError> {
    let (first, path) = segments.containing(wanted).ok_or(FeedError::Trimmed)?;
    let file = match segments.disk().open(&path) {
        Ok(file) => file,
        // Removed just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(FeedError::Trimmed),
        Err(error) => return Err(failed(&path, &error)),
    };
    let mut header = [0; record::SEGMENT_HEADER];
    file.read_exact_at(&mut header, 0).map_err(|error| failed(&path, &error))?;
    let Some((_, previous)) = record::decode_segment(&header).filter(|(found, _)| *found == first) else {
        let text = format!("{} at byte 0: the header is damaged", path.display());
        return Err(FeedError::Store(KvError::Corrupt(text)));
    };
    let offset = record::SEGMENT_HEADER as u64;
    Ok(Place { first, path, file, offset, next: first, previous })
}

fn failed(path: &Path, error: &io::Error) -> FeedError {
    FeedError::Store(super::failed(path, "read", error))
}

#[cfg(test)]
mod tests;
