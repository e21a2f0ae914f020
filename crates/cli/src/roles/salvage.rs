//! `sr salvage`: readable files off one target's directory, with no server running and without changing it.

use super::parts::random;
use crate::outcome::Stop;
use crate::output::Output;
use crate::transfer::local::{is_name, make_link, set_attributes, set_directory_attributes};
use chunk::{ReadError, Store, Wait};
use clap::Args;
use env::table::{FjallOptions, FjallTable};
use env::{Disk, OverlayDisk, Table};
use meta::mirror::{InodeRecord, Place, decode_segment, log_generation};
use meta::rebuild::Gathered;
use meta::records::Body;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::{Attributes, ChainId, ChunkId, ChunkIndex, InodeId, Layout, TargetId};

/// Bytes read at once.
const PIECE: u32 = 1 << 20;
/// Chunks listed at once.
const PAGE: usize = 10_000;
/// The most directories above a file: what leads further leads in a circle.
const DEPTH_MAX: usize = 4096;

/// Arguments of `sr salvage`.
#[derive(Args, Debug)]
#[command(after_help = "\
DIR is never written to: it may be mounted read-only. OUT must be new or empty, elsewhere, and gets
  tree/          files by path, as far as the directories' records are on this target
  unknown/N/     files whose directory N has no record here
  chunks/N/I     chunk I of the file with number N, of which other chunks or the record are on other targets
Every byte is checked against its checksum; what does not match is not copied. With several targets of a cluster,
`sr rebuild` does more.

Example:
  sr salvage /mnt/old-disk ./salvaged")]
pub(crate) struct Salvage {
    /// A target's directory: it has `index` and files that end with .seg
    directory: PathBuf,
    /// Where the files go
    out: PathBuf,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Default)]
struct Tally {
    files: u64,
    bytes: u64,
    directories: u64,
    others: u64,
    pieces: u64,
    /// What could not be read, and why.
    failed: Vec<(String, String)>,
}

/// Salvages.
pub(crate) fn run(arguments: Salvage) -> Result<(), String> {
    let base = fs::canonicalize(&arguments.directory)
        .map_err(|error| format!("cannot open {}: {error}", arguments.directory.display()))?;
    if !base.join("index").is_dir() {
        return Err(format!("{} is no target's directory: it has no `index`", base.display()));
    }
    let out = make_out(&arguments.out, &base)?;
    let scratch = out.join(format!(".salvage-{:016x}", random()));
    let done = salvage(&base, &out, &scratch);
    let removed = fs::remove_dir_all(&scratch);
    let tally = done?;
    removed.map_err(|error| format!("cannot remove {}: {error}", scratch.display()))?;
    tell(&tally, &out, arguments.json).map_err(|stop| stop.to_string())?;
    match tally.failed.len() {
        0 => Ok(()),
        count => Err(format!("{count} files could not be copied whole; the output names them")),
    }
}

fn make_out(out: &Path, base: &Path) -> Result<PathBuf, String> {
    let failed = |error: io::Error| format!("cannot use {}: {error}", out.display());
    fs::create_dir_all(out).map_err(failed)?;
    let out = fs::canonicalize(out).map_err(failed)?;
    if out.starts_with(base) {
        return Err(format!("{} is inside the target: choose another place", out.display()));
    }
    if fs::read_dir(&out).map_err(failed)?.next().is_some() {
        return Err(format!("{} is not empty: choose another place", out.display()));
    }
    Ok(out)
}

