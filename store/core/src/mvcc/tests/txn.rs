//! Transactions against a naive model: a map of keys that each operation changes in turn.

use super::*;
use crate::mvcc::check;
use crate::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::request_op::Request as Inner;
use crate::wire::response_op::Response;
use crate::wire::{Compare, RequestOp, TxnRequest, TxnResponse};

/// A key as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    value: Bytes,
    create: i64,
    modified: i64,
    version: i64,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Came {
    Put(Option<Seen>),
    Deleted(i64),
    Found(Vec<(Bytes, Seen)>),
    Branch(bool, Vec<Came>),
}

/// What a transaction may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// A transaction inside another compares what is there when its turn comes.
    ComparesLate,
    /// A key that isn't there has an empty value.
    AbsentIsEmpty,
    /// A key that is put again has its first version.
    ForgetsVersions,
}

#[derive(Default)]
struct Naive {
    revision: i64,
    keys: BTreeMap<Bytes, Seen>,
    bug: Option<Bug>,
}

/// A transaction whose conditions are decided: all of them are about what was before it, those inside it too.
struct Decided<'a> {
    succeeded: bool,
    operations: Vec<(&'a Inner, Option<Decided<'a>>)>,
}

impl Naive {
    fn holds(&self, condition: &Compare) -> bool {
        let seen = self.keys.get(&condition.key);
        let number = |of: fn(&Seen) -> i64| seen.map_or(0, of);
        let order = match condition.target_union.as_ref().expect("a target") {
            TargetUnion::Version(to) => number(|seen| seen.version).cmp(to),
            TargetUnion::CreateRevision(to) => number(|seen| seen.create).cmp(to),
            TargetUnion::ModRevision(to) => number(|seen| seen.modified).cmp(to),
            // A key that isn't there has no value at all.
            TargetUnion::Value(to) => match seen {
                Some(seen) => seen.value.cmp(to),
                None if self.bug == Some(Bug::AbsentIsEmpty) => Bytes::new().cmp(to),
                None => return false,
            },
            TargetUnion::Lease(_) => unreachable!("none is generated"),
        };
        match condition.result() {
            CompareResult::Equal => order.is_eq(),
            CompareResult::NotEqual => order.is_ne(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
        }
    }

    fn decide<'a>(&self, txn: &'a TxnRequest) -> Decided<'a> {
        let succeeded = txn.compare.iter().all(|condition| self.holds(condition));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let operations = branch.iter().map(|operation| {
            let operation = operation.request.as_ref().expect("an operation");
            let inner = if let Inner::RequestTxn(inner) = operation { Some(self.decide(inner)) } else { None };
            (operation, inner)
        });
        Decided { succeeded, operations: operations.collect() }
    }

    fn within<'a>(&'a self, key: &'a Bytes, end: &'a Bytes) -> impl Iterator<Item = (&'a Bytes, &'a Seen)> {
        let is_meant = move |at: &Bytes| if end.is_empty() { at == key } else { at >= key && at < end };
        self.keys.iter().filter(move |(at, _)| is_meant(at))
    }

    /// Runs what was decided; `wrote` becomes true with the first change.
    fn run(&mut self, decided: &Decided<'_>, wrote: &mut bool) -> Came {
        let now = self.revision + 1;
        let mut came = Vec::new();
        for (operation, inner) in &decided.operations {
            came.push(match operation {
                Inner::RequestPut(put) => {
                    *wrote = true;
                    let before = self.keys.get(&put.key).cloned();
                    let (create, version) = before.as_ref().map_or((now, 1), |seen| (seen.create, seen.version + 1));
                    let version = if self.bug == Some(Bug::ForgetsVersions) { 1 } else { version };
                    let seen = Seen { value: put.value.clone(), create, modified: now, version };
                    self.keys.insert(put.key.clone(), seen);
                    Came::Put(before.filter(|_| put.prev_kv))
                }
                Inner::RequestDeleteRange(delete) => {
                    let gone: Vec<Bytes> =
                        self.within(&delete.key, &delete.range_end).map(|(key, _)| key.clone()).collect();
                    gone.iter().for_each(|key| drop(self.keys.remove(key)));
                    *wrote |= !gone.is_empty();
                    Came::Deleted(gone.len() as i64)
                }
                Inner::RequestRange(range) => {
                    let found = self.within(&range.key, &range.range_end);
                    Came::Found(found.map(|(key, seen)| (key.clone(), seen.clone())).collect())
                }
                Inner::RequestTxn(inner) if self.bug == Some(Bug::ComparesLate) => {
                    let decided = self.decide(inner);
                    self.run(&decided, wrote)
                }
                Inner::RequestTxn(_) => self.run(inner.as_ref().expect("decided"), wrote),
            });
        }
        Came::Branch(decided.succeeded, came)
    }

    fn apply(&mut self, txn: &TxnRequest) -> Came {
        let decided = self.decide(txn);
        let mut wrote = false;
        let came = self.run(&decided, &mut wrote);
        self.revision += i64::from(wrote);
        came
    }
}

