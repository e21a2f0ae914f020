//! The real binary on loopback: used, killed, stopped, damaged.

mod apart;
mod cloud;
mod crash;
mod damage;
mod failover;
