//! Where the store is, and what it takes there.

use super::Shared;
use std::path::Path;
use types::store::LocalStatus;

/// Blocks for as long as the disk takes. `None`: the disk does not say.
pub(super) fn status(shared: &Shared) -> Option<LocalStatus> {
    let log = shared.segments.directory();
    let disk = shared.segments.disk();
    let mut bytes = shared.table.bytes().unwrap_or_default();
    for segment in shared.segments.all() {
        // One that is removed meanwhile takes nothing.
        bytes += disk.open(&segment).and_then(|file| file.allocated()).unwrap_or_default();
    }
    let (capacity, free) = disk.space(log).ok()?;
    // The table is beside the log.
    let directory = log.parent().unwrap_or(Path::new("/")).display().to_string();
    Some(LocalStatus { directory, bytes, capacity, free })
}
