//! Calls: one request, one typed answer.

use crate::{Client, Result};
use types::meta::{Change, MetaReply, MetaRequest};

impl Client {
    pub(crate) async fn meta(&self, action: &str, subject: &str, request: &MetaRequest) -> Result<MetaReply> {
        let _ = (action, subject, request);
        unimplemented!()
    }
    pub(crate) async fn change(&self, action: &str, subject: &str, change: Change) -> Result<MetaReply> {
        let _ = (action, subject, change);
        unimplemented!()
    }
}
