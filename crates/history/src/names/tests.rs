use super::*;

fn operation(call: Call, start: u64, end: Option<(u64, Reply)>) -> Operation {
    Operation { client: 0, call, start, start_ms: 0, end: end.map(|(end, reply)| (end, 0, reply)) }
}

fn put(name: usize, tag: u64, start: u64, end: u64) -> Operation {
    operation(Call::Put { name, tag }, start, Some((end, Reply::Done)))
}

fn look(name: usize, start: u64, end: u64, reply: Reply) -> Operation {
    operation(Call::Look { name }, start, Some((end, reply)))
}

#[test]
fn takes_what_one_order_explains() {
    let rename = operation(Call::Rename { from: 0, to: 1 }, 2, Some((9, Reply::Done)));
    let seen = [look(0, 3, 4, Reply::Value(7)), look(1, 5, 6, Reply::Value(7)), look(0, 7, 8, Reply::Absent)];
    check(&[&[put(0, 7, 0, 1), rename][..], &seen[..]].concat()).unwrap();
}

#[test]
fn refuses_a_name_that_comes_back() {
    let unlink = operation(Call::Unlink { name: 0 }, 2, Some((3, Reply::Done)));
    check(&[put(0, 7, 0, 1), unlink.clone(), look(0, 4, 5, Reply::Absent)]).unwrap();
    check(&[put(0, 7, 0, 1), unlink, look(0, 4, 5, Reply::Value(7))]).unwrap_err();
}

#[test]
fn what_was_not_answered_may_happen_or_not() {
    let lost = operation(Call::Put { name: 0, tag: 8 }, 2, None);
    check(&[put(0, 7, 0, 1), lost.clone(), look(0, 4, 5, Reply::Value(7))]).unwrap();
    check(&[put(0, 7, 0, 1), lost.clone(), look(0, 4, 5, Reply::Value(8))]).unwrap();
    let both = [look(0, 4, 5, Reply::Value(8)), look(0, 6, 7, Reply::Value(7))];
    check(&[&[put(0, 7, 0, 1), lost][..], &both[..]].concat()).unwrap_err();
}
