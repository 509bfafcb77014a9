//! etcd's v3 API.

mod auth;
mod cluster;
mod downgrade;
mod election;
mod fragment;
mod kv;
mod large;
mod leader;
mod lease;
mod lock;
mod maintenance;
mod places;
mod range_stream;
mod watch;

use std::fmt::Display;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::Response;
use store_core::errors::RequestError;
use store_core::wire::ResponseHeader;
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::auth::Recognition;
use crate::config::Config;
use crate::engine::Engine;
use crate::peers::Peers;

/// Generated services; their messages are store-core's.
#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated from etcd.proto")]
#[allow(unreachable_pub, reason = "generated")]
pub(crate) mod services {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// Generated: locks.
#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated from lock.proto")]
#[allow(unreachable_pub, reason = "generated")]
mod locks {
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
}

/// Generated: elections.
#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated from election.proto")]
#[allow(unreachable_pub, reason = "generated")]
mod elections {
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
}

use elections::election_server::ElectionServer;
pub(crate) use large::{Made, as_made};
use locks::lock_server::LockServer;
use services::auth_server::AuthServer;
use services::cluster_server::ClusterServer;
use services::kv_server::KvServer;
use services::lease_server::LeaseServer;
use services::maintenance_server::MaintenanceServer;
use services::watch_server::WatchServer;

/// The etcd version whose API this is. Clients turn features on by it.
pub(crate) const VERSION: &str = "3.6.0";

/// What every service works with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) engine: Arc<Engine>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) recognition: Arc<Recognition>,
    pub(crate) config: Arc<Config>,
    pub(crate) cluster_id: u64,
}

impl Service {
    pub(crate) fn header(&self, revision: i64) -> Option<ResponseHeader> {
        let term = self.engine.position_now().term;
        Some(ResponseHeader { cluster_id: self.cluster_id, member_id: self.engine.id, revision, raft_term: term })
    }

    /// Whether this member only learns, and doesn't vote yet.
    pub(crate) fn is_learner(&self) -> bool {
        self.engine.is_learner()
    }

    /// The header at the newest revision of this member.
    pub(crate) fn header_now(&self) -> Option<ResponseHeader> {
        let revision = self.engine.state.read().revision();
        self.header(revision)
    }
}

/// All services on one router.
pub(crate) fn routes(service: &Service) -> Routes {
    let kv = KvServer::new(service.clone()).max_decoding_message_size(service.config.max_message_bytes());
    Routes::new(kv.max_encoding_message_size(usize::MAX))
        .add_service(AuthServer::new(service.clone()))
        .add_service(WatchServer::new(service.clone()).max_encoding_message_size(usize::MAX))
        .add_service(LeaseServer::new(service.clone()))
        .add_service(ClusterServer::new(service.clone()))
        .add_service(MaintenanceServer::new(service.clone()))
        .add_service(LockServer::new(service.clone()))
        .add_service(ElectionServer::new(service.clone()))
        // gRPC's own question, which balancers ask: as in etcd, who answers at all serves.
        .add_service(tonic_health::server::health_reporter().1)
}

/// What a learner answers; a range only if it is serializable.
const LEARNERS_PATHS: [&str; 3] =
    ["/etcdserverpb.KV/Range", "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Snapshot"];

impl Service {
    /// Turns away what a learner can't answer, and while nobody leads who wants to be told so. Source: etcd
    /// `isRPCSupportedForLearner`, `server/etcdserver/api/v3rpc/interceptor.go`.
    pub(crate) fn refuse_early(&self, path: &str, headers: &HeaderMap) -> Result<(), Status> {
        if self.is_learner() && !LEARNERS_PATHS.contains(&path) {
            return Err(status(RequestError::NotForLearner));
        }
        if leader::wants_leader(headers) && self.engine.position_now().leader == 0 {
            return Err(status(RequestError::NoLeader));
        }
        Ok(())
    }
}

/// Says of a message that is too large what Go's gRPC says, in which tonic differs by code and words.
/// Source: grpc-go `rpc_util.go`, `recvMsg`.
pub(crate) fn in_gos_words(response: Response) -> Response {
    // Only a refusal has its status in front.
    if !response.headers().contains_key("grpc-status") {
        return response;
    }
    let large = Status::from_header_map(response.headers()).and_then(|status| said_too_large(status.message()));
    large.map_or(response, Status::into_http)
}

/// Go's words for tonic's.
fn said_too_large(message: &str) -> Option<Status> {
    let sizes = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = sizes.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    Some(too_large(found, limit))
}

/// A message is larger than what is taken.
pub(crate) fn too_large(found: impl Display, limit: impl Display) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

/// The one place where errors become gRPC codes. Source: etcd `rpctypes/error.go`.
pub(crate) fn status(error: RequestError) -> Status {
    use RequestError as E;
    let code = match error {
        E::EmptyKey
        | E::KeyNotFound
        | E::ValueProvided
        | E::LeaseProvided
        | E::TooManyOps
        | E::DuplicateKey
        | E::InvalidSort
        | E::TooLarge
        | E::BadMemberUrls
        | E::UserEmpty
        | E::RoleEmpty
        | E::AuthFailed
        | E::PermissionNotGiven
        | E::DowngradeVersionFormat
        | E::DowngradeTarget
        | E::InvalidAuthMgmt
        | E::AuthOldRevision => Code::InvalidArgument,
        E::RootUserMissing
        | E::RootRoleMissing
        | E::UserExists
        | E::UserNotFound
        | E::RoleExists
        | E::RoleNotFound
        | E::RoleNotGranted
        | E::PermissionNotGranted
        | E::AuthNotEnabled => Code::FailedPrecondition,
        E::PermissionDenied => Code::PermissionDenied,
        E::InvalidAuthToken => Code::Unauthenticated,
        // etcd gives these no code.
        E::PasswordTooLong | E::VerifyOnly | E::UnknownMethod | E::TransferTimeout => Code::Unknown,
        E::Compacted | E::Future | E::LeaseTooLong => Code::OutOfRange,
        E::LeaseNotFound | E::MemberNotFound => Code::NotFound,
        E::LeaseExists
        | E::MemberExists
        | E::PeerUrlExists
        | E::NotEnoughStarted
        | E::MemberNotLearner
        | E::LearnerNotReady
        | E::TooManyLearners
        | E::NotForLearner
        | E::NotLeader
        | E::BadTransferee => Code::FailedPrecondition,
        E::StreamSort | E::StreamFilter | E::NoDowngrade => Code::Unimplemented,
        E::Busy | E::NoSpace => Code::ResourceExhausted,
        E::NoLeader | E::Timeout | E::LeaderFailed | E::Stopped | E::Unhealthy => Code::Unavailable,
        E::CopyFailed => Code::Internal,
        E::Disk | E::Corrupt => Code::DataLoss,
    };
    Status::new(code, error.to_string())
}

#[cfg(test)]
mod tests;
