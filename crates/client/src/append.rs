//! Append sessions: one writer at a time lengthens a file.

use crate::{Client, Result};
use bytes::Bytes;
use types::meta::Place;

/// The one append session of a file. Dropping it leaves it to its lease to end; [`Appender::close`] ends it at once.
#[derive(Debug)]
pub struct Appender {}

impl Client {
    /// Opens the append session of a file. Refused with `Busy` when another client has it.
    pub async fn append(&self, place: impl Into<Place>) -> Result<Appender> {
        let _ = place.into();
        unimplemented!()
    }
}

impl Appender {
    /// The length of the file with all that was appended so far.
    pub fn length(&self) -> u64 {
        unimplemented!()
    }

    /// Appends bytes; others see them after [`Appender::flush`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let _ = bytes;
        unimplemented!()
    }

    /// Makes all that was appended durable, and visible.
    pub async fn flush(&mut self) -> Result<()> {
        unimplemented!()
    }

    /// Flushes, and ends the session.
    pub async fn close(self) -> Result<()> {
        unimplemented!()
    }
}
