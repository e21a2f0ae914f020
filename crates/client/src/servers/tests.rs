use super::*;
use std::collections::HashSet;
use types::{InodeId, Mode};

fn servers() -> Servers {
    Servers::new(vec!["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()])
}

#[test]
fn clients_begin_with_different_servers_and_move_on_once() {
    let begun: HashSet<String> = (0..100).map(|_| servers().choose(Whom::Any).address).collect();
    assert_eq!(begun.len(), 3);
    let servers = servers();
    let first = servers.choose(Whom::Any);
    let manager = servers.choose(Whom::Manager);
    // Of many that were under way the first counts.
    servers.pass_over(&first);
    servers.pass_over(&first);
    let second = servers.choose(Whom::Any);
    assert_ne!(second.address, first.address);
    assert_eq!(servers.choose(Whom::Manager).address, manager.address);
    servers.pass_over(&second);
    servers.pass_over(&servers.choose(Whom::Any));
    assert_eq!(servers.choose(Whom::Any).address, first.address);
}

#[tokio::test(start_paused = true)]
async fn a_directory_has_its_server_and_another_one_while_that_is_away() {
    let servers = servers();
    let chosen = |number| servers.choose(Whom::Steered(number)).address;
    let first: Vec<String> = (0..300).map(chosen).collect();
    for address in ["a:1", "b:1", "c:1"] {
        assert!(first.iter().filter(|first| *first == address).count() > 60, "{address}");
    }
    servers.pass_over(&servers.choose(Whom::Steered(0)));
    let moved = (0..300).filter(|number| chosen(*number) != first[usize::try_from(*number).unwrap()]);
    // Those of the one that is away, and no others.
    assert!(moved.clone().all(|number| first[usize::try_from(number).unwrap()] == first[0]));
    assert_eq!(moved.count(), first.iter().filter(|address| **address == first[0]).count());
    tokio::time::advance(DOWN + Duration::from_millis(1)).await;
    assert_eq!((0..300).map(chosen).collect::<Vec<_>>(), first);
}

#[tokio::test]
async fn what_servers_say_comes_first_and_whoever_is_spoken_to_stays_so() {
    let servers = servers();
    servers.learn(Vec::new());
    assert_eq!(servers.all().len(), 3);
    let before = servers.choose(Whom::Any).address;
    servers.learn(["d:1", "b:1", "a:1", "c:1"].map(str::to_owned).to_vec());
    assert_eq!(servers.choose(Whom::Any).address, before);
    servers.learn(vec!["d:1".to_owned()]);
    assert_eq!(*servers.all(), ["d:1", "a:1", "b:1", "c:1"]);
    // The others are asked when there is nobody else.
    assert!((0..100).all(|number| servers.choose(Whom::Steered(number)).address == "d:1"));
    servers.pass_over(&servers.choose(Whom::Steered(0)));
    assert!((0..100).all(|number| servers.choose(Whom::Steered(number)).address != "d:1"));
}

#[tokio::test]
async fn a_server_that_was_passed_over_stays_so_when_they_are_learnt_anew() {
    // Each begins with any of them.
    for named in (0..3).cycle().take(60) {
        let servers = servers();
        let mut told = ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec();
        told.rotate_left(named);
        // Their numbers are small from now on.
        servers.learn(told);
        servers.pass_over(&servers.choose(Whom::Any));
        let away = servers.choose(Whom::Any);
        servers.pass_over(&away);
        let next = servers.choose(Whom::Any).address;
        let told = ["a:1", "b:1", "c:1"].map(str::to_owned);
        servers.learn(told.into_iter().filter(|address| *address != away.address).collect());
        // Calls that were under way to it fail one after the other.
        for _ in 0..3 {
            servers.pass_over(&away);
            assert_eq!(servers.choose(Whom::Any).address, next);
        }
    }
}

/// Those that three calls ask, each of which leaves the one it asked.
fn asked_in_turn(servers: &Servers, leave: impl Fn(&Servers, &Chosen)) -> HashSet<String> {
    let asked = (0..3).map(|_| {
        let chosen = servers.choose(Whom::Any);
        leave(servers, &chosen);
        chosen.address
    });
    asked.collect()
}

#[tokio::test(start_paused = true)]
async fn who_did_not_answer_is_not_asked_when_the_others_are_of_no_use() {
    let servers = servers();
    let away = servers.choose(Whom::Any);
    servers.mark_down(&away);
    for _ in 0..5 {
        let chosen = servers.choose(Whom::Any);
        assert_ne!(chosen.address, away.address);
        servers.pass_over(&chosen);
        assert_ne!(servers.choose(Whom::Any).address, chosen.address, "it was passed over");
    }
    // Neither by those who are steered, nor after they were learnt anew.
    assert!((0..100).all(|number| servers.choose(Whom::Steered(number)).address != away.address));
    let spoken_to = servers.choose(Whom::Any).address;
    servers.learn(["c:1", "b:1", "a:1"].map(str::to_owned).to_vec());
    assert_eq!(servers.choose(Whom::Any).address, spoken_to);
    // When none of them answers, one is asked all the same.
    for _ in 0..2 {
        servers.mark_down(&servers.choose(Whom::Any));
    }
    assert_eq!(asked_in_turn(&servers, Servers::mark_down).len(), 3);
    tokio::time::advance(DOWN + Duration::from_millis(1)).await;
    // Whoever is spoken to stays so when the others may be asked again.
    servers.mark_down(&servers.choose(Whom::Any));
    let spoken_to = servers.choose(Whom::Any).address;
    for _ in 0..2 {
        servers.pass_over(&servers.choose(Whom::Any));
    }
    assert_eq!(servers.choose(Whom::Any).address, spoken_to);
    tokio::time::advance(DOWN + Duration::from_millis(1)).await;
    assert_eq!(servers.choose(Whom::Any).address, spoken_to);
    assert!(asked_in_turn(&servers, Servers::pass_over).contains(&away.address));
}

#[test]
fn changes_of_one_directory_go_one_way() {
    let mkdir = |place: Place| steer(&Change::MakeDirectory { place, mode: Mode(0o755), parents: false });
    let unlink = |place: Place| steer(&Change::Unlink { place });
    let number = |whom| match whom {
        Whom::Steered(number) => number,
        other => panic!("{other:?}"),
    };
    assert_eq!(number(mkdir("/a/b/x".into())), number(unlink("a/b/y".into())));
    assert_ne!(number(mkdir("/a/b/x".into())), number(mkdir("/a/c/x".into())));
    let below = |inode, path: &str| Place { base: InodeId(inode), path: path.to_owned() };
    assert_eq!(number(mkdir(below(7, "x"))), number(mkdir(below(7, "y"))));
    assert_ne!(number(mkdir(below(7, "x"))), number(mkdir(below(8, "x"))));
    assert!(matches!(
        steer(&Change::SetXattr {
            place: "/a".into(),
            follow: types::meta::Follow::No,
            name: "user.x".to_owned(),
            value: Vec::new(),
            replace: types::meta::XattrReplace::Either,
        }),
        Whom::Any
    ));
}

#[tokio::test(start_paused = true)]
async fn who_asked_in_vain_which_there_are_asks_again_soon() {
    let servers = servers();
    let step = || tokio::time::advance(REFRESH_SOON + Duration::from_millis(1));
    step().await;
    assert!(servers.is_due(false) && !servers.is_due(false));
    step().await;
    assert!(!servers.is_due(false));
    servers.answered(false);
    assert!(servers.is_due(false) && !servers.is_due(false));
    step().await;
    assert!(servers.is_due(false));
    servers.answered(true);
    step().await;
    assert!(!servers.is_due(false) && servers.is_due(true));
    tokio::time::advance(REFRESH).await;
    assert!(servers.is_due(false));
}
