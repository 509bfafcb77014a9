//! Reads that are answered in pieces, of etcd 3.7: a list of any size in bounded memory.
//!
//! All pieces are of the revision at which the read began, and each is given only to who
//! may read it then. The first is small, so
//! that clients have something soon; each may hold twice the keys of the one before,
//! up to a bound of keys and one of bytes. Only the last carries header, count and
//! whether there is more. A client that reads slowly holds up its own read alone.
//!
//! Source: etcd `rpc.proto` RangeStream, KEP-5966.

use store_core::auth::{Access, Auth};
use store_core::errors::RequestError;
use store_core::mvcc::check;
use store_core::wire::{RangeRequest, RangeResponse, RangeStreamResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Service, status};
use crate::auth::Caller;

/// Pieces on their way to a client: one is read while one is sent.
const PIECES_MAX: usize = 1;
const FIRST_KEYS: usize = 10;
const KEYS_MAX: usize = 10_000;

/// The answer.
pub(crate) type Pieces = ReceiverStream<Result<RangeStreamResponse, Status>>;

/// A read on its way.
struct Reading {
    service: Service,
    caller: Caller,
    /// What is left to read: the key moves on, the revision is fixed.
    request: RangeRequest,
    keys_left: usize,
    /// What the last piece says of the whole.
    whole: RangeResponse,
    out: mpsc::Sender<Result<RangeStreamResponse, Status>>,
}

/// Whether somebody may read a range.
pub(super) fn may_read(auth: &Auth, caller: &Caller, request: &RangeRequest) -> Result<(), RequestError> {
    auth.keys(&caller.at(auth), Access::Read, &request.key, &request.range_end)
}

impl Service {
    /// Answers a read in pieces.
    pub(super) async fn pieces(&self, caller: Caller, mut request: RangeRequest) -> Result<Pieces, RequestError> {
        check::range_stream(&request)?;
        if !request.serializable {
            self.engine.linearize().await?;
        }
        let (service, reader) = (self.clone(), caller.clone());
        let counted = tokio::task::spawn_blocking(move || {
            let (mvcc, auth) = service.engine.state.read_as_user();
            may_read(&auth, &reader, &request)?;
            let revision = mvcc.read_revision(request.revision)?;
            let count = mvcc.count(&request.key, &request.range_end, revision);
            request.revision = revision;
            let whole = RangeResponse { header: service.header(mvcc.revision()), count, ..RangeResponse::default() };
            Ok::<_, RequestError>((request, whole))
        });
        let (request, mut whole) = counted.await.map_err(|_| RequestError::Stopped)??;
        let count = usize::try_from(whole.count).unwrap_or(0);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        whole.more = !request.count_only && count > limit;
        let keys_left = if request.count_only { 0 } else { count.min(limit) };
        let (out, pieces) = mpsc::channel(PIECES_MAX);
        tokio::spawn(Reading { service: self.clone(), caller, request, keys_left, whole, out }.run());
        Ok(ReceiverStream::new(pieces))
    }
}

impl Reading {
    async fn run(mut self) {
        let mut keys_max = FIRST_KEYS;
        loop {
            let piece = self.piece(keys_max.min(self.keys_left)).await;
            let last = piece.is_err() || self.keys_left == 0;
            let piece = piece.map(|range| RangeStreamResponse { range_response: Some(range) });
            if self.out.send(piece.map_err(status)).await.is_err() || last {
                return;
            }
            keys_max = (keys_max * 2).min(KEYS_MAX);
        }
    }

    /// The next piece; the last one with what is said of the whole.
    async fn piece(&mut self, keys_max: usize) -> Result<RangeResponse, RequestError> {
        let mut kvs = Vec::new();
        if self.keys_left > 0 {
            let (service, caller, request) = (self.service.clone(), self.caller.clone(), self.request.clone());
            let bytes_max = service.config.max_request_bytes;
            let read = tokio::task::spawn_blocking(move || {
                let allow = |auth: &Auth| may_read(auth, &caller, &request);
                service.engine.state.piece(&request, (keys_max, bytes_max), allow)
            });
            kvs = read.await.map_err(|_| RequestError::Stopped)??;
        }
        self.keys_left -= kvs.len().min(self.keys_left);
        match kvs.last() {
            // The next key there can be.
            Some(last) => self.request.key = [last.key.as_ref(), &[0]].concat().into(),
            // The count said otherwise; rather an end than a loop.
            None => self.keys_left = 0,
        }
        if self.keys_left > 0 {
            return Ok(RangeResponse { kvs, ..RangeResponse::default() });
        }
        Ok(RangeResponse { kvs, ..std::mem::take(&mut self.whole) })
    }
}
