//! Quotas.

use crate::tree::{describe, done};
use crate::{Client, Error, Result};
use types::meta::{Change, MetaReply, MetaRequest, Place};
use types::quota::{Limits, Quota};

impl Client {
    /// The quotas of directories: all for the administrator, otherwise those of directories that this user may read.
    pub async fn quotas(&self) -> Result<Vec<Quota>> {
        const ACTION: &str = "list the quotas";
        match self.meta(ACTION, "", &MetaRequest::Quotas).await? {
            MetaReply::Quotas(quotas) => Ok(quotas),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }

    /// Sets the quota of a directory, or takes it away. What is there is counted in the background. Administrator only.
    pub async fn set_quota(&self, place: impl Into<Place>, limits: Option<Limits>) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let action = if limits.is_some() { "set the quota of" } else { "take away the quota of" };
        done(self.change(action, &subject, Change::SetQuota { place, limits }).await?, action, &subject)
    }
}
