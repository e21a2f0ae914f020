//! What etcd is asked about itself, and told to do with itself: messages of its services Maintenance and Cluster, by hand as those of
//! [`super::api`].

use super::link::{CallError, Leader, Link, RANGE};
use super::{api, turns};
use prost::{Enumeration, Message};
use std::time::Duration;

const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
const MEMBERS: &str = "/etcdserverpb.Cluster/MemberList";

/// A member that has not said how it is after this is taken for one that is not there.
const WAIT: Duration = Duration::from_millis(1500);
/// Defragmentation writes all that is in use anew: some hundred megabytes a second on a good disk, and some gigabytes are the most there is.
const DEFRAGMENTATION: Duration = Duration::from_secs(600);

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct MemberHeader {
    /// Who answers.
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StatusRequest {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<MemberHeader>,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    /// Of its file.
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
    /// 0: it knows of none.
    #[prost(uint64, tag = "4")]
    pub(super) leader: u64,
    /// What is in use of the file.
    #[prost(int64, tag = "9")]
    pub(super) used: i64,
    /// From version 3.6 on.
    #[prost(int64, tag = "12")]
    pub(super) quota: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(super) enum AlarmAction {
    Get = 0,
    Deactivate = 2,
}

/// The quota is used up.
pub(super) const NO_SPACE: i32 = 1;
/// A member holds something else than the others.
pub(super) const CORRUPT: i32 = 2;

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AlarmRequest {
    #[prost(enumeration = "AlarmAction", tag = "1")]
    pub(super) action: i32,
    /// 0: of all members.
    #[prost(uint64, tag = "2")]
    pub(super) member: u64,
    /// 0: all alarms.
    #[prost(int32, tag = "3")]
    pub(super) alarm: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AlarmResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) alarms: Vec<Alarm>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Alarm {
    #[prost(uint64, tag = "1")]
    pub(super) member: u64,
    #[prost(int32, tag = "2")]
    pub(super) alarm: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DefragmentRequest {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DefragmentResponse {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct MemberListRequest {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct MemberListResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) members: Vec<ClusterMember>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ClusterMember {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// Empty as long as it has not been started.
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) client_urls: Vec<String>,
}

impl Link {
    /// What a member says of itself. It need not know of a leader.
    pub(super) async fn status(&self, member: usize) -> Result<StatusResponse, CallError> {
        self.ask_member(member, STATUS, StatusRequest {}, (WAIT, Leader::NotNeeded)).await
    }

    /// All members of the cluster.
    pub(super) async fn members(&self) -> Result<Vec<ClusterMember>, CallError> {
        let answer: MemberListResponse = self.ask_any(MEMBERS, MemberListRequest {}).await?;
        Ok(answer.members)
    }

    /// All alarms that are raised.
    pub(super) async fn alarms(&self) -> Result<Vec<Alarm>, CallError> {
        let request = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
        let answer: AlarmResponse = self.ask_any(ALARM, request).await?;
        Ok(answer.alarms)
    }

    /// Has it taken back that the quota of a member is used up. Does nothing if that is not said.
    pub(super) async fn disarm(&self, member: u64) -> Result<(), CallError> {
        let action = AlarmAction::Deactivate.into();
        let request = AlarmRequest { action, member, alarm: NO_SPACE };
        self.ask_any::<_, AlarmResponse>(ALARM, request).await.map(drop)
    }

    /// Whether a member does its work: it has taken in what the leader has by now, and reads its file. One that is defragmented does not.
    pub(super) async fn works(&self, member: usize) -> Result<(), CallError> {
        let request =
            api::RangeRequest { key: turns::BELOW.to_vec(), limit: 1, ..api::RangeRequest::default() };
        let answer: Result<api::RangeResponse, _> =
            self.ask_member(member, RANGE, request, (WAIT, Leader::Needed)).await;
        answer.map(drop)
    }

    /// Has a member write its file anew, without what is free in it. It does nothing else meanwhile.
    pub(super) async fn defragment(&self, member: usize) -> Result<(), CallError> {
        let request = DefragmentRequest {};
        let answer: Result<DefragmentResponse, _> =
            self.ask_member(member, DEFRAGMENT, request, (DEFRAGMENTATION, Leader::NotNeeded)).await;
        answer.map(drop)
    }
}
