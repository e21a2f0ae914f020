//! The fake metadata server.

use super::World;
use types::meta::{
    Change, Detail, Entry, MetaError, MetaReply, MetaRequest, Place, Publish, Replace, Totals,
};
use types::wire::{Channel, decode, encode};
use types::{Attributes, FileKind, Gid, InodeId, Layout, Mode, Rights, StorageClass, Time, Uid};

impl World {
    pub(super) fn make_root(&mut self) {
        self.inodes.insert(InodeId::ROOT, attributes(InodeId::ROOT, FileKind::Directory));
    }

    pub(super) fn meta_request(&mut self, body: &[u8]) -> Vec<u8> {
        self.counts.meta += 1;
        if World::every(self.counts.meta, self.faults.unavailable_every) {
            return encode(&Err::<MetaReply, _>(MetaError::Unavailable));
        }
        let Ok(request) = decode::<MetaRequest>(body) else {
            return encode(&Err::<MetaReply, _>(MetaError::Invalid));
        };
        let MetaRequest::Change { origin, change, .. } = request else {
            return encode(&self.answer(request));
        };
        if self.faults.store_full {
            return encode(&Err::<MetaReply, _>(MetaError::StoreFull));
        }
        let lane = (origin.client.0, origin.lane.0);
        match self.meta_lanes.get(&lane) {
            Some((last, answer)) if *last == origin.sequence.0 => return answer.clone(),
            Some((last, _)) if *last > origin.sequence.0 => {
                return encode(&Err::<MetaReply, _>(MetaError::TooOld));
            }
            _ => {}
        }
        *self.counts.effects.entry((Channel::Meta, origin)).or_default() += 1;
        let answer = encode(&self.change(change));
        self.meta_lanes.insert(lane, (origin.sequence.0, answer.clone()));
        answer
    }

    fn answer(&mut self, request: MetaRequest) -> Result<MetaReply, MetaError> {
        match request {
            MetaRequest::Stat { place, .. } => {
                let inode = self.find(&place)?;
                Ok(MetaReply::Attributes(Box::new(self.inodes[&inode].clone())))
            }
            MetaRequest::Open { place, rights } => {
                let inode = self.find(&place)?;
                self.opened(inode, rights)
            }
            MetaRequest::List { place, after, limit, pattern, detail } => {
                self.counts.lists += 1;
                let directory = self.find(&place)?;
                if self.inodes[&directory].kind != FileKind::Directory {
                    return Err(MetaError::NotDirectory);
                }
                let pattern = pattern.map(|text| client::glob::Pattern::parse(&text).unwrap());
                let limit = usize::try_from(limit).unwrap().min(self.page_max);
                let found: Vec<(String, InodeId)> = self
                    .entries
                    .range((directory, String::new())..)
                    .take_while(|((parent, _), _)| *parent == directory)
                    .filter(|((_, name), _)| after.as_ref().is_none_or(|after| name > after))
                    .filter(|((_, name), _)| pattern.as_ref().is_none_or(|pattern| pattern.matches(name)))
                    .map(|((_, name), inode)| (name.clone(), *inode))
                    .collect();
                let more = found.len() > limit;
                let entries = found.into_iter().take(limit).map(|(name, inode)| {
                    let attributes = self.inodes[&inode].clone();
                    let readable = detail == Detail::Capabilities && attributes.kind == FileKind::File;
                    let capability = readable.then(|| self.grant(inode, 1, Rights::Read));
                    Entry { name, attributes, capability }
                });
                let entries = entries.collect();
                Ok(MetaReply::Entries { directory, entries, more })
            }
            // The only one says that it knows of no others.
            MetaRequest::Servers => Ok(MetaReply::Servers(Vec::new())),
            MetaRequest::Followings => Ok(MetaReply::Followings(Vec::new())),
            MetaRequest::Totals => Ok(MetaReply::Totals(Totals::default())),
            MetaRequest::Classes => Ok(MetaReply::Classes(self.routing.classes.clone())),
            MetaRequest::TestLock { session, inode, lock } => self.sessions.test(session, inode, &lock),
            _ => Err(MetaError::Invalid),
        }
    }

