//! The chunk store as its users see it, on simulated disks and tables.
//!
//! Reading order: [`map`] (what it should do), [`bench`] (the store beside the map), [`model`] (random histories, with
//! crashes), [`faults`] (disks at their worst, one at a time), [`heal`] (what is bad, found and replaced), [`forget`] (chains
//! that go).

#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod bench;
mod faults;
mod forget;
mod heal;
mod map;
mod model;
