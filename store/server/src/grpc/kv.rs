//! KV: Range, Put, DeleteRange, Txn, Compact.

use std::time::{Duration, Instant};

use prost::Message as _;
use store_core::auth::Auth;
use store_core::errors::RequestError;
use store_core::mvcc::{Answer, Mvcc, Reading, Search, check};
use store_core::wire::command::Request as Command;
use store_core::wire::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::large::large;
use super::range_stream::{Pieces, may_read};
use super::services::kv_server::Kv;
use super::{Service, status};
use crate::admission::{Held, Share};
use crate::auth::{Caller, guard};
use crate::slow::Phases;
use crate::state::Found;

/// Of a large answer so much is read before it is on its way.
const PIECE_BYTES: usize = 256 << 10;

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    fn check_size(&self, message: &impl prost::Message) -> Result<(), Status> {
        if message.encoded_len() > self.config.max_request_bytes { Err(status(RequestError::TooLarge)) } else { Ok(()) }
    }

    /// Commits a request, if it is right and not too large.
    async fn commit(&self, caller: &Caller, command: Command) -> Result<(Answer, i64), Status> {
        check::request(&command, self.config.max_txn_ops).map_err(status)?;
        match &command {
            Command::Put(request) => self.check_size(request)?,
            Command::DeleteRange(request) => self.check_size(request)?,
            Command::Txn(request) => self.check_size(request)?,
            _ => {}
        }
        let asker = caller.at(&self.engine.state.auth());
        self.engine.propose(&asker, command).await.map_err(status)
    }

    /// What was read, as clients are told it.
    fn answered(
        &self,
        request: &RangeRequest,
        read: Result<(RangeResponse, i64), RequestError>,
        phases: &Phases,
    ) -> Result<RangeResponse, Status> {
        let (mut answer, revision) = read.map_err(status)?;
        answer.header = self.header(revision);
        self.engine.slow.range(request, || answer.encoded_len(), phases);
        Ok(answer)
    }

    /// Reads a range, and gives `answer` what came of it, or of a large one the place where its pieces come. For threads
    /// that may block: values may have to come from disk, and an answer may have to wait until others are sent.
    fn read_range(&self, asked: Asked, answer: oneshot::Sender<Reply<RangeResponse>>) {
        let Asked { caller, request, .. } = &asked;
        let mut share = self.engine.admission.share();
        let small = match self.engine.state.find_range(request, |auth: &Auth| may_read(auth, caller, request)) {
            Ok(found) if found.suits_pieces() => return self.read_large(asked, found, share, answer),
            Ok(found) => {
                let newest = found.newest();
                found.finish(|bytes| share.grow(bytes)).map(|read| (read, newest))
            }
            Err(error) => Err(error),
        };
        let answered = self.answered(request, small, &asked.phases());
        // Who asked may have gone.
        let _ = answer.send(answered.map(|small| held(small, share)));
    }

    /// The same of a large one.
    fn read_large(
        &self,
        asked: Asked,
        found: Found<'_, Search>,
        mut share: Share,
        answer: oneshot::Sender<Reply<RangeResponse>>,
    ) {
        let header = self.header(found.newest());
        let begun = found.encode(header, |bytes| share.grow_encoded(bytes)).and_then(|found| {
            let (sender, pieces) = large(found.bytes(), found.bytes() / PIECE_BYTES + 1)?;
            Ok((found, sender, pieces))
        });
        let (mut found, sender, pieces) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let _ = answer.send(Err(status(error)));
                return;
            }
        };
        let (bytes, mut response) = (found.bytes(), held(RangeResponse::default(), share));
        response.extensions_mut().insert(pieces);
        if answer.send(Ok(response)).is_err() {
            return;
        }
        while let Some(piece) = found.piece(PIECE_BYTES).transpose() {
            let is_last = piece.is_err();
            if !sender.send(piece) || is_last {
                return;
            }
        }
        self.engine.slow.range(&asked.request, || bytes, &asked.phases());
    }

    /// Answers a transaction that only reads: not by the log, and within the bounds of large answers.
    async fn read_txn(&self, caller: Caller, request: TxnRequest) -> Reply<TxnResponse> {
        let is_serializable = Reading::is_serializable(&request);
        let command = Command::Txn(request);
        check::request(&command, self.config.max_txn_ops).map_err(status)?;
        let (begun, mut phases) = (Instant::now(), Phases::default());
        if !is_serializable {
            self.engine.linearize().await.map_err(status)?;
            phases.consensus = begun.elapsed();
        }
        let service = self.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let Command::Txn(request) = &command else { return Err(mismatch()) };
            service.engine.metrics.txns.inc();
            let mut share = service.engine.admission.share();
            let allow = |mvcc: &Mvcc, auth: &Auth| auth.permit(mvcc, &caller.at(auth), &command);
            let read = service.engine.state.read_txn(request, allow, |bytes| share.grow(bytes));
            let (mut answer, revision) = read.map_err(status)?;
            answer.header = service.header(revision);
            phases.apply = begun.elapsed().saturating_sub(phases.consensus);
            service.engine.slow.read_txn(request, &answer, &phases);
            Ok(held(answer, share))
        });
        answer.await.map_err(|_| abandoned())?
    }
}