    fn change(&mut self, change: Change) -> Result<MetaReply, MetaError> {
        match change {
            Change::Create { place, .. } => {
                let inode = self.fresh(1);
                let class = self.class_of(None)?;
                let mut made = attributes(inode, FileKind::File);
                made.layout = Some(layout(&class, 99));
                made.dense = true;
                self.link(&place, made, Replace::Refused)?;
                self.opened(inode, Rights::ReadWrite)
            }
            Change::MakeDirectory { place, .. } => {
                let inode = self.fresh(1);
                self.link(&place, attributes(inode, FileKind::Directory), Replace::Refused)?;
                Ok(MetaReply::Attributes(Box::new(self.inodes[&inode].clone())))
            }
            Change::Unlink { place } => {
                let key = self.name(&place)?;
                self.entries.remove(&key).ok_or(MetaError::NotFound)?;
                Ok(MetaReply::Done)
            }
            Change::LeaseInodes { place, count, class } => {
                self.find(&place)?;
                let class = self.class_of(class.as_deref())?;
                let first = self.fresh(count);
                let capability = self.grant(first, count, Rights::ReadWrite);
                Ok(MetaReply::Leased { first, count, class, capability, expires: Time(i64::MAX) })
            }
            Change::RenewLease { inode } => {
                let class = self.class_of(None)?;
                let capability = self.grant(inode, 1, Rights::ReadWrite);
                Ok(MetaReply::Leased { first: inode, count: 1, class, capability, expires: Time(i64::MAX) })
            }
            Change::Publish(publish) => self.publish(*publish),
            Change::Resize { place, length } => {
                let inode = self.find(&place)?;
                let attributes = self.inodes.get_mut(&inode).unwrap();
                attributes.dense = length == 0 || (attributes.dense && length <= attributes.length);
                attributes.length = length;
                Ok(MetaReply::Attributes(Box::new(attributes.clone())))
            }
            Change::Grow { inode, length, modified } => {
                if let Some(layout) = self.faults.move_before_growth.take() {
                    self.move_file(inode, layout);
                    self.faults.capabilities_void = self.capabilities_given();
                }
                let attributes = self.inodes.get_mut(&inode).ok_or(MetaError::NotFound)?;
                attributes.dense &= length <= attributes.length;
                attributes.length = attributes.length.max(length);
                attributes.modified = modified;
                Ok(MetaReply::Attributes(Box::new(attributes.clone())))
            }
            Change::OpenAppend { place } => {
                let inode = self.find(&place)?;
                if self.appending.contains_key(&inode) {
                    return Err(MetaError::Busy);
                }
                let session = self.fresh(1).0;
                self.appending.insert(inode, session);
                self.session(inode, session)
            }
            Change::ExtendAppend { inode, session, length } => {
                if self.appending.get(&inode) != Some(&session) {
                    return Err(MetaError::LeaseOver);
                }
                let attributes = self.inodes.get_mut(&inode).unwrap();
                attributes.length = attributes.length.max(length);
                self.session(inode, session)
            }
            Change::CloseAppend { inode, session } => {
                if self.appending.get(&inode) != Some(&session) {
                    return Err(MetaError::LeaseOver);
                }
                self.appending.remove(&inode);
                Ok(MetaReply::Done)
            }
            // Of a session, if anything.
            change => {
                let fresh = self.fresh(1).0;
                self.sessions.change(fresh, change)
            }
        }
    }

    fn publish(&mut self, publish: Publish) -> Result<MetaReply, MetaError> {
        if self.faults.leases_over > 0 {
            self.faults.leases_over -= 1;
            return Err(MetaError::LeaseOver);
        }
        let mut made = attributes(publish.inode, FileKind::File);
        made.layout = Some(publish.layout);
        made.length = publish.length;
        made.mode = publish.mode;
        made.dense = publish.dense;
        made.modified = publish.modified.unwrap_or(Time(1));
        self.link(&publish.place, made, publish.replace)?;
        Ok(MetaReply::Attributes(Box::new(self.inodes[&publish.inode].clone())))
    }

    fn session(&mut self, inode: InodeId, session: u64) -> Result<MetaReply, MetaError> {
        let capability = self.grant(inode, 1, Rights::ReadWrite);
        let attributes = Box::new(self.inodes[&inode].clone());
        Ok(MetaReply::Appending { attributes, capability, session, expires: Time(i64::MAX) })
    }

    fn opened(&mut self, inode: InodeId, rights: Rights) -> Result<MetaReply, MetaError> {
        let attributes = Box::new(self.inodes[&inode].clone());
        let file = attributes.kind == FileKind::File;
        let capability = file.then(|| self.grant(inode, 1, rights));
        Ok(MetaReply::Opened { attributes, capability })
    }

    fn link(&mut self, place: &Place, made: Attributes, replace: Replace) -> Result<(), MetaError> {
        let key = self.name(place)?;
        if replace == Replace::Refused && self.entries.contains_key(&key) {
            return Err(MetaError::Exists);
        }
        self.entries.insert(key, made.inode);
        self.inodes.insert(made.inode, made);
        Ok(())
    }

    fn fresh(&mut self, count: u32) -> InodeId {
        let first = InodeId(self.next_inode);
        self.next_inode += u64::from(count);
        first
    }

    fn class_of(&self, name: Option<&str>) -> Result<StorageClass, MetaError> {
        let wanted = |class: &&StorageClass| name.is_none_or(|name| class.name == name);
        self.routing.classes.iter().find(wanted).cloned().ok_or(MetaError::NoClass)
    }

    pub(crate) fn find(&self, place: &Place) -> Result<InodeId, MetaError> {
        let names = place.path.split('/').filter(|name| !name.is_empty());
        let mut inode = place.base;
        for name in names {
            if self.inodes.get(&inode).is_some_and(|a| a.kind != FileKind::Directory) {
                return Err(MetaError::NotDirectory);
            }
            inode = *self.entries.get(&(inode, name.to_string())).ok_or(MetaError::NotFound)?;
        }
        if self.inodes.contains_key(&inode) { Ok(inode) } else { Err(MetaError::NotFound) }
    }

    fn name(&self, place: &Place) -> Result<(InodeId, String), MetaError> {
        let path = place.path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.find(&Place { base: place.base, path: parent.to_string() })?;
        if name.is_empty() { Err(MetaError::Invalid) } else { Ok((parent, name.to_string())) }
    }
}

fn layout(class: &StorageClass, seed: u32) -> Layout {
    let (table, slots, chunk_size) = (class.table, class.slots, class.chunk_size);
    Layout { class: class.id, table, slots, chunk_size, seed }
}

fn attributes(inode: InodeId, kind: FileKind) -> Attributes {
    Attributes {
        inode,
        kind,
        mode: Mode(0o644),
        uid: Uid(0),
        gid: Gid(0),
        links: 1,
        length: 0,
        accessed: Time(1),
        modified: Time(1),
        changed: Time(1),
        born: Time(1),
        device: 0,
        layout: None,
        dense: false,
        target: None,
    }
}
