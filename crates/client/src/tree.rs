//! The tree: one method per metadata call.

use crate::call::WhenBusy;
use crate::file::File;
use crate::snapshot::ToWrite;
use crate::{Client, Error, Result};
use types::meta::{
    Change, Exclusive, Follow, MetaReply, MetaRequest, Place, Replace, SetAttributes, Totals, XattrReplace,
};
use types::{Attributes, FileKind, Mode, Rights, Shortfall, StorageClass};

/// Whether a missing parent directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// Missing parents are made, and a directory that is there already is no error (`mkdir -p`).
    Make,
    /// A missing parent is an error, and so is a name that is there.
    Require,
}

/// How [`Client::create`] makes an inode.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    pub kind: FileKind,
    pub mode: Mode,
    /// `st_rdev` of a device.
    pub device: u64,
    pub exclusive: Exclusive,
    /// The storage class; `None`: as the directory says.
    pub class: Option<String>,
}

impl Default for CreateOptions {
    fn default() -> CreateOptions {
        CreateOptions {
            kind: FileKind::File,
            mode: Mode(0o644),
            device: 0,
            exclusive: Exclusive::No,
            class: None,
        }
    }
}

/// How errors name a place.
pub(crate) fn describe(place: &Place) -> String {
    if place.base == types::InodeId::ROOT {
        format!("/{}", place.path.trim_start_matches('/'))
    } else if place.path.is_empty() {
        format!("inode {}", place.base)
    } else {
        format!("{} (in directory inode {})", place.path, place.base)
    }
}

impl Client {
    /// The attributes of a file, directory or link.
    pub async fn stat(&self, place: impl Into<Place>, follow: Follow) -> Result<Attributes> {
        let place = place.into();
        let subject = describe(&place);
        let reply = self.meta("stat", &subject, &MetaRequest::Stat { place, follow }).await?;
        attributes(reply, "stat", &subject)
    }

    /// As [`Client::stat`], with `None` for what is not there.
    pub async fn try_stat(&self, place: impl Into<Place>, follow: Follow) -> Result<Option<Attributes>> {
        match self.stat(place, follow).await {
            Ok(attributes) => Ok(Some(attributes)),
            Err(error) if error.kind() == crate::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a file's bytes. Symbolic links are followed. Refused with `Denied` when the user has not these rights.
    pub async fn open(&self, place: impl Into<Place>, rights: Rights) -> Result<File> {
        let place = place.into();
        let subject = describe(&place);
        let reply = match rights {
            Rights::Read => self.meta("open", &subject, &MetaRequest::Open { place, rights }).await?,
            Rights::ReadWrite => self.right_to_write("open", &subject, &place, ToWrite::Open).await?,
        };
        self.opened(reply, "open", subject, rights)
    }

    /// Makes an empty file, and opens it for reading and writing; or a fifo, socket or device.
    pub async fn create(&self, place: impl Into<Place>, options: CreateOptions) -> Result<File> {
        let place = place.into();
        let subject = describe(&place);
        let CreateOptions { kind, mode, device, exclusive, class } = options;
        let change = Change::Create { place: place.clone(), kind, mode, device, exclusive, class };
        let ask = ToWrite::Change(change, WhenBusy::Wait);
        let reply = self.right_to_write("create", &subject, &place, ask).await?;
        self.opened(reply, "create", subject, Rights::ReadWrite)
    }

    pub(crate) fn opened(
        &self,
        reply: MetaReply,
        action: &str,
        subject: String,
        rights: Rights,
    ) -> Result<File> {
        match reply {
            MetaReply::Opened { attributes, capability } => {
                Ok(File::new(self.clone(), subject, *attributes, rights, capability))
            }
            _ => Err(Error::unexpected(action, &subject)),
        }
    }

    /// Makes a directory.
    pub async fn make_directory(
        &self,
        place: impl Into<Place>,
        mode: Mode,
        parents: Parents,
    ) -> Result<Attributes> {
        let place = place.into();
        let subject = describe(&place);
        let change = Change::MakeDirectory { place, mode, parents: parents == Parents::Make };
        let reply = self.change("make directory", &subject, change).await?;
        attributes(reply, "make directory", &subject)
    }

    /// Makes a symbolic link at `place` that points to `target`, which is stored as it is.
    pub async fn make_symbolic_link(
        &self,
        place: impl Into<Place>,
        target: impl Into<String>,
    ) -> Result<Attributes> {
        let place = place.into();
        let subject = describe(&place);
        let change = Change::MakeSymbolicLink { place, target: target.into() };
        let reply = self.change("make symbolic link", &subject, change).await?;
        attributes(reply, "make symbolic link", &subject)
    }

    /// Gives the file at `from` a second name.
    pub async fn link(&self, from: impl Into<Place>, to: impl Into<Place>) -> Result<Attributes> {
        let (from, to) = (from.into(), to.into());
        let subject = format!("{} to {}", describe(&from), describe(&to));
        let reply = self.change("link", &subject, Change::Link { from, to }).await?;
        attributes(reply, "link", &subject)
    }

    /// Removes a name that is no directory.
    pub async fn unlink(&self, place: impl Into<Place>) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let reply = self.change("remove", &subject, Change::Unlink { place }).await?;
        done(reply, "remove", &subject)
    }

    /// Removes an empty directory.
    pub async fn remove_directory(&self, place: impl Into<Place>) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let reply = self.change("remove directory", &subject, Change::RemoveDirectory { place }).await?;
        done(reply, "remove directory", &subject)
    }

