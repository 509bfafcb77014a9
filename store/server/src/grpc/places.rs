//! Places in a queue of keys: what locks and elections are made of.
//!
//! Everybody who waits has a key below one prefix, bound to a lease; the key that was created
//! first is the holder's. Only the key just before one's own is waited for, so that a release
//! wakes one waiter, not all.
//! Source: etcd `client/v3/concurrency/{key,mutex,election}.go`.

use bytes::Bytes;
use store_core::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use store_core::wire::range_request::{SortOrder, SortTarget};
use store_core::wire::request_op::Request as Op;
use store_core::wire::response_op::Response as Done;
use store_core::wire::{
    Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    TxnRequest, TxnResponse,
};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::Service;
use super::services::kv_server::Kv as _;
use super::services::lease_server::Lease as _;

/// Seconds of a lease that is made for who brings none, as in etcd.
const LEASE_SECONDS: i64 = 60;

/// On whose behalf requests are made.
#[derive(Clone)]
pub(super) struct Caller {
    service: Service,
    metadata: MetadataMap,
    extensions: Extensions,
}

/// A key in the queue.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: Bytes,
    /// The revision at which the key was made.
    pub(super) created: i64,
    pub(super) lease: i64,
    /// Its value, if the key had been there before.
    pub(super) found: Option<Bytes>,
    pub(super) header: Option<ResponseHeader>,
}

pub(super) fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// The condition that a key was made at a revision; 0: that it isn't there.
pub(super) fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        range_end: Bytes::new(),
    }
}

fn get(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

/// The end of the range of all keys that begin with a prefix.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// Below a name, as etcd's clients have it.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

impl Caller {
    pub(super) fn of<T>(service: &Service, request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { service: service.clone(), metadata, extensions }, message)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    pub(super) async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        Ok(self.service.txn(self.request(txn)).await?.into_inner())
    }

    /// Deletes a key.
    pub(super) async fn delete(&self, key: Bytes) -> Result<Option<ResponseHeader>, Status> {
        let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        Ok(self.service.delete_range(self.request(request)).await?.into_inner().header)
    }

    /// The first of a queue, and the header of the read.
    pub(super) async fn first(&self, prefix: &Bytes) -> Result<(Option<KeyValue>, Option<ResponseHeader>), Status> {
        let request = RangeRequest {
            key: prefix.clone(),
            range_end: prefix_end(prefix),
            limit: 1,
            sort_order: SortOrder::Ascend as i32,
            sort_target: SortTarget::Create as i32,
            ..RangeRequest::default()
        };
        let mut answer = self.service.range(self.request(request)).await?.into_inner();
        Ok((answer.kvs.pop(), answer.header))
    }

    /// Takes a place at the queue's end, or finds the one that the lease has already.
    pub(super) async fn queue(&self, prefix: &Bytes, lease: i64, value: Bytes) -> Result<Place, Status> {
        let lease = if lease == 0 { self.grant().await? } else { lease };
        let key: Bytes = [prefix, format!("{lease:x}").as_bytes()].concat().into();
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let txn = TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![op(Op::RequestPut(put))],
            failure: vec![op(Op::RequestRange(get(&key)))],
        };
        let answer = self.txn(txn).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let found = match answer.responses.into_iter().next().and_then(|op| op.response) {
            Some(Done::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let created = found.as_ref().map_or(revision, |kv| kv.create_revision);
        Ok(Place { key, created, lease, found: found.map(|kv| kv.value), header: answer.header })
    }

    async fn grant(&self) -> Result<i64, Status> {
        let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
        Ok(self.service.lease_grant(self.request(request)).await?.into_inner().id)
    }

    /// Waits until nobody stands before a place. It is given up if the caller goes meanwhile.
    pub(super) async fn wait_for_turn(&self, prefix: &Bytes, place: &Place) -> Result<(), Status> {
        let mut left_alone = GivenUp { caller: self, place: Some(place) };
        loop {
            let request = RangeRequest {
                key: prefix.clone(),
                range_end: prefix_end(prefix),
                limit: 1,
                sort_order: SortOrder::Descend as i32,
                sort_target: SortTarget::Create as i32,
                max_create_revision: place.created - 1,
                keys_only: true,
                ..RangeRequest::default()
            };
            let answer = self.service.range(self.request(request)).await?.into_inner();
            let Some(before) = answer.kvs.into_iter().next() else {
                left_alone.place = None;
                return Ok(());
            };
            self.wait_until_gone(&before).await?;
        }
    }

    /// Waits until a key that was read isn't there any more.
    pub(super) async fn wait_until_gone(&self, kv: &KeyValue) -> Result<(), Status> {
        let engine = &self.service.engine;
        let (mut revisions, mut ended) = (engine.revisions(), engine.ended.subscribe());
        loop {
            if engine.state.read().created(&kv.key) != Some(kv.create_revision) {
                return Ok(());
            }
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return Err(stopped()) },
                _ = ended.changed() => return Err(stopped()),
            }
        }
    }

    /// Whether a key is still the one that was made at a revision.
    pub(super) async fn holds(&self, place: &Place) -> Result<(bool, Option<ResponseHeader>), Status> {
        let answer = self.service.range(self.request(get(&place.key))).await?.into_inner();
        Ok((answer.kvs.iter().any(|kv| kv.create_revision == place.created), answer.header))
    }
}

fn stopped() -> Status {
    super::status(store_core::errors::RequestError::Stopped)
}

/// Takes a place back that nobody waits at any more.
struct GivenUp<'a> {
    caller: &'a Caller,
    place: Option<&'a Place>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let (caller, key, created) = (self.caller.clone(), place.key.clone(), place.created);
        tokio::spawn(async move {
            let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
            let (compare, success) = (vec![created_at(&key, created)], vec![op(Op::RequestDeleteRange(delete))]);
            // If it fails, the lease's end takes the key along.
            let _ = caller.txn(TxnRequest { compare, success, failure: Vec::new() }).await;
        });
    }
}
