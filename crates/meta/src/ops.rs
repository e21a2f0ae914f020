//! Changes: one file per group, one transaction each.

mod acl;
mod append;
mod attributes;
mod bury;
mod class;
mod content;
mod create;
mod directory;
mod following;
mod lease;
mod lock;
mod nameless;
mod publish;
mod purge;
mod quota;
mod recode;
mod remove;
mod rename;
mod session;
mod settle;
mod snapshot;
mod sweep;
mod trash;
mod tree;
mod xattr;

pub use class::{default_class, effective};
pub(crate) use content::{is_recorded, may_read_shared, openable, opened, opened_to_read};
pub(crate) use following::{followings, to_follow};
pub(crate) use lock::test as test_lock;
pub(crate) use quota::list as quotas;
pub(crate) use recode::recode_of;
pub(crate) use session::sessions;
pub use session::{all_live, is_live};
pub use snapshot::Keep;
pub(crate) use snapshot::{fence, list as snapshots, need_unshared};
pub(crate) use sweep::after_key;
pub(crate) use trash::{list as trash, policies as trash_policies};

/// What an inode adds to the totals.
pub(crate) fn share_of(inode: &crate::records::Inode) -> crate::records::Share {
    tree::share_of(inode, 1)
}

use crate::records::{AnswerRecord, decode, encode};
use crate::view::View;
use crate::{Batch, Caller, Context, Failure, IdBlock, keys};
use kv::{Key, KvError, Snapshot};
use types::making::Making;
use types::meta::{Change, MetaError, MetaReply, Place};
use types::session::LockRange;
use types::{InodeId, Mode, Origin};

pub use settle::{Settled, Settlement};

/// Something to be done to the tree.
#[derive(Clone, Debug)]
pub enum Job {
    /// A client's change. Exact under retries.
    Change { caller: Caller, origin: Origin, change: Change },
    /// An `Open` to write that must be recorded (see [`crate::read::Found::Record`]).
    OpenForWriting { caller: Caller, place: Place },
    /// Keeps the outcome of a change that was made elsewhere (`MakeClass`), so that retries are exact.
    Remember { origin: Origin, outcome: Result<MetaReply, MetaError> },
    /// Takes up to `limit` entries out of directories that were removed with all that is in them, from the key `after` on.
    Purge { after: Key, limit: usize },
    /// Ends up to `limit` leases that are over, from the key `after` on.
    SweepLeases { after: Key, limit: usize },
    /// Gives up, among `limit` files from the key `after` on, recodes whose mover is gone.
    SweepRecodes { after: Key, limit: usize },
    /// Frees what sessions had that are over, among `limit` from the key `after` on.
    SweepSessions { after: Key, limit: usize },
    /// Counts up to `limit` entries of directories that got a quota or lost it.
    MarkQuotas { limit: usize },
    /// Removes what has been in the trash for long enough, among `limit` from the key `after` on.
    SweepTrash { after: Key, limit: usize },
    /// Takes the snapshot that is pending, if all storage servers are fenced; or gives it up.
    EndSnapshot { number: u64, is_fenced: bool },
    /// Begins to keep the bytes of a file for the snapshots that show them. For a caller who may write it.
    BeginKeeping { caller: Caller, inode: InodeId },
    /// The chunks are cloned to this id, or will not be.
    EndKeeping { into: InodeId, is_cloned: bool },
    /// Gives up a snapshot whose server is gone, and removes up to `limit` records of those that are to be removed.
    SweepSnapshots { limit: usize },
    /// Forgets answers that no retry can want any more, among `limit` from the key `after` on.
    SweepAnswers { after: Key, limit: usize },
    /// Records what came of collecting garbage.
    Settle(Settlement),
}

/// What a job comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Reply(MetaReply),
    /// Of background work: where to go on; `None`: there is no more.
    Progress(Option<Key>),
    /// What is to be cloned; `None`: no snapshot shows it.
    Keep(Option<Keep>),
    /// Whether snapshots have it now.
    Kept(bool),
}

