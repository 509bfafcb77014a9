//! Where we differ from etcd 3.4 on purpose: we speak 3.6. One place, each with its reason.

use std::collections::BTreeSet;

use store_core::wire::event::EventType;
use store_core::wire::{Event, LeaseTimeToLiveResponse};
use tonic::Code;

use super::operation::Call;
use super::server::{Outcome, Reply};

/// A watcher that begins at a negative revision: 3.4 creates it and ends it as compacted, or, on a store that was never
/// compacted, lets it disturb the others; since 3.6.5 it is refused at once (etcd pull request 20693).
pub(crate) const NEGATIVE_START: &str = "etcdserver: mvcc: required revision has been compacted";

/// A deletion at a compacted revision: 3.4 may have lost it for a watcher that begins there; since 3.5.13 it is kept
/// (etcd pull request 17612).
pub(crate) fn may_be_lost(event: &Event, compactions: &BTreeSet<i64>) -> bool {
    let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    event.r#type == EventType::Delete as i32 && compactions.contains(&revision)
}

/// Whether two answers are the same, or differ as they should.
pub(crate) fn same(call: &Call, theirs: &Outcome, ours: &Outcome) -> bool {
    theirs == ours || times_are_near(theirs, ours) || either_fault(call, theirs, ours)
}

/// Each server has its own clock: a second may end between two answers.
fn times_are_near(theirs: &Outcome, ours: &Outcome) -> bool {
    let (Ok(Reply::TimeToLive(theirs)), Ok(Reply::TimeToLive(ours))) = (theirs, ours) else { return false };
    let without = |answer: &LeaseTimeToLiveResponse| LeaseTimeToLiveResponse { ttl: 0, ..answer.clone() };
    without(theirs) == without(ours) && (theirs.ttl - ours.ttl).abs() <= 1
}

/// A transaction with two faults: 3.4 looks at all its puts before it looks at its ranges, 3.6 goes through them once
/// (etcd pull request 14149).
fn either_fault(call: &Call, theirs: &Outcome, ours: &Outcome) -> bool {
    let (Call::Txn(_), Err(theirs), Err(ours)) = (call, theirs, ours) else { return false };
    let of_put = |(code, text): &(Code, String)| {
        (*code, text.as_str()) == (Code::InvalidArgument, "etcdserver: key not found")
            || (*code, text.as_str()) == (Code::NotFound, "etcdserver: requested lease not found")
    };
    let of_range =
        |(code, text): &(Code, String)| *code == Code::OutOfRange && text.contains("mvcc: required revision");
    (of_put(theirs) && of_range(ours)) || (of_range(theirs) && of_put(ours))
}
