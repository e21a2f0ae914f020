//! The client's side: what is kept, and answered from.

use foldhash::{HashMap, HashSet};
use std::collections::VecDeque;
use types::delegation::{DELEGATION_LIFETIME, News, Recall};
use types::meta::Entry;
use types::{Attributes, Duration, HolderId, InodeId};

/// Recalls that are remembered each by its inode.
const FLOORS_MAX: usize = 50_000;
/// After so many names of a directory that were not here all of them are wanted, and again after so many times as many.
const PATIENCE: u32 = 4;
/// See [`PATIENCE`].
const PATIENCE_GROWTH: u32 = 16;

/// What a client keeps. Times are those of one clock that never goes back.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// `None`: nothing may be kept.
    holder: Option<HolderId>,
    until: Duration,
    /// The most inodes and names.
    room: usize,
    inodes: HashMap<InodeId, Inode>,
    /// Names of all of them.
    names: usize,
    /// In the order in which they were heard of first.
    order: VecDeque<(InodeId, u64)>,
    births: u64,
    /// What answers with a lower number gave is over: of these inodes, and of all.
    floors: HashMap<InodeId, u64>,
    floor: u64,
    /// What was let go of, to be told to the server.
    returned: Vec<Recall>,
}

/// What is kept of an inode.
#[derive(Clone, Debug)]
struct Inode {
    birth: u64,
    /// The number of the last answer that gave it.
    number: u64,
    /// With the state in which they were so.
    attributes: Option<(Box<Attributes>, u64)>,
    names: HashMap<Box<str>, (Option<InodeId>, u64)>,
    /// A name that is not here is not there.
    is_complete: bool,
    /// Names that were asked for and not here, and after how many of them all are wanted.
    misses: u32,
    patience: u32,
}

impl Inode {
    /// How many there were.
    fn forget_names(&mut self) -> usize {
        self.is_complete = false;
        std::mem::take(&mut self.names).len()
    }
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It leads to this.
    There(Box<Attributes>),
    /// It leads nowhere.
    Nowhere,
}

impl Kept {
    /// Keeps nothing yet, and then at most `room` inodes and names.
    pub fn new(room: usize) -> Kept {
        Kept { room: room.max(1), ..Kept::default() }
    }

    /// One is a holder from now on, and was when this was `asked`. What was kept before is forgotten.
    pub fn begin(&mut self, holder: HolderId, asked: Duration) {
        *self = Kept::new(self.room);
        (self.holder, self.until) = (Some(holder), asked + DELEGATION_LIFETIME);
    }

    /// Forgets everything, and keeps nothing until [`Kept::begin`].
    pub fn end(&mut self) {
        *self = Kept::new(self.room);
    }

    /// As whom to ask, so that the answer may be kept.
    pub fn holder(&self) -> Option<HolderId> {
        self.holder
    }

    /// How long what is kept may be answered, if nothing is heard before.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// The server was heard, which was `asked` then: what it has back is forgotten. What was let go of was told to it with [`Kept::returned`].
    pub fn hear(&mut self, holder: HolderId, asked: Duration, recalls: &[Recall]) {
        if self.holder != Some(holder) {
            return;
        }
        self.until = self.until.max(asked + DELEGATION_LIFETIME);
        for Recall { inode, number } in recalls {
            self.drop_before(*inode, *number);
        }
    }

    /// What was let go of since this was asked for the last time.
    pub fn returned(&mut self) -> Vec<Recall> {
        std::mem::take(&mut self.returned)
    }

    /// The attributes of an inode.
    pub fn attributes(&self, inode: InodeId, now: Duration) -> Option<&Attributes> {
        let kept = self.live(now)?.get(&inode)?;
        kept.attributes.as_ref().map(|(attributes, _)| &**attributes)
    }

