//! Objects in the simulated store, as `apiserver/server/src/storage.rs` reads and writes them there.

use std::cell::Cell;
use std::rc::Rc;

use apiserver_core::fence::Fence;
use bytes::Bytes;
use store_core::mvcc::Answer as Applied;
use store_core::wire::command::Request;
use store_core::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use store_core::wire::request_op::Request as Op;
use store_core::wire::response_op::Response;
use store_core::wire::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};

use super::STORE;
use super::tasks::{Mailbox, Sim};
use crate::event::Event;
use crate::member::{Reply, Want};
use crate::queue::{MS, SECOND, Time};
use crate::stream::Answer;

const RETRY_FOR: Time = 15 * SECOND;
const RETRY_FIRST: Time = 20 * MS;
const RETRY_MOST: Time = 500 * MS;
const ATTEMPT: Time = 6 * SECOND;

/// An object's bytes as stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) value: Bytes,
    pub(crate) revision: i64,
}

/// Why the store didn't do it.
#[derive(Debug, Clone)]
pub(crate) enum StorageError {
    Conflict(Option<Stored>),
    Fenced(i64),
    Compacted,
    /// Outcome unknown, or store out of reach.
    Unavailable(String),
}

/// A guarded write of one object.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) key: String,
    /// Mod revision that the object must have; 0: it must not exist.
    pub(crate) expected: i64,
    /// `None`: it is deleted.
    pub(crate) value: Option<Bytes>,
    pub(crate) fence: Option<Fence>,
}

struct Refused {
    found: Option<Stored>,
    fence: i64,
}

/// A client of the store, at one of its members.
#[derive(Clone)]
pub(crate) struct Storage {
    sim: Sim,
    at: Rc<Cell<u64>>,
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn stored(kv: &KeyValue) -> Stored {
    let key = String::from_utf8_lossy(&kv.key).into_owned();
    Stored { key, value: kv.value.clone(), revision: kv.mod_revision }
}

impl Storage {
    pub(crate) fn new(sim: &Sim) -> Self {
        let storage = Self { sim: sim.clone(), at: Rc::default() };
        storage.go_elsewhere();
        storage
    }

    /// To any member, this one perhaps.
    fn go_elsewhere(&self) {
        let members = self.sim.members.borrow().clone();
        self.at.set(*self.sim.one_of(&members));
    }

    async fn call(&self, want: Want) -> Result<Reply, StorageError> {
        let (number, slot) = self.sim.asked();
        self.sim.plan(self.sim.hop(), Event::Call { client: STORE, number, at: self.at.get(), want });
        let unavailable = |why: &str| Err(StorageError::Unavailable(why.to_owned()));
        let reply = match self.sim.within(ATTEMPT, slot.wait()).await {
            Some(Reply::Refused(why)) if why.contains("compacted") => return Err(StorageError::Compacted),
            Some(Reply::Refused(why)) => unavailable(&why),
            Some(Reply::Unknown(why)) => unavailable(why),
            Some(reply) => return Ok(reply),
            None => unavailable("no answer"),
        };
        self.go_elsewhere();
        reply
    }

