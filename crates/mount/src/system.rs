//! The file system that the kernel asks.

use crate::attributes::{Numbers, for_kernel, kind_of, mode_of};
use crate::cache::Cache;
use crate::contents::{Contents, known};
use crate::directory::{OpenDirectory, found};
use crate::disk::DiskCache;
use crate::errno::{Errno, Result};
use crate::handles::Handles;
use crate::locks::{Locks, Wanted};
use crate::open::OpenFile;
use crate::told::{NameKind, Told};
use crate::xattrs::sized;
use bytes::Bytes;
use client::{Client, CreateOptions, Dependents, File, Forgotten, Parents, Session, Standing};
use fuse::{AttributesToSet, Device, FileSystem, Header, OpenFlags, Operation, Reply, Request, TimeToSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use types::meta::{Exclusive, Follow, Place, Replace, SetAttributes, SetTime};
use types::snapshot;
use types::storage::Durability;
use types::{Attributes, FileKind, Gid, InodeId, Rights, Time, Uid};

/// How what was read is kept, and what the mount shows.
#[derive(Debug)]
pub struct Settings {
    /// The directory of the cloud that is mounted.
    pub root: InodeId,
    pub owner: Owner,
    /// Bytes of memory for the cache.
    pub cache: u64,
    /// What memory has no room for.
    pub disk: Option<DiskCache>,
}

/// Whose is what is made through the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user's who mounts.
    Mounter,
    /// The user's who makes it: the mount is the administrator's, and the kernel checks.
    Asker,
}

/// A mounted file system.
pub struct Mount {
    session: fuse::Session<System>,
}

/// The block that totals are counted in.
const STAT_BLOCK: u32 = 4096;
/// Messages are read by so many tasks.
const READERS: usize = 2;

pub(crate) struct System {
    pub(crate) client: Client,
    owner: Owner,
    pub(crate) numbers: Numbers,
    pub(crate) told: Arc<Told>,
    pub(crate) session: Arc<Session>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) contents: Arc<Contents>,
    pub(crate) files: Handles<OpenFile>,
    directories: Handles<OpenDirectory>,
}

impl Mount {
    /// Greets the kernel of a mounted device. What is open is the session's.
    pub async fn start(session: Session, settings: Settings, device: Device) -> io::Result<Mount> {
        let asks = settings.owner == Owner::Mounter;
        let numbers = Numbers { root: settings.root };
        let told = Told::new(numbers);
        let client = session.keeping(told.clone()).acknowledged(Durability::Memory);
        let session = Arc::new(session);
        let locks = Arc::new(Locks::new(session.clone()));
        let cache = Cache::new(settings.cache, settings.disk);
        let contents = Contents::new(client.clone(), session.clone(), locks.clone(), cache, asks);
        let system = System {
            contents,
            locks,
            session,
            client,
            owner: settings.owner,
            numbers,
            told: told.clone(),
            files: Handles::default(),
            directories: Handles::default(),
        };
        let session = fuse::serve(device, Arc::new(system)).await?;
        told.begin(session.notifier());
        Ok(Mount { session })
    }

    /// Serves until it is unmounted.
    pub async fn run(self) -> io::Result<()> {
        let system = self.session.file_system();
        let losses = tokio::spawn(follow_session(system.clone()));
        let served = self.session.run(READERS).await;
        losses.abort();
        system.contents.end().await;
        // What it holds is free when it is over, should this not reach the servers.
        if let Err(error) = system.session.end().await {
            tracing::warn!(%error, "the session was not ended");
        }
        served
    }
}

impl FileSystem for System {
    fn wanted(&self) -> u64 {
        use fuse::capabilities::{
            AUTO_INVALIDATE_DATA, DIRECT_IO_ALLOW_MMAP, DONT_MASK, EXPIRE_ONLY, FLOCK_LOCKS,
            PARALLEL_DIRECTORIES, POSIX_ACL, POSIX_LOCKS, READ_DIRECTORY_PLUS, SETXATTR_EXT,
        };
        let checks = match self.owner {
            Owner::Asker => POSIX_ACL,
            Owner::Mounter => 0,
        };
        checks
            | AUTO_INVALIDATE_DATA
            | DIRECT_IO_ALLOW_MMAP
            | DONT_MASK
            | EXPIRE_ONLY
            | FLOCK_LOCKS
            | PARALLEL_DIRECTORIES
            | POSIX_LOCKS
            | READ_DIRECTORY_PLUS
            | SETXATTR_EXT
    }

    async fn answer(self: Arc<Self>, request: Request, reply: Reply) {
        let Request { header, operation } = request;
        if let Err((reply, Errno(errno))) = self.dispatch(&header, operation, reply).await {
            reply.error(errno);
        }
    }

