//! What a sequence is made of: requests as they go over the wire, with revisions that are only known when they run.

use store_core::wire::compare::TargetUnion;
use store_core::wire::request_op::Request as Inner;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    TxnRequest, WatchRequest,
};

/// One step of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operation {
    Call(Call),
    /// A grant whose number the server chooses; both numbers are revoked at once.
    AnonymousGrant {
        ttl: i64,
    },
    /// A short lease, revoked before it could end by itself.
    BriefGrant {
        id: i64,
        ttl: i64,
    },
    KeepAlive {
        id: i64,
    },
    Watch {
        stream: usize,
        request: WatchRequest,
    },
}

/// A request with one answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(i64),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
}

impl Call {
    /// Whether the call leaves the state as it is: such calls commute and run side by side.
    pub(crate) fn only_reads(&self) -> bool {
        matches!(self, Self::Range(_) | Self::TimeToLive(_) | Self::Leases)
    }
}

/// How far from a mark a revision may be.
const NEAR: u64 = 1_000;
const NOW: i64 = 1 << 50;
const COMPACTED: i64 = 1 << 51;

/// The newest revision when the operation runs, and some more or less.
pub(crate) fn now(offset: i64) -> i64 {
    NOW + offset
}

/// The compacted revision when the operation runs, and some more or less.
pub(crate) fn compacted(offset: i64) -> i64 {
    COMPACTED + offset
}

/// Where the servers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
}

impl Position {
    fn settle(self, revision: &mut i64) {
        for (mark, base) in [(NOW, self.revision), (COMPACTED, self.compacted)] {
            if revision.abs_diff(mark) <= NEAR {
                *revision += base - mark;
            }
        }
    }

    fn settle_range(self, range: &mut RangeRequest) {
        for revision in [
            &mut range.revision,
            &mut range.min_mod_revision,
            &mut range.max_mod_revision,
            &mut range.min_create_revision,
            &mut range.max_create_revision,
        ] {
            self.settle(revision);
        }
    }

    fn settle_txn(self, txn: &mut TxnRequest) {
        for compare in &mut txn.compare {
            if let Some(TargetUnion::ModRevision(n) | TargetUnion::CreateRevision(n)) = &mut compare.target_union {
                self.settle(n);
            }
        }
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            match &mut op.request {
                Some(Inner::RequestRange(range)) => self.settle_range(range),
                Some(Inner::RequestTxn(inner)) => self.settle_txn(inner),
                _ => {}
            }
        }
    }

    /// The operation with its marks replaced by revisions.
    pub(crate) fn settled(self, mut operation: Operation) -> Operation {
        match &mut operation {
            Operation::Call(Call::Range(range)) => self.settle_range(range),
            Operation::Call(Call::Txn(txn)) => self.settle_txn(txn),
            Operation::Call(Call::Compact(compact)) => self.settle(&mut compact.revision),
            Operation::Watch { request, .. } => {
                if let Some(RequestUnion::CreateRequest(create)) = &mut request.request_union {
                    self.settle(&mut create.start_revision);
                }
            }
            _ => {}
        }
        operation
    }
}
