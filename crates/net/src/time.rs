//! The one way in which connections tell the time: by the clock of tokio's timers, which a simulation moves.

use std::time::Instant;

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