fn salvage(base: &Path, out: &Path, scratch: &Path) -> Result<Tally, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("cannot {what}: {error}");
    // Before anything is read: a server that runs would change it meanwhile.
    let files = scratch.join("files");
    fs::create_dir_all(&files).map_err(|error| failed("make the working directory", &error))?;
    let disk = OverlayDisk::new(base, &files);
    drop(disk.lock(base).map_err(|error| error.to_string())?);
    copy_directory(&base.join("index"), &scratch.join("index"))
        .map_err(|error| failed("copy the index", &error))?;
    let table = FjallTable::open(&scratch.join("index"), &chunk::SPACES, FjallOptions::default());
    let table: Arc<dyn Table> = Arc::new(table.map_err(|error| failed("open the index", &error))?);
    let options = chunk::Options {
        target: TargetId(0),
        reserve_bytes: 0,
        compact_percent: 0,
        ..chunk::Options::default()
    };
    let store = Store::open(Arc::new(disk), table, base, options, Box::new(|_| {}));
    let store = store.map_err(|error| failed("open the target", &error))?;
    let mut work = Work::read(&store, out)?;
    work.copy()?;
    Ok(work.tally)
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            // Not `fs::copy`: the copy must be writable whatever the original is.
            io::copy(&mut fs::File::open(entry.path())?, &mut fs::File::create(target)?)?;
        }
    }
    Ok(())
}

/// A target that is being read.
struct Work<'a> {
    store: &'a Store,
    out: &'a Path,
    records: BTreeMap<InodeId, InodeRecord>,
    gone: BTreeSet<InodeId>,
    /// Chunks that are here, with their chain and length.
    chunks: BTreeMap<ChunkId, (ChainId, u32)>,
    tally: Tally,
}

