//! v3election: the leader is the first place of a queue, and its value what it proclaims.
//!
//! Source: etcd `server/etcdserver/api/v3election/election.go`.

use bytes::Bytes;
use store_core::wire::request_op::Request as Op;
use store_core::wire::{DeleteRangeRequest, PutRequest, ResponseHeader, TxnRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Service;
use super::elections::election_server::Election;
use super::elections::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use super::places::{Caller, created_at, op, prefix};

type Reply<T> = Result<Response<T>, Status>;

/// Proclamations that wait for an observer.
const OBSERVED_MAX: usize = 16;

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn needs_leader(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown(r#""leader" field must be provided"#))
}

async fn proclaim(caller: &Caller, leader: &LeaderKey, value: Bytes) -> Result<Option<ResponseHeader>, Status> {
    let put = PutRequest { key: leader.key.clone(), value, lease: leader.lease, ..PutRequest::default() };
    let (compare, success) = (vec![created_at(&leader.key, leader.rev)], vec![op(Op::RequestPut(put))]);
    let answer = caller.txn(TxnRequest { compare, success, failure: Vec::new() }).await?;
    if answer.succeeded { Ok(answer.header) } else { Err(not_leader()) }
}

async fn resign(caller: &Caller, leader: &LeaderKey) -> Result<Option<ResponseHeader>, Status> {
    let delete = DeleteRangeRequest { key: leader.key.clone(), ..DeleteRangeRequest::default() };
    let (compare, success) = (vec![created_at(&leader.key, leader.rev)], vec![op(Op::RequestDeleteRange(delete))]);
    Ok(caller.txn(TxnRequest { compare, success, failure: Vec::new() }).await?.header)
}

/// Tells each leader and each of its proclamations that is seen, the latest always.
async fn observe(
    service: Service,
    caller: Caller,
    prefix: Bytes,
    out: mpsc::Sender<Result<LeaderResponse, Status>>,
) -> Result<(), Status> {
    let mut revisions = service.engine.revisions();
    let mut told = 0;
    loop {
        revisions.mark_unchanged();
        let (first, header) = caller.first(&prefix).await?;
        if let Some(kv) = first.filter(|kv| kv.mod_revision != told) {
            told = kv.mod_revision;
            if out.send(Ok(LeaderResponse { header, kv: Some(kv) })).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            () = out.closed() => return Ok(()),
            changed = revisions.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

#[tonic::async_trait]
impl Election for Service {
    async fn campaign(&self, request: Request<CampaignRequest>) -> Reply<CampaignResponse> {
        let (caller, CampaignRequest { name, lease, value }) = Caller::of(self, request);
        let prefix = prefix(&name);
        let place = caller.queue(&prefix, lease, value.clone()).await?;
        let leader = LeaderKey { name, key: place.key.clone(), rev: place.created, lease: place.lease };
        if place.found.as_ref().is_some_and(|found| *found != value)
            && let Err(error) = proclaim(&caller, &leader, value).await
        {
            // As in etcd: who can't say what it stands for doesn't stand.
            let _ = resign(&caller, &leader).await;
            return Err(error);
        }
        caller.wait_for_turn(&prefix, &place).await?;
        Ok(Response::new(CampaignResponse { header: place.header, leader: Some(leader) }))
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Reply<ProclaimResponse> {
        let (caller, ProclaimRequest { leader, value }) = Caller::of(self, request);
        let header = proclaim(&caller, &needs_leader(leader)?, value).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Reply<LeaderResponse> {
        let (caller, LeaderRequest { name }) = Caller::of(self, request);
        let (first, header) = caller.first(&prefix(&name)).await?;
        let kv = first.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(LeaderResponse { header, kv: Some(kv) }))
    }

    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn observe(&self, request: Request<LeaderRequest>) -> Reply<Self::ObserveStream> {
        let (caller, LeaderRequest { name }) = Caller::of(self, request);
        let (out, answers) = mpsc::channel(OBSERVED_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(error) = observe(service, caller, prefix(&name), out.clone()).await {
                // An observer that went needs no answer.
                let _ = out.send(Err(error)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Reply<ResignResponse> {
        let (caller, ResignRequest { leader }) = Caller::of(self, request);
        Ok(Response::new(ResignResponse { header: resign(&caller, &needs_leader(leader)?).await? }))
    }
}
