//! What who joins and who invites say to each other, within a connection as [`net::pinned`] makes it.
//!
//! The secret first, 16 bytes: who has another one is told nothing. Then messages, each its length (4 bytes, the lowest first) and JSON: a
//! [`Wish`], an [`Answer`]. At last one byte, [`KEPT`]: all of the answer is on the joining machine's disk.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The form of these messages.
pub(super) const VERSION: u32 = 1;
/// Bytes of a message: the largest has some hundred targets with their directories.
const MESSAGE_MAX: u32 = 256 * 1024;
/// That the answer is kept.
pub(super) const KEPT: u8 = 6;

/// What a machine that joins would be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    pub(super) version: u32,
    pub(super) address: IpAddr,
    /// For certificates, with its public key: see [`net::Application`].
    pub(super) application: String,
    /// The certificate of the authority that its directory has already.
    pub(super) authority: Option<String>,
    /// Whether it is to run a storage server.
    pub(super) storage: bool,
    pub(super) targets: Vec<WantedTarget>,
    pub(super) site: Option<String>,
    pub(super) rack: Option<String>,
}

/// A target as its user names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedTarget {
    /// `None`: whichever is free.
    pub(super) number: Option<u32>,
    pub(super) directory: PathBuf,
}

/// What becomes of a [`Wish`].
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Answer {
    Welcome(Box<Welcome>),
    /// A sentence for the user says why not, and what to do.
    Refused(String),
}

/// Everything that a machine needs to be one of the cluster. There is no key in it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Welcome {
    pub(super) address: IpAddr,
    /// The certificate of the cluster's authority.
    pub(super) authority: String,
    /// The machines with a metadata server, in the order of their numbers.
    pub(super) metadata_machines: Vec<IpAddr>,
    pub(super) metadata: Option<MetadataPart>,
    pub(super) storage: Option<StoragePart>,
}

/// Of a machine that runs a metadata server.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetadataPart {
    pub(super) number: u32,
    pub(super) certificate: String,
    pub(super) copies: u8,
    /// Targets that must be there before a new cluster places anything.
    pub(super) wait_for: u32,
    /// What two copies never share, as `sr meta` has it.
    pub(super) domain: String,
    pub(super) store: StorePart,
}

/// Where the metadata is.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum StorePart {
    /// On the only machine that has a metadata server.
    Local,
    /// In etcd, with a member on each machine that has a metadata server. It has an authority of its own.
    Etcd { authority: String, certificate: String, cluster: String },
    /// Where the user has it.
    Elsewhere(String),
}

/// Of a machine that runs a storage server.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoragePart {
    pub(super) number: u32,
    pub(super) certificate: String,
    pub(super) targets: Vec<Target>,
    pub(super) site: Option<String>,
    pub(super) rack: Option<String>,
}

/// A target with its number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) number: u32,
    /// `None`: in the machine's directory.
    pub(super) directory: Option<PathBuf>,
}

/// Sends a message.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= MESSAGE_MAX);
    let length = length.ok_or_else(|| io::Error::other("there is too much to say: name fewer targets"))?;
    stream.write_all(&[&length.to_le_bytes()[..], &text].concat()).await?;
    stream.flush().await
}

/// Receives one.
pub(super) async fn receive<M: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length);
    if length > MESSAGE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    // As it comes: who only says that it is long takes no memory.
    let mut text = Vec::new();
    (&mut *stream).take(u64::from(length)).read_to_end(&mut text).await?;
    serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
