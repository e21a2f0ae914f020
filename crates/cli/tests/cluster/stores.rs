//! Where clusters keep their metadata: in their directories, unless `SR_TEST_STORE` names an engine that others have started. A `{}` in it
//! stands for the name that each cluster has there.

use std::sync::atomic::{AtomicU32, Ordering};

/// A place for one more cluster. `None`: its own directory.
pub(crate) fn next() -> Option<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let place = std::env::var("SR_TEST_STORE").ok()?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Some(place.replace("{}", &format!("cluster_{}_{number}", std::process::id())))
}

/// Whether clusters have their metadata in an engine of others, so that nothing of it is in a directory.
pub(crate) fn are_shared() -> bool {
    std::env::var_os("SR_TEST_STORE").is_some()
}
