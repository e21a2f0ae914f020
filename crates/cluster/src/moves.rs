//! How a chain gets other members: new ones are seated beside those that it has, the chain protocol fills them, and when
//! all that are wanted serve, the others go.

use crate::chain::{Chain, Seat};
use types::{Incarnation, MemberState, TargetId};

/// The run of a member that was never heard in its chain: no server is in it.
pub const NEVER: Incarnation = Incarnation(0);

/// The next step of a chain towards the members `wanted`; `None`: there is none now. Only when [`crate::next`] has none.
///
/// Nobody goes before `copies` members are wanted and all of them serve, so that CL-5 holds and no copy is given up for
/// one that is not there yet; and none of [`leaving`] before it is `quiet`: before its server is known to have a routing that
/// says so (CL-11). A step raises the epoch (CL-3).
pub fn reseat(
    chain: &Chain,
    wanted: &[TargetId],
    copies: u8,
    quiet: impl Fn(TargetId) -> bool,
) -> Option<Chain> {
    let mut seats = chain.seats.clone();
    let seated = |target: &TargetId| chain.seats.iter().any(|seat| seat.target == *target);
    let new: Vec<TargetId> = wanted.iter().copied().filter(|target| !seated(target)).collect();
    if !new.is_empty() {
        let seat = |target| Seat { target, state: MemberState::Offline, run: NEVER };
        seats.extend(new.into_iter().map(seat));
    } else if settled(chain, wanted, copies) && leaving(chain, wanted, copies).into_iter().all(quiet) {
        seats.retain(|seat| wanted.contains(&seat.target));
    }
    (seats != chain.seats).then(|| Chain { epoch: chain.epoch.next(), seats })
}

/// The members of a chain that serve and are to go now. They must serve no more reads first: writes will not wait for
/// them.
pub fn leaving(chain: &Chain, wanted: &[TargetId], copies: u8) -> Vec<TargetId> {
    if !settled(chain, wanted, copies) {
        return Vec::new();
    }
    let out = |seat: &&Seat| seat.state == MemberState::Serving && !wanted.contains(&seat.target);
    chain.seats.iter().filter(out).map(|seat| seat.target).collect()
}

/// Whether all members that are wanted serve, and are enough.
fn settled(chain: &Chain, wanted: &[TargetId], copies: u8) -> bool {
    let serves = |target: &TargetId| {
        chain.seats.iter().any(|seat| seat.target == *target && seat.state == MemberState::Serving)
    };
    wanted.len() >= usize::from(copies.max(1)) && wanted.iter().all(serves)
}

#[cfg(test)]
mod tests;
