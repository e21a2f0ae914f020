//! Cutting a range of a file into pieces that each lie in one chunk.

use types::{ChunkIndex, Layout};

/// Bytes of one request at most: large enough that the cost per request vanishes, small enough that 32 of them fit a
/// window and a lost one is cheap to send again.
pub(crate) const PIECE: u64 = 1024 * 1024;

/// A part of a file within one chunk and one aligned piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) index: ChunkIndex,
    /// In the chunk.
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// In the file.
    pub(crate) position: u64,
}

/// The spans of `length` bytes from `offset`, in order: cut at multiples of [`PIECE`] (of the chunk size, if that is
/// smaller). `None` when they end beyond the last byte that the layout can name.
pub(crate) fn spans(layout: &Layout, offset: u64, length: u64) -> Option<Spans> {
    let end = offset.checked_add(length)?;
    if length > 0 {
        layout.locate(end - 1)?;
    }
    Some(Spans { layout: *layout, piece: piece_size(layout), position: offset, end })
}

/// Bytes of a whole piece of a file.
pub(crate) fn piece_size(layout: &Layout) -> u64 {
    PIECE.min(u64::from(layout.chunk_size.max(1)))
}

#[derive(Clone, Debug)]
pub(crate) struct Spans {
    layout: Layout,
    piece: u64,
    position: u64,
    end: u64,
}

impl Iterator for Spans {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        if self.position >= self.end {
            return None;
        }
        let position = self.position;
        let stop = (position - position % self.piece + self.piece).min(self.end);
        let (index, offset) = self.layout.locate(position)?;
        self.position = stop;
        Some(Span { index, offset, length: u32::try_from(stop - position).ok()?, position })
    }
}

/// The bytes of chunk `index` in a file of `length` bytes.
pub(crate) fn chunk_length(layout: &Layout, index: ChunkIndex, length: u64) -> u32 {
    let size = u64::from(layout.chunk_size);
    let start = u64::from(index.0) * size;
    u32::try_from(length.saturating_sub(start).min(size)).unwrap_or(layout.chunk_size)
}

#[cfg(test)]
mod tests;
