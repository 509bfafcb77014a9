//! Leases: grant, revoke, keep alive, time to live.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use store_core::errors::RequestError;
use store_core::mvcc::Answer;
use store_core::wire::command::Request as Command;
use store_core::wire::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeMany, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::services::lease_server::Lease;
use super::{Service, status};

type Reply<T> = Result<Response<T>, Status>;

/// A number for a lease whose client left the choice to us; never 0, never negative.
fn choose_id(service: &Service) -> i64 {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(service.engine.id);
    i64::try_from(random >> 1).unwrap_or(1).max(1)
}

#[tonic::async_trait]
impl Lease for Service {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Reply<LeaseGrantResponse> {
        let mut request = request.into_inner();
        if request.id == 0 {
            request.id = choose_id(self);
        }
        let (answer, revision) = self.engine.propose(Command::LeaseGrant(request)).await.map_err(status)?;
        let Answer::LeaseGrant(id, ttl) = answer else {
            return Err(Status::internal("the answer doesn't fit its command"));
        };
        Ok(Response::new(LeaseGrantResponse { header: self.header(revision), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<LeaseRevokeRequest>) -> Reply<LeaseRevokeResponse> {
        let command = Command::LeaseRevoke(LeaseRevokeMany { ids: vec![request.into_inner().id] });
        let (_, revision) = self.engine.propose(command).await.map_err(status)?;
        Ok(Response::new(LeaseRevokeResponse { header: self.header(revision) }))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Reply<Self::LeaseKeepAliveStream> {
        let service = self.clone();
        let answers = request.into_inner().then(move |request| {
            let service = service.clone();
            async move {
                let id = request?.id;
                let left = service.engine.keep_alive(&service.peers, id, true).await;
                let ttl = left.ok_or_else(|| status(RequestError::NoLeader))?;
                // A lease that is gone has a time to live of 0.
                Ok(LeaseKeepAliveResponse { header: service.header_now(), id, ttl: ttl.max(0) })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(&self, request: Request<LeaseTimeToLiveRequest>) -> Reply<LeaseTimeToLiveResponse> {
        let request = request.into_inner();
        self.engine.linearize().await.map_err(status)?;
        let left = self.engine.keep_alive(&self.peers, request.id, false).await;
        let ttl = left.ok_or_else(|| status(RequestError::NoLeader))?;
        let (granted, keys) = {
            let (mvcc, _) = self.engine.state.read();
            let keys = if request.keys { mvcc.lease_keys(request.id) } else { Vec::new() };
            (mvcc.lease_ttl(request.id).unwrap_or(0), keys)
        };
        Ok(Response::new(LeaseTimeToLiveResponse {
            header: self.header_now(),
            id: request.id,
            ttl,
            granted_ttl: granted,
            keys,
        }))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Reply<LeaseLeasesResponse> {
        self.engine.linearize().await.map_err(status)?;
        let leases = self.engine.state.read().0.leases().map(|(id, _)| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.header_now(), leases }))
    }
}
