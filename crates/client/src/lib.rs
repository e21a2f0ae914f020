//! The client library: everything that uses a Steradian cloud does it through [`Client`].
//!
//! It finds the servers ([`Context`]), keeps the routing fresh, computes which chain holds a chunk, moves data in
//! pieces of at most 1 MiB in parallel, checks every byte against its checksum, and retries in one place. What it
//! promises:
//!
//! - A call ends by its deadline ([`Options::deadline`]), with an answer or an [`Error`] that names the path.
//! - Changes happen at most once, however often they are retried (each carries an origin: client, lane, sequence).
//! - Bytes that were handed out matched their checksums. Bytes that were acknowledged are as durable as was asked.
//! - Dropping a future leaves nothing broken. A change whose future was dropped may still happen.
//! - Memory is bounded: each stream holds at most [`Options::window`] bytes in flight.
//!
//! Reading order: [`Context`] and [`Options`], [`Error`], [`Client`] with its metadata calls (`tree`), listings
//! ([`Listing`], [`Walk`], [`glob`]), files ([`File`], [`Reader`]), making files ([`Uploader`], [`Appender`]), copies,
//! what mounts need ([`Session`]), and what an administrator asks (`inspect`, `health`, `fsck`) or has done (`following`, `recode`).

mod append;
mod call;
mod client;
mod context;
mod copy;
mod cut;
mod error;
mod export;
mod file;
mod following;
mod fsck;
pub mod glob;
mod grant;
mod health;
mod inspect;
mod keeping;
mod lanes;
mod lease;
mod list;
mod movement;
mod nearness;
mod options;
mod pipeline;
mod put;
mod quota;
mod reader;
mod recode;
mod renewal;
mod retry;
mod routes;
mod servers;
mod session;
mod snapshot;
mod span;
mod transfer;
mod trash;
mod tree;
mod walk;

pub use append::Appender;
pub use client::Client;
pub use context::{Context, ContextSecurity};
pub use copy::{CopyBytes, CopyOptions, Keep};
pub use error::{Error, ErrorKind, Result};
pub use file::{File, Pieces, Seek};
pub use fsck::{Depth, FileToCheck, Finding, Orphans};
pub use glob::Match;
pub use inspect::{ChunkLocation, ContentHash, CopyLocation, DamageReport, NodeStatus, Status, Usage};
pub use keeping::{Dependents, Forgotten};
pub use list::{ListOptions, Listing};
pub use options::Options;
pub use put::{PutOptions, Uploader};
pub use reader::Reader;
pub use recode::{Pace, Recoded};
pub use session::{Held, Lost, Opening, Session, Standing};
pub use tree::{CreateOptions, Parents};
pub use walk::{Walk, WalkOptions, WalkPage};
