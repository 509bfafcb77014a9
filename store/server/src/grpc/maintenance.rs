//! Cluster and maintenance: members, status, alarms.

use store_core::errors::RequestError;
use store_core::wire::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo, Member, MemberListRequest,
    MemberListResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
};
use tonic::{Request, Response, Status};

use super::services::cluster_server::Cluster;
use super::services::maintenance_server::Maintenance;
use super::{Service, VERSION, status};

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(&self, request: Request<MemberListRequest>) -> Reply<MemberListResponse> {
        if request.into_inner().linearizable {
            self.engine.linearize().await.map_err(status)?;
        }
        let own = |id: u64| id == self.engine.id;
        let members = self.config.members().into_iter().map(|m| Member {
            id: m.id,
            client_ur_ls: if own(m.id) { self.config.advertise_client_urls.clone() } else { Vec::new() },
            name: m.name,
            peer_ur_ls: vec![m.peer_url],
            is_learner: false,
        });
        Ok(Response::new(MemberListResponse { header: self.header_now(), members: members.collect() }))
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Reply<StatusResponse> {
        let position = *self.engine.position().borrow();
        let size = self.engine.state.size();
        let mut errors = Vec::new();
        if position.leader == 0 {
            errors.push(RequestError::NoLeader.to_string());
        }
        Ok(Response::new(StatusResponse {
            header: self.header_now(),
            version: VERSION.to_owned(),
            db_size: size,
            leader: position.leader,
            raft_index: position.committed,
            raft_term: position.term,
            raft_applied_index: self.engine.applied(),
            errors,
            db_size_in_use: size,
            storage_version: VERSION.to_owned(),
            downgrade_info: Some(DowngradeInfo::default()),
            ..StatusResponse::default()
        }))
    }

    async fn alarm(&self, request: Request<AlarmRequest>) -> Reply<AlarmResponse> {
        match AlarmAction::try_from(request.into_inner().action) {
            // There is no quota yet, so no alarm is ever raised; there is none to end either.
            Ok(AlarmAction::Get | AlarmAction::Deactivate) => {
                Ok(Response::new(AlarmResponse { header: self.header_now(), alarms: Vec::new() }))
            }
            _ => Err(Status::unimplemented("alarms can't be raised by hand")),
        }
    }

    /// Space is reclaimed as it is freed: there is nothing to defragment, now or ever.
    async fn defragment(&self, _: Request<DefragmentRequest>) -> Reply<DefragmentResponse> {
        Ok(Response::new(DefragmentResponse { header: self.header_now() }))
    }
}
