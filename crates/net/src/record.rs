//! The TLS 1.3 record layer (RFC 8446 section 5), after rustls has made the handshake and handed out the keys.
//!
//! Why our own: rustls's streams copy every byte two to three times on either side and read 4 KiB at a time, and one
//! session cannot be read and written by two threads. With the keys split, the reader opens records straight into the
//! buffer of a payload while the writer seals from it. rustls keeps what is delicate: the handshake, the certificates,
//! the key schedule and the session tickets (`rustls::kernel`, made for exactly this).

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, HandshakeType};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most bytes of content in a record.
pub(crate) const CONTENT_MAX: usize = 16 * 1024;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 5;
/// What a record is longer than its content: header, inner type, tag.
pub(crate) const RECORD_OVERHEAD: usize = RECORD_HEADER + 1 + TAG;
/// Most bytes after a record's header (RFC 8446 section 5.2).
const FRAGMENT_MAX: usize = CONTENT_MAX + 256;
const TAG: usize = 16;
/// Records under one key. AES-GCM bears 2^24.5 full ones (RFC 8446 section 5.5).
const RECORDS_PER_KEY: u64 = 1 << 24;
/// Records without data that may follow one another: a peer that sends nothing else wastes our time.
const CONTROLS_MAX: u32 = 64;

const TYPE_ALERT: u8 = 21;
const TYPE_HANDSHAKE: u8 = 22;
const TYPE_DATA: u8 = 23;

/// Why the stream of records ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// The peer said that nothing more comes.
    End,
    /// The peer ended the session with this TLS alert.
    Alert(u8),
    /// Not a record, or one that our key does not open.
    Malformed(&'static str),
}

/// What rustls keeps of a session: it makes new keys and stores tickets.
pub(crate) enum Kernel {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

/// What both directions share.
pub(crate) struct Session {
    kernel: Mutex<Kernel>,
    /// The peer asked us to change our key.
    rekey: AtomicBool,
}

impl Session {
    pub(crate) fn new(kernel: Kernel) -> Arc<Session> {
        Arc::new(Session { kernel: Mutex::new(kernel), rekey: AtomicBool::new(false) })
    }

    fn next_secrets(&self, sending: bool) -> Result<ConnectionTrafficSecrets, RecordError> {
        let mut kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets = match (&mut *kernel, sending) {
            (Kernel::Client(kernel), true) => kernel.update_tx_secret(),
            (Kernel::Client(kernel), false) => kernel.update_rx_secret(),
            (Kernel::Server(kernel), true) => kernel.update_tx_secret(),
            (Kernel::Server(kernel), false) => kernel.update_rx_secret(),
        };
        secrets.map(|(_, secrets)| secrets).map_err(|_| RecordError::Malformed("no new key"))
    }

    fn keep_ticket(&self, ticket: &[u8]) -> Result<(), RecordError> {
        let mut kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *kernel {
            Kernel::Client(kernel) => {
                kernel.handle_new_session_ticket(ticket).map_err(|_| RecordError::Malformed("session ticket"))
            }
            Kernel::Server(_) => Err(RecordError::Malformed("session ticket from a client")),
        }
    }
}

/// The key of one direction and its counter.
struct Key {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Key {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Key, RecordError> {
        let (algorithm, key, iv): (&Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Malformed("unknown cipher")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Malformed("key"))?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Malformed("key"))?;
        Ok(Key { key: LessSafeKey::new(key), iv, sequence })
    }

    /// The next record's nonce: no two records under one key have the same (RFC 8446 section 5.3).
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        assert!(self.sequence < u64::MAX);
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Makes records of what is sent.
pub(crate) struct Sealer {
    key: Key,
    session: Arc<Session>,
    records_per_key: u64,
}

impl Sealer {
    pub(crate) fn new(
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
        session: Arc<Session>,
    ) -> Result<Sealer, RecordError> {
        Ok(Sealer { key: Key::new(sequence, secrets)?, session, records_per_key: RECORDS_PER_KEY })
    }

    /// The most that [`Sealer::seal`] writes for one record's content: the record, and before it perhaps one that
    /// announces a new key.
    pub(crate) const ROOM: usize = CONTENT_MAX + RECORD_OVERHEAD + KEY_UPDATE.len() + RECORD_OVERHEAD;

    /// Writes `content`, at most [`CONTENT_MAX`] bytes, as a record at the start of `out`, which has [`Sealer::ROOM`].
    /// Gives the number of bytes written.
    pub(crate) fn seal(&mut self, content: &[u8], out: &mut [u8]) -> Result<usize, RecordError> {
        let mut written = 0;
        let asked =
            self.session.rekey.load(Ordering::Relaxed) && self.session.rekey.swap(false, Ordering::Relaxed);
        if asked || self.key.sequence >= self.records_per_key {
            written = self.record(TYPE_HANDSHAKE, &KEY_UPDATE, out)?;
            self.key = Key::new(0, &self.session.next_secrets(true)?)?;
        }
        Ok(written + self.record(TYPE_DATA, content, &mut out[written..])?)
    }

    /// Writes the record that says that nothing more comes.
    pub(crate) fn seal_end(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        self.record(TYPE_ALERT, &[1, 0], out)
    }

