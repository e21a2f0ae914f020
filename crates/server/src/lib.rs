//! The roles as services: [`storage`] (chunks on chains), [`metadata`] (the tree), [`manager`] (who holds what; [`office`]: which
//! server does that), and what they share: [`dispatch`] (one port for all of them), [`metrics`], and [`reclaimer`] (the way from the tree to chunks).

mod blocking;
pub mod dispatch;
pub mod links;
pub mod manager;
pub mod metadata;
pub mod metrics;
pub mod migration;
pub mod mirror;
pub mod office;
pub mod rebuild;
pub mod reclaimer;
pub mod restore;
pub mod storage;
#[cfg(test)]
mod testing;
