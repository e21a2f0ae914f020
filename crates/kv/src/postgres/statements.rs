//! What is asked of the server, prepared once on each connection.
//!
//! A statement is planned when it is first asked, which may be when the tables are empty: the server would read all of one, as that is nothing, and go
//! on doing so. `OFFSET 0` has it look for each row by itself.

use tokio_postgres::{Client, Error, Statement};

/// Rows at a revision: each with its place among the keys that were asked for. What was there before is looked for if something was written since.
pub(super) const GET: &str = "\
    SELECT kept.oldest, wanted.number, found.written, found.value \
    FROM kept CROSS JOIN head CROSS JOIN unnest($1::bytea[]) WITH ORDINALITY AS wanted (key, number) LEFT JOIN LATERAL ( \
        (SELECT rows.written, rows.value FROM rows WHERE rows.key = wanted.key AND rows.written <= $2 OFFSET 0) \
        UNION ALL \
        SELECT past.written, past.value FROM ( \
            SELECT old.written, old.replaced, old.value FROM old \
            WHERE head.revision > $2 AND old.key = wanted.key AND old.written <= $2 \
            ORDER BY old.written DESC LIMIT 1 \
        ) AS past WHERE past.replaced > $2 \
    ) AS found ON true WHERE kept.one AND head.one";

/// Rows of a range at a revision. What was replaced since is little, and is looked for by that: a key that changes all the time has
/// many old versions. The empty bytes keep the server from looking for it by its key.
pub(super) const SCAN: &str = "\
    WITH past AS MATERIALIZED ( \
        SELECT old.key, old.value FROM old WHERE old.replaced > $3 AND old.written <= $3 \
        AND old.key || ''::bytea >= $1 AND old.key || ''::bytea < $2 \
    ) \
    SELECT kept.oldest, found.key, found.value FROM kept LEFT JOIN LATERAL ( \
        (SELECT rows.key, rows.value FROM rows \
            WHERE rows.key >= $1 AND rows.key < $2 AND rows.written <= $3 ORDER BY rows.key LIMIT $4) \
        UNION ALL \
        (SELECT past.key, past.value FROM past ORDER BY past.key LIMIT $4) \
        ORDER BY key LIMIT $4 \
    ) AS found ON true WHERE kept.one ORDER BY found.key";

/// The newest revision, and what was changed since one: `$2` writes at most, the newest of each key, with values up to `$3` bytes. One
/// statement sees one state: a row is as the last of its writes left it, or is not there.
pub(super) const NEWEST: &str = "\
    SELECT head.revision, kept.oldest, news.key, news.at, rows.key IS NOT NULL, \
        CASE WHEN octet_length(rows.value) <= $3 THEN rows.value END, news.count \
    FROM head CROSS JOIN kept \
    LEFT JOIN LATERAL ( \
        SELECT recent.key, max(recent.revision) AS at, count(*) AS count FROM ( \
            SELECT log.key, log.revision FROM log WHERE log.revision > $1 ORDER BY log.revision LIMIT $2 \
        ) AS recent GROUP BY recent.key \
    ) AS news ON true \
    LEFT JOIN LATERAL (SELECT rows.key, rows.value FROM rows WHERE rows.key = news.key OFFSET 0) AS rows ON true \
    WHERE head.one AND kept.one";

/// The history after a revision, `$2` writes at most.
pub(super) const HISTORY: &str = "\
    SELECT head.revision, kept.oldest, told.revision, told.key, told.value \
    FROM head CROSS JOIN kept LEFT JOIN LATERAL ( \
        SELECT next.revision, next.key, coalesce(rows.value, old.value) AS value FROM ( \
            SELECT log.revision, log.key FROM log WHERE log.revision > $1 ORDER BY log.revision, log.key LIMIT $2 \
        ) AS next \
        LEFT JOIN LATERAL ( \
            SELECT rows.value FROM rows WHERE rows.key = next.key AND rows.written = next.revision OFFSET 0 \
        ) AS rows ON true \
        LEFT JOIN LATERAL ( \
            SELECT old.value FROM old WHERE old.key = next.key AND old.written = next.revision OFFSET 0 \
        ) AS old ON true \
    ) AS told ON true WHERE head.one AND kept.one ORDER BY told.revision, told.key";

/// Whether what a commit read has changed.
const CHECK: &str = "\
    SELECT head.revision, kept.oldest, changed($1, $2, $3, $4, $5, $6) \
    FROM head CROSS JOIN kept WHERE head.one AND kept.one";

/// See `commit_batch` in the schema.
const COMMIT: &str = "SELECT commit_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// See `settle` in the schema.
const SETTLE: &str = "SELECT settle($1, $2)";

/// The statements of one connection.
pub(super) struct Statements {
    pub(super) get: Statement,
    pub(super) scan: Statement,
    pub(super) newest: Statement,
    pub(super) history: Statement,
    pub(super) check: Statement,
    pub(super) commit: Statement,
    pub(super) settle: Statement,
}

/// Prepares all of them, in the time of one.
pub(super) async fn prepare(client: &Client) -> Result<Statements, Error> {
    let (get, scan, newest, history, check, commit, settle) = tokio::try_join!(
        client.prepare(GET),
        client.prepare(SCAN),
        client.prepare(NEWEST),
        client.prepare(HISTORY),
        client.prepare(CHECK),
        client.prepare(COMMIT),
        client.prepare(SETTLE),
    )?;
    Ok(Statements { get, scan, newest, history, check, commit, settle })
}
