//! What the database does not do by itself: it keeps all history until it is told to forget some.

use super::link::{Failure, Link};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::interval;

/// How often what is older than ten minutes is forgotten.
const EVERY: Duration = Duration::from_secs(60);
/// Rows that are removed in one transaction: it takes well under a second.
const PIECE: i64 = 10_000;

/// Where the history is, now and then. It outlives the servers: one that has just been started knows what is old, too.
const REMEMBER: &str = "INSERT INTO moments SELECT now(), head.revision FROM head WHERE head.one";
/// What was there ten minutes ago is the oldest state that is kept: for snapshots, and for who follows the history and was away.
const AGE: &str = "UPDATE kept SET oldest = was.revision FROM ( \
    SELECT max(moments.revision) AS revision FROM moments WHERE moments.at < now() - interval '10 minutes' \
    ) AS was WHERE kept.one AND was.revision > kept.oldest";
/// What only older states need. First it is not promised any more, then removed.
const FORGET: [&str; 2] = [
    "DELETE FROM old WHERE ctid = ANY (ARRAY( \
        SELECT old.ctid FROM old WHERE old.replaced <= (SELECT kept.oldest FROM kept) LIMIT $1))",
    "DELETE FROM log WHERE ctid = ANY (ARRAY( \
        SELECT log.ctid FROM log WHERE log.revision <= (SELECT kept.oldest FROM kept) LIMIT $1))",
];
const FORGET_MOMENTS: &str = "DELETE FROM moments USING kept WHERE moments.revision < kept.oldest";
/// A mark that was not moved for so long is of a server that is no more.
const FORGET_MARKS: &str = "DELETE FROM marks WHERE marks.moved < now() - interval '7 days'";

/// Has the database forget old history for as long as the store is open. Several servers that do so do what one would.
pub(super) async fn forget_old(link: Weak<Link>) {
    let mut tick = interval(EVERY);
    loop {
        tick.tick().await;
        let Some(link) = link.upgrade() else { return };
        if let Err(error) = step(&link).await {
            tracing::warn!(?error, "the history in PostgreSQL grows: what is old was not forgotten");
        }
    }
}

pub(super) async fn step(link: &Arc<Link>) -> Result<(), Failure> {
    link.execute(REMEMBER, &[]).await?;
    link.execute(AGE, &[]).await?;
    forget(link).await
}

async fn forget(link: &Arc<Link>) -> Result<(), Failure> {
    for removal in FORGET {
        while link.execute(removal, &[&PIECE]).await? > 0 {}
    }
    link.execute(FORGET_MOMENTS, &[]).await?;
    link.execute(FORGET_MARKS, &[]).await?;
    Ok(())
}

#[cfg(test)]
pub(super) async fn forget_all(link: &Arc<Link>) {
    step(link).await.unwrap();
    let is_long_ago = "UPDATE moments SET at = at - interval '11 minutes'";
    link.execute(is_long_ago, &[]).await.unwrap();
    step(link).await.unwrap();
}
