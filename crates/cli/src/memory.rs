//! The allocator. Buffers are allocated by one thread and freed by another all the time: the C library's allocator takes
//! locks for that, and keeps what is freed in the arena of whoever allocated it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
