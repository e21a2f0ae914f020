//! Files that have no name any more and that somebody has open.

use super::leases::{lease, publish};
use super::sessions::{Host, sweep};
use super::*;
use crate::records::{Garbage, GarbageBody};
use types::session::{Answer, QUESTION_INODES_MAX};

/// Whether chunks of a file wait to be removed.
pub(super) fn is_garbage(world: &mut World, inode: InodeId) -> bool {
    world.records(b'G').into_iter().any(|(_, value)| {
        let garbage: Garbage = decode(&value, "garbage").unwrap();
        match garbage.body {
            GarbageBody::Files(files) => files.iter().any(|file| file.inode == inode),
            GarbageBody::Inodes { ranges, .. } => ranges
                .iter()
                .any(|range| (range.first.0..range.first.0 + u64::from(range.count)).contains(&inode.0)),
        }
    })
}

/// A file with some bytes.
fn file(world: &mut World, path: &str) -> InodeId {
    let inode = world.make(1, path, 0o644).unwrap().inode;
    world.change(1, Change::Grow { inode, length: 1000, modified: Time(1) }).unwrap();
    inode
}

fn need_open(world: &mut World, inode: InodeId) {
    let attributes = world.stat(ROOT, inode).unwrap();
    assert_eq!((attributes.links, attributes.length), (0, 1000));
    assert!(!is_garbage(world, inode));
    world.check();
}

fn need_ended(world: &mut World, inode: InodeId) {
    assert_eq!(world.stat(ROOT, inode), Err(MetaError::NotFound));
    assert!(is_garbage(world, inode));
    world.check();
}

#[test]
fn a_removed_file_stays_until_every_session_has_spoken() {
    let mut world = World::open();
    let hosts = [5, 6, 7].map(|client| Host::new(&mut world, client, 1));
    let inode = file(&mut world, "f");
    world.unlink(1, "f").unwrap();
    assert_eq!(world.stat(1, "f"), Err(MetaError::NotFound));
    for host in &hosts {
        need_open(&mut world, inode);
        assert_eq!(world.totals(), Totals { files: 1, directories: 1, bytes: 1000, garbage: 0 });
        host.answer(&mut world, &[]);
        assert_eq!(host.asked(&mut world), []);
    }
    need_ended(&mut world, inode);
    assert_eq!(world.totals(), Totals { files: 0, directories: 1, bytes: 0, garbage: 1 });
    assert_eq!(world.records(b'O'), []);
}

#[test]
fn a_file_stays_until_its_last_holder_frees_it() {
    let mut world = World::open();
    let hosts = [5, 6, 7].map(|client| Host::new(&mut world, client, 1));
    let inode = file(&mut world, "f");
    world.unlink(1, "f").unwrap();
    hosts[0].answer(&mut world, &[inode]);
    // Freed before the others have spoken: it is theirs to say.
    hosts[0].free(&mut world, inode);
    need_open(&mut world, inode);
    hosts[1].answer(&mut world, &[inode]);
    hosts[2].answer(&mut world, &[inode]);
    need_open(&mut world, inode);
    hosts[2].free(&mut world, inode);
    // Twice, and by one who does not hold it.
    hosts[2].free(&mut world, inode);
    hosts[0].free(&mut world, inode);
    need_open(&mut world, inode);
    hosts[1].free(&mut world, inode);
    need_ended(&mut world, inode);
    for kind in *b"OU" {
        assert_eq!(world.records(kind), []);
    }
}

