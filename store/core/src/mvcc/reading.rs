//! Transactions that only read: answered without the log, as reads are.

use super::apply::{branch, check_txn, path};
use super::{Mvcc, Search, Values};
use crate::errors::RequestError;
use crate::wire::request_op::Request as Op;
use crate::wire::response_op::Response;
use crate::wire::{RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse};

/// A transaction that only reads, on its way: decided in one state, with the searches of the branch that it takes.
#[derive(Debug)]
pub struct Reading {
    succeeded: bool,
    revision: i64,
    /// One for each operation, in order.
    pub searches: Vec<Search>,
}

impl Reading {
    /// Whether a transaction needs no log: reads in both branches, none inside another transaction.
    /// Source: etcd `txn.IsTxnReadonly`.
    #[must_use]
    pub fn suits(request: &TxnRequest) -> bool {
        reads(request).all(|read| read.is_some())
    }

    /// Whether it may be answered from what this member has: every read of it may.
    #[must_use]
    pub fn is_serializable(request: &TxnRequest) -> bool {
        // Without any read it is its conditions that are asked for: they are answered as things stand.
        reads(request).next().is_some() && reads(request).flatten().all(|read| read.serializable)
    }

    /// Decides the conditions in the state as it is now, and begins the reads.
    ///
    /// # Errors
    /// What applying it would refuse it for.
    pub fn new(mvcc: &Mvcc, request: &TxnRequest, values: &impl Values) -> Result<Self, RequestError> {
        let path = path(mvcc, request, values)?;
        check_txn(mvcc, request, &path, &mut Vec::new())?;
        let of_op = |op: &RequestOp| match &op.request {
            Some(Op::RequestRange(read)) => Some(Search::new(mvcc, read)),
            _ => None,
        };
        let searches = branch(request, path[0]).iter().filter_map(of_op).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { succeeded: path[0], revision: mvcc.revision(), searches })
    }

    /// The answer, without its header, once all searches have found their keys. `admit` is told the bytes of each
    /// key and value before the next is read.
    ///
    /// # Errors
    /// [`RequestError`] of a value that can't be read, or of `admit`.
    pub fn finish(
        self,
        values: &impl Values,
        mut admit: impl FnMut(usize) -> Result<(), RequestError>,
    ) -> Result<TxnResponse, RequestError> {
        let header = Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() });
        let mut responses = Vec::with_capacity(self.searches.len());
        for search in self.searches {
            let mut answer = search.finish(values, &mut admit)?;
            answer.header.clone_from(&header);
            responses.push(ResponseOp { response: Some(Response::ResponseRange(answer)) });
        }
        Ok(TxnResponse { header: None, succeeded: self.succeeded, responses })
    }
}

/// The operations of both branches; `None` for what isn't a read.
fn reads(request: &TxnRequest) -> impl Iterator<Item = Option<&crate::wire::RangeRequest>> {
    request.success.iter().chain(&request.failure).map(|op| match &op.request {
        Some(Op::RequestRange(read)) => Some(read),
        _ => None,
    })
}