/// Does one job in a batch. The outer error ends the batch: nothing of it may be answered. A job that is refused leaves
/// no trace but the record of its refusal.
pub async fn run<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    job: &Job,
) -> Result<Result<Answer, MetaError>, KvError> {
    batch.begin();
    let outcome = match job {
        Job::Change { caller, origin, change } => {
            exactly_once(batch, context, caller, *origin, change).await.map(Answer::Reply)
        }
        Job::OpenForWriting { caller, place } => {
            content::open_for_writing(batch, context, caller, place).await.map(Answer::Reply)
        }
        Job::Remember { origin, outcome } => {
            remember(batch, context, *origin, outcome);
            Ok(Answer::Progress(None))
        }
        Job::Purge { after, limit } => {
            purge::purge(batch, context, after, *limit).await.map(Answer::Progress)
        }
        Job::SweepLeases { after, limit } => {
            sweep::leases(batch, context, after, *limit).await.map(Answer::Progress)
        }
        Job::SweepRecodes { after, limit } => {
            recode::sweep(batch, context, after, *limit).await.map(Answer::Progress)
        }
        Job::SweepSessions { after, limit } => {
            session::sweep(batch, context, after, *limit).await.map(Answer::Progress)
        }
        Job::MarkQuotas { limit } => quota::mark(batch, context, *limit).await.map(Answer::Progress),
        Job::SweepTrash { after, limit } => {
            trash::sweep(batch, context, after, *limit).await.map(Answer::Progress)
        }
        Job::EndSnapshot { number, is_fenced } => {
            snapshot::end(batch, context, *number, *is_fenced).await.map(|()| Answer::Progress(None))
        }
        Job::BeginKeeping { caller, inode } => {
            snapshot::begin_keeping(batch, context, caller, *inode).await.map(Answer::Keep)
        }
        Job::EndKeeping { into, is_cloned } => {
            snapshot::end_keeping(batch, context, *into, *is_cloned).await.map(Answer::Kept)
        }
        Job::SweepSnapshots { limit } => snapshot::sweep(batch, context, *limit).await.map(Answer::Progress),
        Job::SweepAnswers { after, limit } => {
            sweep::answers(batch, context, after, *limit).await.map(Answer::Progress)
        }
        Job::Settle(settlement) => settle::settle(batch, settlement).await.map(|()| Answer::Progress(None)),
    };
    let outcome = if batch.changes_shown() { outcome.and(Err(MetaError::ReadOnly.into())) } else { outcome };
    match outcome {
        Ok(answer) => Ok(Ok(answer)),
        Err(Failure::Store(error)) => Err(error),
        Err(Failure::Refused(error)) => {
            batch.undo();
            if let (Job::Change { origin, .. }, true) = (job, is_final(&error)) {
                // A copy of this request may still be under way: it must not succeed after its sender was refused.
                batch.begin();
                remember(batch, context, *origin, &Err(error.clone()));
            }
            Ok(Err(error))
        }
    }
}

/// Reads what the jobs will read, all at once, so that the store has it at hand when they are run one after the other: for a store that is
/// asked over the network. Each is run by itself, and what comes of it forgotten.
pub async fn read_ahead<S: Snapshot>(
    snapshot: &S,
    ids: IdBlock,
    context: &Context<'_>,
    jobs: impl Iterator<Item = &Job>,
) {
    let all = jobs.map(async |job| {
        let mut batch = Batch::new(snapshot.clone(), ids);
        // A failure of the store is met again when it matters.
        let _ = run(&mut batch, context, job).await;
    });
    futures_util::future::join_all(all).await;
}

/// Whether a retry gets this answer again; the others ask for one that may end otherwise.
fn is_final(error: &MetaError) -> bool {
    !matches!(error, MetaError::Busy | MetaError::Unavailable | MetaError::StoreFull | MetaError::TooOld)
}

