//! Work that waits for a disk: beside the runtime's own threads, and in a simulation on its one thread.

/// Runs `work` where it may block. A panic of it is one of the caller.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if env::simulation::is_on() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
