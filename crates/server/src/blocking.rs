//! Work that waits for a disk: beside the runtime's own threads, and in a simulation on its one thread.

use tokio::runtime::Handle;

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

/// Has `work` done where it may block, soon; nobody waits for it.
pub(crate) fn spawn(runtime: &Handle, work: impl FnOnce() + Send + 'static) {
    if env::simulation::is_on() {
        runtime.spawn(async { work() });
    } else {
        runtime.spawn_blocking(work);
    }
}