#[test]
fn whatever_takes_a_files_last_name_leaves_it_to_its_holders() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    let mut held = Vec::new();
    // Renamed over.
    held.push(file(&mut world, "a"));
    file(&mut world, "b");
    world.rename(1, "b", "a").unwrap();
    // Published over.
    held.push(file(&mut world, "c"));
    let (first, class, _) = lease(&mut world, 1, 1);
    let over = Publish { replace: Replace::Allowed, ..publish("c", first, &class, 5) };
    world.change(1, Change::Publish(Box::new(over))).unwrap();
    // Removed with its directory.
    world.mkdir(1, "d", 0o755).unwrap();
    world.mkdir(1, "d/e", 0o755).unwrap();
    held.push(file(&mut world, "d/e/f"));
    world.remove_tree(1, "d").unwrap();
    world.purge(10);
    // With one of its names a file has another one left.
    let linked = file(&mut world, "g");
    world.change(1, Change::Link { from: "g".into(), to: "h".into() }).unwrap();
    world.unlink(1, "g").unwrap();
    assert_eq!(world.stat(1, "h").unwrap().links, 1);
    let asked: Vec<InodeId> = host.asked(&mut world).into_iter().flat_map(|q| q.inodes).collect();
    assert_eq!(asked, held);
    world.unlink(1, "h").unwrap();
    held.push(linked);
    host.answer(&mut world, &held);
    for inode in held {
        need_open(&mut world, inode);
        host.free(&mut world, inode);
        need_ended(&mut world, inode);
    }
    // What has no bytes ends at once.
    world.symlink(1, "l", "x").unwrap();
    world.unlink(1, "l").unwrap();
    world.mkdir(1, "k", 0o755).unwrap();
    world.change(1, Change::RemoveDirectory { place: "k".into() }).unwrap();
    assert_eq!(host.asked(&mut world), []);
    world.check();
}

#[test]
fn an_open_file_without_a_name_is_used_by_its_number() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    world.mkdir(1, "private", 0o700).unwrap();
    let inode = file(&mut world, "private/f");
    let xattr = Change::SetXattr {
        place: inode.into(),
        follow: Follow::No,
        name: "user.a".to_owned(),
        value: vec![1],
        replace: XattrReplace::Either,
    };
    world.change(1, xattr.clone()).unwrap();
    world.remove_tree(1, "private").unwrap();
    world.purge(10);
    host.answer(&mut world, &[inode]);
    // Its directories are gone: its own mode says who may what.
    let open = |rights| MetaRequest::Open { place: inode.into(), rights };
    for (uid, rights, may) in [
        (1, Rights::ReadWrite, true),
        (2, Rights::Read, true),
        (2, Rights::ReadWrite, false),
        (ROOT, Rights::ReadWrite, true),
    ] {
        let answer = world.read(uid, open(rights));
        assert_eq!(answer.is_ok(), may, "{uid} {rights:?}: {answer:?}");
    }
    let grow = |length| Change::Grow { inode, length, modified: Time(9) };
    assert_eq!(world.change(2, grow(5000)), Err(MetaError::Denied));
    assert_eq!(attributes(world.change(1, grow(5000)).unwrap()).unwrap().length, 5000);
    assert_eq!(world.totals().bytes, 5000);
    let resize = Change::Resize { place: inode.into(), length: 1000 };
    world.change(1, resize).unwrap();
    let set = SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() };
    let chmod = Change::SetAttributes { place: inode.into(), follow: Follow::No, set };
    assert_eq!(attributes(world.change(1, chmod).unwrap()).unwrap().mode, Mode(0o600));
    assert!(world.read(2, open(Rights::Read)).is_err());
    world.change(1, xattr).unwrap();
    let append = world.change(1, Change::OpenAppend { place: inode.into() }).unwrap();
    let MetaReply::Appending { session, .. } = append else { panic!() };
    world.change(1, Change::CloseAppend { inode, session }).unwrap();
    // It gets no name again.
    let link = Change::Link { from: inode.into(), to: "again".into() };
    assert_eq!(world.change(1, link), Err(MetaError::NotFound));
    let path = MetaRequest::PathOf { inode };
    assert_eq!(world.read(ROOT, path), Err(MetaError::NotFound));
    assert_eq!(world.change(ROOT, Change::BeginRecode { inode }), Err(MetaError::NotFound));
    need_open(&mut world, inode);
    host.free(&mut world, inode);
    need_ended(&mut world, inode);
}

