//! Making snapshots: see `meta::ops`' `snapshot` for the steps.

use super::{MetaService, change_job, reply_of};
use kv::Store;
use meta::{Caller, Job};
use std::time::Duration;
use types::meta::{MetaError, MetaReply, MetaRequest};

/// How long storage servers may take until they are all told. One that is gone is given up in less than half of it.
const FENCE_MAX: Duration = Duration::from_secs(8);

impl<S: Store> MetaService<S> {
    /// Makes a snapshot. A retry goes on with what the first try began.
    pub(super) async fn make_snapshot(
        &self,
        caller: &Caller,
        request: MetaRequest,
    ) -> Result<MetaReply, MetaError> {
        let (job, _) = change_job(caller, request)?;
        let reply = reply_of(self.shared.sequencer.run(job).await?)?;
        let number = match &reply {
            MetaReply::Snapshots(made) => made.first().map(|made| made.number),
            _ => None,
        };
        let number = number.ok_or(MetaError::Unavailable)?;
        let fenced = tokio::time::timeout(FENCE_MAX, self.shared.options.classes.fence(number)).await;
        let is_fenced = matches!(fenced, Ok(Ok(())));
        if !is_fenced {
            tracing::warn!(number, "a snapshot is given up: not all storage servers could be told");
        }
        self.shared.sequencer.run(Job::EndSnapshot { number, is_fenced }).await?;
        if is_fenced { Ok(reply) } else { Err(MetaError::LeaseOver) }
    }
}
