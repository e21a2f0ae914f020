//! Whole clusters in one process, on one thread, under one seed, in virtual time: the real servers and clients, on
//! machines, disks and a network that fail as the seed says.
//!
//! A run ([`world`]) starts the machines of a [`scenario`], lets clients work ([`workload`]) while [`faults`] happen,
//! mends everything, and asks ([`check`]): was every answer right, did work go on, are replicas equal, is no space lost.
//! The same seed gives the same run, event by event ([`log`]).
//!
//! Reading order: [`world`]; the machines ([`machine`], [`network`], [`table`], [`roles`]); the rest.
//! `docs/decisions/0003-simulator.md` says why it is made like this.

pub mod administrator;
pub mod check;
pub mod faults;
pub mod log;
pub mod machine;
pub mod mover;
pub mod network;
pub mod panics;
pub mod roles;
pub mod scenario;
pub mod table;
pub mod workload;
pub mod world;

pub use scenario::Scenario;
pub use world::{Failure, Report, run};
