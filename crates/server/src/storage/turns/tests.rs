#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

use super::*;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Waiting = Pin<Box<dyn Future<Output = Turn>>>;

/// One who waits, in the queue already.
fn queued(turns: &Arc<Turns>, rank: usize) -> Waiting {
    let turns = turns.clone();
    let mut waiting: Waiting = Box::pin(async move { turns.wait(rank).await });
    assert!(look(&mut waiting).is_none());
    waiting
}

fn look(waiting: &mut Waiting) -> Option<Turn> {
    match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(turn) => Some(turn),
        Poll::Pending => None,
    }
}

/// Gives turns back one after the other; the places of those who get one.
fn order(held: Turn, waiting: &mut [Option<Waiting>]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut held = Some(held);
    while let Some(turn) = held.take() {
        drop(turn);
        for (place, waiting) in waiting.iter_mut().enumerate() {
            if let Some(turn) = waiting.as_mut().and_then(look) {
                assert!(held.replace(turn).is_none(), "two turns at a time");
                order.push(place);
                *waiting = None;
            }
        }
    }
    order
}

#[tokio::test]
async fn the_lowest_rank_goes_first_and_of_one_rank_who_came_first() {
    let turns = Turns::new(1);
    let held = turns.wait(9).await;
    let mut waiting: Vec<_> = [3, 1, 2, 1].map(|rank| Some(queued(&turns, rank))).into();
    assert_eq!(order(held, &mut waiting), [1, 3, 2, 0]);
    let held = turns.wait(9).await;
    let mut waiting = vec![Some(queued(&turns, 9))];
    assert_eq!(order(held, &mut waiting), [0]);
}

#[tokio::test]
async fn who_stops_waiting_takes_no_turn_away() {
    let turns = Turns::new(1);
    let held = turns.wait(0).await;
    let mut waiting: Vec<_> = [0, 1, 2].map(|rank| Some(queued(&turns, rank))).into();
    waiting[0] = None;
    drop(held);
    // The next one has its turn, and does not know it.
    waiting[1] = None;
    let held = waiting[2].as_mut().and_then(look).unwrap();
    waiting[2] = None;
    assert_eq!(order(held, &mut waiting), [0usize; 0]);
    turns.wait(5).await;
}
