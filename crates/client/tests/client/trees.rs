//! Listings, walks and wildcards.

use crate::fake::Cluster;
use bytes::Bytes;
use client::{Client, ErrorKind, ListOptions, Parents, PutOptions, WalkOptions};
use types::meta::Detail;
use types::{FileKind, Mode};

async fn plant(client: &Client, paths: &[&str]) {
    for path in paths {
        if path.ends_with('/') {
            client.make_directory(*path, Mode(0o755), Parents::Require).await.unwrap();
        } else {
            client.put(*path, Bytes::from(path.to_string()), &PutOptions::default()).await.unwrap();
        }
    }
}

const TREE: &[&str] = &[
    "/a/",
    "/a/b/",
    "/a/b/c.txt",
    "/a/b/.hidden",
    "/a/x.txt",
    "/a/y*z",
    "/b/",
    "/b/b/",
    "/b/b/b/",
    "/b/b/b/c.txt",
    "/b/x.txt",
    "/.dot/",
    "/.dot/c.txt",
    "/x.txt",
    "/{odd}",
    "/line\nbreak",
    "/-dash,#;\"",
];

async fn glob(client: &Client, pattern: &str) -> Vec<String> {
    client.glob(pattern).await.unwrap().into_iter().map(|found| found.path).collect()
}

#[tokio::test]
async fn wildcards_find_what_shells_find() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    plant(&client, TREE).await;
    let check = async |pattern: &str, expected: &[&str]| {
        assert_eq!(glob(&client, pattern).await, expected, "{pattern}");
    };
    check("/a/x.txt", &["/a/x.txt"]).await;
    check("/a/none", &[]).await;
    check("/", &["/"]).await;
    check("/*.txt", &["/x.txt"]).await;
    check("/*/x.txt", &["/a/x.txt", "/b/x.txt"]).await;
    check("/?/?", &["/a/b", "/b/b"]).await;
    check("/**/c.txt", &["/a/b/c.txt", "/b/b/b/c.txt"]).await;
    check("/**/b/**/c.txt", &["/a/b/c.txt", "/b/b/b/c.txt"]).await;
    check("/b/**", &["/b/b", "/b/b/b", "/b/b/b/c.txt", "/b/x.txt"]).await;
    check("/{a/b,b/b/b}/c.txt", &["/a/b/c.txt", "/b/b/b/c.txt"]).await;
    check("/{a,b}/*.{txt,c}", &["/a/x.txt", "/b/x.txt"]).await;
    check("/a/y\\*z", &["/a/y*z"]).await;
    check("/a/y[*]z", &["/a/y*z"]).await;
    check("/a/b/*", &["/a/b/c.txt"]).await;
    check("/a/b/.*", &["/a/b/.hidden"]).await;
    check("/.dot/*", &["/.dot/c.txt"]).await;
    check("/\\{odd\\}", &["/{odd}"]).await;
    check("/{odd}", &["/{odd}"]).await;
    check("/line*", &["/line\nbreak"]).await;
    check("/-*", &["/-dash,#;\""]).await;
    check("/x.txt/*", &[]).await;
    assert_eq!(client.glob(&"{a,b}".repeat(12)).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let cluster = Cluster::start().await;
    cluster.world().page_max = 3;
    let client = cluster.client().await;
    let names: Vec<String> = (0..20).map(|number| format!("n{number:02}")).collect();
    for name in &names {
        client.put(format!("/{name}"), Bytes::new(), &PutOptions::default()).await.unwrap();
    }
    let listed = client.list("/", ListOptions::default()).collect().await.unwrap();
    assert!(listed.iter().map(|entry| &entry.name).eq(&names));
    let options =
        ListOptions { pattern: Some("*5".into()), after: Some("n07".into()), ..ListOptions::default() };
    let listed = client.list("/", options).collect().await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["n15"]);
    assert_eq!(client.list("/none", ListOptions::default()).next_page().await.unwrap_err().path(), "/none");
}

/// All paths of a walk, in its order.
async fn walk(client: &Client, path: &str, options: WalkOptions, skip: &str) -> Vec<String> {
    let mut walk = client.walk(path, options);
    let mut paths = Vec::new();
    while let Some(page) = walk.next().await {
        let page = page.unwrap();
        for entry in &page.entries {
            paths.push(format!("{}/{}", page.directory.trim_end_matches('/'), entry.name));
            if entry.name == skip && entry.attributes.kind == FileKind::Directory {
                walk.skip(&entry.name);
            }
        }
    }
    paths
}

