//! One piece of a file, from whichever copy gives it: the nearest first, another one when that is bad or slow.

use super::{ATTEMPT_MAX, PATIENCE, ROUTING_PATIENCE, is_load, is_silence, no_copy};
use crate::call::attempt;
use crate::file::FileState;
use crate::nearness::Copy;
use crate::retry::Retry;
use crate::span::{PIECE, Span, spans};
use crate::{Client, Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use types::checksum::first_mismatch;
use types::storage::{StorageError, StorageReply, StorageRequest};
use types::wire::{Channel, Request};
use types::{BLOCK_SIZE, Capability, ChainId, ChunkId, Epoch, Layout};

const ACTION: &str = "read";

/// Zeros to show for holes: never copied.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Why a copy did not give the bytes.
#[derive(Debug)]
enum Bad {
    /// Its bytes do not match their checksums, from `offset` of the chunk; or its disk cannot be read.
    Damaged {
        offset: u32,
        cause: &'static str,
    },
    /// It has not all the bytes.
    Short(Bytes),
    /// Not this server now, or it does not answer.
    Elsewhere(Error),
    Busy(Error),
    Denied,
    Final(Error),
}

/// The bytes of a span.
enum Got {
    All(Bytes),
    /// Some were not there, and are zeros.
    Filled(Bytes),
}

/// What a round over all copies found.
#[derive(Debug, Default)]
struct Round {
    copies: usize,
    /// Copies that answered and are no good: target, position of the first bad byte in the file, why.
    damaged: Vec<(types::TargetId, u64, &'static str)>,
    denied: bool,
    busy: bool,
    last: Option<Error>,
}

type Reading<'a> = Pin<Box<dyn Future<Output = (Copy, std::result::Result<Bytes, Bad>)> + Send + 'a>>;

impl Client {
    /// The bytes of a span of at most [`PIECE`] bytes, each checked against its checksum. What was never written reads
    /// as zeros unless the file is dense. It is several spans if the file was moved to another class since it was cut.
    pub(crate) async fn read_span(&self, file: &FileState, span: Span) -> Result<Bytes> {
        loop {
            let layout = file.content.layout();
            let mut parts = spans(&layout, span.position, u64::from(span.length)).ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    ACTION,
                    &file.content.path,
                    "the position is beyond the largest file",
                )
            })?;
            let Some(first) = parts.next() else { return Ok(Bytes::new()) };
            if first.length == span.length {
                match self.read_laid(file, &layout, first).await? {
                    Some(bytes) => return Ok(bytes),
                    None => continue,
                }
            }
            let mut joined = BytesMut::with_capacity(usize::try_from(span.length).unwrap_or_default());
            let mut whole = true;
            for part in std::iter::once(first).chain(parts) {
                match Box::pin(self.read_laid(file, &layout, part)).await? {
                    Some(bytes) => joined.extend_from_slice(&bytes),
                    None => {
                        whole = false;
                        break;
                    }
                }
            }
            if whole {
                return Ok(joined.freeze());
            }
        }
    }

    /// The bytes of a span as `layout` has it. `None`: the layout is no longer the file's.
    async fn read_laid(&self, file: &FileState, layout: &Layout, span: Span) -> Result<Option<Bytes>> {
        let mut retry = Retry::new(self.shared.options.deadline);
        let mut renewed = 0;
        let mut refreshed = false;
        let chain = layout.chain(span.index);
        loop {
            if file.content.layout() != *layout {
                return Ok(None);
            }
            let capability = file.content.grant.get(self, &file.content.path).await?;
            let routing = self.routing();
            let mut round = Round::default();
            if let Some(info) = routing.chain(chain) {
                let copies =
                    self.shared.nearness.order(&routing, routing.readable(chain), spread(file, &span));
                match self.try_copies(file, &span, chain, info.epoch, &copies, capability, &retry).await {
                    Ok(Got::All(bytes) | Got::Filled(bytes))
                        if !file.has_chunks(self, file.content.chunks(Some(&capability))).await? =>
                    {
                        drop(bytes);
                        continue;
                    }
                    Ok(Got::All(bytes)) => return Ok(Some(bytes)),
                    Ok(Got::Filled(bytes)) => {
                        // What is not there is a hole only if the file has not been moved away.
                        file.refresh_layout(self).await?;
                        return Ok((file.content.layout() == *layout).then_some(bytes));
                    }
                    Err(tried) => round = tried?,
                }
            }
            if round.copies > 0 && round.damaged.len() == round.copies {
                // All copies agree that something is wrong. The file may have changed, or gone, since it was opened.
                if !refreshed {
                    refreshed = true;
                    file.refresh(self).await?;
                    continue;
                }
                return self.read_blocks(file, &span, &round).await.map(Some);
            }
            if round.denied {
                renewed += 1;
                if let (true, Some(error)) = (renewed > 2, round.last) {
                    return Err(error);
                }
                file.content.grant.renew(self, &file.content.path, Some(capability)).await?;
                continue;
            }
            if !round.busy {
                self.newer_routing(routing.version, ROUTING_PATIENCE.min(retry.left())).await;
            }
            if !retry.pause().await {
                if !round.damaged.is_empty() {
                    return Err(damage(file, &round.damaged));
                }
                return Err(round.last.unwrap_or_else(|| no_copy(ACTION, &file.content.path, chain)));
            }
        }
    }

    /// Asks one copy after the other, and the next one early when one is slow.
    #[allow(clippy::too_many_arguments, reason = "the parts of one message, from one caller")]
    async fn try_copies(
        &self,
        file: &FileState,
        span: &Span,
        chain: ChainId,
        epoch: Epoch,
        copies: &[Copy],
        capability: Capability,
        retry: &Retry,
    ) -> std::result::Result<Got, Result<Round>> {
        let mut round = Round { copies: copies.len(), ..Round::default() };
        let mut waiting = copies.iter();
        let mut running: Vec<Reading<'_>> = Vec::new();
        let mut asked: Vec<&str> = Vec::new();
        loop {
            if running.is_empty() {
                let Some(copy) = waiting.next() else { return Err(Ok(round)) };
                asked.push(&copy.address);
                running.push(self.read_copy(file, span, chain, epoch, copy, capability, retry));
            }
            let (copy, outcome) = tokio::select! {
                biased;
                finished = first(&mut running) => finished,
                () = tokio::time::sleep(PATIENCE), if waiting.len() > 0 => {
                    // Only a few are asked twice: a slow path must not be made slower by asking for everything twice.
                    if let Ok(_permit) = self.shared.second_tries.try_acquire()
                        && let Some(copy) = waiting.next()
                    {
                        asked.iter().for_each(|address| self.shared.nearness.suspect(address));
                        asked.push(&copy.address);
                        running.push(self.read_copy(file, span, chain, epoch, copy, capability, retry));
                        first(&mut running).await
                    } else {
                        continue;
                    }
                }
            };
            match outcome {
                Ok(bytes) => return Ok(Got::All(bytes)),
                Err(Bad::Short(bytes)) => match fill_hole(file, span, bytes) {
                    Some(filled) => return Ok(Got::Filled(filled)),
                    None => round.damaged.push((copy.target, span.position, "not all bytes are there")),
                },
                Err(Bad::Damaged { offset, cause }) => {
                    let start = span.position - u64::from(span.offset);
                    round.damaged.push((copy.target, start + u64::from(offset), cause));
                }
                Err(Bad::Elsewhere(error)) => round.last = Some(error),
                Err(Bad::Busy(error)) => {
                    round.busy = true;
                    round.last = Some(error);
                }
                Err(Bad::Denied) => {
                    round.denied = true;
                    round.last =
                        Some(Error::new(ErrorKind::Denied, ACTION, &file.content.path, "permission denied"));
                }
                Err(Bad::Final(error)) => return Err(Err(error)),
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one message, from one caller")]
    fn read_copy<'a>(
        &'a self,
        file: &'a FileState,
        span: &'a Span,
        chain: ChainId,
        epoch: Epoch,
        copy: &'a Copy,
        capability: Capability,
        retry: &Retry,
    ) -> Reading<'a> {
        let request = StorageRequest::Read {
            chain,
            epoch,
            target: copy.target,
            chunk: ChunkId { inode: file.content.chunks(Some(&capability)), index: span.index },
            offset: span.offset,
            length: span.length,
            capability,
        };
        let time = retry.left().min(ATTEMPT_MAX);
        Box::pin(async move {
            let sent = attempt::<std::result::Result<StorageReply, StorageError>>(
                self.pool_for(span.length),
                &copy.address,
                Channel::Storage,
                request.encoded(),
                Bytes::new(),
                time,
            );
            let outcome = match sent.await {
                Ok((Ok(StorageReply::Read { checksums, .. }), payload)) => check(span, payload, &checksums),
                Ok((Ok(_), _)) => Err(Bad::Final(Error::unexpected(ACTION, &file.content.path))),
                Ok((Err(refused), _)) => Err(bad_after(&refused, span, &file.content.path, &copy.address)),
                Err(trouble) => {
                    if is_silence(&trouble) {
                        self.shared.nearness.suspect(&copy.address);
                    }
                    let (is_final, is_load) = (trouble.is_final(), is_load(&trouble));
                    let error = trouble.into_error(ACTION, &file.content.path, &copy.address);
                    Err(match (is_final, is_load) {
                        (true, _) => Bad::Final(error),
                        (false, true) => Bad::Busy(error),
                        (false, false) => Bad::Elsewhere(error),
                    })
                }
            };
            (copy.clone(), outcome)
        })
    }

    /// No copy has all of the span: reads it block by block, for each copy may be bad in another place.
    async fn read_blocks(&self, file: &FileState, span: &Span, round: &Round) -> Result<Bytes> {
        let block = u32::try_from(BLOCK_SIZE).unwrap_or(span.length);
        if span.length <= block {
            return Err(damage(file, &round.damaged));
        }
        let mut joined = BytesMut::with_capacity(usize::try_from(span.length).unwrap_or_default());
        let mut done = 0;
        while done < span.length {
            // Up to the next multiple of a block in the chunk: most writes were cut there.
            let offset = span.offset + done;
            let length = (block - offset % block).min(span.length - done);
            let position = span.position + u64::from(done);
            let part = Span { index: span.index, offset, length, position };
            joined.extend_from_slice(&Box::pin(self.read_span(file, part)).await?);
            done += length;
        }
        Ok(joined.freeze())
    }
}

