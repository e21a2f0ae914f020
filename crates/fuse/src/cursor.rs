//! Reading the fields of a message.

use crate::Malformed;
use bytes::Bytes;

/// The rest of a message.
pub(crate) struct Cursor(Bytes);

impl Cursor {
    pub(crate) fn new(bytes: Bytes) -> Cursor {
        Cursor(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let field = self.0.get(..N).and_then(|field| field.try_into().ok()).ok_or(Malformed)?;
        self.0 = self.0.slice(N..);
        Ok(field)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_ne_bytes)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        if count > self.0.len() {
            return Err(Malformed);
        }
        self.0 = self.0.slice(count..);
        Ok(())
    }

    /// A name that ends with a zero byte.
    pub(crate) fn name(&mut self) -> Result<Bytes, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let name = self.0.slice(..end);
        self.0 = self.0.slice(end + 1..);
        Ok(name)
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(count))
    }
}
