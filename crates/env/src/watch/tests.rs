use super::channel;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

/// Notes when it is woken, as a number of the order.
struct Woken {
    order: Arc<AtomicUsize>,
    at: AtomicUsize,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.at.store(self.order.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    }
}

#[test]
fn wakes_in_the_order_of_waiting() {
    let (sender, first) = channel(0);
    let order = Arc::new(AtomicUsize::new(0));
    let mut receivers = vec![first; 50];
    let woken: Vec<_> =
        receivers.iter().map(|_| Arc::new(Woken { order: order.clone(), at: AtomicUsize::new(0) })).collect();
    let mut waits: Vec<_> =
        receivers.iter_mut().map(|receiver| Box::pin(receiver.wait_for(|value| *value == 1))).collect();
    for (wait, woken) in waits.iter_mut().zip(&woken) {
        let waker = Waker::from(woken.clone());
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(sender.send_replace(1), 0);
    let at: Vec<usize> = woken.iter().map(|woken| woken.at.load(Ordering::SeqCst)).collect();
    assert_eq!(at, (1..=50).collect::<Vec<_>>());
}

#[test]
fn gives_what_is_there_and_says_when_nobody_will_set_it() {
    let (sender, mut receiver) = channel(1);
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(receiver.wait_for(|value| *value == 1)).poll(&mut context).is_ready());
    assert!(!sender.send_if_modified(|_| false));
    assert!(pin!(receiver.wait_for(|value| *value == 2)).poll(&mut context).is_pending());
    drop(sender);
    assert_eq!(*receiver.borrow(), 1);
    let mut over = pin!(receiver.wait_for(|value| *value == 2));
    assert!(matches!(over.as_mut().poll(&mut context), std::task::Poll::Ready(Err(super::Closed))));
}
