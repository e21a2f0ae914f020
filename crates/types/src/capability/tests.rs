use super::*;

fn key() -> CapabilityKey {
    CapabilityKey([7; 32])
}

fn check(
    change: impl Fn(&mut Capability),
    inode: u64,
    rights: Rights,
    now: i64,
) -> Result<(), CapabilityError> {
    let mut capability = key().grant_read(InodeId(10), 2, Uid(5), Time(100));
    change(&mut capability);
    key().check(&capability, InodeId(inode), rights, Time(now))
}

#[test]
fn holds_for_what_it_names_and_no_more() {
    assert_eq!(check(|_| {}, 10, Rights::Read, 100), Ok(()));
    assert_eq!(check(|_| {}, 11, Rights::Read, 100), Ok(()));
    assert_eq!(check(|_| {}, 12, Rights::Read, 100), Err(CapabilityError::Insufficient));
    assert_eq!(check(|_| {}, 9, Rights::Read, 100), Err(CapabilityError::Insufficient));
    assert_eq!(check(|_| {}, 10, Rights::ReadWrite, 100), Err(CapabilityError::Insufficient));
    assert_eq!(check(|_| {}, 10, Rights::Read, 101), Err(CapabilityError::Expired));
}

#[test]
fn refuses_every_changed_field() {
    assert_eq!(check(|c| c.first = InodeId(9), 10, Rights::Read, 0), Err(CapabilityError::Forged));
    assert_eq!(check(|c| c.count = 9, 10, Rights::Read, 0), Err(CapabilityError::Forged));
    assert_eq!(check(|c| c.rights = Rights::ReadWrite, 10, Rights::Read, 0), Err(CapabilityError::Forged));
    assert_eq!(check(|c| c.user = Uid(0), 10, Rights::Read, 0), Err(CapabilityError::Forged));
    assert_eq!(check(|c| c.expires = Time(900), 10, Rights::Read, 0), Err(CapabilityError::Forged));
    assert_eq!(check(|c| c.fence = 3, 10, Rights::Read, 0), Err(CapabilityError::Forged));
    assert_eq!(check(|c| c.seal[3] ^= 1, 10, Rights::Read, 0), Err(CapabilityError::Forged));
}

#[test]
fn a_snapshot_voids_what_was_given_to_write_before_it() {
    let write = |fence| key().grant_write(InodeId(10), 1, Uid(5), Time(100), fence);
    assert!(write(6).is_fenced(7));
    assert!(!write(7).is_fenced(7) && !write(8).is_fenced(7));
    assert!(!key().grant_read(InodeId(10), 1, Uid(5), Time(100)).is_fenced(7));
}
