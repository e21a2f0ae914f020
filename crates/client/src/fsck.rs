//! Checks of files: what each member of a file's chains has of it, and chunks that no file names. For the administrator.
//!
//! A file changes while it is looked at. So whatever is found wrong is looked at again, with the file's attributes as
//! they are then, before it is said.

use crate::span::chunk_length;
use crate::{Client, Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinSet;
use types::meta::{Change, FATES_MAX, Fate, Follow, MetaReply, MetaRequest};
use types::scrub::{Holding, SURVEY_MAX, ScrubOrder, Survey, SurveyOf, Surveyed};
use types::storage::{StorageError, StorageReply, StorageRequest};
use types::{
    Attributes, BLOCK_SIZE, Capability, ChainId, ChunkId, ChunkIndex, Epoch, FailureDomain, InodeId, Rights,
    Routing, StorageClass, TableId, TargetId,
};

/// How thoroughly files are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What the members say they have.
    Described,
    /// Every byte of every copy is read and checked.
    Read,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A chunk with fewer good copies than the file's class asks for.
    TooFew { chunk: ChunkIndex, offset: u64, good: usize, wanted: usize, why: String },
    /// No good copy of the byte at `offset` of the file.
    Unreadable { chunk: ChunkIndex, offset: u64, why: String },
    /// Copies of a chunk are where the class does not want them.
    Misplaced { chunk: ChunkIndex, offset: u64, why: String },
    /// Whether it is well cannot be said.
    Unknown { chunk: ChunkIndex, offset: u64, why: String },
}

/// A file to be checked.
#[derive(Clone, Debug)]
pub struct FileToCheck {
    pub path: String,
    pub attributes: Attributes,
}

/// Inodes whose chunks were found on chains of one table, and are in no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Provably nobody's, by table.
    pub dead: BTreeMap<TableId, BTreeSet<InodeId>>,
    /// This metadata never gave these ids out.
    pub unborn: BTreeMap<TableId, BTreeSet<InodeId>>,
    /// Chains that could not be looked through, and why.
    pub unseen: Vec<(ChainId, String)>,
    /// Chunks looked at.
    pub chunks: u64,
}

/// Bytes of a copy that are read at a time.
const PIECE: u32 = 1 << 20;
/// Members asked at the same time.
const PARALLEL: usize = 16;
/// Inodes remembered as somebody's, so that they are asked for once: 16 bytes each.
const KNOWN_MAX: usize = 1 << 20;

/// What members said of chunks.
type Said = BTreeMap<(TargetId, ChunkId), std::result::Result<Surveyed, String>>;

impl Client {
    /// Checks files. The findings are by the files' places in the list; a file that is gone by now has none.
    pub async fn check_files(&self, files: &[FileToCheck], depth: Depth) -> Result<Vec<Vec<Finding>>> {
        let mut all = self.look(files, depth).await?;
        let again: Vec<usize> = (0..files.len()).filter(|at| !all[*at].is_empty()).collect();
        let mut fresh = Vec::new();
        for at in &again {
            let file = &files[*at];
            match self.stat(file.attributes.inode, Follow::No).await {
                Ok(attributes) => fresh.push((*at, FileToCheck { path: file.path.clone(), attributes })),
                Err(error) if error.kind() == ErrorKind::NotFound => all[*at].clear(),
                Err(error) => return Err(error),
            }
        }
        let looked: Vec<FileToCheck> = fresh.iter().map(|(_, file)| file.clone()).collect();
        let findings = self.look(&looked, depth).await?;
        for ((at, _), findings) in fresh.into_iter().zip(findings) {
            all[at] = findings;
        }
        Ok(all)
    }

    /// Has all servers heal what they know to be bad, and compare their chains, now.
    pub async fn heal_now(&self) -> Result<()> {
        for (_, answer) in self.scrub(&[], ScrubOrder::Heal).await? {
            answer?;
        }
        Ok(())
    }

