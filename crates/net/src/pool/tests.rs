use super::*;
use crate::testing::*;
use crate::{Server, ServerOptions};
use bytes::Bytes;
use types::NodeId;

fn options() -> PoolOptions {
    PoolOptions {
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..PoolOptions::default()
    }
}

fn links(echo: &Echo) -> usize {
    echo.peers.lock().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_connections_as_asked_are_opened_and_shared() {
    let world = world(ServerOptions::default()).await;
    let pool = Pool::new(Arc::new(user(&world.authority)), PoolOptions { connections: 3, ..options() });
    let asked = async {
        while links(&world.echo) < 3 {
            ask(&pool.get(&world.address()).await.unwrap(), b"x", Bytes::new()).await;
        }
    };
    tokio::time::timeout(LONG, asked).await.unwrap();
    for _ in 0..50 {
        ask(&pool.get(&world.address()).await.unwrap(), b"x", Bytes::new()).await;
    }
    assert_eq!(links(&world.echo), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_busy_connection_is_given() {
    let world = world(ServerOptions::default()).await;
    let pool = Pool::new(Arc::new(user(&world.authority)), PoolOptions { connections: 2, ..options() });
    let route = pool.route(&world.address(), Expect::AnyNode);
    for _ in 0..2 {
        pool.fill(&route, &world.address(), Expect::AnyNode).await.unwrap();
    }
    let busy = pool.get(&world.address()).await.unwrap();
    let _calls: Vec<_> =
        (0..3).map(|_| busy.start(types::wire::Channel::Meta, known(b"keep"), Bytes::new(), LONG)).collect();
    for _ in 0..5 {
        assert_eq!(pool.get(&world.address()).await.unwrap().calls(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_share_one_attempt() {
    let world = world(ServerOptions::default()).await;
    let pool = Pool::new(Arc::new(user(&world.authority)), PoolOptions { connections: 1, ..options() });
    let address = world.address();
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (pool, address) = (pool.clone(), address.clone());
            tokio::spawn(async move {
                ask(&pool.get(&address).await.unwrap(), b"x", Bytes::new()).await;
            })
        })
        .collect();
    for one in asking {
        one.await.unwrap();
    }
    assert_eq!(links(&world.echo), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_found_again() {
    let world = world(ServerOptions::default()).await;
    let address = world.address();
    let security = Arc::new(node(&world.authority, 7));
    let pool = Pool::new(Arc::new(user(&world.authority)), options());
    let before = pool.get(&address).await.unwrap();
    ask(&before, b"x", Bytes::new()).await;
    world.server.stop().await;
    before.closed().await;
    assert!(matches!(pool.get(&address).await.err(), Some(ConnectError::Unreachable(_))));
    let server =
        Server::bind(&address, security, world.echo.clone(), ServerOptions::default()).await.unwrap();
    let found = async {
        loop {
            if let Ok(connection) = pool.get(&address).await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let after = tokio::time::timeout(LONG, found).await.unwrap();
    ask(&after, b"x", Bytes::new()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_pause_longer_and_longer_with_jitter() {
    let route = Route::new(1);
    let error = ConnectError::Unreachable("test".to_owned());
    let options = PoolOptions {
        backoff_min: Duration::from_secs(10),
        backoff_max: Duration::from_secs(35),
        ..PoolOptions::default()
    };
    assert_eq!(route.pause(), None);
    for most in [10, 20, 35, 35] {
        route.failed(&error, &options);
        assert_eq!(route.pause(), Some(error.clone()));
        let until = route.failure.lock().unwrap().until.unwrap() - Instant::now();
        let most = Duration::from_secs(most);
        assert!(until > most / 2 - LONG / 20 && until <= most, "{until:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_the_address_is_told() {
    let world = world(ServerOptions::default()).await;
    let pool = Pool::new(Arc::new(user(&world.authority)), options());
    let wrong = pool.get_node(&world.address(), Expect::Node(NodeId(8))).await;
    assert_eq!(wrong.err(), Some(ConnectError::WrongNode { expected: NodeId(8), found: Some(NodeId(7)) }));
    pool.get_node(&world.address(), Expect::Node(NodeId(7))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_with_unusable_credentials_says_so() {
    let credentials =
        crate::Credentials { authority: String::new(), certificate: String::new(), key: String::new() };
    let pool = Pool::new(Arc::new(Security::Tls(credentials)), options());
    assert!(matches!(pool.get("127.0.0.1:1").await.err(), Some(ConnectError::NotTrusted(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_server_that_is_given_up_end_and_the_next_connects_anew() {
    let world = world(ServerOptions::default()).await;
    let pool = Pool::new(Arc::new(user(&world.authority)), PoolOptions { connections: 2, ..options() });
    let open = pool.get(&world.address()).await.unwrap();
    let call = open.start(types::wire::Channel::Meta, known(b"keep"), Bytes::new(), LONG);
    pool.give_up("127.0.0.1:1");
    assert!(!open.is_closed());
    pool.give_up(&world.address());
    assert_eq!(call.await.err(), Some(crate::CallError::Closed(crate::Closed::Silent)));
    ask(&pool.get(&world.address()).await.unwrap(), b"x", Bytes::new()).await;
}
