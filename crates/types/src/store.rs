//! Where the metadata is kept, and how that is: what an engine says of itself. Nothing in it is secret.

use serde::{Deserialize, Serialize};

/// The store of the metadata, as a metadata server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreStatus {
    Local(LocalStatus),
    Etcd(EtcdStatus),
    Postgres(PostgresStatus),
}

/// A store in a directory of the metadata server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStatus {
    pub directory: String,
    /// Bytes that it takes: its table, and its log with the history.
    pub bytes: u64,
    /// Of the file system that it is on.
    pub capacity: u64,
    pub free: u64,
}

/// A store in an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdStatus {
    /// As it may be shown.
    pub place: String,
    /// Those that the place names, in its order; then those of the cluster that it does not.
    pub members: Vec<EtcdMember>,
    /// Why nothing is known of alarms.
    pub unknown: Option<String>,
}

/// One address of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdMember {
    /// `host:port`; of one that the place does not name, as the cluster has it.
    pub address: String,
    /// As the cluster has it, if that is known.
    pub name: Option<String>,
    /// Whether the place of the store names it.
    pub named: bool,
    /// What it says, or why it does not.
    pub state: Result<EtcdState, String>,
}

/// What a member of an etcd cluster says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdState {
    pub version: String,
    pub leads: bool,
    /// Of its file, and what is in use of that.
    pub bytes: u64,
    pub used: u64,
    /// The size of its file from which on it takes no writes, if it says so.
    pub quota: Option<u64>,
    pub alarms: Vec<EtcdAlarm>,
}

/// What a member of an etcd cluster has raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EtcdAlarm {
    /// Its quota was used up: the cluster takes no writes until somebody says that there is room.
    NoSpace,
    /// It holds something else than the others.
    Corrupt,
    /// One that this program does not know.
    Other(i32),
}

impl EtcdAlarm {
    /// As etcd calls it.
    pub fn name(self) -> String {
        match self {
            EtcdAlarm::NoSpace => "NOSPACE".to_owned(),
            EtcdAlarm::Corrupt => "CORRUPT".to_owned(),
            EtcdAlarm::Other(number) => format!("{number}"),
        }
    }
}

/// A store in a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresStatus {
    /// As it may be shown: without a password.
    pub place: String,
    /// What the server that takes writes says, or why none does.
    pub state: Result<PostgresState, String>,
}

/// What a PostgreSQL server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresState {
    /// Which of the hosts it is.
    pub host: String,
    pub version: String,
    /// Of all tables of the schema with their indexes.
    pub bytes: u64,
    /// Of these, what is kept of the history.
    pub history: u64,
}