#[test]
fn a_session_that_ends_or_is_gone_holds_nothing() {
    for gone in [false, true] {
        let mut world = World::open();
        let (one, two) = (Host::new(&mut world, 5, 1), Host::new(&mut world, 6, 1));
        let held = file(&mut world, "held");
        world.unlink(1, "held").unwrap();
        one.answer(&mut world, &[held]);
        two.answer(&mut world, &[]);
        let unanswered = file(&mut world, "unanswered");
        world.unlink(1, "unanswered").unwrap();
        two.answer(&mut world, &[]);
        need_open(&mut world, held);
        need_open(&mut world, unanswered);
        if gone {
            world.pass(crate::SESSION_LIFETIME);
            two.asked(&mut world);
            sweep(&mut world);
            need_open(&mut world, held);
            world.pass(crate::CLOCK_MARGIN);
            sweep(&mut world);
        } else {
            one.end(&mut world);
        }
        need_ended(&mut world, held);
        need_ended(&mut world, unanswered);
        sweep(&mut world);
        assert_eq!(world.records(b'O'), []);
    }
}

#[test]
fn a_session_that_begins_later_is_not_asked() {
    let mut world = World::open();
    let one = Host::new(&mut world, 5, 1);
    let inode = file(&mut world, "f");
    // In one batch, in this order.
    let origin = world.origin();
    let unlink = Job::Change { caller: user(1), origin, change: Change::Unlink { place: "f".into() } };
    let origin = Origin { client: ClientId(6), lane: Lane(0), sequence: Sequence(1) };
    let begin = Job::Change { caller: user(1), origin, change: Change::BeginSession { name: String::new() } };
    let answers = world.jobs(&[unlink, begin]);
    let Ok(crate::Answer::Reply(MetaReply::Session { session, .. })) = &answers[1] else { panic!() };
    let two = Host { client: ClientId(6), uid: 1, session: *session };
    assert_eq!(two.asked(&mut world), []);
    one.answer(&mut world, &[]);
    need_ended(&mut world, inode);
}

#[test]
fn a_removal_and_the_end_of_the_only_session_in_one_batch_leave_nothing() {
    for removal_first in [true, false] {
        let mut world = World::open();
        let host = Host::new(&mut world, 5, 1);
        let inode = file(&mut world, "f");
        let origin = world.origin();
        let unlink = Job::Change { caller: user(1), origin, change: Change::Unlink { place: "f".into() } };
        let origin = host.origin(&mut world);
        let end =
            Job::Change { caller: user(1), origin, change: Change::EndSession { session: host.session } };
        let jobs = if removal_first { [unlink, end] } else { [end, unlink] };
        assert!(world.jobs(&jobs).iter().all(Result::is_ok));
        need_ended(&mut world, inode);
        assert_eq!(world.records(b'O'), []);
    }
}

#[test]
fn a_refused_change_asks_about_nothing() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    let inode = file(&mut world, "c");
    // It takes the name from what is there, and is refused then.
    let (first, class, _) = lease(&mut world, 1, 1);
    let over = Publish {
        replace: Replace::Allowed,
        xattrs: vec![("trusted.a".to_owned(), vec![1])],
        ..publish("c", first, &class, 5)
    };
    assert_eq!(world.change(1, Change::Publish(Box::new(over))), Err(MetaError::Denied));
    assert_eq!(host.asked(&mut world), []);
    assert_eq!(world.stat(1, "c").unwrap().inode, inode);
    world.check();
}

