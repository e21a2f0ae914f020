//! A retry gets the first answer again.

use super::*;

fn at(lane: u32, sequence: u64) -> Origin {
    Origin { client: ClientId(9), lane: Lane(lane), sequence: Sequence(sequence) }
}

fn mkdir(path: &str) -> Change {
    Change::MakeDirectory { place: path.into(), mode: Mode(0o755), parents: false }
}

#[test]
fn the_same_request_is_done_once() {
    let mut world = World::open();
    let first = world.retry(1, at(0, 5), mkdir("a")).unwrap();
    world.unlink(1, "a").unwrap_err();
    assert_eq!(world.retry(1, at(0, 5), mkdir("a")), Ok(first.clone()));
    world.change(1, Change::RemoveDirectory { place: "a".into() }).unwrap();
    assert_eq!(world.retry(1, at(0, 5), mkdir("a")), Ok(first));
    assert_eq!(world.stat(1, "a"), Err(MetaError::NotFound));
    // Another lane is another request.
    world.retry(1, at(1, 5), mkdir("a")).unwrap();
}

#[test]
fn an_older_request_of_a_lane_is_void() {
    let mut world = World::open();
    world.retry(1, at(0, 5), mkdir("a")).unwrap();
    world.retry(1, at(0, 6), mkdir("b")).unwrap();
    assert_eq!(world.retry(1, at(0, 5), mkdir("a")), Err(MetaError::TooOld));
    assert_eq!(world.retry(1, at(0, 4), mkdir("c")), Err(MetaError::TooOld));
    assert_eq!(world.stat(1, "c"), Err(MetaError::NotFound));
}

#[test]
fn a_refusal_is_an_answer_too() {
    let mut world = World::open();
    world.retry(1, at(0, 1), mkdir("a/b")).unwrap_err();
    world.retry(1, at(1, 1), mkdir("a")).unwrap();
    assert_eq!(world.retry(1, at(0, 1), mkdir("a/b")), Err(MetaError::NotFound));
    world.retry(1, at(0, 2), mkdir("a/b")).unwrap();
}

#[test]
fn busy_is_no_answer() {
    let mut world = World::open();
    world.make(1, "f", 0o644).unwrap();
    let open = || Change::OpenAppend { place: "f".into() };
    let held = world.retry(1, at(0, 1), open()).unwrap();
    assert_eq!(world.retry(1, at(1, 1), open()), Err(MetaError::Busy));
    let MetaReply::Appending { attributes, session, .. } = held else { panic!() };
    world.change(1, Change::CloseAppend { inode: attributes.inode, session }).unwrap();
    world.retry(1, at(1, 1), open()).unwrap();
}

#[test]
fn a_retry_within_the_batch_of_its_first_try_is_one_too() {
    let mut world = World::open();
    let job =
        |path: &str, sequence| Job::Change { caller: user(1), origin: at(0, sequence), change: mkdir(path) };
    let answers = world.jobs(&[job("a", 1), job("a", 1), job("a/b", 2), job("a", 1)]);
    assert!(answers[0].is_ok());
    assert_eq!(answers[0], answers[1]);
    assert!(answers[2].is_ok());
    assert_eq!(answers[3], Err(MetaError::TooOld));
}

#[test]
fn answers_are_forgotten_after_an_hour() {
    let mut world = World::open();
    world.retry(1, at(0, 1), mkdir("a")).unwrap();
    world.pass(Duration::from_secs(3000));
    world.retry(1, at(1, 1), mkdir("b")).unwrap();
    world.pass(Duration::from_secs(1000));
    let mut after = Vec::new();
    while let Answer::Progress(Some(next)) =
        world.job(Job::SweepAnswers { after: after.clone(), limit: 1 }).unwrap()
    {
        after = next;
    }
    assert_eq!(world.records(b'R').len(), 1);
    assert_eq!(world.retry(1, at(0, 1), mkdir("a")), Err(MetaError::Exists));
    world.retry(1, at(1, 1), mkdir("b")).unwrap();
}

#[test]
fn an_outcome_from_elsewhere_is_remembered() {
    let mut world = World::open();
    world.job(Job::Remember { origin: at(0, 3), outcome: Err(MetaError::Exists) }).unwrap();
    assert_eq!(world.retry(1, at(0, 3), mkdir("a")), Err(MetaError::Exists));
    assert_eq!(world.retry(1, at(0, 2), mkdir("a")), Err(MetaError::TooOld));
    world.retry(1, at(0, 4), mkdir("a")).unwrap();
}
