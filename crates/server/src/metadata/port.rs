//! The service at the port: requests decoded, answers encoded, each with its name for the metrics.

use super::{MetaService, caller};
use crate::dispatch::{Answered, Port};
use bytes::Bytes;
use kv::Store;
use net::{Identity, Peer};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use types::making::Making;
use types::meta::{Change, MetaError, MetaReply, MetaRequest};
use types::wire::{Answer, WireVersion};
use types::{HolderId, wire};

impl<S: Store> Port for MetaService<S> {
    fn answer(
        self: Arc<Self>,
        peer: Arc<Peer>,
        body: Bytes,
        payload: Bytes,
    ) -> (&'static str, Pin<Box<dyn Future<Output = Answered> + Send>>) {
        let version = peer.wire_version;
        match wire::decode::<MetaRequest>(&body) {
            Ok(request) => {
                let name = name(&request);
                if matches!((&request, &peer.identity), (MetaRequest::Peer { .. }, Identity::User(_))) {
                    return (name, Box::pin(std::future::ready(answered(&Err(MetaError::Denied), version))));
                }
                let future = async move {
                    let caller = caller(&peer.identity);
                    match wire::decode::<HolderId>(&payload) {
                        Ok(holder) => {
                            let (outcome, news) = self.tell(&caller, holder, request).await;
                            let payload = news.map_or(Bytes::new(), |news| wire::encode(&news).into());
                            Answered { payload, ..answered(&outcome, version) }
                        }
                        Err(wire::Malformed) => {
                            answered(&MetaService::answer(&self, &caller, request).await, version)
                        }
                    }
                };
                (name, Box::pin(future))
            }
            Err(wire::Malformed) => {
                ("malformed", Box::pin(std::future::ready(answered(&Err(MetaError::Invalid), version))))
            }
        }
    }
}

fn answered(outcome: &Result<MetaReply, MetaError>, version: WireVersion) -> Answered {
    Answered { body: outcome.encoded_for(version), payload: Bytes::new(), ok: outcome.is_ok() }
}

/// A request's name in the metrics.
fn name(request: &MetaRequest) -> &'static str {
    match request {
        MetaRequest::Stat { .. } => "stat",
        MetaRequest::Open { .. } => "open",
        MetaRequest::List { .. } => "list",
        MetaRequest::GetXattr { .. } => "get_xattr",
        MetaRequest::ListXattrs { .. } => "list_xattrs",
        MetaRequest::Totals => "totals",
        MetaRequest::Classes => "classes",
        MetaRequest::ExplainClass { .. } => "explain_class",
        MetaRequest::PathOf { .. } => "path_of",
        MetaRequest::Fates { .. } => "fates",
        MetaRequest::FatesIn { .. } => "fates_in",
        MetaRequest::Followings => "followings",
        MetaRequest::ToFollow { .. } => "to_follow",
        MetaRequest::Sessions => "sessions",
        MetaRequest::TestLock { .. } => "test_lock",
        MetaRequest::Hold { .. } => "hold",
        MetaRequest::Recalls { .. } => "recalls",
        MetaRequest::Trash { .. } => "trash",
        MetaRequest::TrashPolicies => "trash_policies",
        MetaRequest::Quotas => "quotas",
        MetaRequest::Snapshots => "snapshots",
        MetaRequest::KeepBytes { .. } => "keep_bytes",
        MetaRequest::Peer { .. } => "peer",
        MetaRequest::Servers => "servers",
        MetaRequest::Store => "store",
        MetaRequest::Flush { .. } => "flush",
        MetaRequest::ExportRows { .. } => "export_rows",
        MetaRequest::ExportChanges { .. } => "export_changes",
        MetaRequest::Change { change, .. } | MetaRequest::ChangeFor { change, .. } => match change {
            Change::Create { .. } => "create",
            Change::MakeDirectory { .. } => "make_directory",
            Change::Make { what, .. } => match &**what {
                Making::Create { .. } => "create",
                Making::Directory { .. } => "make_directory",
                Making::Publish(_) => "publish",
                Making::Nameless { .. } => "create_nameless",
            },
            Change::MakeSymbolicLink { .. } => "make_symbolic_link",
            Change::Link { .. } => "link",
            Change::Unlink { .. } => "unlink",
            Change::RemoveDirectory { .. } => "remove_directory",
            Change::RemoveTree { .. } => "remove_tree",
            Change::Rename { .. } => "rename",
            Change::SetAttributes { .. } => "set_attributes",
            Change::SetXattr { .. } => "set_xattr",
            Change::RemoveXattr { .. } => "remove_xattr",
            Change::LeaseInodes { .. } => "lease_inodes",
            Change::RenewLease { .. } => "renew_lease",
            Change::Publish(_) => "publish",
            Change::Resize { .. } => "resize",
            Change::Grow { .. } => "grow",
            Change::Reseed { .. } => "reseed",
            Change::OpenAppend { .. } => "open_append",
            Change::ExtendAppend { .. } => "extend_append",
            Change::CloseAppend { .. } => "close_append",
            Change::MakeClass { .. } => "make_class",
            Change::SetClass { .. } => "set_class",
            Change::SetTrash { .. } => "set_trash",
            Change::SetQuota { .. } => "set_quota",
            Change::MakeSnapshot { .. } => "make_snapshot",
            Change::RemoveSnapshot { .. } => "remove_snapshot",
            Change::Bury { .. } => "bury",
            Change::FollowClass { .. } => "follow_class",
            Change::StopFollowing { .. } => "stop_following",
            Change::NoteFollowing { .. } => "note_following",
            Change::BeginRecode { .. } => "begin_recode",
            Change::RenewRecode { .. } => "renew_recode",
            Change::EndRecode { .. } => "end_recode",
            Change::DropRecode { .. } => "drop_recode",
            Change::BeginSession { .. } => "begin_session",
            Change::RenewSession { .. } => "renew_session",
            Change::EndSession { .. } => "end_session",
            Change::Lock { .. } => "lock",
            Change::Unlock { .. } => "unlock",
            Change::UnlockOwner { .. } => "unlock_owner",
        },
    }
}
