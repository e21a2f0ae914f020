//! A small manager: the rules of membership that the chain relies on, on perfect knowledge of who runs.

use types::{Epoch, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Serving,
    LastServing,
    Syncing,
    Out,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) node: usize,
    pub(crate) state: State,
    /// The run in which the node got its state.
    pub(crate) run: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Manager {
    pub(crate) epoch: Epoch,
    pub(crate) seats: Vec<Seat>,
    /// Whose lease is over.
    pub(crate) gone: Vec<bool>,
}

/// What the manager knows of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) up: bool,
    pub(crate) paused: bool,
    pub(crate) run: u64,
    pub(crate) position: (Epoch, Version),
    pub(crate) synced: Option<Epoch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Lives,
    Restarted,
    Silent,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Footing {
    Kept,
    /// With this position or memory.
    Regained(Option<(Epoch, Version)>),
    Lost,
}

impl Manager {
    pub(crate) fn new(nodes: usize) -> Manager {
        let seat = |node| Seat { node, state: State::Serving, run: 0 };
        Manager { epoch: Epoch(1), seats: (0..nodes).map(seat).collect(), gone: vec![false; nodes] }
    }

    pub(crate) fn seat(&self, node: usize) -> &Seat {
        self.seats.iter().find(|seat| seat.node == node).unwrap()
    }

    /// Those that hold whatever was acknowledged.
    pub(crate) fn holders(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|seat| holds(seat.state))
    }

    pub(crate) fn head(&self) -> Option<usize> {
        self.seats.iter().find(|seat| seat.state == State::Serving).map(|seat| seat.node)
    }

    /// One step. `hasty`: does not wait for holders that are gone.
    pub(crate) fn plan(&mut self, known: &[Known], hasty: bool) -> bool {
        for (gone, known) in self.gone.iter_mut().zip(known) {
            *gone &= !known.up || known.paused;
        }
        let Some(footing) = self.footing(known, hasty) else { return false };
        let mut seats: Vec<(u8, Seat)> = Vec::new();
        for seat in &self.seats {
            let state = self.step(seat, footing, known);
            let active = matches!(state, State::Serving | State::Syncing);
            let run = if active && known[seat.node].up { known[seat.node].run } else { seat.run };
            let rank = match (holds(seat.state), state) {
                (true, State::Serving | State::LastServing) => 0,
                (false, State::Serving | State::LastServing) => 1,
                (_, State::Syncing) => 2,
                (_, State::Out) => 3,
            };
            seats.push((rank, Seat { node: seat.node, state, run }));
        }
        seats.sort_by_key(|(rank, _)| *rank);
        let seats: Vec<Seat> = seats.into_iter().map(|(_, seat)| seat).collect();
        let changed = seats != self.seats;
        if changed {
            self.seats = seats;
            self.epoch = self.epoch.next();
        }
        changed
    }

    fn sight(&self, seat: &Seat, known: &[Known]) -> Sight {
        let node = &known[seat.node];
        match (self.gone[seat.node], node.up) {
            (true, _) => Sight::Gone,
            (false, false) => Sight::Silent,
            (false, true) if node.run == seat.run => Sight::Lives,
            (false, true) => Sight::Restarted,
        }
    }

    fn footing(&self, known: &[Known], hasty: bool) -> Option<Footing> {
        let holders: Vec<(&Seat, Sight)> =
            self.holders().map(|seat| (seat, self.sight(seat, known))).collect();
        let any = |what| holders.iter().any(|(_, sight)| *sight == what);
        if holders.iter().any(|(seat, sight)| seat.state == State::Serving && *sight == Sight::Lives) {
            return Some(Footing::Kept);
        }
        if any(Sight::Silent) {
            return None;
        }
        if any(Sight::Lives) && (hasty || !any(Sight::Gone)) {
            return Some(Footing::Regained(None));
        }
        if any(Sight::Restarted) && !any(Sight::Lives) && (hasty || !any(Sight::Gone)) {
            let back = holders.iter().filter(|(_, sight)| *sight == Sight::Restarted);
            return Some(Footing::Regained(back.map(|(seat, _)| known[seat.node].position).max()));
        }
        Some(Footing::Lost)
    }

    fn step(&self, seat: &Seat, footing: Footing, known: &[Known]) -> State {
        let node = &known[seat.node];
        match (seat.state, footing, self.sight(seat, known)) {
            (State::Serving, Footing::Kept, Sight::Lives | Sight::Silent) => State::Serving,
            (State::Serving | State::LastServing, Footing::Regained(None), Sight::Lives) => State::Serving,
            (State::Serving | State::LastServing, Footing::Regained(Some(newest)), Sight::Restarted)
                if node.position == newest =>
            {
                State::Serving
            }
            (State::Serving | State::LastServing, Footing::Lost, _) => State::LastServing,
            (State::Serving, Footing::Kept, Sight::Restarted)
            | (State::Serving | State::LastServing, Footing::Regained(_), Sight::Lives | Sight::Restarted) => {
                State::Syncing
            }
            (State::Serving | State::LastServing, _, _) => State::Out,
            (State::Syncing, Footing::Kept, Sight::Lives) if node.synced == Some(self.epoch) => {
                State::Serving
            }
            (
                State::Syncing,
                Footing::Kept | Footing::Regained(_),
                Sight::Lives | Sight::Restarted | Sight::Silent,
            ) => State::Syncing,
            (State::Syncing, _, _) => State::Out,
            (State::Out, Footing::Kept | Footing::Regained(_), Sight::Lives | Sight::Restarted)
                if !node.paused =>
            {
                State::Syncing
            }
            (State::Out, _, _) => State::Out,
        }
    }
}

pub(crate) fn holds(state: State) -> bool {
    matches!(state, State::Serving | State::LastServing)
}
