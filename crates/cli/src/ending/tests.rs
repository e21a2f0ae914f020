use super::*;
use std::sync::Arc;

#[tokio::test]
async fn the_end_waits_for_orderly_work() {
    let ending = Arc::new(Ending::default());
    ending.in_order().await; // Nothing is open.
    let work = {
        let ending = ending.clone();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let orderly = ending.orderly();
            sender.send(()).unwrap();
            ending.told().await;
            drop(orderly);
            5
        });
        receiver.await.unwrap();
        task
    };
    ending.tell();
    ending.in_order().await;
    assert_eq!(work.await.unwrap(), 5);
}
