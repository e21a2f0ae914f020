use super::*;
use crate::conformance::counting;
use crate::conformance::following::{copied, next};
use crate::conformance::postgres::Server;
use crate::conformance::relay::{Fault, Relay};
use crate::{AnyStore, Export, FeedError};
use std::time::Duration;

/// A place in a server that is empty.
fn empty(server: &Server) -> PostgresPlace {
    PostgresPlace::parse(&server.place()).unwrap()
}

async fn open(place: &PostgresPlace) -> PostgresStore {
    PostgresStore::open(place).await.unwrap()
}

async fn fails(place: &str) -> String {
    match PostgresStore::open(&PostgresPlace::parse(place).unwrap()).await {
        Ok(_) => panic!("opened {place}"),
        Err(error) => error.to_string(),
    }
}

fn put(key: &str, value: &str) -> Commit {
    Commit { writes: vec![(key.into(), Some(value.into()))], ..Commit::default() }
}

/// Does something as somebody else who uses the database.
async fn outside(store: &PostgresStore, statement: &str) {
    store.shared.link.session().await.unwrap().client.batch_execute(statement).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let server = Server::start();
    crate::conformance::check(async || open(&empty(&server)).await).await;
    crate::conformance::check_shared(async |count| {
        let place = empty(&server);
        let mut stores = Vec::new();
        for _ in 0..count {
            stores.push(open(&place).await);
        }
        stores
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_one_of_the_engines() {
    let server = Server::start();
    let store = AnyStore::open(&server.place()).await.unwrap();
    store.commit(put("a", "1")).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.get(b"a").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(snapshot.scan(b"", b"z", 9).await.unwrap().len(), 1);
    assert_eq!(copied(&store).await.unwrap().1, Revision(1));
    for wrong in ["postgres:/u:secret@localhost/d", "mysql://u:secret@localhost/d", "postgres://u:secret@/d"]
    {
        let Err(error) = AnyStore::open(wrong).await else { panic!("opened {wrong}") };
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_commit_is_done_once_while_the_server_dies_and_connections_end() {
    let mut server = Server::start();
    let place = empty(&server);
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(open(&place).await);
    }
    let other = stores[0].clone();
    let disturb = async || {
        for round in 0..8 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            if round % 2 == 0 {
                server.kill();
                server.start_again();
                continue;
            }
            for _ in 0..20 {
                // Whoever has the head is in the middle of a commit.
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
                if let Ok(session) = other.shared.link.session().await {
                    let _ = session.client.batch_execute(end).await;
                }
                tokio::time::sleep(Duration::from_millis(37)).await;
            }
        }
    };
    let counted = counting::check(stores, Duration::from_secs(15), Duration::from_secs(10), disturb).await;
    assert!(counted > 100, "they counted to {counted} only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_commit_is_done_once_though_answers_are_lost_and_questions_are_late() {
    let server = Server::start();
    let relay = Relay::start(server.address()).await;
    let place = server.place().replace(&server.address(), &relay.address);
    let place = PostgresPlace::parse(&place).unwrap();
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(open(&place).await);
    }
    let disturb = async || {
        for round in 0..150 {
            // Commits: with the first key in it that is counted, and with one that is written whatever is there.
            match round % 2 {
                0 => relay.fail(Fault::LoseAnswer, b"n0"),
                _ => relay.fail(Fault::DelayQuestion, b"own"),
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    counting::check(stores, Duration::from_secs(6), Duration::from_secs(10), disturb).await;
}

/// Half of the clients know both servers, the others a proxy that leads to the one that takes writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_commit_is_done_once_though_a_standby_takes_over() {
    let mut primary = Server::start();
    let standby = primary.standby();
    let relay = Relay::start(primary.address()).await;
    let place = primary.place();
    let both = place.replace(&primary.address(), &[primary.address(), standby.address()].join(","));
    let behind = place.replace(&primary.address(), &relay.address);
    let mut stores = Vec::new();
    for place in [&both, &behind, &both, &behind] {
        stores.push(open(&PostgresPlace::parse(place).unwrap()).await);
    }
    let disturb = async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        primary.kill();
        tokio::task::block_in_place(|| standby.promote());
        relay.turn_to(standby.address());
    };
    let counted = counting::check(stores, Duration::from_secs(8), Duration::from_secs(10), disturb).await;
    assert!(counted > 100, "they counted to {counted} only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_comes_after_its_mark_was_moved_does_nothing() {
    let server = Server::start();
    let store = open(&empty(&server)).await;
    store.commit(put("a", "1")).await.unwrap();
    let before = store.snapshot().await.unwrap().revision();
    let call = |number: i64| {
        format!(
            "SELECT commit_batch('m', {number}, '{{NULL}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{1}}', '{{b}}', '{{x}}')::text"
        )
    };
    let session = store.shared.link.session().await.unwrap();
    let said = async |question: &str| -> Option<String> {
        session.client.query_one(question, &[]).await.unwrap().try_get(0).unwrap()
    };
    assert_eq!(said(&call(1)).await, None, "there is no such mark");
    assert_eq!(said("SELECT settle('m', 1)::text").await, None);
    assert_eq!(said(&call(1)).await, None, "it was given up");
    assert_eq!(said("SELECT settle('m', 1)::text").await, None);
    assert_eq!(store.snapshot().await.unwrap().revision(), before);
    let done = format!("{{{}}}", before.0 + 1);
    assert_eq!(said(&call(2)).await.as_ref(), Some(&done));
    assert_eq!(said(&call(2)).await, None, "it was done");
    assert_eq!(said("SELECT settle('m', 2)::text").await.as_ref(), Some(&done));
    // This was on its way for long, and comes when the next is done already.
    said("SELECT settle('m', 1)::text").await;
    assert_eq!(said("SELECT settle('m', 2)::text").await.as_ref(), Some(&done));
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.revision().0, before.0 + 1);
    assert_eq!(snapshot.get(b"b").await.unwrap(), Some(b"x".to_vec()));
    // Of one that was idle for long the mark is forgotten.
    outside(&store, "DELETE FROM marks").await;
    let outcome = store.commit(put("a", "2")).await.unwrap();
    assert_eq!(outcome, Outcome::Committed(Revision(before.0 + 2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_is_told_whole_and_in_order_though_the_server_dies() {
    let mut server = Server::start();
    let place = empty(&server);
    // Another store in the same database is none of its history.
    let other = open(&empty(&server)).await;
    let store = open(&place).await;
    for number in 0..300u32 {
        let key = format!("k{:03}", number % 100).into_bytes();
        let value = (number % 7 > 0).then(|| vec![0; 50]);
        let writes = vec![(key, value), (b"same".to_vec(), Some(number.to_le_bytes().to_vec()))];
        store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
        other.commit(put("other", &number.to_string())).await.unwrap();
    }
    // More writes than are asked for at once.
    let writes = (0..1200u32).map(|number| (format!("m{number}").into_bytes(), Some(vec![1])));
    store.commit(Commit { writes: writes.collect(), ..Commit::default() }).await.unwrap();
    server.kill();
    server.start_again();
    let (rows, revision) = copied(&store).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(rows, snapshot.scan(b"", &[0xFF; 8], usize::MAX).await.unwrap());
    assert!(revision <= snapshot.revision());
    let (mut feed, mut model) = (store.follow(Revision(0)), std::collections::BTreeMap::new());
    let mut before = Revision(0);
    for round in 0.. {
        let (same, told) = next(feed, 2000).await;
        feed = same;
        let told = told.unwrap();
        if told.is_empty() {
            break;
        }
        for change in told {
            assert_eq!(change.revision.0, before.0 + 1);
            before = change.revision;
            for (key, value) in change.writes {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
        }
        if round == 1 {
            server.kill();
            server.start_again();
        }
    }
    assert_eq!(before.0, 301);
    assert_eq!(model.into_iter().collect::<Vec<_>>(), rows);
    assert!(next(store.follow(before), 2000).await.1.unwrap().is_empty());
    let ahead = store.follow(Revision(before.0 + 1));
    assert!(matches!(next(ahead, 2000).await.1, Err(FeedError::Trimmed)), "that is of another store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_told_to_who_wants_it() {
    let server = Server::start();
    let store = open(&empty(&server)).await;
    store.commit(put("k", "1")).await.unwrap();
    let old = store.snapshot().await.unwrap();
    let feed = store.follow(old.revision());
    store.commit(put("k", "2")).await.unwrap();
    let (feed, told) = next(feed, 100).await;
    assert_eq!(told.unwrap().len(), 1);
    // Nothing of it is ten minutes old.
    care::step(&store.shared.link).await.unwrap();
    assert_eq!(old.scan(b"", b"z", 9).await.unwrap(), [(b"k".to_vec(), b"1".to_vec())]);
    care::forget_all(&store.shared.link).await;
    assert!(matches!(old.get(b"k").await, Err(KvError::SnapshotTooOld)));
    assert!(matches!(old.scan(b"", b"z", 9).await, Err(KvError::SnapshotTooOld)));
    assert!(matches!(next(store.follow(old.revision()), 100).await.1, Err(FeedError::Trimmed)));
    for writes in [put("x", "1").writes, Vec::new()] {
        let late =
            Commit { snapshot: old.revision(), keys: vec![b"k".to_vec()], writes, ..Commit::default() };
        assert!(matches!(store.commit(late).await, Err(KvError::SnapshotTooOld)));
    }
    // Who is not behind it goes on.
    store.commit(put("k", "3")).await.unwrap();
    assert_eq!(next(feed, 100).await.1.unwrap().len(), 1);
    assert_eq!(store.snapshot().await.unwrap().get(b"k").await.unwrap(), Some(b"3".to_vec()));
    let session = store.shared.link.session().await.unwrap();
    let left =
        session.client.query_one("SELECT (SELECT count(*) FROM old) + (SELECT count(*) FROM log)", &[]);
    assert_eq!(left.await.unwrap().get::<_, i64>(0), 2, "what is not needed is not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_changes_are_known_with_the_next_snapshot() {
    let server = Server::start();
    let place = empty(&server);
    let (mine, other) = (open(&place).await, open(&place).await);
    let get = async |key: &str| mine.snapshot().await.unwrap().get(key.as_bytes()).await.unwrap();
    assert_eq!(get("a").await, None);
    for round in 0..20 {
        let large = "x".repeat(round * 1000);
        other.commit(put("a", &large)).await.unwrap();
        assert_eq!(get("a").await, Some(large.into_bytes()));
        other.commit(Commit { writes: vec![(b"a".to_vec(), None)], ..Commit::default() }).await.unwrap();
        assert_eq!(get("a").await, None);
        other.commit(put("a", "1")).await.unwrap();
        other.commit(put("a", "2")).await.unwrap();
    }
    // More than is told.
    let writes = (0..5000u32).map(|number| (format!("m{number}").into_bytes(), Some(vec![1])));
    other.commit(Commit { writes: writes.collect(), ..put("a", "3") }).await.unwrap();
    other.commit(put("a", "4")).await.unwrap();
    assert_eq!(get("a").await, Some(b"4".to_vec()));
    assert_eq!(get("m4999").await, Some(vec![1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_replaced_is_looked_for_by_when_and_not_by_its_key() {
    let server = Server::start();
    let store = open(&empty(&server)).await;
    for analyzed in ["", "ANALYZE"] {
        let session = store.shared.link.session().await.unwrap();
        session.client.batch_execute(analyzed).await.unwrap();
        for (statement, parameters, expected) in [
            (statements::SCAN, "'a', 'b', 1, 1000", "old_replaced"),
            (statements::GET, "'{a, b}', 1", "old_pkey"),
            (statements::GET, "'{a, b}', 1", "rows_pkey"),
            (statements::HISTORY, "1, 500", "old_pkey"),
            (statements::NEWEST, "1, 4000, 4000", "rows_pkey"),
        ] {
            session.client.batch_execute(&format!("PREPARE asked AS {statement}")).await.unwrap();
            let plan =
                session.client.simple_query(&format!("EXPLAIN EXECUTE asked({parameters})")).await.unwrap();
            let plan = format!("{plan:?}");
            assert!(plan.contains(expected) && !plan.contains("Seq Scan"), "{statement}: {plan}");
            session.client.batch_execute("DEALLOCATE asked").await.unwrap();
        }
        for number in 0..3000u32 {
            let writes =
                (0..3).map(|key| (format!("k{}", (number * 7 + key) % 500).into_bytes(), Some(vec![1; 20])));
            store.commit(Commit { writes: writes.collect(), ..Commit::default() }).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_who_open_it_at_once_make_one_store_and_a_newer_one_is_refused() {
    let server = Server::start();
    let place = empty(&server);
    let opening = std::iter::repeat_n(place.clone(), 8)
        .map(|place| tokio::spawn(async move { PostgresStore::open(&place).await }));
    let opening: Vec<_> = opening.collect();
    for (number, opened) in (1..).zip(opening) {
        let outcome = opened.await.unwrap().unwrap().commit(put("a", "1")).await.unwrap();
        assert_eq!(outcome, Outcome::Committed(Revision(number)));
    }
    let store = open(&place).await;
    outside(&store, "UPDATE version SET number = number + 1").await;
    let Err(error) = PostgresStore::open(&place).await else { panic!("opened a newer one") };
    assert!(error.to_string().contains("is of version 2, and this program knows those up to 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_brought_up_to_date_by_one_of_several_with_what_is_in_it() {
    const FIRST: &str = "CREATE TABLE thing (name text); INSERT INTO thing VALUES ('a'), ('b')";
    const SECOND: &str =
        "ALTER TABLE thing ADD size int NOT NULL DEFAULT 7; INSERT INTO thing VALUES ('c', 8)";
    const WRONG: &str = "DELETE FROM thing; SELECT 1 / 0";
    let server = Server::start();
    let place = empty(&server);
    let schema = place.schema.clone();
    let things = async |link: &Link| {
        let session = link.session().await.unwrap();
        let row = session.client.query_one("SELECT count(*), sum(size) FROM thing", &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let link = Link::new(&place).unwrap();
    schema::prepare_with(&link, &schema, &[FIRST]).await.unwrap();
    let preparing = (0..8).map(|_| {
        let (link, schema) = (Link::new(&place).unwrap(), schema.clone());
        tokio::spawn(async move { schema::prepare_with(&link, &schema, &[FIRST, SECOND]).await })
    });
    for prepared in preparing.collect::<Vec<_>>() {
        prepared.await.unwrap().unwrap();
    }
    assert_eq!(things(&link).await, (3, 22));
    // One that fails has done nothing, and is done when it does not any more.
    assert!(schema::prepare_with(&link, &schema, &[FIRST, SECOND, WRONG]).await.is_err());
    assert_eq!(things(&link).await, (3, 22));
    schema::prepare_with(&link, &schema, &[FIRST, SECOND, "DELETE FROM thing WHERE size = 8"]).await.unwrap();
    assert_eq!(things(&link).await, (2, 14));
    let Err(error) = schema::prepare_with(&link, &schema, &[FIRST, SECOND]).await else {
        panic!("it is older")
    };
    assert!(error.to_string().contains("is of version 3, and this program knows those up to 2"), "{error}");
}

#[tokio::test]
async fn a_server_that_would_lose_commits_is_refused_with_what_to_do() {
    for (setting, expected) in [
        ("fsync=off", "set fsync = on"),
        ("full_page_writes=off", "set full_page_writes = on"),
        ("synchronous_commit=off", "set synchronous_commit = on"),
    ] {
        let server = Server::with(&[setting]);
        let error = fails(&server.place()).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_told_and_nobody_is_told_the_password() {
    let server = Server::start();
    let place = server.place();
    let wrong = place.replace("%40all", "%40some");
    let error = fails(&wrong).await;
    assert!(error.contains("password authentication failed") && error.contains("28P01"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    let error = fails(&place.replace("/postgres?", "/none?")).await;
    assert!(error.contains("database \"none\" does not exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_that_takes_writes_is_found_among_several() {
    let [gone, standby] = [Server::start(), Server::with(&["default_transaction_read_only=on"])];
    let place = standby.place();
    let dead = gone.address();
    drop(gone);
    let server = Server::start();
    let place = place.replace(&standby.address(), &[dead, standby.address(), server.address()].join(","));
    let store = open(&PostgresPlace::parse(&place).unwrap()).await;
    store.commit(put("a", "1")).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().get(b"a").await.unwrap(), Some(b"1".to_vec()));
}

/// A certificate for this host that signs itself, and its key.
fn certificate(host: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_spoken_to_encrypted_if_the_certificate_is_right() {
    let mut server = Server::start();
    let (right, key) = certificate("127.0.0.1");
    let certificate_file = server.write("server.crt", &right).display().to_string();
    let key_file = server.write("server.key", &key).display().to_string();
    let authority = |name: &str, pem: &str| server.write(name, pem).display().to_string();
    let right = authority("right.pem", &right);
    let other = authority("other.pem", &certificate("127.0.0.1").0);
    server.kill();
    server.set(&[
        "ssl=on",
        &format!("ssl_cert_file={certificate_file}"),
        &format!("ssl_key_file={key_file}"),
    ]);
    server.start_again();
    let place = server.place();
    let store = open(&PostgresPlace::parse(&format!("{place}&sslrootcert={right}")).unwrap()).await;
    store.commit(put("a", "1")).await.unwrap();
    let session = store.shared.link.session().await.unwrap();
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE application_name = 'steradian'";
    assert!(session.client.query_one(encrypted, &[]).await.unwrap().get::<_, bool>(0));
    let error = fails(&format!("{place}&sslrootcert={other}")).await;
    assert!(error.contains("certificate"), "{error}");
    let none = fails(&format!("{place}&sslrootcert={key_file}")).await;
    assert!(none.contains("no certificate"), "{none}");
    // The certificate is for the address alone.
    let error = fails(&format!("{place}&sslrootcert={right}").replace("@127.0.0.1", "@localhost")).await;
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begins_above_the_history_of_another_store() {
    let server = Server::start();
    let place = server.place();
    crate::conformance::following::begins_above(&place).await;
}
