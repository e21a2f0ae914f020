//! What an administrator asks of the servers' care for the data: the scrub, and where members of a chain differ.

use crate::{Client, Error, Result};
use types::scrub::{Difference, ScrubOrder, ScrubStatus};
use types::storage::{StorageReply, StorageRequest};
use types::{NodeId, TargetId};

impl Client {
    /// Gives the scrub of some targets (none named: of all) an order, and asks how it is then, of each storage server by
    /// itself. More than looking takes the administrator.
    pub async fn scrub(
        &self,
        targets: &[TargetId],
        order: ScrubOrder,
    ) -> Result<Vec<(NodeId, Result<Vec<ScrubStatus>>)>> {
        let action = if order == ScrubOrder::Show { "ask for the scrub" } else { "order the scrub" };
        let routing = self.newest_routing().await?;
        let request = StorageRequest::Scrub { targets: targets.to_vec(), order };
        let answers = self.ask_nodes(action, &routing, request).await;
        let statuses = answers.into_iter().map(|(node, answer)| {
            let statuses = answer.and_then(|reply| match reply {
                StorageReply::Scrub(statuses) => Ok(statuses),
                _ => Err(Error::unexpected(action, &node.to_string())),
            });
            (node, statuses)
        });
        Ok(statuses.collect())
    }

    /// Where members of chains say different things. Servers that do not answer are left out.
    pub async fn differences(&self) -> Result<Vec<(Difference, Option<String>)>> {
        const ACTION: &str = "ask for differences";
        let routing = self.newest_routing().await?;
        let mut all = Vec::new();
        for (node, answer) in self.ask_nodes(ACTION, &routing, StorageRequest::Differences).await {
            match answer {
                Ok(StorageReply::Differences(found)) => {
                    for difference in found {
                        all.push((difference, self.path_of(difference.chunk.inode).await));
                    }
                }
                Ok(_) => return Err(Error::unexpected(ACTION, &node.to_string())),
                Err(error) => tracing::warn!(%error, %node, "no word on differences"),
            }
        }
        Ok(all)
    }
}
