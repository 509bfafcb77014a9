//! Clients that read and write a few keys, and record what they saw.

use std::collections::BTreeMap;

use bytes::Bytes;
use models::history::{Answer as Seen, Given, Operation, Outcome, Request, Step, Target};
use store_core::mvcc::Answer;
use store_core::wire::command::Request as Wire;
use store_core::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use store_core::wire::request_op::Request as Op;
use store_core::wire::response_op::Response;
use store_core::wire::{
    CompactionRequest, Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::event::Event;
use crate::member::{Reply, Want};
use crate::queue::{MS, SECOND, Time};
use crate::world::Shared;

/// Keys that clients share.
const KEYS: u64 = 4;

/// A client, which asks one thing at a time.
pub(crate) struct Client {
    number: usize,
    /// The member that it asks.
    at: u64,
    /// Of the call that is on its way, or of the last.
    call: u64,
    asked: Option<(u64, Request)>,
    /// Revisions of keys, as far as it read them.
    known: BTreeMap<String, u64>,
    written: u64,
    /// Answered calls.
    pub(crate) answered: u64,
}

impl Client {
    pub(crate) fn new(number: usize, at: u64) -> Self {
        Self { number, at, call: 0, asked: None, known: BTreeMap::new(), written: 0, answered: 0 }
    }

    /// Asks for something.
    pub(crate) fn ask(&mut self, shared: &mut Shared) {
        if shared.chance.once_in(10) {
            self.at = shared.any_member();
        }
        self.call += 1;
        let request = self.choose(shared);
        let want = want(&request);
        self.asked = Some((shared.queue.now(), request));
        let (client, number, at, wait) = (self.number, self.call, self.at, shared.hop());
        shared.queue.after(wait, Event::Call { client, number, at, want });
        let patience = shared.chance.between(500 * MS, 3 * SECOND);
        shared.queue.after(patience, Event::GiveUp { client, number });
    }

    fn choose(&mut self, shared: &mut Shared) -> Request {
        let key = format!("k{}", shared.chance.below(KEYS));
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        match shared.chance.below(100) {
            0..30 => Request::put(&key, &value),
            30..55 => Request::get(&key),
            55..65 => Request { serializable: true, ..Request::get(&key) },
            65..75 => Request::delete(&key),
            75..95 => Request::swap(&key, self.known.get(&key).copied().unwrap_or(0), &value),
            _ => {
                let other = format!("k{}", (shared.chance.below(KEYS - 1) + 1 + number(&key)) % KEYS);
                let success = vec![Step::Put(key, value.clone()), Step::Put(other, value)];
                Request { success, ..Request::default() }
            }
        }
    }

    /// An answer came, or patience is at its end.
    pub(crate) fn answered(&mut self, number: u64, reply: Reply, shared: &mut Shared) {
        if number != self.call {
            return;
        }
        let Some((called, request)) = self.asked.take() else { return };
        let outcome = outcome(&request, reply);
        match &outcome {
            Outcome::Ok(seen) => {
                self.answered += 1;
                self.learn(&request, seen);
            }
            _ => self.at = shared.any_member(),
        }
        let (client, returned) = (self.number as u32, shared.queue.now());
        shared.operations.push(Operation {
            client,
            called: called * 1000,
            returned: returned * 1000,
            request,
            outcome,
        });
        let pause = shared.chance.around(shared.limits.think);
        shared.queue.after(pause, Event::Ask(self.number));
    }

    /// What it has asked for and has no answer to.
    pub(crate) fn pending(&self, now: Time) -> Option<Operation> {
        let (called, request) = self.asked.clone()?;
        let outcome = outcome(&request, Reply::Unknown("the run ended"));
        Some(Operation { client: self.number as u32, called: called * 1000, returned: now * 1000, request, outcome })
    }

    fn learn(&mut self, request: &Request, seen: &Seen) {
        for (step, given) in request.branch(seen.succeeded).iter().zip(&seen.steps) {
            let revision = match given {
                Given::Found(_, revision) => *revision,
                Given::Put => seen.revision,
                Given::Absent | Given::Deleted(_) => 0,
            };
            self.known.insert(step.key().to_owned(), revision);
        }
    }
}

fn number(key: &str) -> u64 {
    key[1..].parse().unwrap_or(0)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A put of a key that goes with a lease; 0: with none.
pub(crate) fn put(key: &str, value: &str, lease: i64) -> Want {
    Want::Write(Wire::Put(PutRequest { key: bytes(key), value: bytes(value), lease, ..PutRequest::default() }))
}

/// A compaction.
pub(crate) fn compact(revision: i64) -> Want {
    Want::Write(Wire::Compact(CompactionRequest { revision, ..CompactionRequest::default() }))
}

fn range(key: &str, serializable: bool) -> RangeRequest {
    RangeRequest { key: bytes(key), serializable, ..RangeRequest::default() }
}

fn op(step: &Step) -> RequestOp {
    let request = match step {
        Step::Get(key) => Op::RequestRange(range(key, false)),
        Step::Put(key, value) => {
            Op::RequestPut(PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() })
        }
        Step::Delete(key) => {
            Op::RequestDeleteRange(DeleteRangeRequest { key: bytes(key), ..DeleteRangeRequest::default() })
        }
    };
    RequestOp { request: Some(request) }
}

/// A request as the store knows it.
fn want(request: &Request) -> Want {
    if let (true, [step]) = (request.compares.is_empty(), request.success.as_slice()) {
        return match step {
            Step::Get(key) => Want::Read(range(key, request.serializable)),
            Step::Put(key, value) => put(key, value, 0),
            Step::Delete(key) => {
                Want::Write(Wire::DeleteRange(DeleteRangeRequest { key: bytes(key), ..DeleteRangeRequest::default() }))
            }
        };
    }
    let compare = |compare: &models::history::Compare| {
        let (target, union) = match &compare.equals {
            Target::ModRevision(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(*revision as i64)),
            Target::Value(value) => (CompareTarget::Value, TargetUnion::Value(bytes(value))),
        };
        Compare {
            key: bytes(&compare.key),
            target: target as i32,
            result: CompareResult::Equal as i32,
            target_union: Some(union),
            ..Compare::default()
        }
    };
    let compare = request.compares.iter().map(compare).collect();
    let (success, failure) = (request.success.iter().map(op).collect(), request.failure.iter().map(op).collect());
    Want::Write(Wire::Txn(TxnRequest { compare, success, failure }))
}

fn found(kvs: &[KeyValue]) -> Given {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    kvs.first().map_or(Given::Absent, |kv| Given::Found(text(&kv.value), kv.mod_revision as u64))
}

/// What came of a request.
fn outcome(request: &Request, reply: Reply) -> Outcome {
    let ok = |revision: i64, succeeded: bool, steps: Vec<Given>| {
        Outcome::Ok(Seen { revision: revision as u64, succeeded, steps })
    };
    match reply {
        Reply::Done(Answer::Put(_), revision) => ok(revision, true, vec![Given::Put]),
        Reply::Done(Answer::DeleteRange(answer), revision) => {
            ok(revision, true, vec![Given::Deleted(answer.deleted as u64)])
        }
        Reply::Done(Answer::Txn(answer), revision) => {
            let given = answer.responses.iter().filter_map(|response| match &response.response {
                Some(Response::ResponseRange(range)) => Some(found(&range.kvs)),
                Some(Response::ResponsePut(_)) => Some(Given::Put),
                Some(Response::ResponseDeleteRange(delete)) => Some(Given::Deleted(delete.deleted as u64)),
                _ => None,
            });
            ok(revision, answer.succeeded, given.collect())
        }
        Reply::Read(answer, revision) => ok(revision, true, vec![found(&answer.kvs)]),
        Reply::Refused(why) => Outcome::Failed(why),
        // A read that wasn't answered did nothing.
        Reply::Unknown(why) if !request.can_write() => Outcome::Failed(why.to_owned()),
        Reply::Unknown(why) => Outcome::Unknown(why.to_owned()),
        other => Outcome::Unknown(format!("it was answered by {other:?}")),
    }
}
