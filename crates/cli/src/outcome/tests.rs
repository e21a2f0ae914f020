use super::*;

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "test", "/x", "of the test")
}

fn check(items: &[Option<ErrorKind>], result: Result<(), Stop>, expected: u8) {
    let report = Report::default();
    for item in items {
        match item {
            None => report.done(),
            Some(kind) => report.failed(error(*kind)).unwrap(),
        }
    }
    assert_eq!(report.code(&result), expected, "{items:?} {result:?}");
}

#[test]
fn says_what_happened_in_one_number() {
    use ErrorKind::{Context, Denied, NotFound, NotReachable};
    check(&[], Ok(()), 0);
    check(&[None, None], Ok(()), 0);
    check(&[None, Some(NotFound)], Ok(()), 1);
    check(&[Some(NotFound)], Ok(()), 1);
    check(&[Some(Denied), Some(Denied)], Ok(()), 4);
    check(&[None, Some(Denied)], Ok(()), 1);
    check(&[Some(NotFound), Some(Denied)], Ok(()), 1);
    check(&[None], Err(Stop::Closed), 0);
    check(&[], Err(Stop::usage("no")), 2);
    check(&[None], Err(Stop::Failed(error(NotReachable))), 3);
    check(&[], Err(Stop::Failed(error(Context))), 3);
    check(&[], Err(Stop::Failed(error(Denied))), 4);
    check(&[], Err(Stop::Failed(error(NotFound))), 1);
    check(&[], Err(Stop::message("no")), 1);
}

#[test]
fn an_unreachable_cluster_stops_the_command() {
    assert!(matches!(Report::default().failed(error(ErrorKind::NotReachable)), Err(Stop::Failed(_))));
}
