//! Connections to the server that takes writes: each question is asked until it is answered, on a new connection when one is lost.

use super::place::{PostgresHost, PostgresPlace};
use super::statements::{self, Statements};
use super::tls::Encryption;
use crate::KvError;
use crate::causes::with_causes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row, SimpleQueryMessage, Statement};

/// The connection that commits are sent on.
const COMMITS: usize = 0;
/// The one that is asked for what is newest: nothing else keeps that waiting.
const NEWEST: usize = 1;
/// Connections for all other questions, many of which are under way on each.
const READERS: usize = 4;
/// The first of them.
const READER: usize = 2;

/// Until a connection is there, and ready.
const CONNECT: Duration = Duration::from_secs(3);
/// Until the host has taken it. The system would ask a second time after a second and a third time after three: it is asked anew instead.
const TAKE: Duration = Duration::from_secs(1);
/// A host is asked for a sign of life this often while it says nothing.
const SIGN: Duration = Duration::from_secs(1);
/// A host that acknowledges nothing for this long, or takes nothing more, is out of reach: to wait on the old connection for the system's next try, each of which
/// comes twice as late as the one before it, would take long after the host is back.
const GONE: Duration = Duration::from_secs(2);
/// A server that does not answer within this is taken for lost, with what it was asked. It gives up before that itself, see [`SESSION`].
const TRY: Duration = Duration::from_secs(15);
/// Of what people wait for, and that may have no answer.
const ASK: Duration = Duration::from_secs(5);
/// Pause before the next try.
const PAUSE: Duration = Duration::from_millis(50);
/// A database that has not answered after this is taken for dead.
const PATIENCE: Duration = Duration::from_secs(30);
/// The oldest server that is spoken to.
const VERSION_MIN: i32 = 13;

/// What holds for a connection, besides the schema.
///
/// Everything is found by an index, row by row: the server, which knows a table as it was some time ago and not how little is asked for, would now
/// and then read it all. One who is gone, or a server that is slow, does not keep others from the head of the history for long.
const SESSION: &str = "\
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET max_parallel_workers_per_gather = 0; SET jit = off; \
    SET plan_cache_mode = force_generic_plan; SET default_transaction_isolation = 'read committed'; \
    SET statement_timeout = '12s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'; \
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
    SET client_min_messages = warning; \
    SELECT current_setting('server_version_num')::int / 10000, current_setting('fsync'), \
        current_setting('full_page_writes'), current_setting('synchronous_commit')";

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was done, and it would be so again: with this reason.
    Refused(KvError),
    /// It may or may not have been done, or it was not but may be the next time.
    Unknown(String),
}

