//! Runs a sequence on both servers and compares what they answer.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::future::join_all;
use store_core::wire::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, ResponseHeader, WatchRequest,
};

use super::known;
use super::operation::{Call, Operation, Position};
use super::server::{Outcome, Reply, Server};
use super::watching::{SENTINEL, Stream, settle};

/// What the two servers don't agree on.
pub(crate) type Difference = String;

/// Both servers, at the same revision.
pub(crate) struct Pair {
    pub(crate) etcd: Server,
    pub(crate) ours: Server,
    pub(crate) position: Position,
    /// Where the servers were compacted.
    pub(crate) compactions: BTreeSet<i64>,
}

/// Revisions a little before the first sequence are no special ones.
const REVISION_MIN: i64 = 100;
const EVERYTHING: Bytes = Bytes::from_static(b"\0");

fn header(outcome: &Outcome) -> Option<&ResponseHeader> {
    match outcome.as_ref().ok()? {
        Reply::Range(a) => a.header.as_ref(),
        Reply::Put(a) => a.header.as_ref(),
        Reply::DeleteRange(a) => a.header.as_ref(),
        Reply::Txn(a) => a.header.as_ref(),
        Reply::Compact(a) => a.header.as_ref(),
        Reply::LeaseGrant(a) => a.header.as_ref(),
        Reply::LeaseRevoke(a) => a.header.as_ref(),
        Reply::TimeToLive(a) => a.header.as_ref(),
        Reply::Leases(a) => a.header.as_ref(),
        Reply::KeepAlive(a) => a.header.as_ref(),
    }
}

/// Shows an answer without filling the screen.
fn shown(outcome: &Outcome) -> String {
    let mut text = format!("{outcome:?}");
    if text.len() > 4_000 {
        text.truncate(text.floor_char_boundary(4_000));
        text.push('…');
    }
    text
}

fn agree(call: &Call, theirs: &Outcome, ours: &Outcome) -> Result<(), Difference> {
    if known::same(call, theirs, ours) {
        return Ok(());
    }
    Err(format!("{call:?}\n  etcd: {}\n  ours: {}", shown(theirs), shown(ours)))
}

impl Pair {
    fn note(&mut self, call: &Call, theirs: &Outcome) {
        if let Some(header) = header(theirs) {
            self.position.revision = self.position.revision.max(header.revision);
        }
        if let (Call::Compact(compact), Ok(_)) = (call, theirs) {
            self.position.compacted = compact.revision;
            self.compactions.insert(compact.revision);
        }
    }

    async fn ask(&self, call: &Call) -> (Outcome, Outcome) {
        tokio::join!(self.etcd.call(call.clone()), self.ours.call(call.clone()))
    }