impl<'a> Work<'a> {
    /// Reads all records and lists all chunks.
    fn read(store: &'a Store, out: &'a Path) -> Result<Work<'a>, String> {
        let mut gathered = Gathered::default();
        let mut work = Work {
            store,
            out,
            records: BTreeMap::new(),
            gone: BTreeSet::new(),
            chunks: BTreeMap::new(),
            tally: Tally::default(),
        };
        for (chain, _, _) in store.positions() {
            let mut after = None;
            loop {
                let listed = store.chunks(chain, after, PAGE).map_err(|error| error.to_string())?;
                let Some((last, _)) = listed.last() else { break };
                after = Some(*last);
                for (chunk, state) in listed {
                    match log_generation(chunk.inode) {
                        Some(generation) => work.log(&mut gathered, (chain, chunk, generation), state.length),
                        None => drop(work.chunks.insert(chunk, (chain, state.length))),
                    }
                }
            }
        }
        work.records = gathered.inodes().map(|(id, record)| (id, record.clone())).collect();
        work.gone = work.chunks.keys().map(|chunk| chunk.inode).filter(|id| gathered.is_gone(*id)).collect();
        Ok(work)
    }

    fn log(
        &mut self,
        gathered: &mut Gathered,
        (chain, chunk, generation): (ChainId, ChunkId, u32),
        length: u32,
    ) {
        let mut bytes = Vec::new();
        let read = self.pieces(chain, chunk, length, |_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        if let Err(why) = read {
            self.tally.failed.push((format!("records {chunk} of chain {chain}"), why));
        }
        let place = Place { chain, generation, index: chunk.index, offset: 0 };
        // What does not decode is the end of a write that nobody was told of.
        let _ = decode_segment(place, &bytes, |version, record| gathered.take(chain, version, record));
    }

    /// Hands out the bytes of a chunk, checked.
    fn pieces(
        &self,
        chain: ChainId,
        chunk: ChunkId,
        length: u32,
        mut take: impl FnMut(u32, &[u8]) -> io::Result<()>,
    ) -> Result<(), String> {
        let mut offset = 0;
        while offset < length {
            let read = self.store.read(chain, chunk, offset, PIECE.min(length - offset), Wait::Allowed);
            let read = read.map_err(|error| match error {
                ReadError::Corrupt { offset } => format!("damaged at byte {offset} of chunk {}", chunk.index),
                ReadError::NoChunk => format!("chunk {} is gone", chunk.index),
                ReadError::Disk(why) => format!("chunk {} cannot be read: {why:?}", chunk.index),
                ReadError::WouldBlock => format!("chunk {} cannot be read", chunk.index),
            })?;
            take(offset, &read.bytes).map_err(|error| format!("cannot write: {error}"))?;
            let done = u32::try_from(read.bytes.len()).unwrap_or(u32::MAX);
            if done == 0 {
                return Err(format!("chunk {} ends early", chunk.index));
            }
            offset = offset.saturating_add(done);
        }
        Ok(())
    }

    fn copy(&mut self) -> Result<(), String> {
        let records = std::mem::take(&mut self.records);
        let places: BTreeMap<InodeId, Vec<PathBuf>> =
            records.iter().map(|(id, record)| (*id, places(&records, record))).collect();
        let mut directories: Vec<(PathBuf, Attributes)> = Vec::new();
        let mut links = Vec::new();
        for (id, record) in &records {
            let places = places.get(id).map_or(&[][..], Vec::as_slice);
            let Some((first, others)) = places.split_first() else { continue };
            let path = self.out.join(first);
            let attributes = record.inode.attributes(*id);
            match &record.inode.body {
                Body::Directory { .. } => {
                    fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                    self.tally.directories += 1;
                    directories.push((path, attributes));
                    continue;
                }
                Body::SymbolicLink { target } => {
                    links.push((places, target, attributes));
                    continue;
                }
                Body::Special { .. } => {
                    self.fail(first, "devices, fifos and sockets are not made".to_owned())
                }
                Body::File { layout, dense, .. } => {
                    match self.file(*id, layout, *dense, &path, &attributes) {
                        Ok(()) => {
                            self.tally.files += 1;
                            self.tally.bytes += attributes.length;
                        }
                        Err(why) => {
                            self.fail(first, why);
                            continue;
                        }
                    }
                }
            }
            for other in others {
                let other = self.out.join(other);
                let linked = parent_of(&other).and_then(|()| fs::hard_link(&path, &other));
                if let Err(error) = linked {
                    self.fail(&other, error.to_string());
                }
            }
        }
        // After everything else, so that nothing is written through one.
        for (places, target, attributes) in links {
            for place in places {
                let path = self.out.join(place);
                match parent_of(&path).and_then(|()| make_link(&path, target, &attributes)) {
                    Ok(()) => self.tally.others += 1,
                    Err(error) => self.fail(place, error.to_string()),
                }
            }
        }
        // The deepest first: what is made in a directory changes its times.
        directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, attributes) in directories {
            if let Err(error) = set_directory_attributes(&path, &attributes) {
                self.fail(&path, error.to_string());
            }
        }
        self.left_over(&records)
    }

    /// Copies a file of which every chunk is here.
    fn file(
        &self,
        id: InodeId,
        layout: &Layout,
        dense: bool,
        path: &Path,
        attributes: &Attributes,
    ) -> Result<(), String> {
        let count = layout.chunks(attributes.length).ok_or("its length makes no sense")?;
        let here = |index: &ChunkIndex| self.chunks.get(&ChunkId { inode: id, index: *index });
        if dense {
            let there = (0..count).map(ChunkIndex).filter(|index| here(index).is_some()).count();
            if there < usize::try_from(count).unwrap_or(usize::MAX) {
                return Err(format!(
                    "{there} of {count} chunks are on this target: they are below chunks/{id}"
                ));
            }
        } else if count > 1 {
            // A chunk that is not here may be a hole, or on another target.
            return Err(format!("it may have holes: what is here of it is below chunks/{id}"));
        }
        let written = (|| {
            parent_of(path).map_err(|error| error.to_string())?;
            let file = fs::File::create_new(path).map_err(|error| error.to_string())?;
            file.set_len(attributes.length).map_err(|error| error.to_string())?;
            for index in (0..count).map(ChunkIndex) {
                let Some((chain, length)) = here(&index).copied() else { continue };
                let start = u64::from(index.0) * u64::from(layout.chunk_size);
                let expected = attributes.length.saturating_sub(start).min(u64::from(layout.chunk_size));
                if dense && u64::from(length) < expected {
                    return Err(format!("chunk {index} has {length} bytes of {expected}"));
                }
                let length = length.min(u32::try_from(expected).unwrap_or(u32::MAX));
                self.pieces(chain, ChunkId { inode: id, index }, length, |offset, piece| {
                    file.write_all_at(piece, start + u64::from(offset))
                })?;
            }
            set_attributes(&file, attributes).map_err(|error| error.to_string())
        })();
        if written.is_err() {
            // What is not whole has no name.
            let _ = fs::remove_file(path);
        }
        written
    }

    /// Copies chunks that no file was made of.
    fn left_over(&mut self, records: &BTreeMap<InodeId, InodeRecord>) -> Result<(), String> {
        let made: BTreeSet<InodeId> = records
            .iter()
            .filter(|(id, record)| match &record.inode.body {
                Body::File { layout, dense, .. } => {
                    let count = layout.chunks(record.inode.length).unwrap_or(u32::MAX);
                    let all = || {
                        (0..count).all(|index| {
                            self.chunks.contains_key(&ChunkId { inode: **id, index: ChunkIndex(index) })
                        })
                    };
                    count <= 1 || (*dense && all())
                }
                Body::Directory { .. } | Body::SymbolicLink { .. } | Body::Special { .. } => false,
            })
            .map(|(id, _)| *id)
            .collect();
        let chunks = std::mem::take(&mut self.chunks);
        for (chunk, (chain, length)) in &chunks {
            if made.contains(&chunk.inode) || self.gone.contains(&chunk.inode) {
                continue;
            }
            let path = self.out.join("chunks").join(chunk.inode.to_string()).join(chunk.index.to_string());
            let written = (|| {
                parent_of(&path).map_err(|error| error.to_string())?;
                let mut file = fs::File::create_new(&path).map_err(|error| error.to_string())?;
                self.pieces(*chain, *chunk, *length, |_, piece| file.write_all(piece))
            })();
            match written {
                Ok(()) => {
                    self.tally.pieces += 1;
                    self.tally.bytes += u64::from(*length);
                }
                Err(why) => {
                    let _ = fs::remove_file(&path);
                    self.fail(&path, why);
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, place: &Path, why: String) {
        let place = place.strip_prefix(self.out).unwrap_or(place);
        self.tally.failed.push((place.display().to_string(), why));
    }
}

fn parent_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Where an inode goes, by each of its names.
fn places(records: &BTreeMap<InodeId, InodeRecord>, record: &InodeRecord) -> Vec<PathBuf> {
    if record.id == InodeId::ROOT {
        return vec![PathBuf::from("tree")];
    }
    if record.inode.is_directory() && record.inode.links == 0 {
        return Vec::new(); // It was being removed.
    }
    let own = [(record.inode.parent, record.inode.name.clone())];
    let names = if record.names.is_empty() { &own[..] } else { &record.names };
    names.iter().map(|(parent, name)| place(records, record.id, *parent, name)).collect()
}

fn place(records: &BTreeMap<InodeId, InodeRecord>, id: InodeId, parent: InodeId, name: &str) -> PathBuf {
    let mut names = vec![safe(id, name)];
    let mut at = parent;
    for _ in 0..DEPTH_MAX {
        if at == InodeId::ROOT {
            names.push("tree".to_owned());
            return names.iter().rev().collect();
        }
        match records.get(&at) {
            Some(above) if above.inode.is_directory() => {
                names.push(safe(at, &above.inode.name));
                at = above.inode.parent;
            }
            Some(_) | None => break,
        }
    }
    names.push(at.to_string());
    names.push("unknown".to_owned());
    names.iter().rev().collect()
}

/// A name from a disk: it may be anything.
fn safe(id: InodeId, name: &str) -> String {
    if is_name(name) { name.to_owned() } else { format!("inode-{id}") }
}

fn tell(tally: &Tally, out: &Path, json: bool) -> Result<(), Stop> {
    let mut output = Output::new();
    if json {
        output.json(&serde_json::json!({
            "record": "summary", "out": out, "files": tally.files, "bytes": tally.bytes,
            "directories": tally.directories, "links": tally.others, "chunks": tally.pieces,
            "failed": tally.failed.len(),
        }))?;
        for (path, why) in &tally.failed {
            output.json(&serde_json::json!({ "record": "failed", "path": path, "why": why }))?;
        }
    } else {
        for (path, why) in &tally.failed {
            output.line(&format!("not copied: {path}: {why}"))?;
        }
        output.line(&format!(
            "copied {} files, {} directories, {} links, and {} chunks of other files ({}) to {}",
            tally.files,
            tally.directories,
            tally.others,
            tally.pieces,
            crate::text::size::human(tally.bytes),
            out.display()
        ))?;
    }
    output.flush()
}
