//! Files that lost their last name while some client may have them open: they stay until no session holds them.
//!
//! When a file loses its last name and there are sessions, its inode stays, without links, and one record of the transaction asks
//! all of them which of these files they hold ([`Nameless`]). Each answers with a renewal. Who holds one is noted
//! ([`Held`]) and says later that it is free. A file that nobody holds when all have answered ends, and one that is
//! held when its last holder frees it, in the same transaction and as it would have ended without sessions. A session that
//! ends has answered, and holds nothing.
//!
//! Why nobody who has a file open is forgotten: the transaction that takes the last name reads the list of the sessions, and a
//! session begins by writing it. So of the two one is first in the history, whichever servers do them. If the session is, it
//! is asked. If not, its client opens whatever it opens in the session after its beginning was answered, and then every
//! snapshot shows that the name is gone: what it opened by a name was another file. (By its number a file can be opened as
//! long as it is there; who does so and was not asked holds nothing. His client sees that it has no links.)
//!
//! Why a session's answer stays true: a client that opens a file counts it as held before it asks for it, and answers when what
//! it had asked for before it heard the question is decided. An open that it sends after it heard the question comes after the
//! removal, and finds no name. So what is not held when the answer is sent will not be.
//!
//! Two sessions that answer at different servers meet at the question's record, or at the file's: whoever is second in the
//! history sees that he is the last.
//!
//! A file that is made without a name is held from its beginning by the session that makes it, and asked about nobody: nobody else can
//! know of it. As long as it never had a name it may be given one, and is then a file as any other.
//!
//! For the records on the chains such a file is gone at once: after a rebuild nobody has it open.

use super::{quota, recode, sweep, tree};
use crate::records::{Held, Nameless, Node, decode, encode};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::{KvError, Snapshot};
use types::session::{Answer, QUESTION_INODES_MAX, Question};
use types::{InodeId, SessionId};

/// Questions that are read at a time.
const PAGE: usize = 32;

/// Keeps a file that lost its last name, and asks the sessions whether they hold it. There are some.
pub(super) async fn keep<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    node: &Node,
) -> Result<(), Failure> {
    // It stays where it is: there is no path whose class it could follow.
    recode::disturb(batch, node.id).await?;
    tree::tell_gone(batch, node);
    quota::lost_its_name(batch, context.now, node).await?;
    tree::update(batch, node.id, |inode| {
        inode.links = 0;
        inode.changed = context.now;
        Ok(())
    })
    .await?;
    batch.nameless(node.id);
    Ok(())
}

/// A file was made without a name, and this session holds it.
pub(super) fn made<S: Snapshot>(batch: &mut Batch<S>, session: SessionId, inode: InodeId) {
    // No question has the number of an inode: none is waited for.
    batch.put(keys::held(inode), encode(&Held { question: inode.0, holders: vec![session] }));
    batch.put(keys::session_use(session, keys::USE_HELD, inode), Vec::new());
}

/// A file that was made without a name gets one: whoever has it open is asked when it loses that.
pub(super) async fn named<S: Snapshot>(batch: &mut Batch<S>, inode: InodeId) -> Result<(), Failure> {
    let key = keys::held(inode);
    let Some(bytes) = batch.get(&key).await? else { return Ok(()) };
    let held: Held = decode(&bytes, "holders of a file")?;
    for session in held.holders {
        batch.remove(keys::session_use(session, keys::USE_HELD, inode));
    }
    batch.remove(key);
    Ok(())
}

/// The questions that a session has yet to answer, up to a limit, and whether there are more.
pub(super) async fn asked<S: Snapshot>(
    batch: &mut Batch<S>,
    session: SessionId,
) -> Result<(Vec<Question>, bool), KvError> {
    let (mut from, to) = keys::questions_range();
    let (mut questions, mut count) = (Vec::new(), 0);
    loop {
        let page = batch.scan(&from, &to, PAGE).await?;
        for (key, value) in &page {
            let nameless: Nameless = decode(value, "files without a name")?;
            let Some(number) = keys::question_number(key).filter(|_| nameless.pending.contains(&session))
            else {
                continue;
            };
            if count > 0 && count + nameless.inodes.len() > QUESTION_INODES_MAX {
                return Ok((questions, true));
            }
            count += nameless.inodes.len();
            questions.push(Question { number, inodes: nameless.inodes });
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => from = sweep::after_key(key),
            Some(_) | None => return Ok((questions, false)),
        }
    }
}

/// A session says which files of a question it holds. What it was not asked, or has answered, is passed over. How many files the
/// question has.
pub(super) async fn answer<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    session: SessionId,
    answer: &Answer,
) -> Result<usize, Failure> {
    let key = keys::question(answer.question);
    let Some(bytes) = batch.get(&key).await? else { return Ok(0) };
    let mut nameless: Nameless = decode(&bytes, "files without a name")?;
    let Some(at) = nameless.pending.iter().position(|pending| *pending == session) else { return Ok(0) };
    nameless.pending.remove(at);
    let count = nameless.inodes.len();
    for inode in &answer.held {
        if nameless.inodes.binary_search(inode).is_ok() {
            hold(batch, session, answer.question, *inode).await?;
        }
    }
    if !nameless.pending.is_empty() {
        batch.put(key, encode(&nameless));
        return Ok(count);
    }
    batch.remove(key);
    for inode in nameless.inodes {
        if batch.get(&keys::held(inode)).await?.is_none() {
            end(batch, context, inode).await?;
        }
    }
    Ok(count)
}

async fn hold<S: Snapshot>(
    batch: &mut Batch<S>,
    session: SessionId,
    question: u64,
    inode: InodeId,
) -> Result<(), Failure> {
    let key = keys::held(inode);
    let mut held = match batch.get(&key).await? {
        Some(bytes) => decode(&bytes, "holders of a file")?,
        None => Held { question, holders: Vec::new() },
    };
    if !held.holders.contains(&session) {
        held.holders.push(session);
        batch.put(key, encode(&held));
        batch.put(keys::session_use(session, keys::USE_HELD, inode), Vec::new());
    }
    Ok(())
}

/// A session no longer holds a file. It ends, unless others hold it or have yet to say so.
pub(super) async fn release<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    session: SessionId,
    inode: InodeId,
) -> Result<(), Failure> {
    let key = keys::held(inode);
    let Some(bytes) = batch.get(&key).await? else { return Ok(()) };
    let mut held: Held = decode(&bytes, "holders of a file")?;
    let Some(at) = held.holders.iter().position(|holder| *holder == session) else { return Ok(()) };
    held.holders.remove(at);
    batch.remove(keys::session_use(session, keys::USE_HELD, inode));
    if !held.holders.is_empty() {
        batch.put(key, encode(&held));
        return Ok(());
    }
    batch.remove(key);
    if batch.get(&keys::question(held.question)).await?.is_none() {
        end(batch, context, inode).await?;
    }
    Ok(())
}

async fn end<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    inode: InodeId,
) -> Result<(), Failure> {
    let node = batch.node(inode).await?;
    assert!(node.inode.is_nameless(), "inode {inode} is held as one without a name, and has one");
    tree::end(batch, context, &node).await
}
