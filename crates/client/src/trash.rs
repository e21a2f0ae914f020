//! The trash.

use crate::tree::done;
use crate::{Client, Error, Result};
use types::Duration;
use types::meta::{Change, MetaReply, MetaRequest};
use types::trash::{TRASH_PAGE_MAX, TrashPolicy, Trashed, Whose};

/// Where everybody's trash is.
const TRASH: &str = "/.trash";

impl Client {
    /// What is in the trash.
    pub async fn trash(&self, whose: Whose) -> Result<Vec<Trashed>> {
        const ACTION: &str = "list the trash";
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let request = MetaRequest::Trash { whose, after, limit: TRASH_PAGE_MAX };
            let MetaReply::Trash { items, next } = self.meta(ACTION, TRASH, &request).await? else {
                return Err(Error::unexpected(ACTION, TRASH));
            };
            all.extend(items);
            if next.is_none() {
                return Ok(all);
            }
            after = next;
        }
    }

    /// How long what is removed is kept, of all classes.
    pub async fn trash_policies(&self) -> Result<Vec<TrashPolicy>> {
        const ACTION: &str = "ask how long the trash is kept";
        match self.meta(ACTION, "", &MetaRequest::TrashPolicies).await? {
            MetaReply::TrashPolicies(policies) => Ok(policies),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }

    /// Says how long what is removed of a class is kept; `None`: not at all. What is in the trash by then stays as long as it was
    /// told. Administrator only.
    pub async fn set_trash(&self, class: &str, keep: Option<Duration>) -> Result<()> {
        const ACTION: &str = "set how long is kept what is removed of the class";
        let change = Change::SetTrash { class: class.to_owned(), keep };
        done(self.change(ACTION, class, change).await?, ACTION, class)
    }

    /// The path at which something in the trash is.
    pub fn trash_path(item: &Trashed) -> String {
        format!("{TRASH}/{}/{}", item.uid.0, item.name)
    }
}
