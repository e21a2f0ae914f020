//! Ports of this host for servers that tests start.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};

/// Ports that are free, and that the kernel does not give to anybody else meanwhile: below those that it gives to who wants any.
pub fn free(count: usize) -> Vec<u16> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut ports = Vec::new();
    while ports.len() < count {
        // Each process has others than the last ones.
        let number = u64::from(std::process::id()) * 100 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from(number % 20_000).unwrap_or_default();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
    }
    ports
}
