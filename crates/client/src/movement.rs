//! Moving data between targets, as an administrator sees it.

use crate::{Client, Error, ErrorKind, Result};
use types::manager::{ManagerError, ManagerReply, ManagerRequest};
use types::meta::MetaError;
use types::movement::{Direction, Movement};

impl Client {
    /// How the moving of data goes.
    pub async fn movement(&self) -> Result<Movement> {
        const ACTION: &str = "ask how data is moved";
        match self.call_manager(ACTION, &ManagerRequest::Movement).await? {
            Ok(ManagerReply::Movement(movement)) => Ok(*movement),
            Ok(_) => Err(Error::unexpected(ACTION, "")),
            Err(refused) => Err(refusal(ACTION, "", &refused)),
        }
    }

    /// Tells the manager how data is to be moved; `subject` says what about, in errors. Administrator only. Durable when this
    /// returns.
    pub async fn direct(&self, action: &str, subject: &str, direction: Direction) -> Result<()> {
        match self.call_manager(action, &ManagerRequest::Direct(direction)).await? {
            Ok(ManagerReply::Done) => Ok(()),
            Ok(_) => Err(Error::unexpected(action, subject)),
            Err(refused) => Err(refusal(action, subject, &refused)),
        }
    }
}

fn refusal(action: &str, subject: &str, refused: &ManagerError) -> Error {
    let error = |kind, cause: &str| Error::new(kind, action, subject, cause);
    match refused {
        ManagerError::Denied => error(ErrorKind::Denied, "permission denied: only the administrator may"),
        ManagerError::NotFound => {
            error(ErrorKind::NotFound, "there is none of this number").advise("see `sr node ls`")
        }
        ManagerError::InUse { chains } => error(ErrorKind::Busy, &format!("{chains} chains still use it"))
            .advise("drain it first, and wait: `sr target drain ID --wait`"),
        ManagerError::Present => error(ErrorKind::Busy, "it is still there, or has targets")
            .advise("take it out of its server's configuration, or stop the server, then do this again"),
        ManagerError::TooFewTargets { targets, apart } => error(
            ErrorKind::TooFewTargets,
            &format!("of the {targets} targets it may use, {apart} share none of its domains"),
        ),
        ManagerError::StoreFull => Error::meta(action, subject, &MetaError::StoreFull),
        ManagerError::NotManager | ManagerError::Unavailable => {
            error(ErrorKind::NotReachable, "the manager is not there")
        }
        ManagerError::Unknown | ManagerError::Invalid => {
            error(ErrorKind::Invalid, "the manager refused the request")
        }
    }
}
