//! What an administrator orders while clients work: targets are drained and used again, chains moved to where placement
//! would have them, copies taken away and added, members that are gone replaced soon.

use crate::roles::target_of;
use crate::workload::{Stage, Team};
use client::{Client, Error};
use env::Random;
use std::collections::BTreeSet;
use std::time::Duration;
use types::movement::{Direction, Rebalance};
use types::{Shortfall, TargetId};

/// Copies of the class that everything is in, at most.
const COPIES_MAX: u64 = 3;

/// An administrator at work.
pub struct Administrator {
    pub client: Client,
    pub team: Team,
    pub stage: Stage,
    pub random: Random,
}

impl Administrator {
    /// Gives orders until all is mended; then everything shall come to rest.
    pub async fn work(mut self) {
        let mut drained = BTreeSet::new();
        while !self.stage.is_mended() {
            let direction = self.draw(&mut drained).await;
            self.give(direction).await;
            let pause = 200 + self.random.below(3000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let targets = drained.into_iter().collect();
        let last = [Direction::TransferLimit(0), Direction::Drain { targets, drain: false }];
        for direction in last {
            while self.try_to_give(direction.clone()).await.is_err() {}
        }
    }

    async fn draw(&mut self, drained: &mut BTreeSet<TargetId>) -> Direction {
        match self.random.below(8) {
            0..=2 => self.drain(drained),
            3 => Direction::Rebalance(match self.random.below(3) {
                0 => Rebalance::Off,
                1 => Rebalance::Paused,
                _ => Rebalance::Running,
            }),
            4 => Direction::TransferLimit(self.random.below(3) * 100_000),
            5 => Direction::RepairAfter(if self.random.one_in(2) { 1 } else { 600 }),
            _ => self.change_class().await.unwrap_or(Direction::Rebalance(Rebalance::Running)),
        }
    }

    /// One target is drained more, or used again: all copies must find a place.
    fn drain(&mut self, drained: &mut BTreeSet<TargetId>) -> Direction {
        let spare = u64::from(self.team.storage).saturating_sub(COPIES_MAX);
        let target = target_of(self.random.below(u64::from(self.team.storage)));
        let drain = !drained.contains(&target) && (drained.len() as u64) < spare;
        if drain {
            drained.insert(target);
        } else {
            drained.remove(&target);
        }
        Direction::Drain { targets: vec![target], drain }
    }

    async fn change_class(&mut self) -> Option<Direction> {
        let mut class = self.client.classes().await.ok()?.into_iter().next()?;
        class.copies = u8::try_from(1 + self.random.below(COPIES_MAX)).unwrap_or(1);
        Some(Direction::ChangeClass { class, shortfall: Shortfall::Allowed })
    }

    async fn give(&self, direction: Direction) {
        if let Err(error) = self.try_to_give(direction.clone()).await {
            tracing::debug!(?direction, %error, "an order was not taken");
        }
    }

    async fn try_to_give(&self, direction: Direction) -> Result<(), Error> {
        self.client.direct("order", "", direction).await
    }
}
