//! Which copy to read: the nearest that is well, and otherwise evenly over all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;
use types::{Duration, Routing, TargetId};

/// What is known of the servers' nearness and health.
#[derive(Debug)]
pub(crate) struct Nearness {
    host: Option<String>,
    /// Servers that did not answer, and until when they are asked last.
    suspects: Mutex<HashMap<String, Instant>>,
}

/// A server that did not answer is asked last for this long: until the manager has cut it out, or it is back.
const SUSPECT_FOR: Duration = Duration::from_secs(5);

/// A serving member of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) target: TargetId,
    pub(crate) address: String,
}

impl Nearness {
    pub(crate) fn new(host: Option<String>) -> Nearness {
        Nearness { host: host.or_else(kernel_host), suspects: Mutex::default() }
    }

    /// The server at `address` did not answer.
    pub(crate) fn suspect(&self, address: &str) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        suspects.retain(|_, until| *until > now);
        suspects.insert(address.to_string(), now + SUSPECT_FOR);
    }

    fn is_suspect(&self, address: &str) -> bool {
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.get(address).is_some_and(|until| *until > Instant::now())
    }

    /// Copies on these targets, the one to read first first. `spread` makes different callers start with different ones among
    /// equals.
    pub(crate) fn order(
        &self,
        routing: &Routing,
        targets: impl Iterator<Item = TargetId>,
        spread: u64,
    ) -> Vec<Copy> {
        let copies = targets.filter_map(|target| {
            let node = routing.node_of(target)?;
            let far = u8::from(self.host.as_ref().is_none_or(|host| *host != node.host));
            let suspect = u8::from(!node.alive || self.is_suspect(&node.address));
            let copy = Copy { target, address: node.address.clone() };
            Some(((suspect, far, scatter(spread, target)), copy))
        });
        let mut copies: Vec<_> = copies.collect();
        copies.sort_by_key(|(rank, _)| *rank);
        copies.into_iter().map(|(_, copy)| copy).collect()
    }
}

/// A fixed but even order of targets for each `spread`.
fn scatter(spread: u64, target: TargetId) -> u64 {
    let mixed = (spread ^ (u64::from(target.0) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 3
}

fn kernel_host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_string())
}

#[cfg(test)]
mod tests;
