//! Connections kept open, by address.

use crate::connection::Connection;
use crate::error::ConnectError;
use crate::security::{Expect, Security};
use std::sync::Arc;
use std::time::Duration;

/// What a pool may be told.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Connections to one address. Several let several cores encrypt.
    pub connections: usize,
    /// Time for one attempt to connect.
    pub deadline: Duration,
    /// The first pause after a failed attempt. It doubles with each failure, with jitter.
    pub backoff_min: Duration,
    /// The longest pause between attempts.
    pub backoff_max: Duration,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            connections: 2,
            deadline: Duration::from_secs(3),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// Connections kept open, by address.
pub struct Pool {
    security: Arc<Security>,
    options: PoolOptions,
}

impl Pool {
    /// An empty pool. Nothing is connected before it is asked for.
    pub fn new(security: Arc<Security>, options: PoolOptions) -> Pool {
        Pool { security, options }
    }

    /// A connection to any node at `address`. While a pause after a failure lasts, the failure is given again at once.
    pub async fn get(&self, address: &str) -> Result<Connection, ConnectError> {
        self.get_node(address, Expect::AnyNode).await
    }

    /// A connection to the node expected at `address`.
    pub async fn get_node(&self, address: &str, expect: Expect) -> Result<Connection, ConnectError> {
        Connection::open(address, &self.security, expect, self.options.deadline).await
    }
}