fn seen(kv: &KeyValue) -> Seen {
    Seen { value: kv.value.clone(), create: kv.create_revision, modified: kv.mod_revision, version: kv.version }
}

fn came(answer: &TxnResponse) -> Came {
    let each = |response: &crate::wire::ResponseOp| match response.response.as_ref().expect("an answer") {
        Response::ResponsePut(put) => Came::Put(put.prev_kv.as_ref().map(seen)),
        Response::ResponseDeleteRange(delete) => Came::Deleted(delete.deleted),
        Response::ResponseRange(range) => Came::Found(range.kvs.iter().map(|kv| (kv.key.clone(), seen(kv))).collect()),
        Response::ResponseTxn(inner) => came(inner),
    };
    Came::Branch(answer.succeeded, answer.responses.iter().map(each).collect())
}

fn condition() -> impl Strategy<Value = Compare> {
    (0..4u8, 0..4i64, 0..4i32, 0..4u8).prop_map(|(key, number, result, target)| {
        let (target, union) = match target {
            0 => (CompareTarget::Version, TargetUnion::Version(number)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(number + 1)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(number + 2)),
            _ => (CompareTarget::Value, TargetUnion::Value(number.to_string().into())),
        };
        Compare {
            result,
            target: target.into(),
            key: name(key).into(),
            target_union: Some(union),
            ..Compare::default()
        }
    })
}

fn keys() -> impl Strategy<Value = (Bytes, Bytes)> {
    (0..4u8, 0..6u8).prop_map(|(key, end)| (name(key).into(), if end <= key { Bytes::new() } else { name(end).into() }))
}

fn operation() -> impl Strategy<Value = Inner> {
    prop_oneof![
        4 => (0..4u8, 0..4u8, any::<bool>()).prop_map(|(key, value, prev_kv)| {
            let (key, value) = (name(key).into(), value.to_string().into());
            Inner::RequestPut(PutRequest { key, value, prev_kv, ..PutRequest::default() })
        }),
        2 => keys().prop_map(|(key, range_end)| {
            Inner::RequestDeleteRange(DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() })
        }),
        2 => keys().prop_map(|(key, range_end)| {
            Inner::RequestRange(RangeRequest { key, range_end, ..RangeRequest::default() })
        }),
    ]
}

fn of(operations: impl Strategy<Value = Inner> + Clone) -> impl Strategy<Value = TxnRequest> {
    let branch = move || {
        let operation = operations.clone().prop_map(|operation| RequestOp { request: Some(operation) });
        prop::collection::vec(operation, 0..4)
    };
    (prop::collection::vec(condition(), 0..3), branch(), branch()).prop_map(|(compare, success, failure)| TxnRequest {
        compare,
        success,
        failure,
    })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let inner = || of(operation().boxed()).prop_map(Inner::RequestTxn);
    of(prop_oneof![4 => operation(), 1 => inner()].boxed())
}

fn agrees(txns: Vec<TxnRequest>, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (mut store, mut naive) = (Store::new(), Naive { revision: 1, bug, ..Naive::default() });
    for txn in txns.into_iter().map(Request::Txn).filter(|txn| check::request(txn, 128).is_ok()) {
        let Request::Txn(request) = &txn else { unreachable!("one is made above") };
        let expected = naive.apply(request);
        let Ok(Answer::Txn(answer)) = store.run(txn) else { panic!("refused") };
        prop_assert_eq!(came(&answer), expected);
        prop_assert_eq!(store.mvcc.revision(), naive.revision);
    }
    let all = store.range(&everything(0)).expect("a read");
    let all: BTreeMap<Bytes, Seen> = all.kvs.iter().map(|kv| (kv.key.clone(), seen(kv))).collect();
    prop_assert_eq!(all, naive.keys);
    Ok(())
}

proptest! {
    /// Conditions, branches in branches, what operations see of each other, and revisions.
    #[test]
    fn transactions_are_the_naive_models(txns in prop::collection::vec(txn(), 1..20)) {
        agrees(txns, None)?;
    }
}

/// Conditions about the wrong time or the wrong value, and versions that don't count, are found.
#[test]
fn a_wrong_transaction_is_noticed() {
    let bugs = [Bug::ComparesLate, Bug::AbsentIsEmpty, Bug::ForgetsVersions];
    assert_noticed(&bugs, &prop::collection::vec(txn(), 1..20), agrees);
}