/// A read that was let in.
struct Asked {
    caller: Caller,
    request: RangeRequest,
    begun: Instant,
    consensus: Duration,
}

impl Asked {
    /// What it waited for until now.
    fn phases(&self) -> Phases {
        let apply = self.begun.elapsed().saturating_sub(self.consensus);
        Phases { consensus: self.consensus, apply, ..Phases::default() }
    }
}

/// An answer with what it holds until it is sent.
fn held<T>(answer: T, share: Share) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(Held::from(share));
    response
}

fn abandoned() -> Status {
    Status::internal("the read was abandoned")
}

/// An answer of another kind than its command's would be a fault of ours.
fn mismatch() -> Status {
    Status::internal("the answer doesn't fit its command")
}

impl Service {
    pub(crate) async fn answer_range(&self, caller: Caller, request: RangeRequest) -> Reply<RangeResponse> {
        check::range(&request).map_err(status)?;
        let begun = Instant::now();
        if !request.serializable {
            if self.is_learner() {
                return Err(status(RequestError::NotForLearner));
            }
            self.engine.linearize().await.map_err(status)?;
        }
        let consensus = if request.serializable { Duration::ZERO } else { begun.elapsed() };
        self.engine.metrics.ranges.inc();
        let asked = Asked { caller, request, begun, consensus };
        let Asked { caller, request, .. } = &asked;
        if let Some(read) = self.engine.state.one_at_once(request, |auth: &Auth| may_read(auth, caller, request)) {
            return self.answered(request, read, &asked.phases()).map(Response::new);
        }
        let (service, (answer, answered)) = (self.clone(), oneshot::channel());
        // Values may have to come from disk.
        tokio::task::spawn_blocking(move || service.read_range(asked, answer));
        answered.await.map_err(|_| abandoned())?
    }

    pub(crate) async fn answer_put(&self, caller: &Caller, request: PutRequest) -> Reply<PutResponse> {
        let (Answer::Put(mut answer), revision) = self.commit(caller, Command::Put(request)).await? else {
            return Err(mismatch());
        };
        answer.header = self.header(revision);
        Ok(Response::new(answer))
    }

    pub(crate) async fn answer_delete(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Reply<DeleteRangeResponse> {
        let (Answer::DeleteRange(mut answer), revision) = self.commit(caller, Command::DeleteRange(request)).await?
        else {
            return Err(mismatch());
        };
        answer.header = self.header(revision);
        Ok(Response::new(answer))
    }

    pub(crate) async fn answer_txn(&self, caller: Caller, request: TxnRequest) -> Reply<TxnResponse> {
        if Reading::suits(&request) {
            return self.read_txn(caller, request).await;
        }
        let (Answer::Txn(mut answer), revision) = self.commit(&caller, Command::Txn(request)).await? else {
            return Err(mismatch());
        };
        answer.header = self.header(revision);
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<RangeRequest>) -> Reply<RangeResponse> {
        self.answer_range(guard::caller(&request), request.into_inner()).await
    }

    type RangeStreamStream = Pieces;

    async fn range_stream(&self, request: Request<RangeRequest>) -> Reply<Pieces> {
        let caller = guard::caller(&request);
        self.pieces(caller, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn put(&self, request: Request<PutRequest>) -> Reply<PutResponse> {
        self.answer_put(&guard::caller(&request), request.into_inner()).await
    }

    async fn delete_range(&self, request: Request<DeleteRangeRequest>) -> Reply<DeleteRangeResponse> {
        self.answer_delete(&guard::caller(&request), request.into_inner()).await
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Reply<TxnResponse> {
        self.answer_txn(guard::caller(&request), request.into_inner()).await
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Reply<CompactionResponse> {
        let caller = guard::caller(&request);
        let request = request.into_inner();
        let (_, revision) = self.commit(&caller, Command::Compact(request)).await?;
        if request.physical {
            self.engine.collected(request.revision).await.map_err(status)?;
        }
        Ok(Response::new(CompactionResponse { header: self.header(revision) }))
    }
}
