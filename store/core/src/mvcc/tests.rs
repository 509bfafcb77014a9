//! The state machine against a naive model: every revision kept as a whole map.

mod as_etcd;
mod encoding;
mod live;
mod reading;
mod txn;

use super::*;
use crate::wire::command::Request;
use crate::wire::{DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeMany, PutRequest, RangeRequest};
use proptest::prelude::*;
use seeded_bugs::assert_noticed;

#[derive(Default)]
struct Disk(BTreeMap<Revision, Bytes>);

impl Values for Disk {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        self.0.get(&at).cloned().ok_or(RequestError::Disk)
    }
}

/// The state machine with its disk.
struct Store {
    mvcc: Mvcc,
    disk: Disk,
}

impl Store {
    fn new() -> Self {
        Self { mvcc: Mvcc::new(), disk: Disk::default() }
    }

    fn run(&mut self, request: Request) -> Result<Answer, RequestError> {
        let command = Command { request: Some(request), ..Command::default() };
        let (writes, answer) = self.mvcc.apply(&command, &self.disk);
        for change in writes.changes.iter().filter(|c| c.kv.version > 0) {
            self.disk.0.insert(change.at, change.kv.value.clone());
        }
        answer
    }

    fn collect_all(&mut self) {
        loop {
            let (gone, more) = self.mvcc.collect();
            for at in gone {
                self.disk.0.remove(&at);
            }
            if !more {
                return;
            }
        }
    }

    fn range(&self, request: &RangeRequest) -> Result<crate::wire::RangeResponse, RequestError> {
        self.mvcc.range(request, &self.disk)
    }
}

fn put(key: &str, value: &str) -> Request {
    Request::Put(PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() })
}

fn delete(key: &str, end: &str) -> Request {
    Request::DeleteRange(DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        prev_kv: true,
    })
}

fn everything(revision: i64) -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..RangeRequest::default()
    }
}

#[test]
fn versions_and_revisions_count_as_in_etcd() {
    let mut store = Store::new();
    store.run(put("a", "1")).expect("a put");
    store.run(put("a", "2")).expect("a put");
    store.run(delete("a", "")).expect("a delete");
    store.run(delete("a", "")).expect("nothing to delete");
    store.run(put("a", "3")).expect("a put");
    assert_eq!(store.mvcc.revision(), 5);
    let kv = &store.range(&everything(0)).expect("a read").kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
    let old = &store.range(&everything(3)).expect("a read").kvs[0];
    assert_eq!((old.create_revision, old.mod_revision, old.version, &old.value[..]), (2, 3, 2, &b"2"[..]));
    assert_eq!(store.range(&everything(4)).expect("a read").count, 0);
    assert_eq!(store.range(&everything(6)), Err(RequestError::Future));
}

#[test]
fn limits_leave_the_count_alone() {
    let mut store = Store::new();
    for key in ["a", "b", "c"] {
        store.run(put(key, key)).expect("a put");
    }
    let page = store.range(&RangeRequest { limit: 2, ..everything(0) }).expect("a read");
    assert_eq!((page.kvs.len(), page.count, page.more), (2, 3, true));
    let descending = RangeRequest { sort_order: 2, sort_target: 0, limit: 1, ..everything(0) };
    assert_eq!(&store.range(&descending).expect("a read").kvs[0].key[..], b"c");
}

/// V4.
#[test]
fn compaction_hides_history_and_keeps_the_present() {
    let mut store = Store::new();
    for value in ["1", "2", "3"] {
        store.run(put("a", value)).expect("a put");
    }
    store.run(put("b", "x")).expect("a put");
    store.run(delete("b", "")).expect("a delete");
    let compact = |revision| Request::Compact(crate::wire::CompactionRequest { revision, physical: false });
    store.run(compact(6)).expect("compacted");
    assert_eq!(store.run(compact(6)), Err(RequestError::Compacted));
    assert_eq!(store.run(compact(99)), Err(RequestError::Future));
    store.collect_all();
    assert_eq!(store.range(&everything(5)), Err(RequestError::Compacted));
    assert_eq!(store.range(&everything(0)).expect("a read").kvs.len(), 1);
    assert_eq!(store.disk.0.len(), 1, "only what can be read is kept");
}

