//! What the clients do, through the real client library, and what they note of it.
//!
//! Registers are pieces of files that every client writes and reads. Names are made, renamed and removed. Orphans are
//! files that are written to after their name is gone. When the run is mended, each client asks for everything once more;
//! every one of these answers must come.

use crate::administrator::Administrator;
use crate::machine::Parts;
use crate::mover::Mover;
use crate::roles::{CLIENT, meta_address};
use crate::scenario::Work;
use bytes::Bytes;
use client::{Client, CreateOptions, Error, ErrorKind, File, ListOptions, Options, PutOptions, Session};
use env::Random;
use history::{Call, History, Reply};
use net::{Identity, Security, User};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use types::meta::{Follow, Replace};
use types::storage::Durability;
use types::{Attributes, Gid, InodeId, Rights, TableId, Time, Uid};

/// Files that hold registers, and where in each they are: two chunks, and not at the edges of blocks.
const FILES: usize = 3;
const OFFSETS: [u64; 3] = [0, 40_000, 70_000];
/// Bytes of a register.
const REGISTER: usize = 3000;
/// Names that are fought over.
const NAMES: usize = 4;
/// How long an operation is tried while faults happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the clients and the world know of each other.
#[derive(Clone, Default)]
pub struct Stage {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The files are there.
    prepared: AtomicBool,
    /// No more faults: finish, and ask for everything once more.
    mended: AtomicBool,
    /// Clients whose work is over.
    idle: AtomicUsize,
    /// Clients that have all their answers.
    finished: AtomicUsize,
    /// Inodes that have a name at the end, and the tables of their chains.
    files: Mutex<BTreeMap<InodeId, Option<TableId>>>,
}

impl Stage {
    pub fn is_prepared(&self) -> bool {
        self.inner.prepared.load(Ordering::SeqCst)
    }

    pub fn mend(&self) {
        self.inner.mended.store(true, Ordering::SeqCst);
    }

    pub fn finished(&self) -> usize {
        self.inner.finished.load(Ordering::SeqCst)
    }

