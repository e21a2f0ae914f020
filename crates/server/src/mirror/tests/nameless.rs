//! Files that have no name any more, and that a session holds: a rebuild does not bring them back.

use super::*;
use types::SessionId;
use types::session::Answer;

impl World {
    async fn session(&mut self, change: Change) -> (SessionId, Vec<types::session::Question>) {
        let MetaReply::Session { session, questions, .. } = self.ask(change).await else { panic!() };
        (session, questions)
    }

    /// Waits until a rebuild would make the tree that there is without this inode, which is there.
    async fn caught_up_without(&self, inode: InodeId) {
        let without = async || {
            let mut rows = self.rows().await;
            assert!(rows.remove(&keys::inode(inode)).is_some());
            rows
        };
        let until = Instant::now() + Duration::from_secs(60);
        while self.rebuilt() != without().await {
            assert!(Instant::now() < until, "the mirror never caught up");
            sleep(TICK).await;
        }
        self.settled().await;
        assert_eq!(self.rebuilt(), without().await);
    }
}

#[tokio::test]
async fn a_file_without_a_name_is_gone_for_a_rebuild() {
    let mut world = World::new().await;
    let (session, _) = world.session(Change::BeginSession { name: "host".to_owned() }).await;
    for path in ["held", "other"] {
        world.make(path).await;
    }
    world.caught_up().await;
    let stat = MetaRequest::Stat { place: "held".into(), follow: Follow::No };
    let (_, service) = world.server.as_ref().unwrap();
    let reply = service.answer(&meta::Caller::administrator(), stat).await.unwrap();
    let MetaReply::Attributes(attributes) = reply else { panic!() };
    let inode = attributes.inode;
    world.change(Change::Unlink { place: "held".into() }).await;
    let renew = |answers, free| Change::RenewSession { session, answers, free };
    let (_, questions) = world.session(renew(Vec::new(), Vec::new())).await;
    let answer = Answer { question: questions[0].number, held: vec![inode] };
    world.session(renew(vec![answer], Vec::new())).await;
    world.caught_up_without(inode).await;
    // Nor does what is done to it bring it back.
    world.change(Change::Grow { inode, length: 5000, modified: Time(1) }).await;
    let set = SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() };
    world.change(Change::SetAttributes { place: inode.into(), follow: Follow::No, set }).await;
    world.chmod("other", 0o640).await;
    world.caught_up_without(inode).await;
    // Nor does a server that writes all inodes anew.
    world.stop_mirror().await;
    let store = world.server.as_ref().unwrap().0.clone();
    store
        .commit(Commit { writes: vec![(keys::mirror_position(), None)], ..Commit::default() })
        .await
        .unwrap();
    drop(store);
    world.start().await;
    world.chmod("other", 0o600).await;
    world.caught_up_without(inode).await;
    world.session(renew(Vec::new(), vec![inode])).await;
    world.caught_up().await;
    assert!(!world.chains.gather().is_there(inode));
}
