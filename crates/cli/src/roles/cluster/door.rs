//! Who is let in: bounds for connections from anywhere. A value.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Connections at once: each lasts seconds.
pub(super) const OPEN_MAX: usize = 32;
/// Of one address: some machines may be behind one.
const OPEN_EACH_MAX: usize = 8;
/// Wrong secrets of one address. Whoever has a token has the right one, so this is somebody who tries.
const WRONG_EACH_MAX: u32 = 5;
/// Addresses that showed a wrong secret. Beyond this somebody has the addresses to go on for ever.
const WRONG_ADDRESSES_MAX: usize = 256;

/// What a wrong secret leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may try again.
    Again,
    /// This address is not listened to any longer.
    Shut,
    /// The invitation is over.
    Over,
}

#[derive(Debug, Default)]
pub(super) struct Door {
    open: BTreeMap<IpAddr, usize>,
    wrong: BTreeMap<IpAddr, u32>,
}

impl Door {
    /// Whether somebody may come in now. If so, it [leaves](Door::leave).
    pub(super) fn enter(&mut self, address: IpAddr) -> bool {
        let open: usize = self.open.values().sum();
        let own = self.open.get(&address).copied().unwrap_or(0);
        let wrong = self.wrong.get(&address).copied().unwrap_or(0);
        let may = open < OPEN_MAX && own < OPEN_EACH_MAX && wrong < WRONG_EACH_MAX;
        if may {
            self.open.insert(address, own + 1);
        }
        may
    }

    pub(super) fn leave(&mut self, address: IpAddr) {
        match self.open.get_mut(&address) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(self.open.remove(&address)),
        }
    }

    /// Somebody showed a wrong secret.
    pub(super) fn wrong(&mut self, address: IpAddr) -> Verdict {
        let count = self.wrong.entry(address).or_default();
        *count += 1;
        let is_shut = *count == WRONG_EACH_MAX;
        match (self.wrong.len() > WRONG_ADDRESSES_MAX, is_shut) {
            (true, _) => Verdict::Over,
            (false, true) => Verdict::Shut,
            (false, false) => Verdict::Again,
        }
    }
}

#[cfg(test)]
mod tests;