    /// What a name in a directory leads to. `None`: the server must be asked.
    pub fn look_up(&mut self, directory: InodeId, name: &str, now: Duration) -> Option<Answered> {
        let kept = self.live(now)?.get(&directory)?;
        let found = match kept.names.get(name) {
            Some((Some(inode), _)) => {
                self.attributes(*inode, now).map(|found| Answered::There(Box::new(found.clone())))
            }
            Some((None, _)) => Some(Answered::Nowhere),
            None if kept.is_complete => Some(Answered::Nowhere),
            None => None,
        };
        if let (None, Some(kept)) = (&found, self.inodes.get_mut(&directory)) {
            kept.misses = kept.misses.saturating_add(1);
        }
        found
    }

    /// Whether so many names of a directory were asked for and not here that all of them should be fetched. That is said once, and
    /// again after many more.
    pub fn wants_all(&mut self, directory: InodeId) -> bool {
        match self.inodes.get_mut(&directory) {
            Some(kept) if !kept.is_complete && kept.misses >= kept.patience => {
                kept.misses = 0;
                kept.patience = kept.patience.saturating_mul(PATIENCE_GROWTH);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether it is known that a name in a directory leads to this (`None`: nowhere).
    pub fn knows(&self, directory: InodeId, name: &str, inode: Option<InodeId>, now: Duration) -> bool {
        let Some(kept) = self.live(now).and_then(|inodes| inodes.get(&directory)) else { return false };
        match kept.names.get(name) {
            Some((known, _)) => *known == inode,
            None => kept.is_complete && inode.is_none(),
        }
    }

    fn live(&self, now: Duration) -> Option<&HashMap<InodeId, Inode>> {
        (self.holder.is_some() && now < self.until).then_some(&self.inodes)
    }

    /// An answer to a question for an inode's attributes.
    pub fn learn(&mut self, holder: HolderId, news: &News, attributes: &Attributes) {
        let granted = self.admit(holder, news);
        self.set_attributes(&granted, attributes, news.state);
    }

    /// An answer to a question for a name: what it leads to, if anywhere.
    pub fn learn_name(
        &mut self,
        holder: HolderId,
        news: &News,
        (directory, name): (InodeId, &str),
        found: Option<&Attributes>,
    ) {
        let granted = self.admit(holder, news);
        self.set_name(&granted, (directory, name), found.map(|found| found.inode), news.state);
        if let Some(found) = found {
            self.set_attributes(&granted, found, news.state);
        }
    }

    /// A page of a directory's entries. What to give to [`Kept::learn_all`] after the last; `None`: not all of them are kept.
    pub fn learn_page(
        &mut self,
        holder: HolderId,
        news: &News,
        directory: InodeId,
        entries: &[Entry],
    ) -> Option<u64> {
        let granted = self.admit(holder, news);
        for Entry { name, attributes, .. } in entries {
            self.set_name(&granted, (directory, name), Some(attributes.inode), news.state);
            self.set_attributes(&granted, attributes, news.state);
        }
        let kept = self.inodes.get(&directory).filter(|_| granted.contains(&directory));
        kept.map(|kept| kept.birth)
    }

    /// All pages of a directory's entries were learnt, each with this number: no other name is there.
    pub fn learn_all(&mut self, directory: InodeId, birth: u64) {
        if let Some(kept) = self.inodes.get_mut(&directory).filter(|kept| kept.birth == birth) {
            kept.is_complete = true;
        }
    }

    /// An answer to a change. `made`: a directory that it made.
    pub fn changed(&mut self, holder: HolderId, news: &News, made: Option<InodeId>) {
        if self.holder != Some(holder) {
            return;
        }
        let granted = self.admit(holder, news);
        for attributes in &news.changed {
            if granted.contains(&attributes.inode) {
                self.set_attributes(&granted, attributes, news.state);
            } else {
                self.drop_before(attributes.inode, news.number);
            }
        }
        for name in &news.names {
            self.set_name(&granted, (name.directory, &name.name), name.inode, news.state);
        }
        for inode in &news.gone {
            self.drop_before(*inode, news.number);
        }
        let made = made.filter(|made| granted.contains(made));
        if let Some(kept) = made.and_then(|made| self.inodes.get_mut(&made)) {
            kept.is_complete = true;
        }
    }

    /// Makes room for what an answer gives: these inodes. What it says of others may be of another state.
    fn admit(&mut self, holder: HolderId, news: &News) -> HashSet<InodeId> {
        let mut granted = HashSet::default();
        if self.holder != Some(holder) {
            return granted;
        }
        for inode in &news.granted {
            let floor = self.floors.get(inode).copied().unwrap_or(self.floor);
            if news.number < floor {
                continue;
            }
            granted.insert(*inode);
            if let Some(kept) = self.inodes.get_mut(inode) {
                kept.number = kept.number.max(news.number);
                continue;
            }
            self.births += 1;
            let birth = self.births;
            let (attributes, names) = (None, HashMap::default());
            let (misses, patience, number) = (0, PATIENCE, news.number);
            let new = Inode { birth, number, attributes, names, is_complete: false, misses, patience };
            self.inodes.insert(*inode, new);
            self.order.push_back((*inode, birth));
        }
        self.make_room();
        granted
    }

    fn make_room(&mut self) {
        while self.inodes.len() + self.names > self.room {
            let Some((inode, birth)) = self.order.pop_front() else { return };
            let Some(kept) = self.inodes.get(&inode).filter(|kept| kept.birth == birth) else { continue };
            let number = kept.number;
            self.returned.push(Recall { inode, number });
            self.drop_before(inode, number + 1);
        }
        // Those that were recalled are still in the order.
        if self.order.len() > 2 * self.inodes.len() + 16 {
            let inodes = &self.inodes;
            self.order.retain(|(inode, birth)| inodes.get(inode).is_some_and(|kept| kept.birth == *birth));
        }
    }

    fn set_attributes(&mut self, granted: &HashSet<InodeId>, attributes: &Attributes, state: u64) {
        let inode = &attributes.inode;
        let Some(kept) = self.inodes.get_mut(inode).filter(|_| granted.contains(inode)) else { return };
        let access = |of: &Attributes| (of.mode, of.uid, of.gid);
        // Who may look up its names now is another question than before.
        if kept.attributes.as_ref().is_some_and(|(known, _)| access(known) != access(attributes)) {
            self.names -= kept.forget_names();
        }
        if kept.attributes.as_ref().is_none_or(|(_, known)| *known <= state) {
            kept.attributes = Some((Box::new(attributes.clone()), state));
        }
    }

    /// Who may look up the names in a directory is another question than before.
    pub fn forget_names(&mut self, directory: InodeId) {
        if let Some(kept) = self.inodes.get_mut(&directory) {
            self.names -= kept.forget_names();
        }
    }

    fn set_name(
        &mut self,
        granted: &HashSet<InodeId>,
        (directory, name): (InodeId, &str),
        inode: Option<InodeId>,
        state: u64,
    ) {
        let kept = self.inodes.get_mut(&directory).filter(|_| granted.contains(&directory));
        let Some(kept) = kept else { return };
        match kept.names.get_mut(name) {
            Some(known) if known.1 > state => {}
            Some(known) => *known = (inode, state),
            None => {
                kept.names.insert(name.into(), (inode, state));
                self.names += 1;
            }
        }
    }

    /// Forgets an inode, and does not keep what answers with a lower number give of it.
    fn drop_before(&mut self, inode: InodeId, number: u64) {
        if let Some(kept) = self.inodes.remove(&inode) {
            self.names -= kept.names.len();
        }
        if self.floors.len() >= FLOORS_MAX {
            self.floor = self.floors.values().copied().fold(self.floor, u64::max);
            self.floors.clear();
        }
        let floor = self.floors.entry(inode).or_insert(self.floor);
        *floor = (*floor).max(number);
    }
}