    /// Removes a file, or a directory with all that is in it, in one step; the space returns in the background.
    pub async fn remove_tree(&self, place: impl Into<Place>) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let reply = self.change("remove", &subject, Change::RemoveTree { place }).await?;
        done(reply, "remove", &subject)
    }

    /// Renames, in one step: observers see the old name or the new one.
    pub async fn rename(&self, from: impl Into<Place>, to: impl Into<Place>, replace: Replace) -> Result<()> {
        let (from, to) = (from.into(), to.into());
        let subject = format!("{} to {}", describe(&from), describe(&to));
        let reply = self.change("rename", &subject, Change::Rename { from, to, replace }).await?;
        done(reply, "rename", &subject)
    }

    /// Sets the attributes that are given.
    pub async fn set_attributes(
        &self,
        place: impl Into<Place>,
        follow: Follow,
        set: SetAttributes,
    ) -> Result<Attributes> {
        let place = place.into();
        let subject = describe(&place);
        let change = Change::SetAttributes { place, follow, set };
        let reply = self.change("set attributes of", &subject, change).await?;
        attributes(reply, "set attributes of", &subject)
    }

    /// The value of an extended attribute.
    pub async fn get_xattr(&self, place: impl Into<Place>, follow: Follow, name: &str) -> Result<Vec<u8>> {
        let place = place.into();
        let subject = describe(&place);
        let request = MetaRequest::GetXattr { place, follow, name: name.to_string() };
        match self.meta("read an extended attribute of", &subject, &request).await? {
            MetaReply::Xattr(value) => Ok(value),
            _ => Err(Error::unexpected("read an extended attribute of", &subject)),
        }
    }

    /// The names of the extended attributes.
    pub async fn list_xattrs(&self, place: impl Into<Place>, follow: Follow) -> Result<Vec<String>> {
        let place = place.into();
        let subject = describe(&place);
        let request = MetaRequest::ListXattrs { place, follow };
        match self.meta("list extended attributes of", &subject, &request).await? {
            MetaReply::XattrNames(names) => Ok(names),
            _ => Err(Error::unexpected("list extended attributes of", &subject)),
        }
    }

    /// Sets an extended attribute.
    pub async fn set_xattr(
        &self,
        place: impl Into<Place>,
        follow: Follow,
        name: &str,
        value: &[u8],
        replace: XattrReplace,
    ) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let (name, value) = (name.to_string(), value.to_vec());
        let change = Change::SetXattr { place, follow, name, value, replace };
        let reply = self.change("set an extended attribute of", &subject, change).await?;
        done(reply, "set an extended attribute of", &subject)
    }

    /// Removes an extended attribute.
    pub async fn remove_xattr(&self, place: impl Into<Place>, follow: Follow, name: &str) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let change = Change::RemoveXattr { place, follow, name: name.to_string() };
        let reply = self.change("remove an extended attribute of", &subject, change).await?;
        done(reply, "remove an extended attribute of", &subject)
    }

    /// Totals of the file system.
    pub async fn totals(&self) -> Result<Totals> {
        match self.meta("read the totals", "", &MetaRequest::Totals).await? {
            MetaReply::Totals(totals) => Ok(totals),
            _ => Err(Error::unexpected("read the totals", "")),
        }
    }

    /// All storage classes.
    pub async fn classes(&self) -> Result<Vec<StorageClass>> {
        match self.meta("list the storage classes", "", &MetaRequest::Classes).await? {
            MetaReply::Classes(classes) => Ok(classes),
            _ => Err(Error::unexpected("list the storage classes", "")),
        }
    }

    /// The class that new files at `place` get, and the directory that says so (`None`: the default).
    pub async fn explain_class(&self, place: impl Into<Place>) -> Result<(StorageClass, Option<String>)> {
        let place = place.into();
        let subject = describe(&place);
        let reply = self.meta("explain the class of", &subject, &MetaRequest::ExplainClass { place }).await?;
        match reply {
            MetaReply::Explained { class, set_by } => Ok((class, set_by)),
            _ => Err(Error::unexpected("explain the class of", &subject)),
        }
    }

    /// Makes a storage class; the server chooses its id, table and slots. Gives all classes. Fails with
    /// [`ErrorKind::TooFewTargets`](crate::ErrorKind) when its copies cannot be kept as it asks, unless `shortfall`
    /// allows that.
    pub async fn make_class(&self, class: StorageClass, shortfall: Shortfall) -> Result<Vec<StorageClass>> {
        let subject = class.name.clone();
        match self.change("make the storage class", &subject, Change::MakeClass { class, shortfall }).await? {
            MetaReply::Classes(classes) => Ok(classes),
            _ => Err(Error::unexpected("make the storage class", &subject)),
        }
    }

    /// Sets the class of new files below a directory (`None`: as its parent). Uploads of this client follow at once,
    /// those of others within a minute.
    pub async fn set_class(&self, place: impl Into<Place>, class: Option<String>) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let reply = self.change("set the class of", &subject, Change::SetClass { place, class }).await?;
        self.shared.leases.clear();
        done(reply, "set the class of", &subject)
    }
}

pub(crate) fn attributes(reply: MetaReply, action: &str, subject: &str) -> Result<Attributes> {
    match reply {
        MetaReply::Attributes(attributes) => Ok(*attributes),
        _ => Err(Error::unexpected(action, subject)),
    }
}

pub(crate) fn done(reply: MetaReply, action: &str, subject: &str) -> Result<()> {
    match reply {
        MetaReply::Done => Ok(()),
        _ => Err(Error::unexpected(action, subject)),
    }
}
