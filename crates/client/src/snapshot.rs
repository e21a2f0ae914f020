//! Snapshots: making and removing them, and what whoever writes a file does for those that show it.

use crate::call::WhenBusy;
use crate::tree::{describe, done};
use crate::{Client, Error, ErrorKind, Result};
use types::Rights;
use types::meta::{Change, Follow, MetaError, MetaReply, MetaRequest, Place};
use types::snapshot::Snapshot;

/// What errors say was being done.
const KEEP: &str = "keep for a snapshot";
/// How often it is asked again: each time another snapshot was made meanwhile.
const TRIES: u32 = 20;

/// How the right to write a file is asked for.
pub(crate) enum ToWrite {
    Open,
    Change(Change, WhenBusy),
}

impl Client {
    /// The snapshots: all for the administrator, otherwise those of directories that this user may read.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        const ACTION: &str = "list the snapshots";
        match self.meta(ACTION, "", &MetaRequest::Snapshots).await? {
            MetaReply::Snapshots(snapshots) => Ok(snapshots),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }

    /// Makes a snapshot of a directory: it shows all that was answered before this was called, and nothing of what begins after it has
    /// returned. What programs have written and is not at the servers yet is not in it. Administrator only.
    pub async fn make_snapshot(&self, place: impl Into<Place>, name: &str) -> Result<Snapshot> {
        const ACTION: &str = "make a snapshot of";
        let place = place.into();
        let subject = describe(&place);
        let change = Change::MakeSnapshot { place, name: name.to_owned() };
        match self.change(ACTION, &subject, change).await {
            Ok(MetaReply::Snapshots(made)) => {
                made.into_iter().next().ok_or_else(|| Error::unexpected(ACTION, &subject))
            }
            Ok(_) => Err(Error::unexpected(ACTION, &subject)),
            Err(error) if error.refusal() == Some(&MetaError::LeaseOver) => {
                let cause = "not all storage servers could be told in time";
                Err(Error::new(ErrorKind::NotReachable, ACTION, &subject, cause))
            }
            Err(error) if error.refusal() == Some(&MetaError::TooManyLinks) => {
                let cause = "there are as many snapshots as there can be (256)";
                let error = Error::new(ErrorKind::Full, ACTION, &subject, cause);
                Err(error.advise("remove some (`sr snapshot rm`)"))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a snapshot of a directory; space returns in the background. Administrator only.
    pub async fn remove_snapshot(&self, place: impl Into<Place>, name: &str) -> Result<()> {
        const ACTION: &str = "remove a snapshot of";
        let place = place.into();
        let subject = describe(&place);
        let change = Change::RemoveSnapshot { place, name: name.to_owned() };
        done(self.change(ACTION, &subject, change).await?, ACTION, &subject)
    }

    /// Asks for the right to write a file, and once more when its bytes have been kept for the snapshots that show them.
    pub(crate) async fn right_to_write(
        &self,
        action: &str,
        subject: &str,
        place: &Place,
        ask: ToWrite,
    ) -> Result<MetaReply> {
        let mut tries = 0;
        loop {
            let answer = match &ask {
                ToWrite::Open => {
                    let request = MetaRequest::Open { place: place.clone(), rights: Rights::ReadWrite };
                    self.meta(action, subject, &request).await
                }
                ToWrite::Change(change, busy) => {
                    self.change_unless_busy(action, subject, change.clone(), *busy).await
                }
            };
            tries += 1;
            match answer {
                Err(error) if error.refusal() == Some(&MetaError::InSnapshot) && tries < TRIES => {
                    self.keep_bytes(place).await?;
                }
                answer => return answer,
            }
        }
    }

    /// Has the servers keep the bytes of a file for the snapshots that show them.
    async fn keep_bytes(&self, place: &Place) -> Result<()> {
        let subject = describe(place);
        let request = MetaRequest::Stat { place: place.clone(), follow: Follow::Yes };
        let attributes = crate::tree::attributes(self.meta(KEEP, &subject, &request).await?, KEEP, &subject)?;
        let keep = MetaRequest::KeepBytes { inode: attributes.inode };
        done(self.meta(KEEP, &subject, &keep).await?, KEEP, &subject)
    }
}