    async fn look(&self, files: &[FileToCheck], depth: Depth) -> Result<Vec<Vec<Finding>>> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let routing = self.newest_routing().await?;
        let mut chunks: BTreeMap<ChainId, Vec<ChunkId>> = BTreeMap::new();
        for file in files {
            for (chunk, chain) in chunks_of(&file.attributes) {
                chunks.entry(chain).or_default().push(chunk);
            }
        }
        let said = self.ask_members(&routing, chunks).await?;
        let mut findings = Vec::with_capacity(files.len());
        for file in files {
            let check = Check { client: self, routing: &routing, said: &said, file };
            findings.push(check.run(depth).await?);
        }
        Ok(findings)
    }

    /// Asks each serving member of each chain for these chunks.
    async fn ask_members(
        &self,
        routing: &Arc<Routing>,
        chunks: BTreeMap<ChainId, Vec<ChunkId>>,
    ) -> Result<Said> {
        let mut said = Said::new();
        let mut asked = JoinSet::new();
        for (chain, chunks) in chunks {
            let Some(info) = routing.chain(chain) else { continue };
            for target in info.serving() {
                for page in chunks.chunks(SURVEY_MAX) {
                    if asked.len() >= PARALLEL
                        && let Some(Ok(answer)) = asked.join_next().await
                    {
                        note(&mut said, answer)?;
                    }
                    let (client, routing, page) = (self.clone(), routing.clone(), page.to_vec());
                    let epoch = info.epoch;
                    asked.spawn(async move {
                        let of = SurveyOf::These(page.clone());
                        (target, page, client.survey(&routing, target, (chain, epoch), of).await)
                    });
                }
            }
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(answer) = answer {
                note(&mut said, answer)?;
            }
        }
        Ok(said)
    }

    async fn survey(
        &self,
        routing: &Routing,
        target: TargetId,
        (chain, epoch): (ChainId, Epoch),
        of: SurveyOf,
    ) -> Result<Survey> {
        const ACTION: &str = "check";
        let gone =
            || Error::new(ErrorKind::NotReachable, ACTION, "", format!("target {target} has no server"));
        let node = routing.node_of(target).ok_or_else(gone)?;
        match self
            .ask_storage(ACTION, &node.address, &StorageRequest::Survey { chain, epoch, target, of })
            .await?
        {
            StorageReply::Survey(survey) => Ok(survey),
            _ => Err(Error::unexpected(ACTION, &node.address)),
        }
    }

    /// Looks through all chains for chunks that no file names.
    pub async fn find_orphans(&self) -> Result<Orphans> {
        let routing = self.newest_routing().await?;
        let mut orphans = Orphans::default();
        let mut known: BTreeSet<(TableId, InodeId)> = BTreeSet::new();
        let chains: Vec<(ChainId, Epoch, Vec<TargetId>)> =
            routing.chains().map(|(chain, info)| (chain, info.epoch, info.serving().collect())).collect();
        for (chain, epoch, members) in chains {
            if members.is_empty() {
                orphans.unseen.push((chain, "no member serves it".to_owned()));
            }
            // A chunk that one member has and the other lacks is found at the one.
            for target in members {
                let mut after = None;
                loop {
                    let limit = u32::try_from(FATES_MAX).unwrap_or(u32::MAX);
                    let of = SurveyOf::All { after, limit };
                    let page = match self.survey(&routing, target, (chain, epoch), of).await {
                        Ok(page) => page,
                        Err(error) => {
                            let why = format!("target {target}: {}", error.cause());
                            orphans.unseen.push((chain, why));
                            break;
                        }
                    };
                    orphans.chunks += page.chunks.len() as u64;
                    let inodes: BTreeSet<InodeId> = page.chunks.iter().map(|one| one.chunk.inode).collect();
                    self.sort(&mut orphans, &mut known, chain.table, inodes).await?;
                    match page.chunks.last() {
                        Some(last) if page.more => after = Some(last.chunk),
                        _ => break,
                    }
                }
            }
        }
        Ok(orphans)
    }

    /// Asks what became of inodes whose chunks were found just now: what is nobody's now was nobody's then.
    async fn sort(
        &self,
        orphans: &mut Orphans,
        known: &mut BTreeSet<(TableId, InodeId)>,
        table: TableId,
        inodes: BTreeSet<InodeId>,
    ) -> Result<()> {
        let unknown: Vec<InodeId> =
            inodes.into_iter().filter(|inode| !known.contains(&(table, *inode))).collect();
        for page in unknown.chunks(FATES_MAX) {
            let request = MetaRequest::FatesIn { table, inodes: page.to_vec() };
            let fates = match self.meta("check", "inodes", &request).await? {
                MetaReply::Fates(fates) => fates,
                _ => return Err(Error::unexpected("check", "inodes")),
            };
            for (inode, fate) in page.iter().zip(fates) {
                match fate {
                    Fate::Named | Fate::Leased { .. } | Fate::Garbage => {
                        if known.len() >= KNOWN_MAX {
                            known.clear();
                        }
                        known.insert((table, *inode));
                    }
                    Fate::Dead => drop(orphans.dead.entry(table).or_default().insert(*inode)),
                    Fate::Unborn => drop(orphans.unborn.entry(table).or_default().insert(*inode)),
                }
            }
        }
        Ok(())
    }

    /// Has the chunks of dead inodes removed. The metadata checks once more that they are dead.
    pub async fn bury(&self, table: TableId, inodes: &BTreeSet<InodeId>) -> Result<()> {
        let inodes: Vec<InodeId> = inodes.iter().copied().collect();
        for page in inodes.chunks(FATES_MAX) {
            let change = Change::Bury { table, inodes: page.to_vec() };
            self.change("remove", "chunks that no file names", change).await?;
        }
        Ok(())
    }
}

