//! Transactions: comparisons that fit and don't, nested branches, too many operations, none at all.

use rand::Rng as _;
use store_core::wire::compare::TargetUnion;
use store_core::wire::request_op::Request as Inner;
use store_core::wire::{Compare, RequestOp, TxnRequest};

use super::generate::Generator;

const DEPTH: u32 = 3;

/// Looks at every operation, those of nested transactions too.
fn each(txn: &mut TxnRequest, look: &mut impl FnMut(&mut Inner)) {
    for op in txn.success.iter_mut().chain(&mut txn.failure).filter_map(|op| op.request.as_mut()) {
        if let Inner::RequestTxn(inner) = op {
            each(inner, look);
        }
        look(op);
    }
}

impl Generator {
    /// A transaction that etcd survives: it panics where a put keeps value or lease of a key that the transaction
    /// deleted before, which its check sees but for deletions of everything from a key on.
    pub(crate) fn survivable_txn(&mut self) -> TxnRequest {
        let mut txn = self.txn(DEPTH);
        let mut deletes_all = false;
        each(&mut txn, &mut |op| deletes_all |= matches!(op, Inner::RequestDeleteRange(d) if d.range_end == "\0"));
        if deletes_all {
            each(&mut txn, &mut |op| {
                if let Inner::RequestPut(put) = op {
                    (put.ignore_value, put.ignore_lease) = (false, false);
                }
            });
        }
        txn
    }

    /// A transaction nested at most `depth` deep.
    fn txn(&mut self, depth: u32) -> TxnRequest {
        if self.chance(1) {
            return self.crowded_txn(depth);
        }
        let compares = self.random.random_range(0..3);
        let mut txn = TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(depth),
            failure: self.branch(depth),
        };
        if self.chance(15) {
            // Only reads: it doesn't go through the log.
            let is_read = |op: &RequestOp| matches!(op.request, Some(Inner::RequestRange(_)));
            txn.success.retain(is_read);
            txn.failure.retain(is_read);
        }
        txn
    }

    fn branch(&mut self, depth: u32) -> Vec<RequestOp> {
        let length = self.random.random_range(0..4);
        (0..length).map(|_| self.inner(depth)).collect()
    }

    fn inner(&mut self, depth: u32) -> RequestOp {
        let request = match self.random.random_range(0..100) {
            0..40 => Some(Inner::RequestPut(self.put())),
            40..70 => Some(Inner::RequestRange(self.range())),
            70..82 => Some(Inner::RequestDeleteRange(self.delete())),
            82..=98 if depth > 1 => Some(Inner::RequestTxn(self.txn(depth - 1))),
            99 => None,
            _ => Some(Inner::RequestRange(self.range())),
        };
        RequestOp { request }
    }

    /// About as many operations as a transaction may have, here or one level down.
    fn crowded_txn(&mut self, depth: u32) -> TxnRequest {
        let count = self.one_of(&[126, 127, 128, 129]);
        let mut crowd: Vec<RequestOp> =
            (0..count).map(|_| RequestOp { request: Some(Inner::RequestRange(self.range())) }).collect();
        if depth > 1 && self.chance(60) {
            let inner = TxnRequest {
                success: crowd.split_off(crowd.len() - self.random.random_range(1..4)),
                ..TxnRequest::default()
            };
            crowd.push(RequestOp { request: Some(Inner::RequestTxn(inner)) });
        }
        let (compare, mut success, mut failure) = (Vec::new(), Vec::new(), Vec::new());
        if self.chance(50) {
            success = crowd
        } else {
            failure = crowd
        }
        TxnRequest { compare, success, failure }
    }

    fn compare(&mut self) -> Compare {
        let (key, range_end) = self.span();
        let number = self.one_of(&[0, 0, 1, 1, 2, 3, -1]);
        let revision = if self.chance(70) { self.revision() } else { number };
        let target = if self.chance(2) { self.one_of(&[5, -1, 99]) } else { self.random.random_range(0..5) };
        // Mostly the value that the target asks for, sometimes another's or none.
        let union = match if self.chance(90) { target } else { self.random.random_range(-1..5) } {
            0 => Some(TargetUnion::Version(number)),
            1 => Some(TargetUnion::CreateRevision(revision)),
            2 => Some(TargetUnion::ModRevision(revision)),
            3 => Some(TargetUnion::Value(self.one_of(&["", "x", "y", "z"]).into())),
            4 => Some(TargetUnion::Lease(if self.chance(50) { self.lease() } else { 0 })),
            _ => None,
        };
        let result = if self.chance(2) { self.one_of(&[4, -1, 77]) } else { self.random.random_range(0..4) };
        Compare { result, target, key, range_end, target_union: union }
    }
}
