use super::*;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What a gathering was asked for, and how it answers: after it was let, with the key itself.
#[derive(Default)]
struct Asked {
    gather: Gather<String>,
    asked: Mutex<Vec<String>>,
    turns: Option<Semaphore>,
    fails: bool,
    /// Answers lack one.
    lacks: bool,
}

impl Asked {
    fn get(self: &Arc<Asked>, key: &str, at: i64) -> JoinHandle<Result<String, String>> {
        let (asked, key) = (self.clone(), key.to_owned());
        tokio::spawn(async move {
            let ask = async |keys: Vec<Key>| {
                let keys: Vec<String> = keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect();
                asked.asked.lock().unwrap().push(format!("{at}: {}", keys.join(" ")));
                if let Some(turns) = &asked.turns {
                    turns.acquire().await.unwrap().forget();
                }
                match asked.fails {
                    true => Err(KvError::Full),
                    false => Ok(keys.into_iter().skip(usize::from(asked.lacks)).collect()),
                }
            };
            asked.gather.get(key.as_bytes(), at, ask).await.map_err(|error| error.to_string())
        })
    }

    fn so_far(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn what_is_wanted_at_once_is_asked_for_at_once() {
    let asked = Arc::new(Asked::default());
    let all: Vec<_> = [("b", 7), ("a", 7), ("a", 8), ("b", 7), ("c", 7)]
        .into_iter()
        .map(|(key, at)| (key, asked.get(key, at)))
        .collect();
    for (key, answer) in all {
        assert_eq!(answer.await.unwrap(), Ok(key.to_owned()));
    }
    let mut questions = asked.so_far();
    questions.sort();
    assert_eq!(questions, ["7: a b c", "8: a"]);
    // Alone, and again: nothing is remembered.
    for _ in 0..2 {
        assert_eq!(asked.get("a", 7).await.unwrap(), Ok("a".to_owned()));
    }
    assert_eq!(asked.so_far()[2..], ["7: a", "7: a"]);
    assert!(asked.gather.wanted().is_empty());
}

#[tokio::test]
async fn very_many_keys_are_several_questions() {
    let asked = Arc::new(Asked::default());
    let keys: Vec<String> = (0..KEYS_MAX + 10).map(|number| format!("{number:06}")).collect();
    let all: Vec<_> = keys.iter().map(|key| asked.get(key, 1)).collect();
    for (key, answer) in keys.iter().zip(all) {
        assert_eq!(answer.await.unwrap().as_ref(), Ok(key));
    }
    let counts: Vec<_> = asked.so_far().iter().map(|keys| keys.split(' ').count() - 1).collect();
    assert_eq!(counts, [KEYS_MAX, 10]);
}

#[tokio::test]
async fn an_error_is_for_all_and_so_is_an_answer_that_lacks_some() {
    let asked = Arc::new(Asked { fails: true, ..Asked::default() });
    let all = [asked.get("a", 1), asked.get("b", 1), asked.get("a", 1)];
    for answer in all {
        assert_eq!(answer.await.unwrap().unwrap_err(), KvError::Full.to_string());
    }
    assert_eq!(asked.so_far(), ["1: a b"]);
    let asked = Arc::new(Asked { lacks: true, ..Asked::default() });
    let all = [asked.get("a", 1), asked.get("b", 1)];
    for answer in all {
        assert!(answer.await.unwrap().unwrap_err().contains("did not answer for each key"));
    }
}

#[tokio::test]
async fn who_gives_up_leaves_nobody_waiting() {
    // Before it has asked, which is at once, and after.
    for begun in [false, true] {
        let asked = Arc::new(Asked { turns: Some(Semaphore::new(0)), ..Asked::default() });
        let first = asked.get("a", 1);
        tokio::task::yield_now().await;
        let second = asked.get("b", 1);
        for _ in 0..if begun { 10 } else { 0 } {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        asked.turns.as_ref().unwrap().add_permits(10);
        assert_eq!(second.await.unwrap(), Ok("b".to_owned()));
    }
}

#[tokio::test]
async fn who_comes_while_it_is_asked_is_not_forgotten() {
    let asked = Arc::new(Asked { turns: Some(Semaphore::new(0)), ..Asked::default() });
    let first = asked.get("a", 1);
    while asked.so_far().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = asked.get("b", 1);
    while asked.so_far().len() < 2 {
        tokio::task::yield_now().await;
    }
    asked.turns.as_ref().unwrap().add_permits(2);
    assert_eq!(first.await.unwrap(), Ok("a".to_owned()));
    assert_eq!(second.await.unwrap(), Ok("b".to_owned()));
    assert_eq!(asked.so_far(), ["1: a", "1: b"]);
}
