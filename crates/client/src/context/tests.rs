use super::*;

fn sample() -> Context {
    Context {
        servers: vec!["127.0.0.1:7400".into(), "[::1]:7400".into()],
        security: ContextSecurity::Tls {
            authority: "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n".into(),
            certificate: "admin.pem".into(),
            key: "admin.key".into(),
        },
        directory: PathBuf::new(),
    }
}

#[test]
fn what_was_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("context.toml");
    sample().save(&path).unwrap();
    let loaded = Context::load(&path).unwrap();
    assert_eq!(loaded, Context { directory: directory.path().to_path_buf(), ..sample() });
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn files_are_named_from_the_context() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("admin.pem"), "text").unwrap();
    let context = Context { directory: directory.path().to_path_buf(), ..sample() };
    assert_eq!(context.resolve("admin.pem").unwrap(), "text");
    assert!(context.resolve("  -----BEGIN X").unwrap().contains("BEGIN"));
    let missing = context.resolve("none.pem").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Context);
    assert!(missing.to_string().contains("none.pem"));
}

#[test]
fn unknown_keys_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("context.toml");
    let cases = [
        "servers = ['a:1']\ncolour = 'red'\n[security]\nmode = 'plain'\nname = 'root'\nuser = 0\ngroups = []\n",
        "servers = ['a:1']\n[security]\nmode = 'plain'\nname = 'root'\nuser = 0\ngroups = []\nkey = 'x'\n",
        "servers = ['a:1']\n[security]\nmode = 'none'\n",
        "servers = []\n[security]\nmode = 'plain'\nname = 'root'\nuser = 0\ngroups = []\n",
        "[security]\nmode = 'plain'\nname = 'root'\nuser = 0\ngroups = []\n",
    ];
    for text in cases {
        std::fs::write(&path, text).unwrap();
        assert_eq!(Context::load(&path).unwrap_err().kind(), ErrorKind::Context, "{text}");
    }
}