    fn record(&mut self, kind: u8, content: &[u8], out: &mut [u8]) -> Result<usize, RecordError> {
        assert!(content.len() <= CONTENT_MAX);
        let fragment = content.len() + 1 + TAG;
        let header = record_header(fragment);
        let out = &mut out[..RECORD_HEADER + fragment];
        out[..RECORD_HEADER].copy_from_slice(&header);
        let (sealed, rest) = out[RECORD_HEADER..].split_at_mut(content.len());
        let nonce = self.key.nonce();
        self.key
            .key
            .seal_out_of_place_scatter(nonce, Aad::from(header), content, sealed, &[kind], rest)
            .map_err(|_| RecordError::Malformed("sealing failed"))?;
        Ok(RECORD_HEADER + fragment)
    }
}

/// KeyUpdate, not asking the peer for one (RFC 8446 section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

fn record_header(fragment: usize) -> [u8; RECORD_HEADER] {
    let length = u16::try_from(fragment).unwrap_or(u16::MAX).to_be_bytes();
    [TYPE_DATA, 3, 3, length[0], length[1]]
}

/// How long the record is that starts with these bytes, its header included. `None` while the header is incomplete.
pub(crate) fn record_size(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(header) = bytes.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    let fragment = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if header[0] != TYPE_DATA || header[1] != 3 {
        return Err(RecordError::Malformed("not a TLS record"));
    }
    if !(1 + TAG..=FRAGMENT_MAX).contains(&fragment) {
        return Err(RecordError::Malformed("length of a TLS record"));
    }
    Ok(Some(RECORD_HEADER + fragment))
}

/// Opens records as they arrive.
pub(crate) struct Opener {
    key: Key,
    session: Arc<Session>,
    controls: u32,
}

impl Opener {
    pub(crate) fn new(
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
        session: Arc<Session>,
    ) -> Result<Opener, RecordError> {
        Ok(Opener { key: Key::new(sequence, secrets)?, session, controls: 0 })
    }

    /// Opens a whole record where it lies. Its data are then at `RECORD_HEADER ..` for as many bytes as this gives: none
    /// when the record was for the session itself.
    pub(crate) fn open_in_place(&mut self, record: &mut [u8]) -> Result<usize, RecordError> {
        let (header, fragment) = split_header(record)?;
        let nonce = self.key.nonce();
        let inner = self
            .key
            .key
            .open_in_place(nonce, Aad::from(header), fragment)
            .map_err(|_| RecordError::Malformed("a TLS record does not open"))?;
        self.opened(inner)
    }

    /// Opens a whole record into `out`, which is at least as long as the record without [`RECORD_OVERHEAD`] and one byte.
    /// Gives how many bytes of data are at its start: none when the record was for the session itself.
    pub(crate) fn open_into(&mut self, record: &mut [u8], out: &mut [u8]) -> Result<usize, RecordError> {
        let (header, fragment) = split_header(record)?;
        let (sealed, tag) = fragment.split_at(fragment.len() - TAG);
        let inner = &mut out[..sealed.len()];
        let nonce = self.key.nonce();
        self.key
            .key
            .open_separate_gather(nonce, Aad::from(header), sealed, tag, inner)
            .map_err(|_| RecordError::Malformed("a TLS record does not open"))?;
        self.opened(inner)
    }

    /// Deals with what was in a record: content, its type, and padding of zeros.
    fn opened(&mut self, inner: &[u8]) -> Result<usize, RecordError> {
        let end =
            inner.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Malformed("empty TLS record"))?;
        if end > CONTENT_MAX {
            return Err(RecordError::Malformed("length of a TLS record"));
        }
        let content = &inner[..end];
        if inner[end] == TYPE_DATA && !content.is_empty() {
            self.controls = 0;
            return Ok(content.len());
        }
        self.controls += 1;
        if self.controls > CONTROLS_MAX {
            return Err(RecordError::Malformed("too many TLS records without data"));
        }
        match (inner[end], content) {
            (TYPE_DATA, _) => Ok(0),
            (TYPE_ALERT, [_, 0]) => Err(RecordError::End),
            (TYPE_ALERT, [_, alert]) => Err(RecordError::Alert(*alert)),
            (TYPE_HANDSHAKE, messages) => self.handshake(messages).map(|()| 0),
            _ => Err(RecordError::Malformed("type of a TLS record")),
        }
    }

    /// Messages of the handshake protocol that may still come after it. Each record holds whole ones: rustls, which all
    /// our peers use, never cuts these.
    fn handshake(&mut self, mut messages: &[u8]) -> Result<(), RecordError> {
        while let Some((head, rest)) = messages.split_first_chunk::<4>() {
            let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            let Some((message, rest)) = rest.split_at_checked(length) else { break };
            messages = rest;
            match (HandshakeType::from(head[0]), message) {
                (HandshakeType::NewSessionTicket, ticket) => self.session.keep_ticket(ticket)?,
                // The new key holds from the next record on, so nothing may follow in this one.
                (HandshakeType::KeyUpdate, [asked @ (0 | 1)]) if messages.is_empty() => {
                    self.key = Key::new(0, &self.session.next_secrets(false)?)?;
                    if *asked == 1 {
                        self.session.rekey.store(true, Ordering::Relaxed);
                    }
                }
                _ => return Err(RecordError::Malformed("TLS message")),
            }
        }
        if messages.is_empty() { Ok(()) } else { Err(RecordError::Malformed("cut TLS message")) }
    }
}

fn split_header(record: &mut [u8]) -> Result<([u8; RECORD_HEADER], &mut [u8]), RecordError> {
    let (header, fragment) = record
        .split_first_chunk_mut::<RECORD_HEADER>()
        .ok_or(RecordError::Malformed("length of a TLS record"))?;
    if fragment.len() < 1 + TAG {
        return Err(RecordError::Malformed("length of a TLS record"));
    }
    Ok((*header, fragment))
}

#[cfg(test)]
mod tests;
