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
