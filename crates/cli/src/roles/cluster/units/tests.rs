use super::*;

fn place() -> Place {
    Place { directory: "/srv/steradian/".into(), sr: "/usr/local/bin/sr".into() }
}

fn has(unit: &Unit, line: &str) {
    assert!(
        unit.text.lines().any(|found| found.trim_end_matches(" \\").trim() == line),
        "{line} in\n{}",
        unit.text
    );
}

#[test]
fn a_metadata_server_comes_after_its_etcd() {
    let unit = place().metadata(true);
    has(&unit, "After=network-online.target steradian-etcd.service");
    has(&unit, "ExecStart=/usr/local/bin/sr meta --config /srv/steradian/meta.toml");
    has(&unit, "Restart=always");
    has(&unit, "StartLimitIntervalSec=0");
    has(&unit, "RequiresMountsFor=/srv/steradian");
    has(&place().metadata(false), "After=network-online.target");
}

#[test]
fn a_storage_server_comes_after_its_disks() {
    let targets = ["/disks/a", "/disks/b-1"].map(Path::new);
    let unit = place().storage(targets.into_iter(), true);
    has(
        &unit,
        "After=network-online.target steradian-meta.service disks-a.mount disks-b\\x2d1.mount disks.mount",
    );
    has(&unit, "ExecStart=/usr/local/bin/sr storage --config /srv/steradian/storage.toml");
    // It starts without them.
    assert!(!unit.text.contains("Requires=") && !unit.text.contains("disks/a"));
}

#[test]
fn a_member_of_etcd_knows_the_others_and_listens_with_certificates() {
    let machines = ["192.0.2.1", "192.0.2.2", "2001:db8::3"].map(|ip| ip.parse().unwrap());
    let member = Member { number: 2, cluster: "steradian-7", machines: &machines };
    let unit = place().etcd(Path::new("/usr/bin/etcd"), machines[1], &member);
    has(&unit, "ExecStart=/usr/bin/etcd");
    has(&unit, "--name=m2");
    has(&unit, "--data-dir=/srv/steradian/etcd/data");
    has(
        &unit,
        "--initial-cluster=m1=https://192.0.2.1:2380,m2=https://192.0.2.2:2380,m3=https://[2001:db8::3]:2380",
    );
    for line in
        ["--client-cert-auth", "--peer-client-cert-auth", "--listen-client-urls=https://192.0.2.2:2379"]
    {
        has(&unit, line);
    }
    ETCD_LIMITS.iter().for_each(|limit| has(&unit, limit));
    assert!(!unit.text.contains("http://"));
}

#[test]
fn the_units_of_mounts_are_named_as_systemd_names_them() {
    // `systemd-escape --path` says so.
    for (path, name) in [
        ("/disks/a", "disks-a"),
        ("/srv/.hidden/x", "srv-.hidden-x"),
        ("/.hidden", "\\x2ehidden"),
        ("/a-b/c_d", "a\\x2db-c_d"),
        ("/f\u{fc}r", "f\\xc3\\xbcr"),
    ] {
        assert_eq!(escaped(Path::new(path)), name);
    }
}
