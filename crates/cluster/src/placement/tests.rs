use super::*;
use FailureDomain::{Host, Rack, Site, Target};
use proptest::prelude::*;

fn candidate(target: u32, weight: u64, place: (&str, &str, &str)) -> Candidate {
    Candidate {
        target: TargetId(target),
        weight,
        site: place.0.into(),
        rack: place.1.into(),
        host: place.2.into(),
    }
}

/// Seven targets on six hosts in four racks on two sites.
fn seven() -> Vec<Candidate> {
    vec![
        candidate(1, 1000, ("a", "a1", "h1")),
        candidate(2, 1000, ("a", "a1", "h1")),
        candidate(3, 2000, ("a", "a1", "h2")),
        candidate(4, 500, ("a", "a2", "h3")),
        candidate(5, 1000, ("b", "b1", "h4")),
        candidate(6, 1000, ("b", "b1", "h5")),
        candidate(7, 3000, ("b", "b2", "h6")),
    ]
}

fn rule(copies: u8, domain: FailureDomain) -> Rule {
    Rule { copies, domain, sites: Vec::new() }
}

fn members(table: u16, slot: u16, candidates: &[Candidate], rule: &Rule) -> Vec<u32> {
    let placed = place(TableId(table), Slot(slot), candidates, rule);
    placed.members.iter().map(|target| target.0).collect()
}

// The vectors were made by another implementation, in Python, of `docs/formats/placement.md`. They never change.

#[test]
fn hashes_and_costs_are_frozen() {
    let vector = [
        ((0, 0, 0), 0x79cf_c3db_e5bb_fcaf, 301598324620479),
        ((0, 0, 1), 0x076e_8699_5762_6605, 1437295593192761),
        ((0, 1, 0), 0xaeb1_34d3_aeef_a0a7, 155185180927993),
        ((1, 0, 0), 0xb1ac_a034_1157_0082, 148311596164439),
        ((7, 300, 70000), 0xbce6_30ea_a93d_9440, 123434473175245),
        ((65535, 65535, 4294967295), 0x5331_9d4a_c7cc_bb33, 456438634235659),
    ];
    for ((table, slot, target), expected, price) in vector {
        let found = hash(TableId(table), Slot(slot), TargetId(target));
        assert_eq!((found, cost(found)), (expected, price));
    }
    let edges = [
        (0, 1 << 54),
        (1, 1 << 54),
        (2, 17732923532771328),
        (3, 17568271226504234),
        (1 << 63, 1 << 48),
        (u64::MAX, 1),
    ];
    for (hash, price) in edges {
        assert_eq!(cost(hash), price);
    }
}

#[test]
fn chains_are_frozen() {
    let vector = [
        (Target, [[1, 5, 3], [2, 7, 4], [1, 6, 7], [7, 3, 2], [7, 6, 1], [3, 7, 6], [6, 7, 5], [5, 3, 2]]),
        (Host, [[1, 5, 3], [2, 7, 4], [1, 6, 7], [7, 3, 2], [7, 6, 1], [3, 7, 6], [6, 7, 5], [5, 3, 2]]),
        (Rack, [[1, 5, 7], [2, 7, 4], [1, 6, 7], [7, 3, 5], [7, 6, 1], [3, 7, 6], [6, 7, 4], [5, 3, 7]]),
        (Site, [[1, 5, 7], [2, 7, 4], [1, 6, 7], [7, 3, 5], [7, 1, 6], [3, 7, 6], [6, 4, 7], [5, 3, 7]]),
    ];
    for (domain, chains) in vector {
        for (slot, chain) in (0..).zip(chains) {
            assert_eq!(members(3, slot, &seven(), &rule(3, domain)), chain, "{domain:?} {slot}");
        }
    }
}

#[test]
fn steps_down_one_level_at_a_time_and_says_so() {
    let placed = |copies, domain| place(TableId(3), Slot(0), &seven(), &rule(copies, domain));
    assert_eq!(placed(2, Site).apart, Site);
    assert_eq!(placed(3, Site).apart, Rack); // Two sites, four racks.
    assert_eq!(placed(4, Site).apart, Rack);
    assert_eq!(placed(5, Site).apart, Host); // Six hosts.
    assert_eq!(placed(6, Host).apart, Host);
    let all = placed(9, Rack);
    assert_eq!((all.apart, all.members.len(), all.missing), (Target, 7, 2));
    assert_eq!(place(TableId(3), Slot(0), &[], &rule(2, Host)).missing, 2);
}

