//! The committed log, and what a watcher is to be given of it.

use bytes::Bytes;
use store_core::mvcc::in_range;
use store_core::wire::command::Request;
use store_core::wire::request_op::Request as Op;
use store_core::wire::{Command as Wire, CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

/// The newest revision of an empty store.
pub(super) const EMPTY: i64 = 1;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Command {
    /// Puts a key.
    Put(u8),
    /// Puts both in a transaction.
    PutBoth,
    /// Deletes a key that is there.
    Delete(u8),
    /// Compacts to a revision.
    Compact(i64),
}

/// What clients write, in this order.
pub(super) const SCRIPT: [Command; 4] =
    [Command::Put(b'a'), Command::PutBoth, Command::Delete(b'a'), Command::Put(b'b')];

/// An event: revision, place in it, key, and whether the key is gone.
pub(super) type Event = (i64, i64, u8, bool);

/// What a watcher wants: keys from one up to before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Wanted(pub(super) u8, pub(super) u8);

impl Wanted {
    pub(super) fn matches(self, key: &[u8]) -> bool {
        in_range(key, &[self.0], &[self.1])
    }
}

fn put(key: u8) -> PutRequest {
    PutRequest { key: Bytes::from(vec![key]), value: Bytes::from_static(b"v"), ..PutRequest::default() }
}

impl Command {
    pub(super) fn wire(self) -> Wire {
        let request = match self {
            Self::Put(key) => Request::Put(put(key)),
            Self::PutBoth => {
                let success = [b'a', b'b'].map(|key| RequestOp { request: Some(Op::RequestPut(put(key))) }).into();
                Request::Txn(TxnRequest { success, ..TxnRequest::default() })
            }
            Self::Delete(key) => {
                let key = Bytes::from(vec![key]);
                Request::DeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
            }
            Self::Compact(revision) => Request::Compact(CompactionRequest { revision, ..CompactionRequest::default() }),
        };
        Wire { request: Some(request), ..Wire::default() }
    }

    /// The keys that it changes, and whether they go.
    fn changes(self) -> &'static [(u8, bool)] {
        match self {
            Self::Put(b'a') => &[(b'a', false)],
            Self::Put(_) => &[(b'b', false)],
            Self::PutBoth => &[(b'a', false), (b'b', false)],
            Self::Delete(_) => &[(b'a', true)],
            Self::Compact(_) => &[],
        }
    }
}

/// The newest revision.
pub(super) fn revision(log: &[Command]) -> i64 {
    EMPTY + log.iter().filter(|command| !command.changes().is_empty()).count() as i64
}

/// Everything that a watcher is to be given of the revisions behind `seen`, up to one: told from the log alone.
pub(super) fn events(log: &[Command], wanted: Wanted, seen: i64, to: i64) -> Vec<Event> {
    let writes = log.iter().filter(|command| !command.changes().is_empty());
    let numbered = (EMPTY + 1..).zip(writes).filter(|(revision, _)| *revision > seen && *revision <= to);
    let changes = numbered.flat_map(|(revision, command)| {
        (0..).zip(command.changes()).map(move |(sub, (key, gone))| (revision, sub, *key, *gone))
    });
    changes.filter(|(_, _, key, _)| wanted.matches(&[*key])).collect()
}