impl From<Failure> for KvError {
    fn from(failure: Failure) -> KvError {
        match failure {
            Failure::Refused(error) => error,
            Failure::Unknown(why) => KvError::Unavailable(why),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        let Some(said) = error.as_db_error() else {
            return Failure::Unknown(format!("PostgreSQL: {}", with_causes(&error)));
        };
        let mut text = format!("PostgreSQL: {} ({})", said.message(), said.code().code());
        for more in [said.detail(), said.hint()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        meaning(said.code(), said.parsed_severity(), text)
    }
}

/// Why there is no connection. A certificate that is not trusted now is not trusted a moment later.
fn not_connected(error: tokio_postgres::Error) -> Failure {
    let is_of_tls = is_of_tls(&error);
    match Failure::from(error) {
        Failure::Unknown(why) if is_of_tls => Failure::Refused(KvError::Unavailable(why)),
        failure => failure,
    }
}

/// What the server says by the code of an error.
fn meaning(code: &SqlState, severity: Option<Severity>, text: String) -> Failure {
    match code.code().get(..2) {
        // Whom it does not let in it tells so with one of these.
        Some("28" | "3D") => Failure::Refused(KvError::Unavailable(text)),
        // Whatever ends more than the statement may have come after its commit.
        _ if severity != Some(Severity::Error) => Failure::Unknown(text),
        _ if *code == SqlState::DISK_FULL => Failure::Refused(KvError::Full),
        Some("54") => Failure::Refused(KvError::TooLarge),
        // The connection, too many of them, a conflict, a lock that was not given in time, a stop, the system: that passes.
        Some("08" | "40" | "53" | "55" | "57" | "58" | "XX") => Failure::Unknown(text),
        // It became a standby.
        _ if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Failure::Unknown(text),
        _ => Failure::Refused(KvError::Unavailable(text)),
    }
}

fn is_of_tls(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// For how long something is tried again.
pub(super) struct Patience(Instant);

impl Patience {
    pub(super) fn new() -> Patience {
        Patience::since(Instant::now())
    }

    /// Of somebody who began to wait then.
    pub(super) fn since(start: Instant) -> Patience {
        Patience(start + PATIENCE)
    }

    /// Waits before the next try; if it is time to give up, that is for `why`.
    pub(super) async fn wait(&mut self, why: String) -> Result<(), KvError> {
        if Instant::now() >= self.0 {
            return Err(KvError::Unavailable(why));
        }
        tracing::debug!(why, "PostgreSQL is asked again");
        sleep(PAUSE).await;
        Ok(())
    }
}

/// A connection that settings hold for.
pub(super) struct Session {
    pub(super) client: Client,
    /// Reads and writes it.
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Who does not answer would be waited for.
        self.task.abort();
    }
}

/// A connection that questions are asked on.
struct Connection {
    session: Session,
    statements: Statements,
}

/// The connections to a database.
pub(super) struct Link {
    hosts: Vec<(String, Config)>,
    encryption: Encryption,
    schema: String,
    /// See [`COMMITS`], [`NEWEST`], [`READER`].
    slots: Vec<Mutex<Option<Arc<Connection>>>>,
    /// Which reader is next.
    turn: AtomicUsize,
    /// Who took writes last.
    current: AtomicUsize,
}

fn config(place: &PostgresPlace, host: &PostgresHost) -> Config {
    let mut config = Config::new();
    config
        .user(&place.user)
        .dbname(&place.database)
        .application_name("steradian")
        .connect_timeout(TAKE)
        .tcp_user_timeout(GONE)
        .keepalives_idle(SIGN)
        .keepalives_interval(SIGN)
        .keepalives_retries(3)
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .ssl_mode(SslMode::Disable);
    if let Some(password) = &place.password {
        config.password(password);
    }
    match host {
        PostgresHost::Tcp { host, port } => {
            let mode = if place.authorities.is_some() { SslMode::Require } else { SslMode::Disable };
            config.host(host).port(*port).ssl_mode(mode)
        }
        // That stays on this host.
        PostgresHost::Unix { folder, port } => config.host_path(folder).port(*port),
    };
    config
}

impl Link {
    /// Nothing is connected yet.
    pub(super) fn new(place: &PostgresPlace) -> Result<Link, KvError> {
        let encryption = Encryption::new(place.authorities.as_deref())
            .map_err(|why| KvError::Unavailable(format!("sslrootcert of {place:?}: {why}")))?;
        let hosts = place.hosts.iter().map(|host| (host.to_string(), config(place, host))).collect();
        let slots = std::iter::repeat_with(Mutex::default).take(READER + READERS).collect();
        let schema = place.schema.clone();
        Ok(Link { hosts, encryption, schema, slots, turn: AtomicUsize::new(0), current: AtomicUsize::new(0) })
    }

    /// A new connection: to whoever takes writes.
    pub(super) async fn session(&self) -> Result<Session, Failure> {
        let first = self.current.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for asked in (first..).take(self.hosts.len()) {
            let (name, config) = &self.hosts[asked % self.hosts.len()];
            let connected = timeout(CONNECT, self.connect(config)).await;
            match connected.unwrap_or_else(|_| Err(Failure::Unknown("no answer".to_owned()))) {
                Ok(session) => {
                    self.current.store(asked % self.hosts.len(), Ordering::Relaxed);
                    return Ok(session);
                }
                Err(failure) => failures.push((name, failure)),
            }
        }
        // One that cannot be asked now may say something else than the others.
        let will_stay = failures.iter().all(|(_, failure)| matches!(failure, Failure::Refused(_)));
        let text = failures.into_iter().map(|(name, failure)| match failure {
            Failure::Unknown(why) | Failure::Refused(KvError::Unavailable(why)) => format!("{name}: {why}"),
            Failure::Refused(error) => format!("{name}: {error}"),
        });
        let text = text.collect::<Vec<_>>().join("; ");
        Err(if will_stay { Failure::Refused(KvError::Unavailable(text)) } else { Failure::Unknown(text) })
    }

    async fn connect(&self, config: &Config) -> Result<Session, Failure> {
        let (client, connection) = config.connect(self.encryption.clone()).await.map_err(not_connected)?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = with_causes(&error), "a connection to PostgreSQL is lost");
            }
        });
        let session = Session { client, task };
        let settings = format!("SET search_path = \"{}\"; {SESSION}", self.schema);
        for answer in session.client.simple_query(&settings).await? {
            if let SimpleQueryMessage::Row(row) = answer {
                let setting = |column: usize| row.get(column).unwrap_or_default();
                check_settings(setting(0), [setting(1), setting(2)], setting(3))?;
            }
        }
        Ok(session)
    }

    async fn connection(&self, slot: usize) -> Result<Arc<Connection>, Failure> {
        let mut slot = self.slots[slot].lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.session.client.is_closed()) {
            return Ok(connection.clone());
        }
        *slot = None;
        let session = self.session().await?;
        let prepared = timeout(CONNECT, statements::prepare(&session.client)).await;
        let statements = prepared.map_err(|_| Failure::Unknown("no answer".to_owned()))??;
        Ok(slot.insert(Arc::new(Connection { session, statements })).clone())
    }

    /// Asks once, on one of the connections.
    async fn once(
        &self,
        slot: usize,
        which: fn(&Statements) -> &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let connection = self.connection(slot).await?;
        let asked = connection.session.client.query(which(&connection.statements), parameters);
        let answer = match timeout(TRY, asked).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::Unknown("PostgreSQL: no answer".to_owned())),
        };
        if matches!(answer, Err(Failure::Unknown(_))) {
            self.leave(slot, &connection).await;
        }
        answer
    }

    /// Asks on a new connection from now on: this one is lost, or its server takes no writes any more.
    async fn leave(&self, slot: usize, connection: &Arc<Connection>) {
        let mut slot = self.slots[slot].lock().await;
        slot.take_if(|current| Arc::ptr_eq(current, connection));
    }

    /// Asks until there is an answer, or has been none for long.
    async fn ask(
        &self,
        slot: usize,
        which: fn(&Statements) -> &Statement,
        parameters: &[&(dyn ToSql + Sync)],
        patience: &mut Patience,
    ) -> Result<Vec<Row>, KvError> {
        loop {
            match self.once(slot, which, parameters).await {
                Err(Failure::Unknown(why)) => patience.wait(why).await?,
                answer => return Ok(answer?),
            }
        }
    }

    /// Asks for what may be asked for again.
    pub(super) async fn read(
        &self,
        which: fn(&Statements) -> &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, KvError> {
        let reader = READER + self.turn.fetch_add(1, Ordering::Relaxed) % READERS;
        self.ask(reader, which, parameters, &mut Patience::new()).await
    }

    /// Asks for what is newest.
    pub(super) async fn read_newest(&self, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, KvError> {
        self.ask(NEWEST, |statements| &statements.newest, parameters, &mut Patience::new()).await
    }

    /// Has a batch of commits done once: asks, and not again.
    pub(super) async fn commit_once(&self, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        self.once(COMMITS, |statements| &statements.commit, parameters).await
    }

    /// Has a mark moved, see [`super::commit`].
    pub(super) async fn settle(
        &self,
        parameters: &[&(dyn ToSql + Sync)],
        patience: &mut Patience,
    ) -> Result<Vec<Row>, KvError> {
        self.ask(COMMITS, |statements| &statements.settle, parameters, patience).await
    }

    /// Does something that is done seldom, once; tells how many rows it changed.
    pub(super) async fn execute(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Failure> {
        let connection = self.connection(READER).await?;
        let done = timeout(TRY, connection.session.client.execute(statement, parameters)).await;
        let done = done.map_err(|_| Failure::Unknown("PostgreSQL: no answer".to_owned()))?;
        Ok(done?)
    }

    /// Asks for a row that is asked for seldom, once; tells also which host has answered.
    pub(super) async fn ask_once(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(Row, String), Failure> {
        let asked = async {
            let connection = self.connection(READER).await?;
            let row = connection.session.client.query_one(statement, parameters).await?;
            Ok((row, self.hosts[self.current.load(Ordering::Relaxed)].0.clone()))
        };
        let answer = timeout(ASK, asked).await;
        answer.unwrap_or_else(|_| Err(Failure::Unknown("PostgreSQL: no answer".to_owned())))
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }
}

/// Sees to it that what the server calls committed is on its disk.
fn check_settings(version: &str, needed: [&str; 2], synchronous: &str) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::Refused(KvError::Unavailable(format!("PostgreSQL {why}"))));
    if version.parse().is_ok_and(|version: i32| version < VERSION_MIN) {
        return refused(&format!("is of version {version}; it has to be {VERSION_MIN} or newer"));
    }
    for (name, value) in ["fsync", "full_page_writes"].into_iter().zip(needed) {
        if value != "on" {
            return refused(&format!(
                "runs with {name} = {value}: a crash would damage the metadata; set {name} = on"
            ));
        }
    }
    if synchronous == "off" {
        return refused(
            "answers before a commit is on its disk; set synchronous_commit = on for the server, the database and the user",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &SqlState, severity: Severity, expected: &str) {
        let failure = meaning(code, Some(severity), "why".to_owned());
        assert_eq!(format!("{failure:?}"), expected, "{code:?}");
    }

    #[test]
    fn an_error_says_whether_it_passes() {
        let (unknown, refused) = ("Unknown(\"why\")", "Refused(Unavailable(\"why\"))");
        check(&SqlState::DISK_FULL, Severity::Error, "Refused(Full)");
        check(&SqlState::DISK_FULL, Severity::Panic, unknown);
        check(&SqlState::PROGRAM_LIMIT_EXCEEDED, Severity::Error, "Refused(TooLarge)");
        check(&SqlState::INSUFFICIENT_PRIVILEGE, Severity::Error, refused);
        check(&SqlState::INVALID_PASSWORD, Severity::Fatal, refused);
        check(&SqlState::T_R_SERIALIZATION_FAILURE, Severity::Error, unknown);
        check(&SqlState::LOCK_NOT_AVAILABLE, Severity::Error, unknown);
        check(&SqlState::QUERY_CANCELED, Severity::Error, unknown);
        check(&SqlState::READ_ONLY_SQL_TRANSACTION, Severity::Error, unknown);
        check(&SqlState::TOO_MANY_CONNECTIONS, Severity::Fatal, unknown);
        check(&SqlState::CANNOT_CONNECT_NOW, Severity::Fatal, unknown);
        check(&SqlState::ADMIN_SHUTDOWN, Severity::Fatal, unknown);
    }
}