    /// Inodes that had a name when the last client finished, and the tables of their chains.
    pub fn files(&self) -> BTreeMap<InodeId, Option<TableId>> {
        self.inner.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_mended(&self) -> bool {
        self.inner.mended.load(Ordering::SeqCst)
    }
}

/// What a client knows of the others and of the run.
#[derive(Clone, Copy, Debug)]
pub struct Team {
    pub clients: usize,
    pub storage: u8,
    /// No disk fails or is full: then no error may say that bytes are damaged.
    pub disks_are_well: bool,
}

/// One task's view.
#[derive(Clone)]
struct Worker {
    id: u8,
    client: Client,
    team: Team,
    work: Work,
    history: History,
    stage: Stage,
    random: Random,
}

/// A client's process.
pub async fn run(mut parts: Parts, team: Team, work: Work, history: History, stage: Stage) {
    let id = parts.host - CLIENT;
    let user = User { name: format!("client-{id}"), uid: Uid(0), groups: vec![Gid(0)] };
    let options = Options {
        deadline: DEADLINE,
        connect_deadline: Duration::from_secs(60),
        bulk_connections: 2,
        host: Some(format!("c{id}")),
        ..Options::default()
    };
    let security = Arc::new(Security::Memory(Identity::User(user), parts.network.clone()));
    let connected = loop {
        match Client::connect_as(security.clone(), vec![meta_address()], options.clone()).await {
            Ok(client) => break client,
            Err(error) => tracing::debug!(%error, "cannot connect yet"),
        }
    };
    let random = Random::new(parts.random.number());
    let mut worker = Worker { id, client: connected, team, work, history, stage, random };
    let files = worker.prepare().await;
    let mut tasks = JoinSet::new();
    let counts = [work.registers, work.names, work.orphans];
    for (kind, count) in counts.into_iter().enumerate() {
        for number in 0..count {
            let mut task = worker.clone();
            task.random = Random::new(worker.random.number());
            let files = files.clone();
            tasks.spawn(async move {
                match kind {
                    0 => task.work_on_registers(&files).await,
                    1 => task.work_on_names().await,
                    _ => task.work_on_orphans(number).await,
                }
            });
        }
    }
    if work.moves && id == 0 {
        let random = Random::new(worker.random.number());
        let (client, stage) = (worker.client.clone(), worker.stage.clone());
        tasks.spawn(Administrator { client, team, stage, random }.work());
    }
    if work.follows && id == 0 {
        let random = Random::new(worker.random.number());
        let (client, stage) = (worker.client.clone(), worker.stage.clone());
        tasks.spawn(Mover { client, stage, random }.work());
    }
    while let Some(ended) = tasks.join_next().await {
        // A panic has been seen by the world already.
        drop(ended);
    }
    worker.stage.inner.idle.fetch_add(1, Ordering::SeqCst);
    while worker.stage.inner.idle.load(Ordering::SeqCst) < team.clients {
        worker.sleep(20).await;
    }
    worker.finish(&files).await;
    worker.stage.inner.finished.fetch_add(1, Ordering::SeqCst);
    // Connections stay open while the cluster comes to rest.
    std::future::pending::<()>().await;
}

fn bytes_of(value: u64) -> Bytes {
    Bytes::from(value.to_le_bytes().repeat(REGISTER / 8))
}

/// The value that these bytes are full of. An error when they are not of one value.
fn value_of(bytes: &[u8]) -> Result<u64, String> {
    let mut words = bytes.chunks(8).map(|word| {
        let mut whole = [0; 8];
        whole[..word.len()].copy_from_slice(word);
        u64::from_le_bytes(whole)
    });
    let first = words.next().unwrap_or(0);
    match words.find(|word| *word != first) {
        None => Ok(first),
        Some(other) => Err(format!("one piece holds {first} and {other}: two writes, torn")),
    }
}

fn file_name(file: usize) -> String {
    format!("/r{file}")
}

fn name_of(name: usize) -> String {
    format!("/n{name}")
}

impl Worker {
    async fn sleep(&mut self, most: u64) {
        let pause = 1 + self.random.below(most.max(1));
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.below(end as u64)).unwrap_or(0)
    }

    /// The first client makes the files; the others wait for them.
    async fn prepare(&mut self) -> Vec<File> {
        let mut files = Vec::new();
        for number in 0..FILES {
            loop {
                match self.prepare_file(number).await {
                    Ok(file) => break files.push(file),
                    Err(error) => tracing::debug!(%error, "not yet"),
                }
                self.sleep(100).await;
            }
        }
        if self.id == 0 {
            self.stage.inner.prepared.store(true, Ordering::SeqCst);
        }
        while !self.stage.is_prepared() {
            self.sleep(20).await;
        }
        files
    }

    async fn prepare_file(&mut self, number: usize) -> Result<File, Error> {
        let path = file_name(number);
        if self.id != 0 {
            while !self.stage.is_prepared() {
                self.sleep(20).await;
            }
            return self.client.open(&path, Rights::ReadWrite).await;
        }
        let file = self.client.create(&path, CreateOptions::default()).await?;
        for place in 0..OFFSETS.len() {
            self.write(std::slice::from_ref(&file), number, place).await?;
        }
        Ok(file)
    }

    async fn write(&mut self, files: &[File], number: usize, place: usize) -> Result<(), Error> {
        let file = &files[number % files.len()];
        let (register, value) = (number * OFFSETS.len() + place, self.history.value());
        let operation = self.history.begin(self.id, Call::Write { register, value });
        file.write_at(OFFSETS[place], bytes_of(value), Durability::Disk).await?;
        self.history.end(operation, Reply::Done);
        Ok(())
    }

    async fn read(&mut self, files: &[File], number: usize, place: usize) -> Result<(), Error> {
        let register = number * OFFSETS.len() + place;
        let operation = self.history.begin(self.id, Call::Read { register });
        let bytes = files[number].read_at(OFFSETS[place], REGISTER as u64).await?.into_bytes();
        match value_of(&bytes) {
            Ok(value) => self.history.end(operation, Reply::Value(value)),
            Err(why) => self.history.wrong(format!("client {} read r{register}: {why}", self.id)),
        }
        Ok(())
    }