/// The answer that was given to `origin`, if it was. Refused with [`MetaError::TooOld`] when the lane is further.
pub async fn recall<V: View>(view: &mut V, origin: Origin) -> Result<Option<MetaReply>, Failure> {
    let Some(bytes) = view.get(&keys::answer(origin.client, origin.lane)).await? else {
        return Ok(None);
    };
    let record: AnswerRecord = decode(&bytes, "answer")?;
    match origin.sequence.cmp(&record.sequence) {
        std::cmp::Ordering::Less => Err(MetaError::TooOld.into()),
        std::cmp::Ordering::Equal => Ok(Some(record.outcome?)),
        std::cmp::Ordering::Greater => Ok(None),
    }
}

fn remember<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    origin: Origin,
    outcome: &Result<MetaReply, MetaError>,
) {
    let record = AnswerRecord { sequence: origin.sequence, at: context.now, outcome: outcome.clone() };
    batch.put(keys::answer(origin.client, origin.lane), encode(&record));
}

async fn exactly_once<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    origin: Origin,
    what: &Change,
) -> Result<MetaReply, Failure> {
    if let Some(reply) = recall(batch, origin).await? {
        return Ok(reply);
    }
    let client = session::Client { caller, client: origin.client };
    let reply = change(batch, context, client, what).await?;
    remember(batch, context, origin, &Ok(reply.clone()));
    Ok(reply)
}

async fn change<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: session::Client<'_>,
    change: &Change,
) -> Result<MetaReply, Failure> {
    let caller = client.caller;
    match change {
        Change::Create { place, kind, mode, device, exclusive, class } => {
            let (kind, mode, device, class) = (*kind, *mode, *device, class.as_deref());
            let new = create::New { kind, mode, umask: Mode(0), device, class };
            create::create(batch, context, caller, place, new, *exclusive).await
        }
        Change::MakeDirectory { place, mode, parents } => {
            let new = directory::New { mode: *mode, umask: Mode(0), parents: *parents };
            directory::make(batch, context, caller, place, new).await
        }
        Change::Make { umask, what } => make(batch, context, client, *umask, what).await,
        Change::MakeSymbolicLink { place, target } => {
            create::symbolic_link(batch, context, caller, place, target).await
        }
        Change::Link { from, to } => create::link(batch, context, caller, from, to).await,
        Change::Unlink { place } => remove::unlink(batch, context, caller, place).await,
        Change::RemoveDirectory { place } => remove::directory(batch, context, caller, place).await,
        Change::RemoveTree { place } => remove::tree(batch, context, caller, place).await,
        Change::Rename { from, to, replace } => {
            rename::rename(batch, context, caller, from, to, *replace).await
        }
        Change::SetAttributes { place, follow, set } => {
            attributes::set(batch, context, caller, place, *follow, set).await
        }
        Change::SetXattr { place, follow, name, value, replace } => {
            let new = xattr::New { name, value, replace: *replace };
            xattr::set(batch, context, caller, place, *follow, new).await
        }
        Change::RemoveXattr { place, follow, name } => {
            xattr::remove(batch, context, caller, place, *follow, name).await
        }
        Change::LeaseInodes { place, count, class } => {
            lease::lease(batch, context, caller, place, *count, class.as_deref()).await
        }
        Change::RenewLease { inode } => lease::renew(batch, context, caller, *inode).await,
        Change::Publish(publish) => publish::publish(batch, context, caller, publish, Mode(0)).await,
        Change::Resize { place, length } => content::resize(batch, context, caller, place, *length).await,
        Change::Reseed { inode, seed } => content::reseed(batch, context, caller, *inode, *seed).await,
        Change::Grow { inode, length, modified } => {
            content::grow(batch, context, caller, *inode, *length, *modified).await
        }
        Change::OpenAppend { place } => append::open(batch, context, caller, place).await,
        Change::ExtendAppend { inode, session, length } => {
            append::extend(batch, context, caller, *inode, *session, *length).await
        }
        Change::CloseAppend { inode, session } => append::close(batch, caller, *inode, *session).await,
        // Classes live with the manager: the server makes them there, and has the outcome remembered here.
        Change::MakeClass { .. } => Err(MetaError::Invalid.into()),
        Change::SetClass { place, class } => {
            following::set(batch, context, caller, place, class.as_deref(), following::Follow::NewFiles).await
        }
        Change::FollowClass { place, class } => {
            following::set(batch, context, caller, place, class.as_deref(), following::Follow::AllFiles).await
        }
        Change::StopFollowing { place } => following::stop(batch, caller, place).await,
        Change::NoteFollowing { directory, number, at, met, trouble } => {
            let note =
                following::Note { number: *number, at: at.as_ref(), met: *met, trouble: trouble.as_deref() };
            following::note(batch, caller, *directory, note).await
        }
        Change::BeginRecode { .. }
        | Change::RenewRecode { .. }
        | Change::EndRecode { .. }
        | Change::DropRecode { .. } => recode_change(batch, context, caller, change).await,
        Change::SetQuota { place, limits } => quota::set(batch, caller, place, *limits).await,
        Change::SetTrash { class, keep } => trash::set(batch, context, caller, class, *keep).await,
        Change::Bury { table, inodes } => bury::bury(batch, context, caller, *table, inodes).await,
        Change::MakeSnapshot { place, name } => snapshot::begin(batch, context, caller, place, name).await,
        Change::RemoveSnapshot { place, name } => snapshot::remove(batch, caller, place, name).await,
        Change::BeginSession { .. }
        | Change::RenewSession { .. }
        | Change::EndSession { .. }
        | Change::Lock { .. }
        | Change::Unlock { .. }
        | Change::UnlockOwner { .. } => session_change(batch, context, client, change).await,
    }
}