#[test]
fn questions_come_in_pages() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    world.mkdir(1, "d", 0o755).unwrap();
    let mut all = Vec::new();
    for number in 0..2600 {
        all.push(world.make(1, &format!("d/{number}"), 0o644).unwrap().inode);
    }
    world.remove_tree(1, "d").unwrap();
    world.purge(800);
    let (mut pages, mut seen) = (0, Vec::new());
    let (mut questions, mut more) = host.renew(&mut world, Vec::new(), Vec::new()).unwrap();
    while !questions.is_empty() {
        let count: usize = questions.iter().map(|question| question.inodes.len()).sum();
        assert!(count <= QUESTION_INODES_MAX);
        // The same again, until they are answered.
        assert_eq!(host.asked(&mut world), questions);
        seen.extend(questions.iter().flat_map(|question| question.inodes.clone()));
        let answers = questions.iter().map(|q| Answer { question: q.number, held: Vec::new() }).collect();
        let before = more;
        (questions, more) = host.renew(&mut world, answers, Vec::new()).unwrap();
        assert_eq!(before, !questions.is_empty());
        pages += 1;
    }
    seen.sort_unstable();
    all.sort_unstable();
    assert_eq!(seen, all);
    assert!(pages >= 3);
    assert_eq!(world.totals().files, 0);
    world.check();
    let many = vec![InodeId(1); QUESTION_INODES_MAX + 1];
    assert_eq!(host.renew(&mut world, Vec::new(), many), Err(MetaError::Invalid));
}

#[test]
fn answers_to_what_was_not_asked_are_passed_over() {
    let mut world = World::open();
    let (one, two) = (Host::new(&mut world, 5, 1), Host::new(&mut world, 6, 2));
    let (inode, other) = (file(&mut world, "f"), file(&mut world, "other"));
    world.unlink(1, "f").unwrap();
    let question = one.asked(&mut world).remove(0).number;
    let say = |held: &[InodeId]| vec![Answer { question, held: held.to_vec() }];
    // A file that was not asked about, a question that there is not, one that was answered.
    one.renew(&mut world, say(&[other]), vec![other]).unwrap();
    one.renew(&mut world, vec![Answer { question: question + 1, held: vec![inode] }], Vec::new()).unwrap();
    one.renew(&mut world, say(&[inode]), Vec::new()).unwrap();
    need_open(&mut world, inode);
    two.answer(&mut world, &[]);
    need_ended(&mut world, inode);
    assert_eq!(world.stat(1, "other").unwrap().links, 1);
}

/// Its chunks are somebody's; a rebuild does not bring it back.
#[test]
fn a_held_file_is_no_garbage_and_gone_for_the_records_on_the_chains() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    let inode = file(&mut world, "f");
    file(&mut world, "later");
    world.unlink(1, "f").unwrap();
    let gone = world.records(b'M');
    assert_eq!(gone.len(), 1);
    assert!(keys::is_mirror_gone(&gone[0].0));
    host.answer(&mut world, &[inode]);
    let fate = |world: &mut World| match world.read(ROOT, MetaRequest::Fates { inodes: vec![inode] }) {
        Ok(MetaReply::Fates(fates)) => fates[0],
        other => panic!("{other:?}"),
    };
    assert_eq!(fate(&mut world), Fate::Named);
    let bury = Change::Bury { table: TableId(1), inodes: vec![inode] };
    assert_eq!(world.change(ROOT, bury), Err(MetaError::Invalid));
    // What is done to it afterwards is told to no chain, nor is its end.
    world.change(1, Change::Grow { inode, length: 2000, modified: Time(1) }).unwrap();
    host.free(&mut world, inode);
    assert_eq!(world.records(b'M'), gone);
    assert_eq!(fate(&mut world), Fate::Garbage);
}

/// A published file whose lease ends while it is held: its bytes are as safe as those of a file with a name.
#[test]
fn the_end_of_a_lease_leaves_held_files_alone() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    let (inode, class, _) = lease(&mut world, 1, 1);
    world.change(1, Change::Publish(Box::new(publish("f", inode, &class, 1000)))).unwrap();
    world.unlink(1, "f").unwrap();
    host.answer(&mut world, &[inode]);
    for _ in 0..30 {
        world.pass(Duration::from_secs(25));
        host.asked(&mut world);
    }
    world.job(Job::SweepLeases { after: Vec::new(), limit: 10 }).unwrap();
    need_open(&mut world, inode);
    host.free(&mut world, inode);
    need_ended(&mut world, inode);
}
