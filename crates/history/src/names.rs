//! Whether what was done to a few names is linearizable, all names together because renames join them.
//!
//! A search for an order (Wing and Gong, "Testing and verifying concurrent objects", 1993; Lowe's memory of states that
//! led nowhere): only an operation that started before the first of the others ended may come next.

use crate::{Call, Operation, Reply};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Steps of the search after which a history counts as undecided.
const STEPS_MAX: usize = 200_000;

/// Names and the tags of their files.
type State = BTreeMap<usize, u64>;

/// What a search came to that has found no mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// It was given up after so many steps.
    Undecided,
}

/// Checks the names; operations are in the order of their starts. The text says how far an order was found.
pub fn check(history: &[Operation]) -> Result<Verdict, String> {
    let about_names = |operation: &&Operation| match operation.call {
        Call::Write { .. } | Call::Read { .. } => false,
        // A question without an answer says nothing.
        Call::Look { .. } => operation.end.is_some(),
        Call::Put { .. } | Call::Unlink { .. } | Call::Rename { .. } => true,
    };
    let operations: Vec<&Operation> = history.iter().filter(about_names).collect();
    let mut search = Search { operations, dead: HashSet::new(), best: 0, steps: 0 };
    match search.run() {
        Some(true) => Ok(Verdict::Linearizable),
        None => Ok(Verdict::Undecided),
        Some(false) => Err(search.explain()),
    }
}

struct Search<'a> {
    operations: Vec<&'a Operation>,
    /// Operations done and the state then, from which there is no way on.
    dead: HashSet<(BTreeSet<usize>, State)>,
    /// The most operations that were done in one order.
    best: usize,
    steps: usize,
}

/// Where the search is: operations done (all before `from`, and those in `ahead`), and the state.
#[derive(Clone)]
struct Place {
    from: usize,
    ahead: BTreeSet<usize>,
    state: State,
}

impl Search<'_> {
    fn run(&mut self) -> Option<bool> {
        let mut stack = vec![(Place { from: 0, ahead: BTreeSet::new(), state: State::new() }, 0)];
        while let Some((place, choice)) = stack.pop() {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return None;
            }
            self.best = self.best.max(place.from + place.ahead.len());
            let left = || (place.from..self.operations.len()).filter(|at| !place.ahead.contains(at));
            if left().all(|at| self.operations[at].end.is_none()) {
                return Some(true);
            }
            // They are in the order of their starts: what starts after the soonest end so far cannot end sooner.
            let mut soonest: Option<u64> = None;
            for operation in left().map(|at| self.operations[at]) {
                if soonest.is_some_and(|soonest| operation.start > soonest) {
                    break;
                }
                let end = operation.end.map(|(end, _, _)| end);
                soonest = soonest.into_iter().chain(end).min();
            }
            let next = left()
                .take_while(|at| soonest.is_none_or(|soonest| self.operations[*at].start < soonest))
                .filter_map(|at| Some((at, after(&place.state, self.operations[at])?)))
                .nth(choice);
            let Some((at, state)) = next else {
                self.dead.insert(self.key(&place));
                continue;
            };
            let mut taken = place.clone();
            stack.push((place, choice + 1));
            taken.state = state;
            taken.ahead.insert(at);
            while taken.ahead.remove(&taken.from) {
                taken.from += 1;
            }
            if !self.dead.contains(&self.key(&taken)) {
                stack.push((taken, 0));
            }
        }
        Some(false)
    }

    fn key(&self, place: &Place) -> (BTreeSet<usize>, State) {
        let mut done = place.ahead.clone();
        // Stands for all before it.
        done.insert(place.from + self.operations.len());
        (done, place.state.clone())
    }

    fn explain(&self) -> String {
        let mut text = format!(
            "names are not linearizable: at most {} of {} operations fit in one order; those around there:",
            self.best,
            self.operations.len()
        );
        let near = self.best.saturating_sub(12)..(self.best + 8).min(self.operations.len());
        for at in near {
            text.push_str(&format!("\n  {}", self.operations[at]));
        }
        text
    }
}

/// The state after an operation, if it fits here with the answer it got.
fn after(state: &State, operation: &Operation) -> Option<State> {
    let answer = operation.end.map(|(_, _, reply)| reply);
    let fits = |reply: Reply| answer.is_none_or(|answer| answer == reply);
    let mut next = state.clone();
    let reply = match operation.call {
        Call::Put { name, tag } => {
            next.insert(name, tag);
            Reply::Done
        }
        Call::Unlink { name } => match next.remove(&name) {
            Some(_) => Reply::Done,
            None => Reply::Absent,
        },
        Call::Rename { from, to } => match next.get(&from).copied() {
            None => Reply::Absent,
            Some(_) if from == to => Reply::Done,
            Some(tag) => {
                next.remove(&from);
                next.insert(to, tag);
                Reply::Done
            }
        },
        Call::Look { name } => state.get(&name).map_or(Reply::Absent, |tag| Reply::Value(*tag)),
        Call::Write { .. } | Call::Read { .. } => return None,
    };
    fits(reply).then_some(next)
}

#[cfg(test)]
mod tests;
