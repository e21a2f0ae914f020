//! Making directories.

use super::tree::{self, Birth};
use crate::access::Caller;
use crate::path::{self, Spot};
use crate::records::{Body, Node};
use crate::view::View;
use crate::{Batch, Context, Failure};
use kv::Snapshot;
use types::Mode;
use types::meta::{Follow, MetaError, MetaReply, Place};

/// What a directory is made with.
#[derive(Clone, Copy)]
pub(super) struct New {
    pub mode: Mode,
    pub umask: Mode,
    /// Those above it that are missing, too; one that is there is no error.
    pub parents: bool,
}

/// See [`types::meta::Change::MakeDirectory`].
pub(super) async fn make<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    new: New,
) -> Result<MetaReply, Failure> {
    if new.parents {
        return make_all(batch, context, caller, place, new).await;
    }
    match path::spot(batch, caller, place, Follow::No).await? {
        Spot::Here(_) => Err(MetaError::Exists.into()),
        Spot::Name(name) => {
            name.free()?;
            let node = make_at(batch, context, caller, (&name.parent, &name.name), new).await?;
            Ok(MetaReply::Attributes(node.attributes()))
        }
    }
}

/// A directory and those above it that are missing. These get a mode that lets their owner go on in them.
async fn make_all<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    new: New,
) -> Result<MetaReply, Failure> {
    let base = Place::inode(place.base);
    let mut here = path::node(batch, caller, &base, Follow::No).await?;
    let components: Vec<&str> = place.path.split('/').filter(|part| !part.is_empty()).collect();
    for (position, component) in components.iter().enumerate() {
        let last = position + 1 == components.len();
        here = match path::spot_from(batch, caller, here, component, Follow::Yes).await? {
            Spot::Here(node) => node,
            Spot::Name(name) => match name.entry {
                Some(entry) => batch.node(entry.inode).await?,
                None => {
                    let mode = if last { new.mode } else { Mode(new.mode.0 | 0o300) };
                    let umask = if last { new.umask } else { Mode(new.umask.0 & !0o300) };
                    let new = New { mode, umask, ..new };
                    make_at(batch, context, caller, (&name.parent, &name.name), new).await?
                }
            },
        };
    }
    if here.inode.is_directory() {
        Ok(MetaReply::Attributes(here.attributes()))
    } else if components.is_empty() {
        Err(MetaError::NotDirectory.into())
    } else {
        Err(MetaError::Exists.into())
    }
}

async fn make_at<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    at: (&Node, &str),
    new: New,
) -> Result<Node, Failure> {
    caller.need_insertion(batch, at.0).await?;
    let id = batch.allocate(1).await?;
    let New { mode, umask, .. } = new;
    let birth = Birth { mode, umask, body: Body::Directory { class: None }, length: 0 };
    tree::make(batch, context, caller, at, id, birth).await
}
