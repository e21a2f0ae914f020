//! Has etcd tell of changes, so that rows are known without asking. Which is the newest commit that a snapshot shows is known with the
//! snapshot, for each commit moves a mark; and that it is told takes little time as a rule, for the watch that tells of rows tells of
//! marks, too.

use super::link::Stream;
use super::{Shared, api};
use crate::known::{Became, Known};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::sleep;

/// Between two tries to have changes told.
const PAUSE: Duration = Duration::from_millis(100);

/// Has etcd tell of changes for as long as the store is open.
pub(super) async fn follow(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let opened = open(&strong).await;
        drop(strong);
        match opened {
            Ok(stream) => listen(&shared, stream).await,
            Err(why) => {
                tracing::debug!(why, "etcd does not tell of changes: each row is asked for");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn open(shared: &Shared) -> Result<Stream, String> {
    let newest = shared.newest_mark().await.map_err(|error| error.to_string())?.revision;
    let stream = shared.link.watch(&shared.prefix, newest + 1).await?;
    shared.known.begin(newest);
    Ok(stream)
}

async fn listen(shared: &Weak<Shared>, mut stream: Stream) {
    loop {
        let told = stream.next().await;
        let Some(shared) = shared.upgrade() else { return };
        match told {
            Ok(told) if !told.canceled && told.compact_revision == 0 => {
                take(&shared.known, told.events, &shared.rows);
            }
            told => {
                let why = told.map_or_else(|why| why, |told| told.cancel_reason);
                tracing::debug!(why, "etcd does not tell of changes any more");
                shared.known.end();
                shared.link.pass_over(stream.asked);
                return;
            }
        }
    }
}

/// Takes in what the watch tells: a revision is never divided among several answers. Marks say how far it is told.
fn take(known: &Known, events: Vec<api::Event>, prefix: &[u8]) {
    let (mut through, mut news) = (0, Vec::new());
    for event in events {
        let Some(row) = event.kv else { continue };
        through = through.max(row.mod_revision);
        let Some(key) = row.key.strip_prefix(prefix) else { continue };
        let became = if event.kind == api::DELETED { Became::Removed } else { Became::Written(row.value) };
        news.push((row.mod_revision, key.to_vec(), became));
    }
    known.take(through, news);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::Moment;

    fn event(key: &str, at: i64, value: Option<&str>) -> api::Event {
        let kind = if value.is_some() { 0 } else { api::DELETED };
        let value = value.unwrap_or_default().into();
        api::Event { kind, kv: Some(api::KeyValue { key: key.into(), mod_revision: at, value }) }
    }

    #[test]
    fn rows_are_taken_in_and_marks_say_how_far() {
        let known = Known::new();
        known.begin(10);
        known.put(b"a", 3, Some(&b"x".to_vec()), 10);
        known.put(b"b", 3, Some(&b"x".to_vec()), 10);
        let told = [
            event("p/r/a", 12, Some("y")),
            event("p/r/a", 13, Some("z")),
            event("p/m/1", 14, Some("")),
            event("p/r/b", 15, None),
            event("p/m/2", 15, Some("")),
        ];
        take(&known, told.into(), b"p/r/");
        assert_eq!(known.through(), 15);
        let get = |key: &str| known.get(key.as_bytes(), Moment { revision: 15, committed: 15 }).unwrap();
        assert_eq!((get("a").written, get("a").value), (13, Some(b"z".to_vec())));
        assert_eq!((get("b").written, get("b").value), (0, None));
    }
}
