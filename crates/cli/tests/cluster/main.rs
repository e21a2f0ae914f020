//! The real binary on loopback: used, killed, stopped, damaged.

mod apart;
mod cloud;
mod commands;
mod crash;
mod damage;
mod failover;
mod transfers;