#[test]
fn keeps_to_the_sites_of_the_class() {
    let only_b = Rule { copies: 2, domain: Host, sites: vec!["b".into()] };
    for slot in 0..64 {
        assert!(members(1, slot, &seven(), &only_b).iter().all(|target| *target >= 5));
    }
}

/// Members of each target, over `slots` chains.
fn load(candidates: &[Candidate], rule: &Rule, slots: u16) -> BTreeMap<u32, u32> {
    let mut load = BTreeMap::new();
    for slot in 0..slots {
        for member in members(1, slot, candidates, rule) {
            *load.entry(member).or_default() += 1;
        }
    }
    load
}

/// `n` targets, four to a host, with the weights repeating.
fn many(n: u32, weights: &[u64]) -> Vec<Candidate> {
    let weights = weights.iter().cycle();
    (1..=n)
        .zip(weights)
        .map(|(t, w)| candidate(t, *w, ("", "", &format!("h{}", t % n.div_ceil(4)))))
        .collect()
}

#[test]
fn a_target_is_within_a_tenth_of_its_share() {
    // 24 equal targets, 3 copies on different hosts, 8192 slots: 1024 members each.
    for (target, members) in load(&many(24, &[4000]), &rule(3, Host), 8192) {
        assert!((922..=1126).contains(&members), "{target}: {members}");
    }
}

#[test]
fn load_follows_weight() {
    // One copy: the share is exactly the weight's. With more copies large targets get less, as none holds two.
    for (target, members) in load(&many(24, &[1000, 2000, 3000]), &rule(1, Target), 16384) {
        let share = 16384 / 48 * [3, 1, 2][usize::try_from(target % 3).unwrap()];
        assert!(members.abs_diff(share) * 10 <= share + 200, "{target}: {members} of {share}");
    }
}

#[test]
fn one_dead_targets_load_falls_on_all_others() {
    let (all, slots) = (many(12, &[1]), 2048);
    let before = load(&all, &rule(2, Target), slots);
    let after = load(&all[1..], &rule(2, Target), slots);
    let expected = before[&1] / 11;
    for target in 2..=12 {
        let more = after[&target] - before[&target];
        assert!(more > 0 && more.abs_diff(expected) < expected, "{target}: {more} of {expected}");
    }
}

