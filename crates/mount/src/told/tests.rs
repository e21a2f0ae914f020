use super::*;

#[test]
fn a_directory_that_others_change_again_and_again_rests_ever_longer() {
    let begin = Instant::now();
    let mut restless = Restless::again(None, true, begin);
    assert_eq!(restless.until, begin + RESTLESS);
    // All of what is done at once counts as one.
    restless = Restless::again(Some(restless), true, begin + RESTLESS / 2);
    assert_eq!(restless.lasts, RESTLESS);
    // Nor does what nobody waits for.
    restless = Restless::again(Some(restless), false, restless.until);
    assert_eq!(restless.lasts, RESTLESS);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let now = restless.until;
        restless = Restless::again(Some(restless), true, now);
        pauses.push(restless.until - now);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 32, 32].map(|times| times * RESTLESS));
    // After as long a rest it is as any other.
    let rested = restless.until + RESTLESS_MAX;
    assert!(!restless.is_remembered(rested));
    assert_eq!(Restless::again(Some(restless), true, rested).lasts, RESTLESS);
}

#[test]
fn what_was_told_once_more_while_the_kernel_forgot_stays_noted() {
    let (mut state, again, once) = (State::default(), InodeId(1), InodeId(2));
    for inode in [again, once] {
        state.note_attributes(inode, RELIED_ON);
        state.note_lists(inode);
    }
    let lists: Vec<(InodeId, u64)> = state.lists.iter().map(|(inode, number)| (*inode, *number)).collect();
    let attributes: Vec<(InodeId, Last)> =
        state.attributes.iter().map(|(inode, last)| (*inode, *last)).collect();
    // For a shorter time: the longer one counts still.
    state.note_attributes(again, Duration::ZERO);
    state.note_lists(again);
    state.forgotten_attributes(&lists, &attributes);
    assert_eq!(state.attributes.keys().collect::<Vec<_>>(), [&again]);
    assert_eq!(state.lists.keys().collect::<Vec<_>>(), [&again]);
    let until = attributes.iter().find(|(inode, _)| *inode == again).unwrap().1.until;
    assert_eq!(state.attributes[&again].until, until);
}

#[test]
fn names_of_files_are_looked_at_again_or_waited_for() {
    let now = Instant::now();
    let name = |leads_to: Option<u64>, kind: NameKind, lasts: u64| {
        let until = now + Duration::from_secs(lasts);
        let told = Name { looked_at: now, until, leads_to: leads_to.map(InodeId), kind, number: 0 };
        ("name".into(), told)
    };
    let names: Names = vec![
        name(Some(2), NameKind::Leaf, 1),
        name(None, NameKind::Leaf, 2),
        name(Some(3), NameKind::ListedDirectory, 3),
    ];
    let kinds = |can_expire| {
        let mut names = [(InodeId(1), names.clone())];
        let until = keep_files(&mut names, can_expire);
        (names[0].1.iter().map(|(_, told)| told.kind).collect::<Vec<_>>(), until)
    };
    assert_eq!(kinds(true), (vec![NameKind::Directory, NameKind::Leaf, NameKind::ListedDirectory], None));
    let until = Some(now + Duration::from_secs(1));
    assert_eq!(kinds(false), (vec![NameKind::Leaf, NameKind::ListedDirectory], until));
}