    async fn work_on_registers(&mut self, files: &[File]) {
        while !self.stage.is_mended() {
            let (number, place) = (self.below(FILES), self.below(OFFSETS.len()));
            let done = if self.random.one_in(self.reads_per_write()) {
                self.write(files, number, place).await
            } else {
                self.read(files, number, place).await
            };
            if let Err(error) = done {
                tracing::debug!(%error, "an operation on a register failed");
                self.check_damage(&error);
            }
            self.sleep(self.work.pause_ms).await;
        }
    }

    /// One client writes as often as it reads; the second hardly ever writes, so that nothing but its reads tells it that
    /// the servers have changed.
    fn reads_per_write(&self) -> u64 {
        match self.id {
            0 => 2,
            1 => 60,
            _ => 4,
        }
    }

    /// No copy is ever damaged here, and no byte lost: an error that says so is wrong.
    fn check_damage(&self, error: &Error) {
        if self.team.disks_are_well && error.kind() == ErrorKind::Damaged {
            self.history.wrong(format!("client {}: {error}", self.id));
        }
    }

    /// Works on names. Every second client keeps what it is told of them: each of its tasks for itself, so that no change of another task
    /// is under way while it looks.
    async fn work_on_names(&mut self) {
        if self.id % 2 == 1 {
            return self.change_names().await;
        }
        let asks = self.client.clone();
        let Some(session) = self.begin_session().await else { return };
        self.client = session.keeping(Arc::new(()));
        self.change_names().await;
        self.client = asks;
        // What it is asked about removed files would wait for it otherwise.
        while let Err(error) = session.end().await {
            tracing::debug!(%error, "a session does not end yet");
        }
    }

    async fn begin_session(&mut self) -> Option<Session> {
        while !self.stage.is_mended() {
            match self.client.begin_session("names").await {
                Ok(session) => return Some(session),
                Err(error) => tracing::debug!(%error, "no session yet"),
            }
        }
        None
    }

