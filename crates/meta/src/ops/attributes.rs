//! Changing modes, owners and times.

use super::content::without_privileges;
use super::tree;
use crate::access::{Access, Caller};
use crate::path;
use crate::records::Inode;
use crate::{Batch, Context, Failure};
use kv::Snapshot;
use types::meta::{Follow, MetaError, MetaReply, Place, SetAttributes, SetTime};
use types::{Mode, Time};

/// See [`types::meta::Change::SetAttributes`].
pub(super) async fn set<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    follow: Follow,
    set: &SetAttributes,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, place, follow).await?;
    if needs_writer(set) && !caller.owns(&node.inode) {
        caller.need(batch, &node, Access::WRITE).await?;
    }
    let node = tree::update(batch, node.id, |inode| {
        change_owner(caller, inode, set)?;
        change_mode(caller, inode, set)?;
        change_times(context, caller, inode, set)?;
        if *set != SetAttributes::default() {
            inode.changed = context.now;
        }
        Ok(())
    })
    .await?;
    Ok(MetaReply::Attributes(node.attributes()))
}

/// Only the administrator gives a file away. Its owner may give it to a group he is in.
fn change_owner(caller: &Caller, inode: &mut Inode, set: &SetAttributes) -> Result<(), MetaError> {
    if set.uid.is_none() && set.gid.is_none() {
        return Ok(());
    }
    caller.need_owner(inode)?;
    let given_away = set.uid.is_some_and(|uid| uid != inode.uid);
    let foreign = set.gid.is_some_and(|gid| gid != inode.gid && !caller.is_member(gid));
    if !caller.is_administrator() && (given_away || foreign) {
        return Err(MetaError::Denied);
    }
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    if !inode.is_directory() {
        inode.mode = without_privileges(inode.mode);
    }
    Ok(())
}

/// setgid is only for members of the group; without it the others' request goes through.
fn change_mode(caller: &Caller, inode: &mut Inode, set: &SetAttributes) -> Result<(), MetaError> {
    let Some(mode) = set.mode else { return Ok(()) };
    caller.need_owner(inode)?;
    let mut bits = mode.0 & Mode::MASK;
    if !caller.is_administrator() && !caller.is_member(inode.gid) {
        bits &= !Mode::SETGID;
    }
    inode.mode = Mode(inode.mode.0 & !Mode::MASK | bits);
    Ok(())
}

/// Who may write a file may say that he did so now.
fn needs_writer(set: &SetAttributes) -> bool {
    [set.accessed, set.modified].iter().flatten().any(|time| matches!(time, SetTime::Now))
}

/// Any other time than now is the owner's to set.
fn change_times(
    context: &Context<'_>,
    caller: &Caller,
    inode: &mut Inode,
    set: &SetAttributes,
) -> Result<(), MetaError> {
    let times = [set.accessed, set.modified];
    if times.iter().flatten().any(|time| matches!(time, SetTime::At(_))) {
        caller.need_owner(inode)?;
    }
    let moment = |time: SetTime| -> Time {
        match time {
            SetTime::Now => context.now,
            SetTime::At(time) => time,
        }
    };
    inode.accessed = set.accessed.map_or(inode.accessed, moment);
    inode.modified = set.modified.map_or(inode.modified, moment);
    Ok(())
}
