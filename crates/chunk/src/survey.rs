//! Surveys: what a store has of a chain, in a form that two members can compare.

use crate::entry::Entry;
use crate::index::Chain;
use crate::locks::{lock, read};
use crate::shared::StoreError;
use crate::store::Store;
use types::scrub::{Holding, SURVEY_MAX, Survey, SurveyOf, Surveyed};
use types::{ChainId, ChunkId, Crc, Version};

impl Store {
    /// What the store has of a chain. `from` and `through` are the chain's position before and after the look.
    pub fn survey(&self, chain: ChainId, of: &SurveyOf) -> Result<Survey, StoreError> {
        let Some(chain) = self.shared.index.chain(chain) else {
            let nothing = |chunk: &ChunkId| Surveyed { chunk: *chunk, holding: Holding::Nothing, bad: false };
            let chunks = match of {
                SurveyOf::All { .. } => Vec::new(),
                SurveyOf::These(chunks) => chunks.iter().map(nothing).collect(),
            };
            return Ok(Survey { chunks, ..Survey::default() });
        };
        let position = |chain: &Chain| read(&chain.state).history.version;
        let from = position(&chain);
        let (names, more) = match of {
            SurveyOf::All { after, limit } => {
                let limit = usize::try_from(*limit).unwrap_or(SURVEY_MAX).clamp(1, SURVEY_MAX);
                let found = self.shared.index.list(&chain, *after, limit, |head| !head.removed)?;
                let more = found.len() == limit;
                (found.into_iter().map(|(chunk, _)| chunk).collect(), more)
            }
            SurveyOf::These(chunks) => (chunks.clone(), false),
        };
        let mut chunks = Vec::with_capacity(names.len());
        for chunk in names {
            let holding = self.shared.index.peek(&chain, chunk, holding)?;
            let bad = lock(&self.shared.ledger).knows(chain.id, chunk);
            chunks.push(Surveyed { chunk, holding, bad });
        }
        Ok(Survey { from, through: position(&chain), chunks, more })
    }
}

fn holding(entry: Option<&Entry>) -> Holding {
    match entry {
        // Made for a change that did nothing.
        Some(entry) if entry.head.version == Version::ZERO => Holding::Nothing,
        Some(entry) if entry.head.removed => Holding::Removed { version: entry.head.version },
        Some(entry) => {
            let head = entry.head;
            Holding::There { version: head.version, length: head.length, content: content(entry) }
        }
        None => Holding::Nothing,
    }
}

/// The checksum of all bytes, where extents of whole blocks follow one another without a hole.
fn content(entry: &Entry) -> Option<Crc> {
    let mut all = Crc::of(&[]);
    let mut end = 0;
    for (offset, extent) in entry.extents.iter() {
        if offset != end || extent.skip != 0 || extent.covered != extent.length || extent.is_lost() {
            return None;
        }
        let lengths = (0..extent.blocks()).map(|block| {
            let from = block * crate::extent::BLOCK;
            (extent.length - from).min(crate::extent::BLOCK)
        });
        for (crc, length) in extent.checksums().zip(lengths) {
            all = all.followed_by(crc, u64::from(length));
        }
        end = offset + extent.length;
    }
    (end == entry.head.length).then_some(all)
}
