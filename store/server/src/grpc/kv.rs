//! KV: Range, Put, DeleteRange, Txn, Compact.

use std::time::Instant;

use store_core::auth::{Asker, Auth};
use store_core::errors::RequestError;
use store_core::mvcc::{Answer, check};
use store_core::wire::command::Request as Command;
use store_core::wire::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

use super::range_stream::{Pieces, may_read};
use super::services::kv_server::Kv;
use super::{Service, status};
use crate::admission::Held;
use crate::auth::guard;
use crate::slow::Phases;

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    fn check_size(&self, message: &impl prost::Message) -> Result<(), Status> {
        if message.encoded_len() > self.config.max_request_bytes { Err(status(RequestError::TooLarge)) } else { Ok(()) }
    }

    /// Commits a request, if it is right and not too large.
    async fn commit(&self, asker: &Asker, command: Command) -> Result<(Answer, i64), Status> {
        check::request(&command, self.config.max_txn_ops).map_err(status)?;
        match &command {
            Command::Put(request) => self.check_size(request)?,
            Command::DeleteRange(request) => self.check_size(request)?,
            Command::Txn(request) => self.check_size(request)?,
            _ => {}
        }
        self.engine.propose(asker, command).await.map_err(status)
    }
}

/// An answer of another kind than its command's would be a fault of ours.
fn mismatch() -> Status {
    Status::internal("the answer doesn't fit its command")
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<RangeRequest>) -> Reply<RangeResponse> {
        let caller = guard::caller(&request);
        let request = request.into_inner();
        check::range(&request).map_err(status)?;
        let (begun, mut phases) = (Instant::now(), Phases::default());
        if !request.serializable {
            if self.is_learner() {
                return Err(status(RequestError::NotForLearner));
            }
            self.engine.linearize().await.map_err(status)?;
            phases.consensus = begun.elapsed();
        }
        let service = self.clone();
        // Values may have to come from disk.
        let answer = tokio::task::spawn_blocking(move || {
            service.engine.metrics.ranges.inc();
            let mut share = service.engine.admission.share();
            let allow = |auth: &Auth| may_read(auth, &caller, &request);
            let read = service.engine.state.range(&request, allow, |bytes| share.grow(bytes));
            let (mut answer, revision) = read.map_err(status)?;
            answer.header = service.header(revision);
            phases.apply = begun.elapsed().saturating_sub(phases.consensus);
            service.engine.slow.range(&request, &answer, &phases);
            let mut response = Response::new(answer);
            response.extensions_mut().insert(Held::from(share));
            Ok(response)
        });
        answer.await.map_err(|_| Status::internal("the read was abandoned"))?
    }

    type RangeStreamStream = Pieces;

    async fn range_stream(&self, request: Request<RangeRequest>) -> Reply<Pieces> {
        let caller = guard::caller(&request);
        self.pieces(caller, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn put(&self, request: Request<PutRequest>) -> Reply<PutResponse> {
        let asker = self.asker(&request);
        let command = Command::Put(request.into_inner());
        let (Answer::Put(mut answer), revision) = self.commit(&asker, command).await? else {
            return Err(mismatch());
        };
        answer.header = self.header(revision);
        Ok(Response::new(answer))
    }

    async fn delete_range(&self, request: Request<DeleteRangeRequest>) -> Reply<DeleteRangeResponse> {
        let asker = self.asker(&request);
        let command = Command::DeleteRange(request.into_inner());
        let (Answer::DeleteRange(mut answer), revision) = self.commit(&asker, command).await? else {
            return Err(mismatch());
        };
        answer.header = self.header(revision);
        Ok(Response::new(answer))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Reply<TxnResponse> {
        let asker = self.asker(&request);
        let command = Command::Txn(request.into_inner());
        let (Answer::Txn(mut answer), revision) = self.commit(&asker, command).await? else {
            return Err(mismatch());
        };
        answer.header = self.header(revision);
        Ok(Response::new(answer))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Reply<CompactionResponse> {
        let asker = self.asker(&request);
        let request = request.into_inner();
        let (_, revision) = self.commit(&asker, Command::Compact(request)).await?;
        if request.physical {
            self.engine.collected(request.revision).await.map_err(status)?;
        }
        Ok(Response::new(CompactionResponse { header: self.header(revision) }))
    }
}
