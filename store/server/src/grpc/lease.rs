//! Leases: grant, revoke, keep alive, time to live.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, future, stream};
use store_core::auth::Access;
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
use crate::auth::{Caller, guard};

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    fn check_lease(&self, caller: &Caller, id: i64, access: Access) -> Result<(), RequestError> {
        let (mvcc, auth) = self.engine.state.read_as_user();
        auth.lease(&mvcc, &caller.at(&auth), id, access)
    }
}

#[tonic::async_trait]
impl Lease for Service {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Reply<LeaseGrantResponse> {
        let asker = self.asker(&request);
        let mut request = request.into_inner();
        if request.id == 0 {
            request.id = self.engine.next_lease();
        }
        request.ttl = request.ttl.max(self.config.lease_ttl_min());
        let (answer, revision) = self.engine.propose(&asker, Command::LeaseGrant(request)).await.map_err(status)?;
        let Answer::LeaseGrant(id, ttl) = answer else {
            return Err(Status::internal("the answer doesn't fit its command"));
        };
        Ok(Response::new(LeaseGrantResponse { header: self.header(revision), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<LeaseRevokeRequest>) -> Reply<LeaseRevokeResponse> {
        let asker = self.asker(&request);
        let command = Command::LeaseRevoke(LeaseRevokeMany { ids: vec![request.into_inner().id] });
        let (_, revision) = self.engine.propose(&asker, command).await.map_err(status)?;
        Ok(Response::new(LeaseRevokeResponse { header: self.header(revision) }))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Reply<Self::LeaseKeepAliveStream> {
        let leaderless = self.leaderless(request.metadata());
        let service = self.clone();
        let credentials = guard::caller(&request).credentials;
        let answers = request.into_inner().then(move |request| {
            let (service, credentials) = (service.clone(), credentials.clone());
            async move {
                let id = request?.id;
                // Each time anew: the token may have expired meanwhile, and its use renews it.
                let caller = service.caller(credentials).await.map_err(status)?;
                service.check_lease(&caller, id, Access::Write).map_err(status)?;
                let left = service.engine.keep_alive(&service.peers, id, true).await;
                let ttl = left.ok_or_else(|| status(RequestError::NoLeader))?;
                // A lease that is gone has a time to live of 0.
                Ok(LeaseKeepAliveResponse { header: service.header_now(), id, ttl: ttl.max(0) })
            }
        });
        // The stream ends with the client's requests, or when nobody leads.
        let answers = answers.map(Some).chain(stream::iter([None]));
        let ended = stream::once(leaderless).map(|error| Some(Err(status(error))));
        let until_end = stream::select(answers, ended).take_while(|answer| future::ready(answer.is_some()));
        Ok(Response::new(Box::pin(until_end.filter_map(future::ready))))
    }

    async fn lease_time_to_live(&self, request: Request<LeaseTimeToLiveRequest>) -> Reply<LeaseTimeToLiveResponse> {
        let caller = guard::caller(&request);
        let request = request.into_inner();
        self.engine.linearize().await.map_err(status)?;
        let left = self.engine.keep_alive(&self.peers, request.id, false).await;
        let ttl = left.ok_or_else(|| status(RequestError::NoLeader))?;
        let (granted, keys) = {
            let (mvcc, auth) = self.engine.state.read_as_user();
            if request.keys {
                auth.lease(&mvcc, &caller.at(&auth), request.id, Access::Read).map_err(status)?;
            }
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

    async fn lease_leases(&self, request: Request<LeaseLeasesRequest>) -> Reply<LeaseLeasesResponse> {
        self.engine.linearize().await.map_err(status)?;
        let leases = {
            let (mvcc, auth) = self.engine.state.read_as_user();
            auth.leases(&mvcc, &guard::caller(&request).at(&auth)).map_err(status)?;
            mvcc.leases().map(|id| LeaseStatus { id }).collect()
        };
        Ok(Response::new(LeaseLeasesResponse { header: self.header_now(), leases }))
    }
}