    // Inodes are known by their numbers: nothing is kept that the kernel could let go of. What is asked ends by its deadline; only
    // a lock is waited for without one.
    fn told(&self, operation: Operation) {
        if let Operation::Interrupt { unique } = operation {
            self.locks.interrupt(unique);
        }
    }
}

/// Gives the reply back with what went wrong.
pub(crate) type Answered = std::result::Result<(), (Reply, Errno)>;

/// The outcome goes into the reply by `with`; or the reply comes back with what went wrong.
pub(crate) fn give<T>(reply: Reply, outcome: Result<T>, with: impl FnOnce(Reply, T)) -> Answered {
    match outcome {
        Ok(value) => {
            with(reply, value);
            Ok(())
        }
        Err(errno) => Err((reply, errno)),
    }
}

impl System {
    #[allow(clippy::too_many_lines, reason = "a table: an arm per operation")]
    async fn dispatch(&self, header: &Header, operation: Operation, reply: Reply) -> Answered {
        let inode = self.numbers.inode(header.node);
        let entry = |reply: Reply, entry| reply.entry(&entry);
        let done = |reply: Reply, ()| reply.done();
        match operation {
            Operation::Lookup { name } => give(reply, self.lookup(inode, &name).await, entry),
            Operation::GetAttributes { .. } => {
                give(reply, self.attributes(inode).await, |reply, attributes| {
                    let node = self.numbers.node(inode);
                    reply.attributes(&for_kernel(&attributes, node), self.attributes_valid(&attributes));
                })
            }
            Operation::SetAttributes(set) => {
                let is_of_access = set.mode.is_some() || set.uid.is_some() || set.gid.is_some();
                let attributes = self.set_attributes(inode, set).await;
                self.told.changed(inode);
                if is_of_access {
                    self.access_changed(inode);
                }
                give(reply, attributes, |reply, attributes| {
                    reply.attributes(&for_kernel(&attributes, self.numbers.node(inode)), Duration::ZERO);
                })
            }
            Operation::ReadLink => {
                give(reply, self.link_target(inode).await, |reply, target| reply.bytes(target.as_bytes()))
            }
            Operation::SymbolicLink { name, target } => {
                let made = self.make_link(header, inode, &name, &target);
                give(reply, self.changing(&[inode], made).await, entry)
            }
            Operation::MakeNode { name, mode, device, umask } => {
                let made = self.make_node(self.maker(header, umask), inode, &name, mode, device);
                give(reply, self.changing(&[inode], made).await, |reply, (file, _)| {
                    reply.entry(&found(&file.attributes(), self.numbers))
                })
            }
            Operation::MakeDirectory { name, mode, umask } => {
                let made = self.make_directory(self.maker(header, umask), inode, &name, mode);
                give(reply, self.changing(&[inode], made).await, entry)
            }
            Operation::Unlink { name } => {
                give(reply, self.changing(&[inode], self.unlink(header, inode, &name)).await, done)
            }
            Operation::RemoveDirectory { name } => {
                give(reply, self.changing(&[inode], self.remove_directory(inode, &name)).await, done)
            }
            Operation::Rename { name, to, new_name, flags } => {
                let to = self.numbers.inode(to);
                give(reply, self.rename(header, (inode, &name), (to, &new_name), flags).await, done)
            }
            Operation::Link { node, name } => {
                let node = self.numbers.inode(node);
                let linked = self.link(node, inode, &name);
                give(reply, self.changing(&[inode, node], linked).await, entry)
            }
            Operation::Open { flags } => {
                let opened = self.open(inode, flags).await;
                give(reply, opened, |reply, (handle, flags)| reply.opened(handle, flags))
            }
            Operation::Create { name, flags, mode, umask } => {
                let created = self.create(self.maker(header, umask), inode, &name, flags, mode);
                give(reply, self.changing(&[inode], created).await, |reply, (entry, handle, flags)| {
                    reply.created(&entry, handle, flags)
                })
            }
            Operation::TemporaryFile { flags, mode, umask } => {
                let created = self.create_nameless(self.maker(header, umask), inode, flags, mode);
                give(reply, created.await, |reply, (entry, handle, flags)| {
                    reply.created(&entry, handle, flags)
                })
            }
            Operation::Read { handle, offset, size, .. } => {
                give(reply, self.read(handle, offset, size).await, |reply, pieces| reply.pieces(&pieces))
            }
            Operation::Write { handle, offset, data, flags, from_cache } => {
                let flags = if from_cache { 0 } else { flags.cast_signed() };
                let written = self.write(handle, offset, data, flags).await;
                give(reply, written, Reply::written)
            }
            Operation::Flush { handle, owner } => give(reply, self.flush(handle, owner).await, done),
            Operation::Sync { handle, .. } => give(reply, self.sync(handle).await, done),
            Operation::Release { handle, .. } => {
                self.release(handle).await;
                reply.done();
                Ok(())
            }
            Operation::TestLock { handle, owner, kind, range } => {
                let found = self.locks.test(Wanted { inode, handle, owner, kind, range }).await;
                give(reply, found, |reply, range| reply.lock(&range))
            }
            Operation::SetLock { handle, owner, kind, range, wait } => {
                let wanted = Wanted { inode, handle, owner, kind, range };
                let waits = wait.then_some(header.unique);
                give(reply, self.set_lock(wanted, waits).await, done)
            }
            Operation::Allocate { handle, offset, length, mode } => {
                give(reply, self.allocate(handle, offset, length, mode).await, done)
            }
            Operation::Seek { handle, offset, whence } => {
                give(reply, self.seek(handle, offset, whence).await, Reply::position)
            }
            Operation::CopyRange { handle, offset, to: _, to_handle, to_offset, length } => {
                let copied = self.clone_range((handle, offset), (to_handle, to_offset), length).await;
                give(reply, copied, Reply::written)
            }
            Operation::OpenDirectory { .. } => {
                let open = OpenDirectory::new(self.client.clone(), inode, self.numbers);
                reply.opened(self.directories.insert(open), OpenFlags::default());
                Ok(())
            }
            Operation::ReadDirectory { handle, offset, size, plus } => {
                let page = self.page(handle, offset, size, plus).await;
                give(reply, page, |reply, page| reply.directory(&page))
            }
            Operation::ReleaseDirectory { handle } => {
                self.directories.remove(handle);
                reply.done();
                Ok(())
            }
            Operation::SyncDirectory { handle, .. } => give(reply, self.sync_directory(handle).await, done),
            Operation::Destroy => {
                reply.done();
                Ok(())
            }
            Operation::StatFs => give(reply, self.statfs().await, |reply, stat| reply.statfs(&stat)),
            Operation::SetXattr { name, value, flags, takes_setgid } => {
                let client = if takes_setgid { self.client_for(header) } else { self.client.clone() };
                give(reply, self.set_xattr(&client, inode, &name, &value, flags).await, done)
            }
            Operation::GetXattr { name, size } => self.get_xattr(inode, &name, size, reply).await,
            Operation::ListXattrs { size } => {
                let names = self.list_xattrs(inode).await;
                give(reply, names, |reply, names| sized(reply, &names, size))
            }
            Operation::RemoveXattr { name } => give(reply, self.remove_xattr(inode, &name).await, done),
            // The kernel does by itself what it can, and does not ask again.
            Operation::Access { .. }
            | Operation::Init { .. }
            | Operation::Forget { .. }
            | Operation::Interrupt { .. }
            | Operation::Other { .. } => Err((reply, Errno(libc::ENOSYS))),
        }
    }