    async fn change_names(&mut self) {
        while !self.stage.is_mended() {
            let (name, other) = (self.below(NAMES), self.below(NAMES));
            let done = match self.random.below(8) {
                0..=2 => self.put(name).await,
                3 => self.unlink(name).await,
                4 => self.rename(name, other).await,
                5 if self.work.follows => self.read_whole(name).await,
                _ => self.look(name).await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "an operation on a name failed");
            }
            self.sleep(self.work.pause_ms).await;
        }
    }

    async fn put(&mut self, name: usize) -> Result<(), Error> {
        let tag = self.history.value();
        let operation = self.history.begin(self.id, Call::Put { name, tag });
        let modified = Some(Time(i64::try_from(tag).unwrap_or(i64::MAX)));
        let length = 8 * (1 + self.below(12_000));
        let content = Bytes::from(tag.to_le_bytes().repeat(length / 8));
        let options = PutOptions { modified, ..PutOptions::default() };
        self.client.put(&name_of(name), content, &options).await?;
        self.history.end(operation, Reply::Done);
        Ok(())
    }

    async fn unlink(&mut self, name: usize) -> Result<(), Error> {
        let operation = self.history.begin(self.id, Call::Unlink { name });
        let done = self.client.unlink(&name_of(name)).await;
        self.answered(operation, done.map(|()| Reply::Done))
    }

    async fn rename(&mut self, from: usize, to: usize) -> Result<(), Error> {
        let operation = self.history.begin(self.id, Call::Rename { from, to });
        let done = self.client.rename(&name_of(from), &name_of(to), Replace::Allowed).await;
        self.answered(operation, done.map(|()| Reply::Done))
    }

    async fn look(&mut self, name: usize) -> Result<(), Error> {
        let operation = self.history.begin(self.id, Call::Look { name });
        let found = self.client.stat(&name_of(name), Follow::No).await;
        let tag = |time: Time| Reply::Value(u64::try_from(time.0).unwrap_or(0));
        self.answered(operation, found.map(|attributes| tag(attributes.modified)))
    }

    /// "There is no such name" is an answer too.
    fn answered(&self, operation: usize, answer: Result<Reply, Error>) -> Result<(), Error> {
        match answer {
            Ok(reply) => self.history.end(operation, reply),
            Err(error) if error.kind() == ErrorKind::NotFound => self.history.end(operation, Reply::Absent),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes to files that lose their name meanwhile: what they hold must go when nobody can write to it any more.
    async fn work_on_orphans(&mut self, number: u8) {
        let path = format!("/o{}-{number}", self.id);
        while !self.stage.is_mended() {
            if let Err(error) = self.orphan(&path).await {
                tracing::debug!(%error, "an operation on an orphan failed");
            }
            self.sleep(self.work.pause_ms).await;
        }
        // The last name of all goes too, if it can: else it counts as a file.
        if let Err(error) = self.client.unlink(&path).await {
            tracing::debug!(%error, "an orphan keeps its name");
        }
    }

    async fn orphan(&mut self, path: &str) -> Result<(), Error> {
        let file = self.client.create(path, CreateOptions::default()).await?;
        file.write_at(0, bytes_of(1), Durability::Disk).await?;
        self.client.unlink(path).await?;
        self.sleep(self.work.pause_ms * 4).await;
        // The capability holds, and the file has no name: the bytes are taken, its length is nobody's.
        let late = file.write_at(OFFSETS[1], bytes_of(2), Durability::Disk).await;
        if let Err(error) = late {
            tracing::debug!(%error, "a late write was refused");
        }
        Ok(())
    }

    /// Asks for everything once more: all of it must be answered.
    async fn finish(&mut self, files: &[File]) {
        for number in 0..FILES {
            for place in 0..OFFSETS.len() {
                let (before, write, after) = (
                    self.read(files, number, place).await,
                    self.write(files, number, place).await,
                    self.read(files, number, place).await,
                );
                for error in [before, write, after].into_iter().filter_map(Result::err) {
                    self.history.wrong(format!("client {}, when all was mended: {error}", self.id));
                }
            }
        }
        for name in 0..NAMES {
            if let Err(error) = self.look(name).await {
                self.history.wrong(format!("client {}, when all was mended: {error}", self.id));
            }
            if let Err(why) = self.check_content(name).await {
                self.history.wrong(format!("client {}, when all was mended: n{name}: {why}", self.id));
            }
        }
        match self.client.list("/", ListOptions::default()).collect().await {
            Ok(entries) => {
                let table = |attributes: &Attributes| attributes.layout.map(|layout| layout.table);
                let found =
                    entries.iter().map(|entry| (entry.attributes.inode, table(&entry.attributes))).collect();
                *self.stage.inner.files.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            Err(error) => self.history.wrong(format!("client {}, when all was mended: {error}", self.id)),
        }
    }

    /// What a name leads to is whole, wherever it is moved meanwhile.
    async fn read_whole(&self, name: usize) -> Result<(), Error> {
        let file = self.client.open(&name_of(name), Rights::Read).await?;
        let attributes = file.attributes();
        let bytes = file.read_at(0, attributes.length).await?.into_bytes();
        let whole = bytes.len() as u64 == attributes.length;
        let found = value_of(&bytes);
        if !whole || found.as_ref().ok().map(|value| i64::try_from(*value)) != Some(Ok(attributes.modified.0))
        {
            let (length, wanted) = (bytes.len(), attributes.modified.0);
            self.history.wrong(format!(
                "client {} read {length} bytes of n{name}, which was put with {wanted}, and got {found:?}",
                self.id
            ));
        }
        Ok(())
    }

    /// A name that is there leads to all the bytes that were put under it.
    async fn check_content(&self, name: usize) -> Result<(), String> {
        let file = match self.client.open(&name_of(name), Rights::Read).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let attributes = file.attributes();
        let bytes = file.read_at(0, attributes.length).await.map_err(|error| error.to_string())?.into_bytes();
        let value = value_of(&bytes)?;
        if i64::try_from(value) == Ok(attributes.modified.0) {
            return Ok(());
        }
        Err(format!("it was put with {} and holds {value}", attributes.modified.0))
    }
}
