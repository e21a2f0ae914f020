//! Ending early, in order: what holds something in the cluster gives it back before the process goes.

use tokio::sync::watch;

/// Whether the user asked for the end, and how many pieces of work want to see to theirs.
#[derive(Debug)]
pub(crate) struct Ending {
    told: watch::Sender<bool>,
    open: watch::Sender<usize>,
}

impl Default for Ending {
    fn default() -> Ending {
        Ending { told: watch::Sender::new(false), open: watch::Sender::new(0) }
    }
}

/// Work that asks [`Ending::told`] in its course, and ends by itself soon after. The process waits for it.
pub(crate) struct Orderly<'a>(&'a Ending);

impl Ending {
    /// Work starts that sees to its own end.
    pub(crate) fn orderly(&self) -> Orderly<'_> {
        self.open.send_modify(|open| *open += 1);
        Orderly(self)
    }

    /// The user wants the end.
    pub(crate) fn tell(&self) {
        self.told.send_replace(true);
    }

    /// Whether the user wants the end.
    pub(crate) fn is_told(&self) -> bool {
        *self.told.borrow()
    }

    /// Waits until the user wants the end.
    pub(crate) async fn told(&self) {
        // The sender lives as long as `self`.
        drop(self.told.subscribe().wait_for(|told| *told).await);
    }

    /// Waits until no orderly work is left.
    pub(crate) async fn in_order(&self) {
        drop(self.open.subscribe().wait_for(|open| *open == 0).await);
    }
}

impl Drop for Orderly<'_> {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests;