    /// A change of these inodes, after which the kernel is not to go by what it was told before.
    async fn changing<T>(&self, inodes: &[InodeId], change: impl Future<Output = Result<T>>) -> Result<T> {
        let changed = change.await;
        inodes.iter().for_each(|inode| self.told.changed(*inode));
        changed
    }

    /// Makes changes in the name of who asks, if that is how it is mounted.
    pub(crate) fn client_for(&self, header: &Header) -> Client {
        match self.owner {
            Owner::Mounter => self.client.clone(),
            Owner::Asker => self.client.in_the_name_of(Uid(header.uid), Gid(header.gid)),
        }
    }

    /// The same of somebody with a umask.
    fn maker(&self, header: &Header, umask: u32) -> Client {
        self.client_for(header).with_umask(mode_of(umask))
    }

    /// It is another question than before who may do what with it. Where the kernel does not know the answer, it can forget the
    /// names in it after this.
    pub(crate) fn access_changed(&self, inode: InodeId) {
        if self.owner == Owner::Mounter {
            let told = self.told.clone();
            tokio::spawn(async move { told.forget(vec![inode], Forgotten::LetGo).await });
        }
    }

    async fn lookup(&self, directory: InodeId, name: &Bytes) -> Result<fuse::Entry> {
        // There are only names of UTF-8.
        let Ok(place) = place(directory, name) else { return Err(Errno(libc::ENOENT)) };
        let name = place.path.clone();
        let attributes = match self.client.try_stat(place, Follow::No).await? {
            Some(attributes) => attributes,
            // Whoever makes a snapshot does not change the directory.
            None if name == snapshot::DIRECTORY => return Err(Errno(libc::ENOENT)),
            None => {
                let name_valid = self.told.name(&self.client, (directory, &name), None, NameKind::Leaf);
                return match name_valid.is_zero() {
                    true => Err(Errno(libc::ENOENT)),
                    // A name that leads nowhere, for so long.
                    false => Ok(fuse::Entry { name_valid, ..fuse::Entry::default() }),
                };
            }
        };
        // A file that is open may be longer than the servers know.
        let attributes = match self.contents.get(attributes.inode) {
            Some(content) => content.attributes().await?,
            None => attributes,
        };
        let kind = NameKind::Directory;
        let (name_valid, attributes_valid) = self.valid(directory, (&name, kind), &attributes);
        Ok(fuse::Entry { name_valid, attributes_valid, ..found(&attributes, self.numbers) })
    }

