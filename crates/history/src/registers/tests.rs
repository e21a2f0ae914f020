use super::*;

/// `w1 0-3` writes 1 from 0 to 3, `r1 4-5` reads 1; `-` alone: no answer.
fn run(text: &str) -> Result<(), String> {
    run_with(text, &[])
}

fn run_with(text: &str, losses: &[u64]) -> Result<(), String> {
    let operations: Vec<Operation> = text
        .split(',')
        .map(|part| {
            let (what, times) = part.trim().split_once(' ').unwrap();
            let value = what[1..].parse().unwrap();
            let (start, end) = times.split_once('-').unwrap();
            let (call, reply) = match &what[..1] {
                "w" => (Call::Write { register: 0, value }, Reply::Done),
                _ => (Call::Read { register: 0 }, Reply::Value(value)),
            };
            let end = (!end.is_empty()).then(|| (end.parse().unwrap(), 0, reply));
            Operation { client: 0, call, start: start.parse().unwrap(), start_ms: 0, end }
        })
        .collect();
    check(&operations, losses)
}

#[test]
fn takes_what_one_order_explains() {
    run("w1 0-1, r1 2-3, w2 4-5, r2 6-7").unwrap();
    run("w1 0-9, w2 1-8, r2 2-3, r1 4-5").unwrap();
    run("w1 0-1, w2 2-, r1 3-4, r2 5-6").unwrap();
    run("w1 0-1, w2 2-, r1 3-4, r1 50-60").unwrap();
}

#[test]
fn refuses_a_value_that_was_overwritten() {
    run("w1 0-1, w2 2-3, r1 4-5").unwrap_err();
    run("w1 0-1, w2 2-, r2 3-4, r1 5-6").unwrap_err();
    run("w1 0-9, w2 1-8, r2 10-11, r1 12-13, r2 14-15").unwrap_err();
}

#[test]
fn refuses_values_from_nowhere_and_from_the_future() {
    run("w1 0-1, r2 2-3").unwrap_err();
    run("r1 0-1, w1 2-3").unwrap_err();
}

#[test]
fn a_loss_of_all_memory_may_undo_what_was_not_answered_and_nothing_else() {
    let undone = "w1 0-1, w2 2-14, r2 3-4, r1 6-7, r1 8-9, r2 15-16";
    run(undone).unwrap_err();
    run_with(undone, &[5]).unwrap();
    run_with("w1 0-1, w2 2-, r2 3-4, r1 6-7", &[5]).unwrap();
    // Seen and not seen before the loss; a loss before it was seen, and one after it was gone.
    run_with("w1 0-1, w2 2-20, r2 3-4, r1 5-6, r2 8-9", &[7]).unwrap_err();
    run_with(undone, &[2]).unwrap_err();
    run_with("w1 0-1, w2 2-20, r2 3-4, r1 6-7, r1 8-9", &[17]).unwrap_err();
    // An answered one is not undone, and nothing older comes back in its place.
    run_with("w1 0-1, w2 2-4, r2 5-6, r1 8-9", &[7]).unwrap_err();
    run_with("w1 0-1, w2 2-3, w3 4-, r3 5-6, r1 8-9", &[7]).unwrap_err();
    // The answer came after the loss. One that was asked for after it tells of what is there.
    run_with("w1 1-30, r1 2-6, w2 7-29, r1 31-32", &[5]).unwrap();
    run_with("w1 1-30, r1 6-7, w2 8-29, r1 31-32", &[5]).unwrap_err();
    // Twice.
    run_with("w1 0-1, w2 2-20, r2 3-4, r1 6-7, r2 8-9, r1 11-12, r2 21-22", &[5, 10]).unwrap();
    run_with("w1 0-1, w2 2-20, r2 3-4, r1 6-7, r2 8-9, r1 11-12, r2 21-22", &[5]).unwrap_err();
    run_with("w1 0-1, w2 2-20, r2 3-4, r1 6-7, r2 8-9, r1 11-12, r2 21-22", &[10]).unwrap_err();
}