/// The first of `running` to finish; it is taken out.
async fn first(running: &mut Vec<Reading<'_>>) -> (Copy, std::result::Result<Bytes, Bad>) {
    poll_fn(|context| {
        for at in 0..running.len() {
            if let Poll::Ready(finished) = running[at].as_mut().poll(context) {
                drop(running.swap_remove(at));
                return Poll::Ready(finished);
            }
        }
        Poll::Pending
    })
    .await
}

fn check(span: &Span, payload: Bytes, checksums: &[types::Crc]) -> std::result::Result<Bytes, Bad> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if length > span.length {
        return Err(Bad::Damaged { offset: span.offset, cause: "more bytes came than were asked for" });
    }
    if let Some(block) = first_mismatch(&payload, checksums) {
        let skipped = u32::try_from(block.saturating_mul(BLOCK_SIZE)).unwrap_or(0).min(span.length);
        let cause = "the bytes that arrived do not match their checksum";
        return Err(Bad::Damaged { offset: span.offset + skipped, cause });
    }
    if length < span.length { Err(Bad::Short(payload)) } else { Ok(payload) }
}

fn bad_after(refused: &StorageError, span: &Span, subject: &str, address: &str) -> Bad {
    let error =
        |kind, cause: &str| Error::new(kind, ACTION, subject, format!("storage server {address}: {cause}"));
    match refused {
        StorageError::NoChunk => Bad::Short(Bytes::new()),
        StorageError::Corrupt { offset } => {
            Bad::Damaged { offset: *offset, cause: "the bytes on disk do not match their checksum" }
        }
        StorageError::Disk => Bad::Damaged { offset: span.offset, cause: "the disk cannot be read" },
        StorageError::WrongEpoch { .. } | StorageError::NotServing => {
            Bad::Elsewhere(error(ErrorKind::NotReachable, "it does not serve this chain now"))
        }
        StorageError::Busy | StorageError::Gap { .. } | StorageError::OldSequence => {
            Bad::Busy(error(ErrorKind::Busy, "too busy"))
        }
        StorageError::Denied | StorageError::Fenced => Bad::Denied,
        StorageError::Full | StorageError::BadChecksum | StorageError::Invalid => {
            Bad::Final(error(ErrorKind::Invalid, "the request makes no sense to it"))
        }
    }
}