    /// How long the kernel may rely on a name, and on what it leads to.
    fn valid(
        &self,
        directory: InodeId,
        (name, of_directory): (&str, NameKind),
        attributes: &Attributes,
    ) -> (Duration, Duration) {
        let kind = if attributes.kind == FileKind::Directory { of_directory } else { NameKind::Leaf };
        let name = self.told.name(&self.client, (directory, name), Some(attributes.inode), kind);
        (name, self.attributes_valid(attributes))
    }

    async fn attributes(&self, inode: InodeId) -> Result<Attributes> {
        self.contents.attributes(inode).await
    }

    /// How long the kernel may rely on these attributes. Of what is open here they change with each write.
    fn attributes_valid(&self, attributes: &Attributes) -> Duration {
        match self.contents.get(attributes.inode) {
            Some(_) => Duration::ZERO,
            None => self.told.attributes(&self.client, attributes),
        }
    }

    async fn set_attributes(&self, inode: InodeId, set: AttributesToSet) -> Result<Attributes> {
        if let Some(length) = set.size {
            match set.handle {
                Some(handle) => self.file(handle)?.content.truncate(length).await?,
                None => {
                    let content = self.contents.open(inode, Rights::ReadWrite).await?;
                    let cut = content.truncate(length).await;
                    self.contents.release(&content);
                    cut?;
                }
            }
        }
        let time = |time: TimeToSet| match time {
            TimeToSet::Now => SetTime::Now,
            TimeToSet::At { seconds, nanoseconds } => SetTime::At(Time::from_parts(seconds, nanoseconds)),
        };
        let changes = SetAttributes {
            mode: set.mode.map(mode_of),
            uid: set.uid.map(Uid),
            gid: set.gid.map(Gid),
            accessed: set.accessed.map(time),
            modified: set.modified.map(time),
        };
        if changes != SetAttributes::default() {
            if let (Some(content), Some(_)) = (self.contents.get(inode), set.modified) {
                // What is written later would set another time.
                content.flush().await?;
            }
            let changed = self.client.set_attributes(Place::inode(inode), Follow::No, changes).await;
            changed.map_err(|error| match known(error) {
                Errno(libc::EACCES) => Errno(libc::EPERM),
                errno => errno,
            })?;
        }
        self.attributes(inode).await
    }

    async fn link_target(&self, inode: InodeId) -> Result<String> {
        let attributes = self.client.stat(Place::inode(inode), Follow::No).await.map_err(known)?;
        attributes.target.ok_or(Errno(libc::EINVAL))
    }

    async fn make_link(
        &self,
        header: &Header,
        directory: InodeId,
        name: &Bytes,
        target: &Bytes,
    ) -> Result<fuse::Entry> {
        let (place, target) = (place(directory, name)?, text(target)?);
        let attributes = self.client_for(header).make_symbolic_link(place, target).await?;
        Ok(found(&attributes, self.numbers))
    }

    async fn make_node(
        &self,
        maker: Client,
        directory: InodeId,
        name: &Bytes,
        mode: u32,
        device: u32,
    ) -> Result<(File, InodeId)> {
        let kind = kind_of(mode).ok_or(Errno(libc::EINVAL))?;
        let options = CreateOptions {
            kind,
            mode: mode_of(mode),
            device: u64::from(device),
            exclusive: Exclusive::Yes,
            class: None,
        };
        let file = maker.create(place(directory, name)?, options).await?;
        let inode = file.inode();
        Ok((file, inode))
    }

    async fn make_directory(
        &self,
        maker: Client,
        directory: InodeId,
        name: &Bytes,
        mode: u32,
    ) -> Result<fuse::Entry> {
        let place = place(directory, name)?;
        let attributes = maker.make_directory(place, mode_of(mode), Parents::Require).await?;
        Ok(found(&attributes, self.numbers))
    }

