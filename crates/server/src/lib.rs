//! The roles as services: [`storage`] (chunks on chains), [`metadata`] (the tree), [`manager`] (who holds what), and
//! what they share: [`dispatch`] (one port for all of them) and [`metrics`].

pub mod dispatch;
pub mod manager;
pub mod metadata;
pub mod metrics;
pub mod storage;
