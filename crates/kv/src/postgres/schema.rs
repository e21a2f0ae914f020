//! The tables and functions of a store, made and brought up to date when it is opened.

use super::link::{Failure, Link, Patience};
use crate::KvError;
use tokio_postgres::Client;

/// What brings the schema from each version to the next. What was released is never changed here.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql")];

/// Has the history of an empty store go on from above a revision. What was before is not told any more.
pub(super) const BEGIN_AFTER: &str = "\
    WITH moved AS ( \
        UPDATE head SET revision = greatest(head.revision, $1) + 1 WHERE head.one RETURNING head.revision \
    ) UPDATE kept SET oldest = moved.revision FROM moved WHERE kept.one";

/// The version that they lead to.
fn newest(migrations: &[&str]) -> i32 {
    i32::try_from(migrations.len()).unwrap_or(i32::MAX)
}

/// Makes the schema, or brings it up to date: of several who try at once, one does.
///
/// # Errors
/// It is of a version that is not known, or the user may not make it.
pub(super) async fn prepare(link: &Link, schema: &str) -> Result<(), KvError> {
    prepare_with(link, schema, MIGRATIONS).await
}

pub(super) async fn prepare_with(link: &Link, schema: &str, migrations: &[&str]) -> Result<(), KvError> {
    let mut patience = Patience::new();
    loop {
        match try_to_prepare(link, schema, migrations).await {
            Err(Failure::Unknown(why)) => patience.wait(why).await?,
            prepared => return Ok(prepared?),
        }
    }
}

async fn try_to_prepare(link: &Link, schema: &str, migrations: &[&str]) -> Result<(), Failure> {
    let mut session = link.session().await?;
    let newest = newest(migrations);
    if version(&session.client, schema).await? < newest {
        migrate(&mut session.client, schema, migrations).await?;
    }
    let found = version(&session.client, schema).await?;
    if found == newest {
        return Ok(());
    }
    Err(Failure::Refused(KvError::Unavailable(format!(
        "the schema {schema} in PostgreSQL is of version {found}, and this program knows those up to {newest}: start a newer one"
    ))))
}

/// 0: there is none.
async fn version(client: &Client, schema: &str) -> Result<i32, Failure> {
    let there = "SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'version'";
    if client.query_opt(there, &[&schema]).await?.is_none() {
        return Ok(0);
    }
    let row = client.query_one("SELECT number FROM version", &[]).await?;
    Ok(row.try_get(0)?)
}

async fn migrate(client: &mut Client, schema: &str, migrations: &[&str]) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'").await?;
    // Given back with the end of the transaction.
    let lock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 20061))";
    transaction.execute(lock, &[&schema]).await?;
    let there = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1";
    // Somebody else may have made it for a user who may not.
    if transaction.query_opt(there, &[&schema]).await?.is_none() {
        transaction.batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
    }
    let found = version(transaction.client(), schema).await?;
    if found == 0 {
        let made = "CREATE TABLE version (number int NOT NULL); INSERT INTO version VALUES (0)";
        transaction.batch_execute(made).await?;
    }
    for migration in migrations.iter().skip(usize::try_from(found).unwrap_or_default()) {
        transaction.batch_execute(migration).await?;
    }
    transaction.execute("UPDATE version SET number = $1 WHERE number < $1", &[&newest(migrations)]).await?;
    transaction.commit().await?;
    Ok(())
}