/// Notes what a member said, or why it said nothing. Fails when the user may not ask.
fn note(said: &mut Said, (target, chunks, answer): (TargetId, Vec<ChunkId>, Result<Survey>)) -> Result<()> {
    match answer {
        Ok(survey) => said.extend(survey.chunks.into_iter().map(|one| ((target, one.chunk), Ok(one)))),
        Err(error) if error.kind() == ErrorKind::Denied => return Err(error),
        Err(error) => {
            let why = error.cause().to_owned();
            said.extend(chunks.into_iter().map(|chunk| ((target, chunk), Err(why.clone()))));
        }
    }
    Ok(())
}

/// The chunks that a file may have, and their chains.
fn chunks_of(attributes: &Attributes) -> impl Iterator<Item = (ChunkId, ChainId)> {
    let layout = attributes.layout;
    let count = layout.and_then(|layout| layout.chunks(attributes.length)).unwrap_or(0);
    let inode = attributes.inode;
    (0..count).map(ChunkIndex).filter_map(move |index| Some((ChunkId { inode, index }, layout?.chain(index))))
}

/// One file being checked.
struct Check<'a> {
    client: &'a Client,
    routing: &'a Routing,
    said: &'a Said,
    file: &'a FileToCheck,
}

/// What a member has of a chunk, as far as it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Has {
    Good,
    /// It never had it, as the others.
    Hole,
    /// It lacks it, or what is behind a length.
    Short(u32),
    Bad,
    Unknown(String),
}

