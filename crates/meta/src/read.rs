//! Requests that change nothing.

mod list;

use crate::access::{Access, Caller};
use crate::ops::{self, Job};
use crate::path;
use crate::records::{Share, decode};
use crate::view::{Reader, View};
use crate::{Context, Failure, XATTRS_MAX, acl, fate, keys};
use kv::{KvError, Snapshot};
use types::Rights;
use types::meta::{MetaError, MetaReply, MetaRequest, Totals};

/// The most servers whose shares of the totals are added up.
const SHARDS_MAX: usize = 10_000;

/// What a request without a change comes to.
#[derive(Clone, Debug)]
pub enum Found {
    Reply(MetaReply),
    /// It must be recorded first: this job has the answer.
    Record(Job),
}

/// Answers a request on a snapshot. Refused with [`MetaError::Invalid`] when it is a change.
pub async fn read<S: Snapshot>(
    reader: &mut Reader<S>,
    context: &Context<'_>,
    caller: &Caller,
    request: &MetaRequest,
) -> Result<Found, Failure> {
    let reply = match request {
        MetaRequest::Stat { place, follow } => {
            MetaReply::Attributes(path::node(reader, caller, place, *follow).await?.attributes())
        }
        MetaRequest::Open { place, rights } => {
            let node = ops::openable(reader, caller, place, *rights).await?;
            if *rights == Rights::ReadWrite && !ops::is_recorded(context, &node.inode) {
                let job = Job::OpenForWriting { caller: caller.clone(), place: place.clone() };
                return Ok(Found::Record(job));
            }
            match rights {
                Rights::Read => ops::opened_to_read(reader, context, caller, &node).await?,
                Rights::ReadWrite => ops::opened(context, caller, &node, ops::fence(reader).await?),
            }
        }
        MetaRequest::List { place, after, limit, pattern, detail } => {
            let page = list::Page { after: after.as_deref(), limit: *limit, detail: *detail };
            list::list(reader, context, caller, place, page, pattern.as_deref()).await?
        }
        MetaRequest::GetXattr { place, follow, name } => {
            let node = path::node(reader, caller, place, *follow).await?;
            let value = if types::acl::is_acl(name) {
                // It can be seen by whoever sees the mode.
                acl::value(reader, &node, name).await?
            } else {
                caller.need(reader, &node, Access::READ).await?;
                reader.get(&keys::xattr(node.id, name)).await?
            };
            MetaReply::Xattr(value.ok_or(MetaError::NoXattr)?)
        }
        MetaRequest::ListXattrs { place, follow } => {
            let node = path::node(reader, caller, place, *follow).await?;
            xattr_names(reader, &node).await?
        }
        MetaRequest::Totals => MetaReply::Totals(totals(reader).await?),
        MetaRequest::Classes => MetaReply::Classes(context.classes.to_vec()),
        MetaRequest::ExplainClass { place } => explain(reader, context, caller, place).await?,
        // The server around us has the store itself, knows who holds delegations, and speaks to storage servers.
        MetaRequest::KeepBytes { .. }
        | MetaRequest::ExportRows { .. }
        | MetaRequest::ExportChanges { .. }
        | MetaRequest::Hold { .. }
        | MetaRequest::Recalls { .. } => {
            return Err(MetaError::Invalid.into());
        }
        MetaRequest::PathOf { .. } | MetaRequest::Fates { .. } | MetaRequest::FatesIn { .. }
            if !caller.is_administrator() =>
        {
            return Err(MetaError::Denied.into());
        }
        MetaRequest::PathOf { inode } => MetaReply::Path(path::path_of_any(reader, *inode).await?),
        MetaRequest::Fates { inodes } => MetaReply::Fates(fate::fates(reader, context, None, inodes).await?),
        MetaRequest::FatesIn { table, inodes } => {
            MetaReply::Fates(fate::fates(reader, context, Some(*table), inodes).await?)
        }
        MetaRequest::Followings => ops::followings(reader, context, caller).await?,
        MetaRequest::ToFollow { directory, after, limit } => {
            ops::to_follow(reader, context, caller, *directory, after.as_ref(), *limit).await?
        }
        MetaRequest::Trash { whose, after, limit } => {
            ops::trash(reader, caller, *whose, *after, *limit).await?
        }
        MetaRequest::Snapshots => ops::snapshots(reader, caller).await?,
        MetaRequest::Quotas => ops::quotas(reader, caller).await?,
        MetaRequest::TrashPolicies => ops::trash_policies(reader, context.classes).await?,
        MetaRequest::Sessions => ops::sessions(reader, caller).await?,
        MetaRequest::TestLock { session, inode, lock } => {
            ops::test_lock(reader, caller, *session, *inode, lock).await?
        }
        MetaRequest::Change { .. }
        | MetaRequest::ChangeFor { .. }
        | MetaRequest::Flush { .. }
        | MetaRequest::Peer { .. }
        | MetaRequest::Servers
        | MetaRequest::Store => return Err(MetaError::Invalid.into()),
    };
    Ok(Found::Reply(reply))
}

async fn xattr_names<S: Snapshot>(
    reader: &mut Reader<S>,
    node: &crate::records::Node,
) -> Result<MetaReply, Failure> {
    if node.inode.xattrs == 0 {
        return Ok(MetaReply::XattrNames(Vec::new()));
    }
    let limit = usize::try_from(XATTRS_MAX).unwrap_or(usize::MAX);
    let pairs = reader.scan(&keys::xattr(node.id, ""), &keys::xattrs_end(node.id), limit).await?;
    let mut names = Vec::with_capacity(pairs.len());
    for (key, _) in &pairs {
        let name = keys::xattr_name(key);
        names.push(
            name.ok_or_else(|| KvError::Corrupt("extended attribute: bad name".to_owned()))?.to_owned(),
        );
    }
    Ok(MetaReply::XattrNames(names))
}

/// The totals of the file system: the sum of all servers' shares.
pub async fn totals<V: View>(view: &mut V) -> Result<Totals, KvError> {
    let (from, to) = keys::totals_range();
    let mut sum = Share::default();
    for (_, value) in view.scan(&from, &to, SHARDS_MAX).await? {
        sum = sum.plus(decode(&value, "totals")?);
    }
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Totals {
        files: count(sum.files),
        directories: count(sum.directories),
        bytes: count(sum.bytes),
        garbage: count(sum.garbage),
    })
}

/// The class of new files at a place; of a file's place, its directory's.
async fn explain<S: Snapshot>(
    reader: &mut Reader<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &types::meta::Place,
) -> Result<MetaReply, Failure> {
    let node = path::node(reader, caller, place, types::meta::Follow::Yes).await?;
    let directory = if node.inode.is_directory() { node.id } else { node.inode.parent };
    let (class, set_by) = ops::effective(reader, context.classes, directory).await?;
    let set_by = match set_by {
        Some(id) => Some(path::path_of(reader, id).await?),
        None => None,
    };
    Ok(MetaReply::Explained { class, set_by })
}
