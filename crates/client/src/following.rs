//! Files that follow the class of their path: what users say and ask, and what the one who moves them needs.

use crate::tree::{describe, done};
use crate::{Client, Error, Result};
use types::InodeId;
use types::following::{Amount, Cursor, Following, ToMove};
use types::meta::{Change, MetaReply, MetaRequest, Place};

/// What cannot be done to a walk that was stopped.
const NOTE: &str = "note how far the files are that follow";

impl Client {
    /// Sets the class of a directory (`None`: as its parent), as [`Client::set_class`] does, and has all files below whose class
    /// it decides follow in the background.
    pub async fn follow_class(&self, place: impl Into<Place>, class: Option<String>) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let reply = self.change("set the class of", &subject, Change::FollowClass { place, class }).await?;
        self.shared.leases.clear();
        done(reply, "set the class of", &subject)
    }

    /// Has the files below a directory stay where they are by now. Fails with [`NotFound`](crate::ErrorKind::NotFound) when
    /// none of them is being moved.
    pub async fn stop_following(&self, place: impl Into<Place>) -> Result<()> {
        let place = place.into();
        let subject = describe(&place);
        let reply = self.change("stop moving files of", &subject, Change::StopFollowing { place }).await?;
        done(reply, "stop moving files of", &subject)
    }

    /// The directories whose files follow: those of this user, all for the administrator.
    pub async fn followings(&self) -> Result<Vec<Following>> {
        const ACTION: &str = "ask which files follow their class";
        match self.meta(ACTION, "", &MetaRequest::Followings).await? {
            MetaReply::Followings(all) => Ok(all),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }

    /// Files below a directory, behind a cursor, that are to be moved; and the next cursor, unless there are no more.
    /// Administrator only.
    pub async fn to_follow(
        &self,
        directory: InodeId,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<(Vec<ToMove>, Option<Cursor>)> {
        const ACTION: &str = "look for files that follow";
        let request = MetaRequest::ToFollow { directory, after, limit };
        match self.meta(ACTION, &directory.to_string(), &request).await? {
            MetaReply::ToFollow { files, next } => Ok((files, next)),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }

    /// Notes how far a walk is. True: it, or another one, goes on. Fails with [`Broken`](crate::ErrorKind::Broken) when it was
    /// stopped. Administrator only.
    pub async fn note_following(
        &self,
        (directory, number): (InodeId, u64),
        at: Option<Cursor>,
        met: Amount,
        trouble: Option<String>,
    ) -> Result<bool> {
        let change = Change::NoteFollowing { directory, number, at, met, trouble };
        match self.change(NOTE, &directory.to_string(), change).await? {
            MetaReply::Followed { goes_on } => Ok(goes_on),
            _ => Err(Error::unexpected(NOTE, "")),
        }
    }
}
