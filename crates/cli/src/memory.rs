//! The allocator of the C library, told to keep less.

/// Arenas of the allocator. It would make eight per core, each with free memory of its own that no other arena gets:
/// buffers are allocated by one thread and freed by another all the time. Few threads allocate at once.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: i32 = 2;

/// Bounds what the allocator holds back. Before any thread is started.
pub(crate) fn bound() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the C library has no other way to be told")]
    // SAFETY: no pointers are passed, and no other thread runs yet.
    unsafe {
        // Only a hint: what is refused changes how much memory is used, not what happens.
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
    }
}