    async fn unlink(&self, header: &Header, directory: InodeId, name: &Bytes) -> Result<()> {
        Ok(self.client_for(header).unlink(place(directory, name)?).await?)
    }

    async fn remove_directory(&self, directory: InodeId, name: &Bytes) -> Result<()> {
        Ok(self.client.remove_directory(place(directory, name)?).await?)
    }

    async fn rename(
        &self,
        header: &Header,
        from: (InodeId, &Bytes),
        to: (InodeId, &Bytes),
        flags: u32,
    ) -> Result<()> {
        let replace = match flags {
            0 => Replace::Allowed,
            libc::RENAME_NOREPLACE => Replace::Refused,
            libc::RENAME_EXCHANGE => Replace::Exchange,
            _ => return Err(Errno(libc::EINVAL)),
        };
        let (client, places) = (self.client_for(header), (place(from.0, from.1)?, place(to.0, to.1)?));
        let renames = async { Ok(client.rename(places.0, places.1, replace).await?) };
        self.changing(&[from.0, to.0], renames).await?;
        let (from, to) = ((from.0, text(from.1)?), (to.0, text(to.1)?));
        let renames = [(from, to), (to, from)];
        let count = if replace == Replace::Exchange { 2 } else { 1 };
        self.told.renamed(&self.client, &renames[..count]).await;
        Ok(())
    }

    async fn link(&self, inode: InodeId, directory: InodeId, name: &Bytes) -> Result<fuse::Entry> {
        let place = place(directory, name)?;
        // Who finds it by its first name finds it whole.
        if let Some(content) = self.contents.get(inode)
            && content.attributes().await?.links == 0
        {
            content.flush().await?;
        }
        let linked = self.client.link(Place::inode(inode), place).await?;
        // It is done, whatever is not known of it.
        let attributes = match self.contents.get(inode) {
            Some(content) => content.attributes().await.unwrap_or(linked),
            None => linked,
        };
        Ok(found(&attributes, self.numbers))
    }

    async fn page(&self, handle: u64, offset: u64, size: u32, plus: bool) -> Result<fuse::Directory> {
        let directory = self.directories.get(handle)?;
        let valid = |name: &str, attributes: &Attributes| match self.contents.get(attributes.inode) {
            // The kernel would cut what it has of the file to the servers' length.
            Some(_) => None,
            None => {
                let name = (name, NameKind::ListedDirectory);
                Some(self.valid(directory.inode(), name, attributes))
            }
        };
        directory.page(offset, size, plus, valid).await
    }

    async fn sync_directory(&self, handle: u64) -> Result<()> {
        let directory = self.directories.get(handle)?;
        let flushed = self.client.flush().await;
        // Each that was open then is told, whoever found it out.
        let is_undone = directory.is_undone(self.client.undone());
        flushed.map_err(known)?;
        if is_undone { Err(Errno(libc::EIO)) } else { Ok(()) }
    }

    async fn statfs(&self) -> Result<fuse::StatFs> {
        let totals = self.client.totals().await?;
        let routing = self.client.newest_routing().await?;
        let block = u64::from(STAT_BLOCK);
        let capacity: u64 = routing.targets.values().map(|target| target.capacity).sum();
        let used: u64 = routing.targets.values().map(|target| target.used).sum();
        let free = capacity.saturating_sub(used) / block;
        let files = totals.files.saturating_add(totals.directories);
        Ok(fuse::StatFs {
            blocks: capacity / block,
            free,
            available: free,
            files: files.saturating_add(free),
            files_free: free,
            block_size: STAT_BLOCK,
            name_max: u32::try_from(types::meta::NAME_MAX).unwrap_or(u32::MAX),
        })
    }
}

/// Goes on with another session when one is over: what has a name still and was not locked is as it was.
async fn follow_session(system: Arc<System>) {
    let mut standing = system.session.standing();
    loop {
        let over = standing.wait_for(|standing| *standing != Standing::Live).await;
        let Ok(Standing::Over(lost)) = over.map(|standing| standing.clone()) else { return };
        system.contents.lose(&lost.locked);
        system.locks.lose();
        system.session.resume().await;
    }
}

/// A name in a directory.
pub(crate) fn place(directory: InodeId, name: &Bytes) -> Result<Place> {
    Ok(Place { base: directory, path: text(name)?.to_owned() })
}

/// Names and targets of the cloud are UTF-8.
pub(crate) fn text(bytes: &Bytes) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Errno(libc::EILSEQ))
}
