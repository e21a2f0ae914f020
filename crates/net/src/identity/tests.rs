use super::*;
use proptest::prelude::*;

fn check(identity: Identity, uri: &str) {
    assert_eq!(identity.uri(), uri);
    assert_eq!(Identity::from_uri(uri), Some(identity));
}

fn user(name: &str, uid: u32, groups: &[u32]) -> Identity {
    Identity::User(User {
        name: name.to_owned(),
        uid: Uid(uid),
        groups: groups.iter().copied().map(Gid).collect(),
    })
}

#[test]
fn nodes_and_users_have_one_spelling() {
    check(Identity::Node(NodeId(7)), "steradian://node/7");
    check(user("ada", 1000, &[1000, 27]), "steradian://user/ada?uid=1000&gid=1000,27");
    check(user("a/b?c", 0, &[0]), "steradian://user/a%2Fb%3Fc?uid=0&gid=0");
    check(user("Ünal", 5, &[5]), "steradian://user/%C3%9Cnal?uid=5&gid=5");
}

#[test]
fn other_spellings_are_refused() {
    for uri in [
        "",
        "steradian://",
        "steradian://node/",
        "steradian://node/07",
        "steradian://node/+7",
        "steradian://node/4294967296",
        "steradian://node/7/8",
        "https://node/7",
        "steradian://user/ada",
        "steradian://user/?uid=1&gid=1",
        "steradian://user/ada?uid=1&gid=",
        "steradian://user/ada?uid=1",
        "steradian://user/a%64a?uid=1&gid=1",
        "steradian://user/%FF?uid=1&gid=1",
        "steradian://user/%4?uid=1&gid=1",
    ] {
        assert_eq!(Identity::from_uri(uri), None, "{uri}");
    }
}

proptest! {
    #[test]
    fn every_user_survives(name in "\\PC{1,60}", uid: u32, groups in prop::collection::vec(any::<u32>(), 1..20)) {
        let identity = user(&name, uid, &groups);
        prop_assert_eq!(Identity::from_uri(&identity.uri()), Some(identity));
    }

    #[test]
    fn no_text_panics(text in "(steradian://)?(node/|user/)?\\PC*") {
        if let Some(identity) = Identity::from_uri(&text) {
            prop_assert_eq!(identity.uri(), text);
        }
    }
}
