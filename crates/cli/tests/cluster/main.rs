//! The real binary on loopback: used, killed, stopped, damaged.

#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

mod agree;
mod apart;
mod caches;
mod cloud;
mod commands;
mod crash;
mod damage;
mod disks;
mod engines;
mod failover;
mod follow;
mod fsck;
mod full;
mod full_store;
mod join;
mod keep;
mod lists;
mod load;
mod locks;
mod lost_store;
mod missing;
mod mount;
mod moves;
mod nameless;
mod networks;
mod partitions;
mod posix;
mod programs;
mod real;
mod recover;
mod returns;
mod shim;
mod snapshots;
mod store;
mod stores;
mod transfers;
mod upgrade;
