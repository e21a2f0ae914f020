//! Access control lists of the model: a table, and the words of acl(5).

use super::*;
use types::acl::{ACCESS, DEFAULT};

/// Who has which rights, but for the owner and the others, whom the mode says; so does it the mask, of an inode's own list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    owner: u16,
    users: BTreeMap<u32, u16>,
    group: u16,
    groups: BTreeMap<u32, u16>,
    mask: Option<u16>,
    others: u16,
}

impl List {
    /// The rights of somebody who does not own the thing. One of the groups that fit has to give all that is wanted: of two lists'
    /// rights here one has all that the other has, so that it is the one that gives the most.
    pub(super) fn class(&self, who: Who, thing: &Thing) -> u16 {
        let mask = thing.mode >> 3 & 7;
        if let Some(rights) = self.users.get(&who.0) {
            return rights & mask;
        }
        let mut rights = Vec::new();
        if who.in_group(thing.gid) {
            rights.push(self.group & mask);
        }
        rights.extend(
            self.groups.iter().filter(|(gid, _)| who.in_group(**gid)).map(|(_, rights)| rights & mask),
        );
        rights.into_iter().max_by_key(|rights| rights.count_ones()).unwrap_or(thing.mode & 7)
    }

    fn mode(&self) -> u16 {
        self.owner << 6 | self.mask.unwrap_or(self.group) << 3 | self.others
    }

    /// The mode and the list of what is made with `mode` where this is the default.
    pub(super) fn handed_down(&self, mode: u16) -> (u16, Option<List>) {
        let list = self.mask.is_some().then(|| self.clone());
        (mode & !0o777 | mode & self.mode(), list)
    }

    /// The bytes, with the mode that counts.
    fn bytes(&self, mode: u16) -> Vec<u8> {
        let nobody = u32::MAX;
        let mut entries = vec![(1u16, mode >> 6 & 7, nobody)];
        entries.extend(self.users.iter().map(|(uid, rights)| (2, *rights, *uid)));
        entries.push((4, if self.mask.is_some() { self.group } else { mode >> 3 & 7 }, nobody));
        entries.extend(self.groups.iter().map(|(gid, rights)| (8, *rights, *gid)));
        entries.extend(self.mask.map(|_| (16, mode >> 3 & 7, nobody)));
        entries.push((32, mode & 7, nobody));
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, rights, whose) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(whose.to_le_bytes());
        }
        bytes
    }
}

impl Tree {
    fn listed(&self, who: Who, path: &str) -> Result<usize, MetaError> {
        let id = self.node(who, path, false)?;
        if self.things[id].kind == FileKind::SymbolicLink { Err(MetaError::Invalid) } else { Ok(id) }
    }

    pub(super) fn set_list(&mut self, who: Who, path: &str, list: Option<&List>) -> Result<(), MetaError> {
        let id = self.listed(who, path)?;
        let thing = &mut self.things[id];
        if who.0 != 0 && who.0 != thing.uid {
            return Err(MetaError::Denied);
        }
        let Some(list) = list else {
            return thing.list.take().map(drop).ok_or(MetaError::NoXattr);
        };
        thing.mode = thing.mode & !0o777 | list.mode();
        if who.0 != 0 && !who.in_group(thing.gid) {
            thing.mode &= !0o2000;
        }
        thing.list = list.mask.is_some().then(|| list.clone());
        Ok(())
    }

    pub(super) fn set_default(&mut self, who: Who, path: &str, list: Option<&List>) -> Result<(), MetaError> {
        let id = self.listed(who, path)?;
        let thing = &mut self.things[id];
        let is_misplaced = thing.kind != FileKind::Directory && list.is_some();
        if is_misplaced || (who.0 != 0 && who.0 != thing.uid) {
            return Err(MetaError::Denied);
        }
        if list.is_none() && thing.default.is_none() {
            return Err(MetaError::NoXattr);
        }
        thing.default = list.cloned();
        Ok(())
    }
}

pub(super) fn change(place: Place, name: &str, list: Option<&List>) -> Change {
    let (follow, name) = (Follow::No, name.to_owned());
    match list {
        None => Change::RemoveXattr { place, follow, name },
        Some(list) => {
            let value = list.bytes(list.mode());
            Change::SetXattr { place, follow, name, value, replace: XattrReplace::Either }
        }
    }
}

/// Lists name users and groups that there are in the model. Rights are such that of two groups one has all that the other has.
pub(super) fn list() -> impl Strategy<Value = Option<List>> {
    let rights = || prop_oneof![3 => Just(7u16), 1 => Just(3u16), 1 => Just(1), 1 => Just(0)];
    let named =
        |ids: [u32; 3]| prop::collection::btree_map(prop::sample::select(ids.to_vec()), rights(), 0..3);
    let parts =
        (rights(), named([1, 2, 3]), rights(), named([1, 2, 100]), prop::option::of(rights()), rights());
    let list = parts.prop_map(|(owner, users, group, groups, mask, others)| {
        let needs = !users.is_empty() || !groups.is_empty();
        List { owner, users, group, groups, mask: mask.or(needs.then_some(7)), others }
    });
    prop::option::weighted(0.8, list)
}

/// Compares the lists of a thing.
pub(super) fn compare(world: &mut World, thing: &Thing, path: &str, mode: Mode) {
    let get = |world: &mut World, name: &str| {
        let request = MetaRequest::GetXattr { place: path.into(), follow: Follow::No, name: name.to_owned() };
        match world.read(ROOT, request) {
            Ok(MetaReply::Xattr(value)) => Some(value),
            Err(MetaError::NoXattr) => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(get(world, ACCESS), thing.list.as_ref().map(|list| list.bytes(thing.mode)), "{path}");
    assert_eq!(get(world, DEFAULT), thing.default.as_ref().map(|list| list.bytes(list.mode())), "{path}");
    assert_eq!(mode.has(Mode::ACL), thing.list.is_some(), "{path}");
    assert_eq!(mode.has(Mode::DEFAULT_ACL), thing.default.is_some(), "{path}");
    let names = MetaRequest::ListXattrs { place: path.into(), follow: Follow::No };
    let wanted = [(ACCESS, thing.list.is_some()), (DEFAULT, thing.default.is_some())];
    let wanted =
        wanted.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(world.read(ROOT, names).unwrap(), MetaReply::XattrNames(wanted), "{path}");
}
