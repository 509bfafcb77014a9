//! The count of live bytes against a sum over all versions that ever were.

use super::*;
use crate::wire::{CompactionRequest, RequestOp, TxnRequest, request_op};

/// What a count may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// What was replaced at the compacted revision itself counts on.
    FloorIsLate,
    /// What marks a key as deleted counts for ever.
    KeepsDeletions,
    /// Leases are free.
    ForgetsLeases,
}

/// A store, its records as they lie on disk, and everything that ever was written.
struct Counted {
    mvcc: Mvcc,
    disk: Disk,
    records: BTreeMap<Revision, KeyValue>,
    ever: Vec<Change>,
    bug: Option<Bug>,
}

impl Counted {
    fn run(&mut self, request: Request) -> Result<Answer, RequestError> {
        let command = Command { request: Some(request), ..Command::default() };
        let (writes, answer) = self.mvcc.apply(&command, &self.disk);
        for change in &writes.changes {
            self.records.insert(change.at, change.kv.clone());
            self.disk.0.insert(change.at, change.kv.value.clone());
        }
        self.ever.extend(writes.changes);
        answer
    }

    fn collect(&mut self) {
        let (gone, _) = self.mvcc.collect();
        gone.iter().for_each(|at| drop(self.records.remove(at)));
    }

    /// As a member that starts, from what is on its disk.
    fn reload(&mut self) {
        let mut restarted = Mvcc::new();
        self.mvcc.lease_times().for_each(|(id, ttl, remaining)| restarted.restore_lease(id, ttl, remaining));
        if self.mvcc.compacted() > 0 {
            restarted.restore_compacted(self.mvcc.compacted());
        }
        for (at, kv) in &self.records {
            restarted.restore_change(*at, kv, u32::try_from(kv.value.len()).expect("short"));
        }
        restarted.restore_revision(self.mvcc.revision());
        self.mvcc = restarted;
    }

    /// What a read at the compacted revision or later sees, looked up version by version.
    fn naive(&self) -> u64 {
        let compacted = self.mvcc.compacted();
        let is_hidden = |at: usize| {
            let version = &self.ever[at];
            let mut later = self.ever[at + 1..].iter().filter(|next| next.kv.key == version.kv.key);
            let floor = compacted - i64::from(self.bug == Some(Bug::FloorIsLate));
            let is_replaced = later.any(|next| next.at.main <= floor);
            let is_deletion = version.kv.version == 0 && self.bug != Some(Bug::KeepsDeletions);
            version.at.main < compacted && (is_deletion || is_replaced)
        };
        let kept = (0..self.ever.len()).filter(|at| !is_hidden(*at)).map(|at| &self.ever[at].kv);
        let each = if self.bug == Some(Bug::ForgetsLeases) { 0 } else { LEASE_BYTES };
        let leases = each * self.mvcc.leases().count() as u64;
        kept.map(|kv| version_bytes(kv.key.len(), kv.value.len())).sum::<u64>() + leases
    }
}

/// Deletes everything from a key on, the key itself put twice within one revision.
fn delete_and_put(key: &str, value: &str) -> Request {
    let op = |request| RequestOp { request: Some(request) };
    let delete = DeleteRangeRequest { key: key.to_owned().into(), range_end: "\0".into(), prev_kv: false };
    let put = PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() };
    let success = vec![op(request_op::Request::RequestDeleteRange(delete)), op(request_op::Request::RequestPut(put))];
    Request::Txn(TxnRequest { success, ..TxnRequest::default() })
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8, u8),
    DeleteAndPut(u8),
    Grant(i64),
    Revoke(i64),
    Compact(u8),
    Collect,
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, any::<u8>()).prop_map(|(key, length)| Step::Put(key, length)),
        2 => (0..4u8, 0..5u8).prop_map(|(key, end)| Step::Delete(key, end)),
        1 => (0..4u8).prop_map(Step::DeleteAndPut),
        1 => (1..4i64).prop_map(Step::Grant),
        1 => (1..4i64).prop_map(Step::Revoke),
        2 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Collect),
        1 => Just(Step::Reload),
    ]
}

fn counts_the_sum(steps: Vec<Step>, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (mvcc, disk) = (Mvcc::new(), Disk::default());
    let mut store = Counted { mvcc, disk, records: BTreeMap::new(), ever: Vec::new(), bug };
    for step in steps {
        // What is refused changes nothing.
        let _ = match step {
            Step::Put(key, length) => store.run(put(&name(key), &"x".repeat(length.into()))),
            Step::Delete(key, end) => {
                store.run(delete(&name(key), &if end <= key { String::new() } else { name(end) }))
            }
            Step::DeleteAndPut(key) => store.run(delete_and_put(&name(key), "xyz")),
            Step::Grant(id) => store.run(Request::LeaseGrant(LeaseGrantRequest { id, ttl: 5 })),
            Step::Revoke(id) => store.run(Request::LeaseRevoke(LeaseRevokeMany { ids: vec![id] })),
            Step::Compact(at) => {
                let revision = i64::from(at) % store.mvcc.revision() + 1;
                store.run(Request::Compact(CompactionRequest { revision, physical: false }))
            }
            Step::Collect => {
                store.collect();
                Ok(Answer::Compact)
            }
            Step::Reload => {
                store.reload();
                Ok(Answer::Compact)
            }
        };
        prop_assert_eq!(store.mvcc.live_bytes(), store.naive());
    }
    Ok(())
}

proptest! {
    /// L1: after anything, the count is the sum, collected or not, restarted or not.
    #[test]
    fn live_bytes_are_what_a_sum_over_all_versions_says(steps in prop::collection::vec(step(), 0..80)) {
        counts_the_sum(steps, None)?;
    }
}

/// A sum of too much or too little is found.
#[test]
fn a_wrong_sum_is_noticed() {
    let bugs = [Bug::FloorIsLate, Bug::KeepsDeletions, Bug::ForgetsLeases];
    assert_noticed(&bugs, &prop::collection::vec(step(), 0..80), counts_the_sum);
}
