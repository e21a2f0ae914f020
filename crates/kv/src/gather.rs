//! One question for the rows of a state that several want at the same time.

use crate::{Key, KvError};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The most keys of one question.
const KEYS_MAX: usize = 1000;

type Answers<T> = Vec<oneshot::Sender<Result<T, KvError>>>;

/// Gathers keys for as long as the tasks that are ready to run go on to ask for some, and then asks for all of them at once. Who asks alone waits
/// for nobody.
pub(crate) struct Gather<T> {
    /// By revision: the keys that are wanted, and who wants each.
    wanted: Mutex<BTreeMap<i64, BTreeMap<Key, Answers<T>>>>,
}

impl<T> Default for Gather<T> {
    fn default() -> Gather<T> {
        Gather { wanted: Mutex::default() }
    }
}

/// The first of those who want keys of a revision: it asks for the others. If it gives up before that, they are not left waiting.
struct First<'a, T> {
    gather: &'a Gather<T>,
    at: i64,
}

impl<T> Drop for First<'_, T> {
    fn drop(&mut self) {
        self.gather.wanted().remove(&self.at);
    }
}

impl<T> Gather<T> {
    fn wanted(&self) -> MutexGuard<'_, BTreeMap<i64, BTreeMap<Key, Answers<T>>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Gather<T> {
    /// The value of a key at a revision. `ask` is for the values of some keys, in their order; an error is for all who wanted one of them.
    pub(crate) async fn get<F>(&self, key: &[u8], at: i64, ask: impl Fn(Vec<Key>) -> F) -> Result<T, KvError>
    where
        F: Future<Output = Result<Vec<T>, KvError>>,
    {
        loop {
            let (answer, answered) = oneshot::channel();
            let first = {
                let mut wanted = self.wanted();
                let keys = wanted.entry(at).or_default();
                let is_first = keys.is_empty();
                keys.entry(key.to_vec()).or_default().push(answer);
                is_first.then(|| First { gather: self, at })
            };
            if let Some(first) = first {
                tokio::task::yield_now().await;
                let all = self.wanted().remove(&at).unwrap_or_default();
                // Others may be gathering again.
                std::mem::forget(first);
                Self::answer(all, &ask).await;
            }
            // If there is none, who asked for this has given up.
            if let Ok(answer) = answered.await {
                return answer;
            }
        }
    }

    async fn answer<F>(all: BTreeMap<Key, Answers<T>>, ask: &impl Fn(Vec<Key>) -> F)
    where
        F: Future<Output = Result<Vec<T>, KvError>>,
    {
        let mut all = all.into_iter();
        loop {
            let (keys, answers): (Vec<Key>, Vec<Answers<T>>) = all.by_ref().take(KEYS_MAX).unzip();
            if keys.is_empty() {
                return;
            }
            let count = keys.len();
            let found = ask(keys).await.and_then(|values| match values.len() == count {
                true => Ok(values),
                false => Err(KvError::Unavailable("the store did not answer for each key".to_owned())),
            });
            for (index, answers) in answers.into_iter().enumerate() {
                for who in answers {
                    let answer = found.as_ref().map(|values| values[index].clone()).map_err(KvError::clone);
                    // Who does not wait any more does not need to know.
                    let _ = who.send(answer);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
