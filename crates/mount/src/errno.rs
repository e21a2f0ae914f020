//! Errors as the kernel knows them.

use client::{Error, ErrorKind};
use types::meta::MetaError;

/// An error number of `libc`, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

/// What an operation that fails gives.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

impl From<Error> for Errno {
    fn from(error: Error) -> Errno {
        let number = match error.refusal() {
            Some(refusal) => refused(refusal),
            None => failed(error.kind()),
        };
        // What a program cannot be told in a number, whoever looks after the mount can read.
        if matches!(number, libc::EIO | libc::ENOSPC) {
            tracing::warn!(%error, "an operation failed");
        }
        Errno(number)
    }
}

fn refused(refusal: &MetaError) -> i32 {
    match refusal {
        MetaError::NotFound => libc::ENOENT,
        MetaError::Exists => libc::EEXIST,
        MetaError::NotDirectory => libc::ENOTDIR,
        MetaError::IsDirectory => libc::EISDIR,
        MetaError::NotEmpty => libc::ENOTEMPTY,
        MetaError::Denied => libc::EACCES,
        MetaError::Loop => libc::ELOOP,
        MetaError::IntoItself | MetaError::Invalid => libc::EINVAL,
        MetaError::NameTooLong => libc::ENAMETOOLONG,
        MetaError::NoXattr => libc::ENODATA,
        MetaError::TooLarge => libc::EFBIG,
        MetaError::TooManyLinks => libc::EMLINK,
        MetaError::Busy | MetaError::InSnapshot | MetaError::HasSnapshots => libc::EBUSY,
        MetaError::ReadOnly => libc::EROFS,
        MetaError::QuotaExceeded => libc::EDQUOT,
        MetaError::NoRoom | MetaError::StoreFull => libc::ENOSPC,
        MetaError::CrossesQuota => libc::EXDEV,
        MetaError::NoClass
        | MetaError::SessionOver
        | MetaError::LeaseOver
        | MetaError::TooOld
        | MetaError::Undone
        | MetaError::Unavailable
        | MetaError::TooFewTargets { .. } => libc::EIO,
    }
}

fn failed(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::Denied => libc::EACCES,
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::Exists => libc::EEXIST,
        ErrorKind::NotDirectory => libc::ENOTDIR,
        ErrorKind::IsDirectory => libc::EISDIR,
        ErrorKind::NotEmpty => libc::ENOTEMPTY,
        ErrorKind::Invalid => libc::EINVAL,
        ErrorKind::Full => libc::ENOSPC,
        ErrorKind::Busy
        | ErrorKind::NotReachable
        | ErrorKind::TooFewTargets
        | ErrorKind::Damaged
        | ErrorKind::Context
        | ErrorKind::Local
        | ErrorKind::SessionOver
        | ErrorKind::Broken => libc::EIO,
    }
}