    /// Repeats what may be repeated while the store can't be reached.
    async fn retry(&self, want: &Want) -> Result<Reply, StorageError> {
        let deadline = self.sim.now() + RETRY_FOR;
        let mut pause = RETRY_FIRST;
        loop {
            match self.call(want.clone()).await {
                Err(StorageError::Unavailable(_)) if self.sim.now() + pause <= deadline => {}
                other => return other,
            }
            self.sim.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    /// What is stored from a key up to before another, and the revision as of which it is.
    pub(crate) async fn range(&self, key: &str, end: &str) -> Result<(Vec<Stored>, i64), StorageError> {
        let request = RangeRequest { key: bytes(key), range_end: bytes(end), ..RangeRequest::default() };
        match self.retry(&Want::Read(request)).await? {
            Reply::Read(response, revision) => Ok((response.kvs.iter().map(stored).collect(), revision)),
            other => Err(StorageError::Unavailable(format!("a read was answered by {other:?}"))),
        }
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        Ok(self.range(key, "").await?.0.into_iter().next())
    }

    pub(crate) async fn revision(&self) -> Result<i64, StorageError> {
        Ok(self.range("/registry/revision", "").await?.1)
    }

    /// Commits a change of an object; returns its new revision.
    pub(crate) async fn write(&self, write: Write) -> Result<i64, StorageError> {
        self.commit(write, |_| {}).await
    }

    /// Commits a creation; `another` makes another object of it before each attempt that follows one without an answer.
    pub(crate) async fn create(
        &self,
        write: Write,
        another: impl FnMut(&mut Option<Bytes>),
    ) -> Result<i64, StorageError> {
        self.commit(write, another).await
    }

    async fn commit(&self, mut write: Write, mut again: impl FnMut(&mut Option<Bytes>)) -> Result<i64, StorageError> {
        let deadline = self.sim.now() + RETRY_FOR;
        let (mut pause, mut repeated) = (RETRY_FIRST, false);
        loop {
            let error = match self.attempt(&write).await {
                Ok(Ok(revision)) => return Ok(revision),
                Ok(Err(refused)) => return settle(&write, refused, repeated),
                Err(error) => error,
            };
            if !matches!(error, StorageError::Unavailable(_)) || self.sim.now() + pause > deadline {
                return Err(error);
            }
            self.sim.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
            repeated = true;
            again(&mut write.value);
        }
    }

    async fn attempt(&self, write: &Write) -> Result<Result<i64, Refused>, StorageError> {
        let reply = self.call(Want::Write(Request::Txn(transaction(write)))).await?;
        let (answer, revision) = match reply {
            Reply::Done(Applied::Txn(answer), revision) => (answer, revision),
            other => return Err(StorageError::Unavailable(format!("a transaction was answered by {other:?}"))),
        };
        if answer.succeeded {
            return Ok(Ok(revision));
        }
        let mut found = found(&answer);
        let (object, fence) = (found.next().flatten(), found.next().flatten());
        Ok(Err(Refused { found: object, fence: fence.map_or(0, |fence| fence.revision) }))
    }

    /// Watches all keys under a prefix, from a revision on.
    pub(crate) fn watch(&self, prefix: &str, revision: i64) -> Watching {
        let (number, answers) = self.sim.watched();
        let watching = Watching { sim: self.sim.clone(), at: self.at.get(), number, answers };
        let mut end = prefix.trim_end_matches('/').to_owned();
        end.push('0');
        let wanted = (bytes(prefix), bytes(&end));
        let event = Event::Watch { id: watching.id(), at: watching.at, wanted, start: revision, before: true };
        self.sim.plan(self.sim.hop(), event);
        self.go_elsewhere();
        watching
    }
}

fn found(answer: &TxnResponse) -> impl Iterator<Item = Option<Stored>> {
    answer.responses.iter().filter_map(|op| match &op.response {
        Some(Response::ResponseRange(range)) => Some(range.kvs.first().map(stored)),
        _ => None,
    })
}

fn compare(key: &str, result: CompareResult, revision: i64) -> Compare {
    Compare {
        key: bytes(key),
        target: CompareTarget::Mod as i32,
        result: result as i32,
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Compare::default()
    }
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put(key: &str, value: Bytes) -> RequestOp {
    op(Op::RequestPut(PutRequest { key: bytes(key), value, ..PutRequest::default() }))
}

fn get(key: &str) -> RequestOp {
    op(Op::RequestRange(RangeRequest { key: bytes(key), ..RangeRequest::default() }))
}

fn transaction(write: &Write) -> TxnRequest {
    let mut compares = vec![compare(&write.key, CompareResult::Equal, write.expected)];
    let mut success = vec![match &write.value {
        Some(value) => put(&write.key, value.clone()),
        None => {
            op(Op::RequestDeleteRange(DeleteRangeRequest { key: bytes(&write.key), ..DeleteRangeRequest::default() }))
        }
    }];
    let mut failure = vec![get(&write.key)];
    if let Some(fence) = &write.fence {
        let key = fence.key();
        if let Some(known) = fence.known {
            compares.push(compare(&key, CompareResult::Less, known + 1));
        }
        failure.push(get(&key));
        success.push(put(&key, bytes(&write.key)));
    }
    TxnRequest { compare: compares, success, failure }
}

/// What a failed guard means: somebody else's write, or our own earlier attempt.
fn settle(write: &Write, Refused { found, fence }: Refused, repeated: bool) -> Result<i64, StorageError> {
    if repeated {
        match (&write.value, &found) {
            (Some(value), Some(now)) if now.value == *value => return Ok(now.revision),
            (None, None) => return Ok(write.expected + 1),
            _ => {}
        }
    }
    let is_as_expected = found.as_ref().is_some_and(|found| found.revision == write.expected);
    if is_as_expected && write.fence.as_ref().is_some_and(|asked| !asked.admits(fence)) {
        return Err(StorageError::Fenced(fence));
    }
    Err(StorageError::Conflict(found))
}

/// A watch on the store; it ends with this.
pub(crate) struct Watching {
    sim: Sim,
    at: u64,
    number: u64,
    answers: Mailbox<Answer>,
}

impl Watching {
    fn id(&self) -> (usize, u64) {
        (STORE, self.number)
    }

    pub(crate) async fn next(&self) -> Answer {
        let answer = self.answers.receive().await;
        if matches!(answer, Answer::Events(_)) {
            self.sim.plan(self.sim.hop(), Event::WentOn { id: self.id(), at: self.at, asks: false });
        }
        answer
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.sim.unwatched(self.number);
        self.sim.plan(self.sim.hop(), Event::Unwatch { id: self.id(), at: self.at });
    }
}