/// What is done to move a file.
async fn recode_change<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    change: &Change,
) -> Result<MetaReply, Failure> {
    match change {
        Change::BeginRecode { inode } => recode::begin(batch, context, caller, *inode).await,
        Change::RenewRecode { inode, session } => {
            recode::renew(batch, context, caller, *inode, *session).await
        }
        Change::EndRecode { inode, session, following } => {
            recode::end(batch, context, caller, *inode, *session, *following).await
        }
        Change::DropRecode { inode, session } => recode::drop(batch, caller, *inode, *session).await,
        _ => Err(MetaError::Invalid.into()),
    }
}

/// Makes something, with a umask.
async fn make<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: session::Client<'_>,
    umask: Mode,
    what: &Making,
) -> Result<MetaReply, Failure> {
    let caller = client.caller;
    match what {
        Making::Create { place, kind, mode, device, exclusive, class } => {
            let (kind, mode, device, class) = (*kind, *mode, *device, class.as_deref());
            let new = create::New { kind, mode, umask, device, class };
            create::create(batch, context, caller, place, new, *exclusive).await
        }
        Making::Directory { place, mode, parents } => {
            let new = directory::New { mode: *mode, umask, parents: *parents };
            directory::make(batch, context, caller, place, new).await
        }
        Making::Publish(publish) => publish::publish(batch, context, caller, publish, umask).await,
        Making::Nameless { session, directory, mode } => {
            create::nameless(batch, context, client, *session, directory, (*mode, umask)).await
        }
    }
}

/// What a client does in a session.
async fn session_change<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: session::Client<'_>,
    change: &Change,
) -> Result<MetaReply, Failure> {
    match change {
        Change::BeginSession { name } => session::begin(batch, context, client, name).await,
        Change::RenewSession { session, answers, free } => {
            session::renew(batch, context, client, *session, answers, free).await
        }
        Change::EndSession { session } => session::end(batch, context, client, *session).await,
        Change::Lock { session, inode, lock } => {
            lock::lock(batch, context, client, *session, *inode, lock).await
        }
        Change::Unlock { session, inode, kind, owner, range } => {
            lock::unlock(batch, context, client, (*session, *inode), (*kind, *owner, *range)).await
        }
        Change::UnlockOwner { session, inode, kind, owner } => {
            let all = (*kind, *owner, LockRange::ALL);
            lock::unlock(batch, context, client, (*session, *inode), all).await
        }
        _ => Err(MetaError::Invalid.into()),
    }
}
