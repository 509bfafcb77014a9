//! Cluster: members are added, updated, promoted, removed and listed.

use std::time::{SystemTime, UNIX_EPOCH};

use store_core::errors::RequestError;
use store_core::membership::Members;
use store_core::wire::member_change::Change;
use store_core::wire::{
    Member, MemberAddRequest, MemberAddResponse, MemberChange, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse, ResponseHeader,
};
use tonic::{Request, Response, Status};

use super::services::cluster_server::Cluster;
use super::{Service, status};
use crate::config::{member_id, url_parts};

type Reply<T> = Result<Response<T>, Status>;

fn list(members: &Members) -> Vec<Member> {
    members.iter().cloned().collect()
}

fn check_urls(urls: &[String]) -> Result<(), Status> {
    if urls.is_empty() || urls.iter().any(|url| url_parts(url).is_err()) {
        return Err(status(RequestError::BadMemberUrls));
    }
    Ok(())
}

impl Service {
    /// The header of answers about members: as in etcd it carries no revision.
    fn member_header(&self) -> Option<ResponseHeader> {
        self.header(0)
    }

    async fn change_members(&self, change: Change) -> Result<Members, Status> {
        self.engine.change_members(&self.peers, change).await.map_err(status)
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Reply<MemberAddResponse> {
        let MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        check_urls(&peer_ur_ls)?;
        // The time tells it from an earlier member at the same URLs.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let id = member_id(&peer_ur_ls, &self.config.initial_cluster_token, &now.to_be_bytes());
        let member = Member { id, peer_ur_ls, is_learner, ..Member::default() };
        let members = self.change_members(Change::Add(member.clone())).await?;
        let header = self.member_header();
        Ok(Response::new(MemberAddResponse { header, member: Some(member), members: list(&members) }))
    }

    async fn member_remove(&self, request: Request<MemberRemoveRequest>) -> Reply<MemberRemoveResponse> {
        let members = self.change_members(Change::Remove(request.into_inner().id)).await?;
        Ok(Response::new(MemberRemoveResponse { header: self.member_header(), members: list(&members) }))
    }

    async fn member_update(&self, request: Request<MemberUpdateRequest>) -> Reply<MemberUpdateResponse> {
        let asker = self.asker(&request);
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        check_urls(&peer_ur_ls)?;
        let change = Change::Update(Member { id, peer_ur_ls, ..Member::default() });
        self.engine.propose_member(&asker, MemberChange { change: Some(change) }).await.map_err(status)?;
        let members = list(&self.engine.state.members());
        Ok(Response::new(MemberUpdateResponse { header: self.member_header(), members }))
    }

    async fn member_promote(&self, request: Request<MemberPromoteRequest>) -> Reply<MemberPromoteResponse> {
        let members = self.change_members(Change::Promote(request.into_inner().id)).await?;
        Ok(Response::new(MemberPromoteResponse { header: self.member_header(), members: list(&members) }))
    }

    async fn member_list(&self, request: Request<MemberListRequest>) -> Reply<MemberListResponse> {
        if request.into_inner().linearizable {
            self.engine.linearize().await.map_err(status)?;
        }
        let members = list(&self.engine.state.members());
        Ok(Response::new(MemberListResponse { header: self.member_header(), members }))
    }
}