    /// Makes a call on both.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Outcome, Difference> {
        let (theirs, ours) = self.ask(call).await;
        agree(call, &theirs, &ours)?;
        self.note(call, &theirs);
        Ok(theirs)
    }

    /// Makes calls that change nothing, all at once.
    async fn reads(&mut self, calls: &[Call]) -> Result<(), Difference> {
        let answers = join_all(calls.iter().map(|call| self.ask(call))).await;
        calls.iter().zip(&answers).try_for_each(|(call, (theirs, ours))| agree(call, theirs, ours))
    }

    async fn grant_unnamed(&mut self, ttl: i64) -> Result<(), Difference> {
        let call = Call::LeaseGrant(LeaseGrantRequest { ttl, id: 0 });
        let (mut theirs, mut ours) = self.ask(&call).await;
        let mut ids = [0, 0];
        for (outcome, id) in [&mut theirs, &mut ours].into_iter().zip(&mut ids) {
            if let Ok(Reply::LeaseGrant(answer)) = outcome {
                *id = std::mem::take(&mut answer.id);
                if *id <= 0 {
                    return Err(format!("a chosen lease of {id}"));
                }
            }
        }
        agree(&call, &theirs, &ours)?;
        let [theirs, ours] = ids.map(Call::LeaseRevoke);
        let _ = tokio::join!(self.etcd.call(theirs), self.ours.call(ours));
        Ok(())
    }

    async fn grant_briefly(&mut self, id: i64, ttl: i64) -> Result<(), Difference> {
        if self.call(&Call::LeaseGrant(LeaseGrantRequest { id, ttl })).await?.is_ok() {
            // It has no keys. On a machine that paused it may have ended by itself, which isn't compared.
            let _ = self.ask(&Call::LeaseRevoke(id)).await;
        }
        Ok(())
    }

    async fn keep_alive(&mut self, id: i64) -> Result<(), Difference> {
        let (theirs, ours) = tokio::join!(self.etcd.keep_alive(id), self.ours.keep_alive(id));
        if theirs == ours { Ok(()) } else { Err(format!("keep alive {id}\n  etcd: {theirs:?}\n  ours: {ours:?}")) }
    }

    /// Brings both to the same revision, without keys and leases, compacted to the same place.
    pub(crate) async fn align(&mut self) {
        let everything =
            Call::DeleteRange(DeleteRangeRequest { key: EVERYTHING, range_end: EVERYTHING, prev_kv: false });
        for server in [&self.etcd, &self.ours] {
            if let Ok(Reply::Leases(answer)) = server.call(Call::Leases).await {
                for lease in answer.leases {
                    let _ = server.call(Call::LeaseRevoke(lease.id)).await;
                }
            }
            server.call(everything.clone()).await.expect("everything is deleted");
        }
        let (theirs, ours) = tokio::join!(self.etcd.revision(), self.ours.revision());
        let behind = if theirs < ours { &self.etcd } else { &self.ours };
        let sentinel = Call::Put(PutRequest { key: SENTINEL.into(), ..PutRequest::default() });
        for _ in 0..theirs.abs_diff(ours) {
            behind.call(sentinel.clone()).await.expect("a put");
        }
        for _ in theirs.max(ours)..REVISION_MIN {
            let _ = self.ask(&sentinel).await;
        }
        // Now both have the key, or had it deleted, the same way.
        for server in [&self.etcd, &self.ours] {
            server.call(sentinel.clone()).await.expect("a put");
        }
        let both = [&self.etcd, &self.ours];
        for server in both {
            server.call(everything.clone()).await.expect("everything is deleted");
        }
        let (revision, ours) = tokio::join!(self.etcd.revision(), self.ours.revision());
        assert_eq!(revision, ours, "the servers can't be brought to one revision");
        let compact = Call::Compact(CompactionRequest { revision, physical: true });
        for server in both {
            server.call(compact.clone()).await.expect("compacted");
        }
        self.position = Position { revision, compacted: revision };
        self.compactions.insert(revision);
    }

    /// Runs a sequence from a clean beginning; afterwards its keys and leases are gone again.
    pub(crate) async fn run(&mut self, operations: &[Operation], prefix: &str) -> Result<(), Difference> {
        let mut streams = BTreeMap::new();
        let mut reads = Vec::new();
        for operation in operations {
            let operation = self.position.settled(operation.clone());
            match operation {
                Operation::Call(call) if call.only_reads() => {
                    reads.push(call);
                    continue;
                }
                other => {
                    self.reads(&std::mem::take(&mut reads)).await?;
                    self.change(other, &mut streams).await?;
                }
            }
        }
        self.reads(&reads).await?;
        self.clean(prefix).await?;
        settle(self, streams.values_mut().collect()).await?;
        streams.values_mut().try_for_each(|stream| stream.compare(self.position.revision, &self.compactions))
    }

    async fn change(&mut self, operation: Operation, streams: &mut BTreeMap<usize, Stream>) -> Result<(), Difference> {
        match operation {
            Operation::Call(call) => {
                if matches!(call, Call::Compact(_)) {
                    // A watcher that etcd hasn't caught up yet would be ended by it.
                    settle(self, streams.values_mut().collect()).await?;
                }
                self.call(&call).await.map(drop)
            }
            Operation::AnonymousGrant { ttl } => self.grant_unnamed(ttl).await,
            Operation::BriefGrant { id, ttl } => self.grant_briefly(id, ttl).await,
            Operation::KeepAlive { id } => self.keep_alive(id).await,
            Operation::Watch { stream, request } => self.watch(streams, stream, &request).await,
        }
    }

    async fn watch(
        &mut self,
        streams: &mut BTreeMap<usize, Stream>,
        at: usize,
        request: &WatchRequest,
    ) -> Result<(), Difference> {
        let stream = match streams.entry(at) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Stream::open(self).await?),
        };
        stream.request(self, request).await
    }

    /// Takes keys and leases away again, and looks whether all that is left is the same.
    async fn clean(&mut self, prefix: &str) -> Result<(), Difference> {
        let everything = RangeRequest { key: EVERYTHING, range_end: EVERYTHING, ..RangeRequest::default() };
        self.reads(&[Call::Range(everything)]).await?;
        if let Ok(Reply::Leases(answer)) = self.call(&Call::Leases).await? {
            for lease in answer.leases {
                self.call(&Call::LeaseRevoke(lease.id)).await.map(drop)?;
            }
        }
        // "/" ends a prefix and "0" comes behind it.
        let range_end = prefix.replace('/', "0").into();
        let keys = DeleteRangeRequest { key: prefix.to_owned().into(), range_end, prev_kv: true };
        self.call(&Call::DeleteRange(keys)).await.map(drop)
    }
}