/// Members that are on another target after `with` joined, in parts of all members.
fn moved(before: &[Candidate], with: Candidate, rule: &Rule, slots: u16) -> (u32, u32) {
    let mut after = before.to_vec();
    after.push(with);
    let (mut moved, mut all) = (0, 0);
    for slot in 0..slots {
        let old = members(1, slot, before, rule);
        let new = members(1, slot, &after, rule);
        all += u32::try_from(old.len()).unwrap();
        moved += u32::try_from(new.iter().filter(|target| !old.contains(target)).count()).unwrap();
    }
    (moved, all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Adding one to n equal targets moves at most 1.2/(n+1) of the members, and all that moves, moves to it.
    #[test]
    fn adding_one_target_moves_little(n in 4u32..20, copies in 1u8..4, first in 0u32..100_000) {
        let equal = |target| candidate(first + target, 4000, ("", "", ""));
        let before: Vec<Candidate> = (0..n).map(equal).collect();
        let (moved, all) = moved(&before, equal(n), &rule(copies, Target), 4096);
        prop_assert!(moved * (n + 1) * 10 <= all * 12, "{moved} of {all}, n {n}");
        prop_assert!(moved * (n + 1) * 10 >= all * 8, "{moved} of {all}, n {n}");
    }

    /// The same with uneven weights, in proportion to the new one's; its part is less with several copies.
    #[test]
    fn adding_a_weight_moves_its_share(weights in prop::collection::vec(1u64..8, 5..20), weight in 1u64..8) {
        let before: Vec<Candidate> = (1..).zip(&weights).map(|(t, w)| candidate(t, *w, ("", "", ""))).collect();
        let total = weights.iter().sum::<u64>() + weight;
        let (moved, all) = moved(&before, candidate(1000, weight, ("", "", "")), &rule(1, Target), 8192);
        let share = u64::from(all) * weight / total;
        prop_assert!(u64::from(moved) * 10 <= share * 12 + 300, "{moved}, share {share}");
    }

    /// However hosts, racks and sites lie, copies share a domain only when there are too few, and then evenly; the order
    /// of the candidates changes nothing.
    #[test]
    fn copies_share_no_domain_that_they_need_not(
        places in prop::collection::vec((0u8..3, 0u8..3, 0u8..3, 1u64..1000), 1..24),
        copies in 1u8..10,
        slot in 0u16..1000,
    ) {
        let candidates: Vec<Candidate> = (1..)
            .zip(&places)
            .map(|(t, (s, r, h, w))| candidate(t, *w, (&s.to_string(), &r.to_string(), &h.to_string())))
            .collect();
        let reversed: Vec<Candidate> = candidates.iter().rev().cloned().collect();
        for domain in [Target, Host, Rack, Site] {
            let placed = place(TableId(1), Slot(slot), &candidates, &rule(copies, domain));
            prop_assert_eq!(&placed, &place(TableId(1), Slot(slot), &reversed, &rule(copies, domain)));
            let chosen: Vec<&Candidate> =
                placed.members.iter().map(|id| candidates.iter().find(|c| c.target == *id).unwrap()).collect();
            prop_assert_eq!(chosen.len(), candidates.len().min(usize::from(copies)));
            prop_assert_eq!(usize::from(placed.missing), usize::from(copies) - chosen.len());
            let name = |c: &Candidate| match domain {
                Target => vec![c.target.to_string()],
                Host => vec![c.site.clone(), c.rack.clone(), c.host.clone()],
                Rack => vec![c.site.clone(), c.rack.clone()],
                Site => vec![c.site.clone()],
            };
            let domains: std::collections::BTreeSet<_> = candidates.iter().map(name).collect();
            let used: std::collections::BTreeSet<_> = chosen.iter().map(|c| name(c)).collect();
            prop_assert_eq!(used.len(), domains.len().min(chosen.len()));
            let there = room(&candidates, &rule(copies, domain));
            prop_assert_eq!(there, Room { targets: candidates.len(), apart: domains.len() });
            prop_assert_eq!(placed.apart == domain, used.len() == chosen.len());
        }
    }
}

#[test]
fn members_that_are_there_stay_and_others_are_chosen_beside_them() {
    let all = seven();
    let by_number = |numbers: &[u32]| -> Vec<&Candidate> {
        let one = |number: &u32| all.iter().find(|candidate| candidate.target.0 == *number).unwrap();
        numbers.iter().map(one).collect()
    };
    for slot in (0..50).map(Slot) {
        for kept in [&[][..], &[4], &[2, 7], &[1, 5, 7]] {
            let members = by_number(kept);
            let placed = complete(TableId(3), slot, &members, &all, &rule(3, Host));
            let targets: Vec<u32> = placed.members.iter().map(|target| target.0).collect();
            assert!(targets.starts_with(kept) && targets.len() == 3);
            assert_eq!((placed.apart, placed.missing), (Host, 0));
        }
        // Of more than there are copies, the first ones.
        let placed = complete(TableId(3), slot, &by_number(&[7, 6, 5, 4]), &all, &rule(3, Host));
        assert_eq!(placed.members, [TargetId(7), TargetId(6), TargetId(5)]);
    }
}

#[test]
fn members_that_break_the_rule_are_not_kept() {
    let all = seven();
    let kept = |rule: &Rule| keep(&all, rule).iter().map(|member| member.target.0).collect::<Vec<_>>();
    assert_eq!(kept(&rule(2, Target)), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(kept(&rule(2, Host)), [1, 3, 4, 5, 6, 7]);
    assert_eq!(kept(&rule(2, Rack)), [1, 4, 5, 7]);
    assert_eq!(kept(&rule(2, Site)), [1, 5]);
    assert_eq!(kept(&Rule { sites: vec!["b".into()], ..rule(2, Host) }), [5, 6, 7]);
}
