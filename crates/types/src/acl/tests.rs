use super::*;
use std::collections::BTreeMap;

/// Entries in the words of `getfacl`: `u::rwx u:5:r-x g::r-- m::r-x o::---`.
fn acl(text: &str) -> Acl {
    Acl::parse(&bytes(text)).unwrap().unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for entry in text.split_whitespace() {
        let parts: Vec<&str> = entry.split(':').collect();
        let tag = match (parts[0], parts[1]) {
            ("u", "") => OWNER,
            ("u", _) => USER,
            ("g", "") => GROUP,
            ("g", _) => NAMED_GROUP,
            ("m", _) => MASK,
            _ => OTHERS,
        };
        let bit = |letter, bit| if parts[2].contains(letter) { bit } else { 0u16 };
        bytes.extend(tag.to_le_bytes());
        bytes.extend((bit('r', 4) | bit('w', 2) | bit('x', 1)).to_le_bytes());
        bytes.extend(parts[1].parse().unwrap_or(NOBODY).to_le_bytes());
    }
    bytes
}

#[test]
fn the_kernels_bytes_are_read_and_written() {
    let text = "u::rw- u:7:r-x g::r-- m::r-x o::---";
    let golden = [
        [2, 0, 0, 0].as_slice(),
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 5, 0, 7, 0, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 5, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    assert_eq!(bytes(text), golden);
    assert_eq!(acl(text).encode(), golden);
    assert_eq!(acl(text).mode(), 0o650);
    assert!(!acl(text).is_minimal() && acl("u::r-- g::--- o::---").is_minimal());
    assert_eq!(Acl::parse(&[2, 0, 0, 0]), Ok(None));
}

/// Whether a sequence of tags is a list, by the words of acl(5): one entry each of the owner, the group and the others, a mask
/// if anybody is named; and in the order that the kernel demands.
fn is_list(tags: &[u16]) -> bool {
    let count = |tag| tags.iter().filter(|found| **found == tag).count();
    let is_named = count(USER) + count(NAMED_GROUP) > 0;
    tags.is_sorted()
        && [OWNER, GROUP, OTHERS].iter().all(|tag| count(*tag) == 1)
        && count(MASK) <= 1
        && (!is_named || count(MASK) == 1)
        && tags.iter().all(|tag| [OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHERS].contains(tag))
}

#[test]
fn whatever_is_no_list_is_refused() {
    let kinds = [OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHERS, 0, 3, 64];
    let mut lists = 0;
    for length in 1..=6u32 {
        for number in 0..kinds.len().pow(length) {
            let mut rest = number;
            let tags: Vec<u16> = (0..length)
                .map(|_| {
                    let tag = kinds[rest % kinds.len()];
                    rest /= kinds.len();
                    tag
                })
                .collect();
            let mut bytes = VERSION.to_le_bytes().to_vec();
            for tag in &tags {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(4u16.to_le_bytes());
                bytes.extend(1000u32.to_le_bytes());
            }
            assert_eq!(matches!(Acl::parse(&bytes), Ok(Some(_))), is_list(&tags), "{tags:?}");
            lists += u32::from(is_list(&tags));
        }
    }
    assert!(lists > 5, "{lists}");
    for wrong in [&[][..], &[2, 0, 0], &[1, 0, 0, 0], &[3, 0, 0, 0], &bytes("u::r-- g::--- o::---")[..27]] {
        assert_eq!(Acl::parse(wrong), Err(Malformed), "{wrong:?}");
    }
    // Rights that there are not, and names of nobody.
    let good = bytes("u::rwx u:5:rwx g::rwx g:6:rwx m::rwx o::rwx");
    for entry in 0..6 {
        let mut wrong = good.clone();
        wrong[4 + 8 * entry + 2] = 8;
        assert_eq!(Acl::parse(&wrong), Err(Malformed));
    }
    for entry in [1, 3] {
        let mut wrong = good.clone();
        wrong[4 + 8 * entry + 4..4 + 8 * entry + 8].fill(255);
        assert_eq!(Acl::parse(&wrong), Err(Malformed));
    }
}

/// A list as a table from who to what, and the algorithm of acl(5), line by line.
struct Slow(BTreeMap<(&'static str, Option<u32>), u16>);

impl Slow {
    fn of(acl: &Acl) -> Slow {
        let mut table =
            BTreeMap::from([(("u", None), acl.owner), (("g", None), acl.group), (("o", None), acl.others)]);
        table.extend(acl.mask.map(|mask| (("m", None), mask)));
        table.extend(acl.users.iter().map(|(uid, rights)| (("u", Some(uid.0)), *rights)));
        table.extend(acl.groups.iter().map(|(gid, rights)| (("g", Some(gid.0)), *rights)));
        Slow(table)
    }

    /// Of somebody who is not the owner.
    fn grants(&self, uid: u32, owning: u32, groups: &[u32], wanted: u16) -> bool {
        let mask = self.0.get(&("m", None)).copied().unwrap_or(7);
        let has = |rights: u16| (0..3).all(|bit| wanted & 1 << bit == 0 || rights & 1 << bit != 0);
        if let Some(rights) = self.0.get(&("u", Some(uid))) {
            return has(rights & mask);
        }
        let mut matching = Vec::new();
        for ((kind, whose), rights) in &self.0 {
            if *kind == "g" && groups.contains(&whose.unwrap_or(owning)) {
                matching.push(*rights);
            }
        }
        if matching.iter().any(|rights| has(*rights & mask)) {
            return true;
        }
        if !matching.is_empty() {
            return false;
        }
        has(self.0[&("o", None)])
    }
}

/// Every list of this shape with rights out of some.
fn all_lists(some: &[u16]) -> impl Iterator<Item = Acl> {
    let named = |rights: Option<u16>| rights.into_iter();
    let choices: Vec<Option<u16>> = std::iter::once(None).chain(some.iter().copied().map(Some)).collect();
    let some = some.to_vec();
    let mut lists = Vec::new();
    for user in &choices {
        for group in &some {
            for (first, second) in
                choices.iter().flat_map(|first| choices.iter().map(move |second| (first, second)))
            {
                for mask in &choices {
                    for others in &some {
                        if mask.is_none() && (user.is_some() || first.is_some() || second.is_some()) {
                            continue;
                        }
                        let groups = named(*first).map(|rights| (Gid(20), rights));
                        lists.push(Acl {
                            owner: 7,
                            users: named(*user).map(|rights| (Uid(1), rights)).collect(),
                            group: *group,
                            groups: groups.chain(named(*second).map(|rights| (Gid(21), rights))).collect(),
                            mask: *mask,
                            others: *others,
                        });
                    }
                }
            }
        }
    }
    lists.into_iter()
}

#[test]
fn rights_are_those_of_the_algorithm_in_the_manual() {
    let memberships: [&[u32]; 8] = [&[], &[10], &[20], &[21], &[10, 20], &[20, 21], &[10, 20, 21], &[99]];
    let mut count = 0;
    for acl in all_lists(&[0, 1, 2, 4, 6, 7]) {
        let slow = Slow::of(&acl);
        for uid in [1, 2] {
            for groups in memberships {
                for wanted in 1..8 {
                    let is_member = |gid: Gid| groups.contains(&gid.0);
                    let found = acl.permits(Uid(uid), Gid(10), is_member, wanted);
                    assert_eq!(
                        found,
                        slow.grants(uid, 10, groups, wanted),
                        "{acl:?} {uid} {groups:?} {wanted}"
                    );
                    count += u32::from(found);
                }
            }
        }
    }
    assert!(count > 100_000, "{count}");
}

#[test]
fn a_mode_changes_the_owner_the_mask_and_the_others() {
    for acl in all_lists(&[0, 3, 5]) {
        for bits in 0..0o1000 {
            let mut changed = acl.clone();
            changed.set_mode(Mode(bits | 0o7000));
            assert_eq!(changed.mode(), bits);
            assert_eq!((&changed.users, &changed.groups), (&acl.users, &acl.groups));
            // The group itself is behind the mask.
            let group = if acl.mask.is_some() { acl.group } else { bits >> 3 & 7 };
            assert_eq!((changed.group, changed.is_minimal()), (group, acl.is_minimal()));
        }
    }
}

#[test]
fn what_is_made_gets_no_more_than_the_list_and_the_mode_give() {
    for default in all_lists(&[0, 3, 6, 7]) {
        for bits in [0o777, 0o666, 0o640, 0o700, 0o070, 0o007, 0, 0o1755] {
            let made = default.inherited(Mode(bits));
            assert_eq!(made.mode(), default.mode() & bits & 0o777);
            // Who is named stays so; the mask alone keeps him from more.
            assert_eq!((&made.users, &made.groups), (&default.users, &default.groups));
            for uid in [1, 2] {
                for gid in [10, 20, 99] {
                    let get =
                        |acl: &Acl, wanted| acl.permits(Uid(uid), Gid(10), |group| group.0 == gid, wanted);
                    for wanted in [1, 2, 4] {
                        let is_of_group = gid == 10
                            || default.users.iter().any(|(named, _)| named.0 == uid)
                            || default.groups.iter().any(|(named, _)| named.0 == gid);
                        let class = if is_of_group { 3 } else { 0 };
                        let mode_gives = bits >> class & wanted == wanted;
                        assert_eq!(
                            get(&made, wanted),
                            get(&default, wanted) && mode_gives,
                            "{default:?} {bits:o}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn lists_come_back_from_their_bytes() {
    for acl in all_lists(&[0, 5, 7]) {
        assert_eq!(Acl::parse(&acl.encode()), Ok(Some(acl)));
    }
    let named: String = (0..505).map(|uid| format!("u:{uid}:r-- ")).collect();
    let largest = bytes(&format!("u::rwx {named} g::rwx g:5:--- g:6:rwx m::rwx o::---"));
    assert!(largest.len() <= ACL_MAX && largest.len() > ACL_MAX - 2 * ENTRY, "{}", largest.len());
    assert_eq!(Acl::parse(&largest).unwrap().unwrap().encode(), largest);
}
