//! Where the store is, and what it takes there.

use super::link::{Failure, Link};
use crate::KvError;
use types::store::{PostgresState, PostgresStatus};

/// Everything of the schema, and what of that the history takes.
const SIZES: &str = "\
    SELECT current_setting('server_version'), \
        coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint, \
        coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)) FILTER (WHERE c.relname IN ('old', 'log')), 0)::bigint \
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1 AND c.relkind = 'r'";

pub(super) async fn status(link: &Link, place: &str) -> PostgresStatus {
    let state = ask(link).await.map_err(|failure| match KvError::from(failure) {
        KvError::Unavailable(why) => why,
        error => error.to_string(),
    });
    PostgresStatus { place: place.to_owned(), state }
}

async fn ask(link: &Link) -> Result<PostgresState, Failure> {
    let (row, host) = link.ask_once(SIZES, &[&link.schema()]).await?;
    let bytes = |column: usize| row.try_get::<_, i64>(column).map(|bytes| u64::try_from(bytes).unwrap_or(0));
    Ok(PostgresState { host, version: row.try_get(0)?, bytes: bytes(1)?, history: bytes(2)? })
}