#[test]
fn a_lease_takes_its_keys_along() {
    let mut store = Store::new();
    store.run(Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 5 })).expect("granted");
    let with_lease =
        |key: &str, lease| Request::Put(PutRequest { key: key.to_owned().into(), lease, ..PutRequest::default() });
    store.run(with_lease("a", 7)).expect("a put");
    store.run(with_lease("b", 7)).expect("a put");
    store.run(put("b", "free")).expect("a put");
    assert_eq!(store.run(with_lease("c", 8)), Err(RequestError::LeaseNotFound));
    assert_eq!(store.mvcc.lease_keys(7), [Bytes::from_static(b"a")]);
    store.run(Request::LeaseRevoke(LeaseRevokeMany { ids: vec![7] })).expect("revoked");
    assert_eq!(store.range(&everything(0)).expect("a read").kvs[0].key, Bytes::from_static(b"b"));
    assert_eq!(store.run(Request::LeaseRevoke(LeaseRevokeMany { ids: vec![7] })), Err(RequestError::LeaseNotFound));
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Op {
    Put(u8, u8),
    Delete(u8, u8),
    Compact(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..6u8, any::<u8>()).prop_map(|(k, v)| Op::Put(k, v)),
        2 => (0..6u8, 0..7u8).prop_map(|(k, e)| Op::Delete(k, e)),
        1 => any::<u8>().prop_map(Op::Compact),
    ]
}

fn name(key: u8) -> String {
    format!("k{key}")
}

/// What a history may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// What is compacted can't be read itself.
    CompactsItsRevision,
    /// A deletion takes the end of its range along.
    DeletesTheEnd,
    /// A deletion that finds nothing is a revision.
    CountsNoDeletion,
}

/// Every revision, kept as a whole map.
struct Kept {
    history: Vec<BTreeMap<String, u8>>,
    compacted: i64,
    bug: Option<Bug>,
}

impl Kept {
    fn new(bug: Option<Bug>) -> Self {
        Self { history: vec![BTreeMap::new(), BTreeMap::new()], compacted: 0, bug }
    }

    fn now(&self) -> BTreeMap<String, u8> {
        self.history.last().cloned().unwrap_or_default()
    }

    fn put(&mut self, key: u8, value: u8) {
        let mut now = self.now();
        now.insert(name(key), value);
        self.history.push(now);
    }

    /// Gives how many keys went.
    fn delete(&mut self, key: &str, end: &str) -> i64 {
        let takes_end = |k: &str| self.bug == Some(Bug::DeletesTheEnd) && k == end;
        let before = self.now();
        let mut now = before.clone();
        now.retain(|k, _| !in_range(k.as_bytes(), key.as_bytes(), end.as_bytes()) && !takes_end(k));
        let deleted = (before.len() - now.len()) as i64;
        if deleted > 0 || self.bug == Some(Bug::CountsNoDeletion) {
            self.history.push(now);
        }
        deleted
    }

    /// What a read at this revision shows; `None` if it is compacted.
    fn at(&self, revision: i64) -> Option<&BTreeMap<String, u8>> {
        let floor = self.compacted + i64::from(self.bug == Some(Bug::CompactsItsRevision));
        (revision >= floor).then(|| &self.history[revision as usize])
    }
}

/// Does the same to both.
fn step(store: &mut Store, kept: &mut Kept, op: &Op) -> Result<(), TestCaseError> {
    match *op {
        Op::Put(key, value) => {
            store.run(put(&name(key), &value.to_string())).expect("a put");
            kept.put(key, value);
        }
        Op::Delete(key, end) => {
            let end = if end <= key { String::new() } else { name(end) };
            let Ok(Answer::DeleteRange(answer)) = store.run(delete(&name(key), &end)) else { panic!("refused") };
            prop_assert_eq!(answer.deleted, kept.delete(&name(key), &end));
        }
        Op::Compact(at) => {
            let revision = i64::from(at) % store.mvcc.revision() + 1;
            let request = Request::Compact(crate::wire::CompactionRequest { revision, physical: false });
            let done = store.run(request).is_ok();
            prop_assert_eq!(done, revision > kept.compacted);
            if done {
                kept.compacted = revision;
                store.collect_all();
            }
        }
    }
    Ok(())
}

/// What a range holds, keys with values.
fn shown(read: &crate::wire::RangeResponse) -> BTreeMap<String, u8> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    read.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value).parse().unwrap_or(0))).collect()
}

fn shows_what_was_kept(ops: Vec<Op>, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (mut store, mut kept) = (Store::new(), Kept::new(bug));
    for op in ops {
        step(&mut store, &mut kept, &op)?;
        prop_assert_eq!(store.mvcc.revision(), kept.history.len() as i64 - 1);
        for revision in 1..kept.history.len() as i64 {
            let read = store.range(&everything(revision)).map(|read| shown(&read));
            prop_assert_eq!(read, kept.at(revision).cloned().ok_or(RequestError::Compacted));
        }
    }
    Ok(())
}

proptest! {
    /// Every readable revision shows what the naive model kept of it, compaction or not.
    #[test]
    fn history_is_the_naive_models(ops in prop::collection::vec(op(), 0..60)) {
        shows_what_was_kept(ops, None)?;
    }
}

/// A revision too many or too few, and a key too many, are found.
#[test]
fn a_wrong_history_is_noticed() {
    let bugs = [Bug::CompactsItsRevision, Bug::DeletesTheEnd, Bug::CountsNoDeletion];
    assert_noticed(&bugs, &prop::collection::vec(op(), 0..60), shows_what_was_kept);
}