impl Check<'_> {
    async fn run(&self, depth: Depth) -> Result<Vec<Finding>> {
        let attributes = &self.file.attributes;
        let Some(layout) = attributes.layout else { return Ok(Vec::new()) };
        let class = self.routing.classes.iter().find(|class| class.id == layout.class);
        let wanted = class.map_or(1, |class| usize::from(class.copies));
        let mut findings = Vec::new();
        for (chunk, chain) in chunks_of(attributes) {
            let index = chunk.index;
            let offset = u64::from(index.0) * u64::from(layout.chunk_size);
            let members: Vec<TargetId> =
                self.routing.chain(chain).map(|info| info.serving().collect()).unwrap_or_default();
            let length = chunk_length(&layout, index, attributes.length);
            let mut copies = self.copies(chunk, length, &members);
            let doubtful = copies.iter().any(|copy| matches!(copy, Has::Bad | Has::Short(_)));
            let all_holes = copies.iter().all(|copy| *copy == Has::Hole);
            let mut unreadable = None;
            if !all_holes && (depth == Depth::Read || (doubtful && !copies.contains(&Has::Good))) {
                unreadable = self.read(chain, chunk, length, (&members[..], &mut copies[..])).await?;
            }
            if members.is_empty() {
                unreadable = Some((0, "no member of its chain serves".to_owned()));
            } else if all_holes && attributes.dense {
                unreadable = Some((0, "no member has it".to_owned()));
            }
            let good = copies.iter().filter(|copy| matches!(copy, Has::Good | Has::Hole)).count();
            let why = words(&members, &copies);
            if let Some((at, why)) = unreadable {
                findings.push(Finding::Unreadable { chunk: index, offset: offset + u64::from(at), why });
            } else if good < wanted {
                let unknown = copies.iter().any(|copy| matches!(copy, Has::Unknown(_)));
                let sure = members.len() < wanted
                    || copies.iter().any(|copy| matches!(copy, Has::Bad | Has::Short(_)));
                findings.push(if unknown && !sure {
                    Finding::Unknown { chunk: index, offset, why }
                } else {
                    Finding::TooFew { chunk: index, offset, good, wanted, why }
                });
            }
            if let Some(why) = class.and_then(|class| misplaced(self.routing, class, &members)) {
                findings.push(Finding::Misplaced { chunk: index, offset, why });
            }
        }
        Ok(findings)
    }

    /// What the members say of a chunk of which the file has `length` bytes.
    fn copies(&self, chunk: ChunkId, length: u32, members: &[TargetId]) -> Vec<Has> {
        let said: Vec<_> = members.iter().map(|target| self.said.get(&(*target, chunk))).collect();
        copies(&said, length, self.file.attributes.dense)
    }

    /// Reads all copies of a chunk. Which are bad is noted; answers the first byte of which no copy is good.
    async fn read(
        &self,
        chain: ChainId,
        chunk: ChunkId,
        length: u32,
        (members, copies): (&[TargetId], &mut [Has]),
    ) -> Result<Option<(u32, String)>> {
        let file = match self.client.open(chunk.inode, Rights::Read).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None), // It is gone: looked at again.
            Err(error) => return Err(error),
        };
        let content = &file.state.content;
        let Some(epoch) = self.routing.chain(chain).map(|info| info.epoch) else { return Ok(None) };
        let mut unreadable = None;
        for offset in (0..length).step_by(PIECE as usize) {
            let capability = content.grant.get(self.client, &self.file.path).await?;
            let piece = Piece { chain, epoch, chunk, offset, length: PIECE.min(length - offset), capability };
            let mut any = false;
            for (target, copy) in members.iter().zip(copies.iter_mut()) {
                match self.read_from(*target, &piece).await {
                    Read::Good => any = true,
                    Read::Bad => *copy = Has::Bad,
                    Read::Unknown(why) => *copy = Has::Unknown(why),
                }
            }
            if !any && unreadable.is_none() {
                unreadable = self.first_lost(members, &piece).await;
            }
        }
        let why = words(members, copies);
        Ok(unreadable.map(|at| (at, why)))
    }

    /// The first block of a piece that no member has. Each may lack another one.
    async fn first_lost(&self, members: &[TargetId], piece: &Piece) -> Option<u32> {
        let size = u32::try_from(BLOCK_SIZE).unwrap_or(piece.length);
        for at in (0..piece.length).step_by(BLOCK_SIZE) {
            let block = Piece { offset: piece.offset + at, length: size.min(piece.length - at), ..*piece };
            let mut found = false;
            for target in members {
                found = found || self.read_from(*target, &block).await == Read::Good;
            }
            if !found {
                return Some(block.offset);
            }
        }
        None
    }

    async fn read_from(&self, target: TargetId, piece: &Piece) -> Read {
        let Some(node) = self.routing.node_of(target) else {
            return Read::Unknown("no server has it".to_owned());
        };
        let Piece { chain, epoch, chunk, offset, length, capability } = *piece;
        let request = StorageRequest::Read { chain, epoch, target, chunk, offset, length, capability };
        match self.client.ask_storage_once(&node.address, &request).await {
            Ok(Ok((StorageReply::Read { checksums, .. }, bytes))) => {
                let whole = bytes.len() == length as usize || !self.file.attributes.dense;
                let matches = types::checksum::first_mismatch(&bytes, &checksums).is_none();
                if whole && matches { Read::Good } else { Read::Bad }
            }
            Ok(Ok(_)) => Read::Unknown("it gave an answer of the wrong kind".to_owned()),
            Ok(Err(StorageError::NoChunk)) if !self.file.attributes.dense => Read::Good,
            Ok(Err(StorageError::Corrupt { .. } | StorageError::Disk | StorageError::NoChunk)) => Read::Bad,
            Ok(Err(refused)) => Read::Unknown(format!("{refused:?}")),
            Err(error) => Read::Unknown(error.cause().to_owned()),
        }
    }
}

