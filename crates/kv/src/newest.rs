//! One question for all who want to know the same thing at the same time.

use crate::KvError;
use std::sync::atomic::{AtomicU64, Ordering};

/// Asks for what is newest. An answer is for all who wanted to know before it was asked for, an error as well: each of
/// them asking again would keep the last waiting for as long as all of them together.
pub(crate) struct Newest<T> {
    /// How many have wanted to know.
    wanted: AtomicU64,
    /// So many of them the last answer is for, and the answer.
    last: tokio::sync::Mutex<(u64, Option<Result<T, KvError>>)>,
}

impl<T> Default for Newest<T> {
    fn default() -> Newest<T> {
        Newest { wanted: AtomicU64::new(0), last: tokio::sync::Mutex::new((0, None)) }
    }
}

impl<T: Clone> Newest<T> {
    /// The answer to a question that was asked after this was called. No two are asked at once.
    pub(crate) async fn ask<F>(&self, question: impl FnOnce() -> F) -> Result<T, KvError>
    where
        F: Future<Output = Result<T, KvError>>,
    {
        let number = self.wanted.fetch_add(1, Ordering::SeqCst);
        let mut last = self.last.lock().await;
        match &*last {
            // It was asked for after this was.
            (wanted, Some(answer)) if *wanted > number => answer.clone(),
            _ => {
                let wanted = self.wanted.load(Ordering::SeqCst);
                let answer = question().await;
                *last = (wanted, Some(answer.clone()));
                answer
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    async fn check(answer: Result<u64, KvError>, expected: &str) {
        let newest = Arc::new(Newest::default());
        let (asked, turns) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (newest, asked, turns, answer) =
                (newest.clone(), asked.clone(), turns.clone(), answer.clone());
            tokio::spawn(async move {
                let question = || async {
                    asked.fetch_add(1, Ordering::SeqCst);
                    turns.acquire().await.unwrap().forget();
                    answer
                };
                newest.ask(question).await.map_err(|error| error.to_string())
            })
        };
        let mut all: Vec<_> = (0..10).map(|_| ask()).collect();
        // One thread: the first asks, and the others wait for it.
        while newest.wanted.load(Ordering::SeqCst) < 10 {
            tokio::task::yield_now().await;
        }
        all.push(ask());
        turns.add_permits(10);
        for answer in all {
            assert_eq!(format!("{:?}", answer.await.unwrap()), expected);
        }
        assert_eq!(
            asked.load(Ordering::SeqCst),
            2,
            "the first, and one for those who came while it was asked"
        );
    }

    #[tokio::test]
    async fn who_waits_shares_the_answer_to_a_question_that_was_asked_later() {
        check(Ok(7), "Ok(7)").await;
        let error = KvError::Unavailable("x".to_owned());
        check(Err(error), "Err(\"metadata store unavailable: x\")").await;
    }
}
