use super::*;

const MIB: usize = 1 << 20;

fn idle(buffers: &Buffers) -> usize {
    buffers.idle.lock().unwrap().bytes
}

#[test]
fn a_buffer_comes_back_when_its_last_user_is_done() {
    let buffers = Arc::new(Buffers::default());
    let mut buffer = buffers.take(MIB);
    assert!(buffer.space().len() > MIB);
    buffer.space()[..3].copy_from_slice(b"abc");
    let bytes = buffer.freeze();
    assert_eq!((bytes.len(), &bytes[..3]), (MIB, &b"abc"[..]));
    let part = bytes.slice(1..2);
    drop(bytes);
    assert_eq!(idle(&buffers), 0);
    drop(part);
    assert!(idle(&buffers) > MIB);
    // And is used again, for a length near its own only.
    let again = buffers.take(MIB - 10_000);
    assert_eq!(idle(&buffers), 0);
    drop(again);
    drop(buffers.take(POOLED_MIN));
    assert_eq!(buffers.idle.lock().unwrap().buffers.len(), 2);
}

#[test]
fn small_buffers_are_exact_and_not_kept() {
    let buffers = Arc::new(Buffers::default());
    let mut buffer = buffers.take(10);
    assert_eq!(buffer.space().len(), 11);
    assert_eq!(buffer.freeze().len(), 10);
    assert_eq!(idle(&buffers), 0);
}

#[test]
fn no_more_than_the_limit_lies_idle() {
    let buffers = Arc::new(Buffers::default());
    let many: Vec<Buffer> = (0..40).map(|_| buffers.take(MIB)).collect();
    drop(many);
    assert!((IDLE_MAX - 2 * MIB..=IDLE_MAX).contains(&idle(&buffers)));
}

#[test]
fn what_nobody_uses_is_freed() {
    let buffers = Arc::new(Buffers::default());
    drop(buffers.take(MIB));
    buffers.sweep();
    assert!(idle(&buffers) > 0, "it was used since the last sweep");
    buffers.sweep();
    assert_eq!(idle(&buffers), 0);
}