/// A part of a chunk to be read from each member.
#[derive(Clone, Copy)]
struct Piece {
    chain: ChainId,
    epoch: Epoch,
    chunk: ChunkId,
    offset: u32,
    length: u32,
    capability: Capability,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Read {
    Good,
    Bad,
    Unknown(String),
}

/// What members have of a chunk, by what they said of it.
fn copies(said: &[Option<&std::result::Result<Surveyed, String>>], length: u32, dense: bool) -> Vec<Has> {
    let there = |one: &&std::result::Result<Surveyed, String>| match one {
        Ok(Surveyed { holding: Holding::There { version, length, .. }, .. }) => Some((*version, *length)),
        Ok(_) | Err(_) => None,
    };
    let newest = said.iter().flatten().filter_map(there).max();
    let has = |one: &Option<&std::result::Result<Surveyed, String>>| match one {
        None => Has::Unknown("it was not asked".to_owned()),
        Some(Err(why)) => Has::Unknown(why.clone()),
        Some(Ok(Surveyed { bad: true, .. })) => Has::Bad,
        Some(Ok(Surveyed { holding: Holding::There { version, length: its, .. }, .. })) => {
            // Of one version there is one length. Versions differ when members were asked at different times.
            let other = newest.is_some_and(|(newest, all)| newest == *version && all != *its);
            if other || (dense && *its < length) { Has::Short(*its) } else { Has::Good }
        }
        Some(Ok(Surveyed { holding: Holding::Nothing | Holding::Removed { .. }, .. })) => match newest {
            Some(_) => Has::Short(0),
            None => Has::Hole,
        },
    };
    said.iter().map(has).collect()
}

/// What is to be said of the copies that are not good.
fn words(members: &[TargetId], copies: &[Has]) -> String {
    let said: Vec<String> = members
        .iter()
        .zip(copies)
        .filter_map(|(target, copy)| match copy {
            Has::Good | Has::Hole => None,
            Has::Short(0) => Some(format!("target {target} has nothing of it")),
            Has::Short(length) => Some(format!("target {target} has {length} bytes of it")),
            Has::Bad => Some(format!("target {target} has bad bytes")),
            Has::Unknown(why) => Some(format!("target {target}: {why}")),
        })
        .collect();
    if said.is_empty() { format!("{} members serve", members.len()) } else { said.join("; ") }
}

/// What a class has against these members.
fn misplaced(routing: &Routing, class: &StorageClass, members: &[TargetId]) -> Option<String> {
    let places: Vec<_> =
        members.iter().filter_map(|target| Some((*target, routing.node_of(*target)?))).collect();
    if let Some((target, node)) =
        places.iter().find(|(_, node)| !class.sites.is_empty() && !class.sites.contains(&node.site))
    {
        return Some(format!(
            "target {target} is at site {}, which class {} does not name",
            node.site, class.name
        ));
    }
    let domain = |node: &types::routing::NodeInfo| match class.domain {
        FailureDomain::Target => None,
        FailureDomain::Host => Some(format!("host {}/{}/{}", node.site, node.rack, node.host)),
        FailureDomain::Rack => Some(format!("rack {}/{}", node.site, node.rack)),
        FailureDomain::Site => Some(format!("site {}", node.site)),
    };
    for (at, (target, node)) in places.iter().enumerate() {
        let Some(place) = domain(node) else { continue };
        let shares = places[..at].iter().find(|(_, other)| domain(other).as_ref() == Some(&place));
        if let Some((other, _)) = shares {
            return Some(format!("targets {other} and {target} are both in {place}"));
        }
    }
    None
}

#[cfg(test)]
mod tests;
