//! Whether reads and writes of registers are linearizable.
//!
//! No value is written twice, so that this can be decided exactly (Gibbons and Korach, "Testing shared memories", 1997).
//! A write with the reads of its value is a cluster. It takes up the time from the first end of one of its operations to
//! the last start of one (a *forward* zone), or all of them have a moment in common (a *backward* zone, from the last
//! start to the first end). The history is linearizable if no read ends before its write starts, no two forward zones
//! overlap, and no backward zone lies within a forward one.
//!
//! What is read of a write that is not answered yet may not be on the disks. When all members of its chain lose their memory
//! then, it may be undone, and be done once more when the client asks again. So a history with such a loss is right if it is
//! linearizable up to the loss, and as a whole without those reads of writes that the loss may have undone.

use crate::{Call, Operation, Reply};
use std::collections::{BTreeMap, BTreeSet};

/// Never: the end of a write that was not answered.
const NEVER: u64 = u64::MAX;

struct Cluster<'a> {
    write: &'a Operation,
    reads: Vec<&'a Operation>,
}

struct Zone<'a> {
    from: u64,
    to: u64,
    forward: bool,
    cluster: Cluster<'a>,
}

/// Checks all registers; the text says what is wrong and shows the operations. `losses` are the places in the order of
/// everything at which a chain lost its last memory, rising.
pub fn check(history: &[Operation], losses: &[u64]) -> Result<(), String> {
    let mut registers: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if let Call::Write { register, .. } | Call::Read { register } = operation.call {
            registers.entry(register).or_default().push(operation);
        }
    }
    registers.into_iter().try_for_each(|(register, operations)| {
        check_one(&operations, losses)
            .map_err(|why| format!("register r{register} is not linearizable: {why}"))
    })
}

fn check_one(operations: &[&Operation], losses: &[u64]) -> Result<(), String> {
    let Err(why) = in_one_order(operations) else { return Ok(()) };
    let Some((&loss, earlier)) = losses.split_last() else { return Err(why) };
    let before: Vec<Operation> = operations
        .iter()
        .filter(|operation| operation.start < loss)
        .map(|operation| Operation {
            end: operation.end.filter(|(end, _, _)| *end < loss),
            ..(*operation).clone()
        })
        .collect();
    check_one(&before.iter().collect::<Vec<_>>(), earlier)?;
    let open: BTreeSet<u64> = operations
        .iter()
        .filter_map(|operation| match operation.call {
            Call::Write { value, .. } if operation.start < loss && loss < end(operation) => Some(value),
            _ => None,
        })
        .collect();
    let may_be_undone = |operation: &Operation| {
        // Its answer may have been on its way.
        matches!((&operation.call, operation.end), (Call::Read { .. }, Some((_, _, Reply::Value(value))))
            if operation.start < loss && open.contains(&value))
    };
    let rest: Vec<&Operation> =
        operations.iter().copied().filter(|operation| !may_be_undone(operation)).collect();
    check_one(&rest, earlier).map_err(|_| why)
}

/// Whether one order explains them.
fn in_one_order(operations: &[&Operation]) -> Result<(), String> {
    let mut clusters: BTreeMap<u64, Cluster<'_>> = BTreeMap::new();
    for operation in operations {
        if let Call::Write { value, .. } = operation.call {
            clusters.insert(value, Cluster { write: operation, reads: Vec::new() });
        }
    }
    for operation in operations {
        let (Call::Read { .. }, Some((_, _, Reply::Value(value)))) = (&operation.call, &operation.end) else {
            continue;
        };
        let Some(cluster) = clusters.get_mut(value) else {
            return Err(format!("a value from nowhere\n  {operation}"));
        };
        if end(operation) < cluster.write.start {
            return Err(format!("a value from the future\n  {}\n  {operation}", cluster.write));
        }
        cluster.reads.push(operation);
    }
    // A write that was neither answered nor seen may never have been.
    clusters.retain(|_, cluster| cluster.write.end.is_some() || !cluster.reads.is_empty());
    let mut zones: Vec<Zone<'_>> = clusters.into_values().map(zone).collect();
    zones.sort_by_key(|zone| zone.from);
    let forward: Vec<&Zone<'_>> = zones.iter().filter(|zone| zone.forward).collect();
    for pair in forward.windows(2) {
        if pair[1].from < pair[0].to {
            return Err(conflict("two values, each seen before and after the other", pair[0], pair[1]));
        }
    }
    for backward in zones.iter().filter(|zone| !zone.forward) {
        let around = forward.iter().find(|zone| zone.from < backward.from && backward.to < zone.to);
        if let Some(around) = around {
            return Err(conflict("a value was overwritten, and then seen again", around, backward));
        }
    }
    Ok(())
}

fn end(operation: &Operation) -> u64 {
    operation.end.as_ref().map_or(NEVER, |(end, _, _)| *end)
}

fn zone(cluster: Cluster<'_>) -> Zone<'_> {
    let all = || cluster.reads.iter().copied().chain([cluster.write]);
    let first_end = all().map(end).min().unwrap_or(NEVER);
    let last_start = all().map(|operation| operation.start).max().unwrap_or(0);
    let forward = first_end < last_start;
    let (from, to) = if forward { (first_end, last_start) } else { (last_start, first_end) };
    Zone { from, to, forward, cluster }
}

fn conflict(what: &str, one: &Zone<'_>, other: &Zone<'_>) -> String {
    let mut text = what.to_owned();
    for zone in [one, other] {
        text.push_str(&format!("\n  {}", zone.cluster.write));
        for read in &zone.cluster.reads {
            text.push_str(&format!("\n    {read}"));
        }
    }
    text
}

#[cfg(test)]
mod tests;
