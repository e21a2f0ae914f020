//! What is renewed in the background for as long as somebody has it.

use tokio::task::JoinHandle;

/// Renews something: a lease, a session. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Renewal(JoinHandle<()>);

impl Renewal {
    /// Begins; `renewing` never ends by itself.
    pub(crate) fn spawn(renewing: impl Future<Output = ()> + Send + 'static) -> Renewal {
        Renewal(tokio::spawn(renewing))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}