#[tokio::test]
async fn a_walk_goes_depth_first_in_order() {
    let cluster = Cluster::start().await;
    cluster.world().page_max = 2;
    let client = cluster.client().await;
    plant(&client, &TREE[..11]).await;
    let all = walk(&client, "/", WalkOptions::default(), "").await;
    let expected = [
        "/a",
        "/b",
        "/a/b",
        "/a/x.txt",
        "/a/y*z",
        "/a/b/.hidden",
        "/a/b/c.txt",
        "/b/b",
        "/b/x.txt",
        "/b/b/b",
        "/b/b/b/c.txt",
    ];
    assert_eq!(all, expected);
    let options = WalkOptions { depth_max: Some(2), ..WalkOptions::default() };
    assert_eq!(
        walk(&client, "", options, "").await,
        ["/a", "/b", "/a/b", "/a/x.txt", "/a/y*z", "/b/b", "/b/x.txt"]
    );
    assert_eq!(walk(&client, "/a/", WalkOptions::default(), "b").await, ["/a/b", "/a/x.txt", "/a/y*z"]);
    let mut missing = client.walk("/none", WalkOptions::default());
    assert_eq!(missing.next().await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(missing.next().await.is_none());
}

#[tokio::test]
async fn a_wide_tree_is_walked_once() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let mut expected = 0;
    for outer in 0..12 {
        client.make_directory(format!("/d{outer}"), Mode(0o755), Parents::Require).await.unwrap();
        for inner in 0..12 {
            let path = format!("/d{outer}/e{inner}");
            client.make_directory(path.as_str(), Mode(0o755), Parents::Require).await.unwrap();
            client.put(format!("{path}/f"), Bytes::new(), &PutOptions::default()).await.unwrap();
            expected += 2;
        }
        expected += 1;
    }
    let before = cluster.world().counts.lists;
    let all = walk(&client, "/", WalkOptions::default(), "").await;
    assert_eq!(all.len(), expected);
    assert_eq!(cluster.world().counts.lists - before, 1 + 12 + 144);
    let usage = client.usage("/").await.unwrap();
    assert_eq!((usage.files, usage.directories), (144, 1 + 12 + 144));
}

#[tokio::test]
async fn listed_files_are_read_without_opening() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    plant(&client, &["/d/", "/d/f"]).await;
    let options = ListOptions { detail: Detail::Capabilities, ..ListOptions::default() };
    let entries = client.list("/d", options).collect().await.unwrap();
    let file = client.listed("/d/f", &entries[0]).unwrap();
    let before = cluster.world().counts.requests;
    assert_eq!(file.read_at(0, 100).await.unwrap().into_bytes(), "/d/f");
    assert_eq!(cluster.world().counts.requests - before, 1);
}

#[tokio::test]
async fn the_state_names_every_node_and_copy() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.put("/f", Bytes::from(vec![1; 200_000]), &PutOptions::default()).await.unwrap();
    let chunks = client.locate("/f", types::ChunkIndex(0), u32::MAX).await.unwrap();
    assert_eq!(chunks.iter().map(|chunk| chunk.length).sum::<u64>(), 200_000);
    assert!(
        chunks.iter().all(|chunk| chunk.copies.len() == 2 && chunk.copies.iter().all(|c| c.node.is_some()))
    );
    let copies = client.copies("/f", types::ChunkIndex(3)).await.unwrap();
    assert_eq!(copies.len(), 2);
    for (_, state) in copies {
        assert_eq!(state.unwrap().unwrap().length, 200_000 - 3 * 65536);
    }
    let hash = client.checksum("/f").await.unwrap();
    assert_eq!(hash.to_string(), blake3::hash(&vec![1; 200_000]).to_hex().to_string());
    cluster.kill(types::NodeId(3));
    let status = client.status().await.unwrap();
    let well: Vec<bool> = status.nodes.iter().map(|node| node.status.is_ok()).collect();
    assert_eq!(well, [true, true, false]);
}