/// What is there, and zeros for the rest: if the file may have holes, or no longer reaches that far.
fn fill_hole(file: &FileState, span: &Span, there: Bytes) -> Option<Bytes> {
    let (dense, length) = file.shape();
    let there_length = u32::try_from(there.len()).ok()?;
    let end = length.min(span.position + u64::from(span.length));
    if dense && span.position + u64::from(there_length) < end {
        return None;
    }
    let wanted = usize::try_from(u64::from(span.length).min(PIECE)).ok()?;
    if there.is_empty() {
        return Some(Bytes::from_static(&ZEROS[..wanted]));
    }
    let mut filled = BytesMut::with_capacity(wanted);
    filled.extend_from_slice(&there);
    filled.resize(wanted, 0);
    Some(filled.freeze())
}

fn damage(file: &FileState, damaged: &[(types::TargetId, u64, &'static str)]) -> Error {
    let offset = damaged.iter().map(|(_, offset, _)| *offset).max().unwrap_or_default();
    let causes: Vec<String> =
        damaged.iter().map(|(target, _, cause)| format!("target {target}: {cause}")).collect();
    let cause = format!("no good copy of byte {offset} is left ({})", causes.join("; "));
    Error::new(ErrorKind::Damaged, ACTION, &file.content.path, cause).advise(format!(
        "restore the file from elsewhere; `sr locate {}` names the disks, `sr status` their state",
        file.content.path
    ))
}

/// Parts of 8 MiB go to one copy, so that its disk reads ahead; the next part starts with another one.
fn spread(file: &FileState, span: &Span) -> u64 {
    file.content.inode.0.wrapping_mul(0x9e37_79b9).wrapping_add(span.position >> 23)
}
