//! Divergence: members that applied the same log and came to different states.
//!
//! Problem. The same commands must do the same everywhere. A fault of the code, of memory or of a disk
//!          breaks that for one member, which goes on and answers wrongly.
//! Idea.    Each member chains a hash over what every command did. At every index that is a multiple of
//!          [`CHECK_ENTRIES`] each says in the log what its hash was there. These votes are state like
//!          any other, so all members count them at the same place of the history.
//!
//! Who is wrong? Whoever differs from what more than half of the voting members say, the leader like
//! anybody else. If all of them have voted and no hash has a majority, somebody is wrong and nobody
//! can tell who: the alarm is raised for member 0 then, as etcd does it. A majority that goes wrong in
//! the same way can't be told from one that is right.
//!
//! Why in the log: there is nothing to be lost, timed or remembered outside of the state. A vote is of an
//! index, so it doesn't matter how much later it is applied, nor who leads then. One that a change
//! of leader drops is made up for by the next. It costs one small entry a member in [`CHECK_ENTRIES`].
//!
//! What this doesn't find: a value that changes on disk does nothing until a command reads it. So at
//! each compaction members compare what lies on their disks as well, in the same way: what it keeps of
//! the revisions since the compaction before, each version once. It is read in the background, and a
//! member that hasn't come to its end by the next compaction has no vote. What is older isn't read
//! again: there are RocksDB's checksums for flipped bits, and `HashKV` for who wants to compare all of it.
//!
//! A hash goes on from the one before, so whoever differed once differs for ever, until it gets
//! another's state as a whole, with its hash. A version that hashes otherwise has to begin anew at a
//! place that the log names.
//!
//! Invariants
//!   D1  Members that did the same from the same beginning have the same hash, and none have it
//!       that did different things: XXH3 says so of faults, which don't choose what they do.
//!   D2  What is kept is bounded: votes of members, at [`CHECKS_MAX`] indexes and compactions.
//!   D3  Nobody is blamed without a majority against him.
//! Checked by: divergence/tests.rs.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use crate::errors::RequestError;
use crate::membership::Members;
use crate::mvcc::{Change, Writes};
use crate::wire::{HashVote, HashVotes};

/// Entries from one comparison to the next.
pub const CHECK_ENTRIES: u64 = 1024;
/// Indexes, and compactions, whose votes are kept, for members that are behind.
const CHECKS_MAX: usize = 8;
/// Whom an alarm is raised for if it isn't known who is wrong.
pub const NOBODY_KNOWS: u64 = 0;

/// XXH3 of 128 bits: accidents don't meet in them.
pub type Hash = [u8; 16];

/// The hash of everything that was done so far (D1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain(Hash);

/// A hash of versions as they lie on disk, in order.
#[derive(Clone, Default)]
pub struct AtRest(Box<Feed>);

impl AtRest {
    /// The next version, with its value.
    pub fn add(&mut self, change: &Change) {
        self.0.change(change);
    }

    /// The hash of all of them.
    #[must_use]
    pub fn hash(self) -> Hash {
        self.0.finish()
    }
}

/// Feeds a hash; parts of changing length go behind their length.
#[derive(Clone, Default)]
struct Feed(Xxh3);

impl Feed {
    fn number(&mut self, number: i64) {
        self.0.update(&number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn change(&mut self, change: &Change) {
        let kv = &change.kv;
        for number in [change.at.main, change.at.sub, kv.create_revision, kv.version, kv.lease] {
            self.number(number);
        }
        self.bytes(&kv.key);
        self.bytes(&kv.value);
    }

    fn finish(self) -> Hash {
        self.0.digest128().to_be_bytes()
    }

    /// Absent is something else than empty.
    fn maybe(&mut self, bytes: Option<&[u8]>) {
        self.number(i64::from(bytes.is_some()));
        self.bytes(bytes.unwrap_or_default());
    }
}

impl Chain {
    /// Goes on from a hash, as stored.
    #[must_use]
    pub fn of(hash: Hash) -> Self {
        Self(hash)
    }

    /// The hash now.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.0
    }

    /// A command was applied: what it wrote, or why it was refused.
    pub fn step(&mut self, index: u64, writes: &Writes, refused: Option<RequestError>) {
        let mut feed = Feed::default();
        feed.bytes(&self.0);
        feed.number(index.cast_signed());
        feed.number(writes.changes.len() as i64);
        writes.changes.iter().for_each(|change| feed.change(change));
        feed.number(writes.granted.len() as i64);
        for (id, ttl) in &writes.granted {
            feed.number(*id);
            feed.number(*ttl);
        }
        feed.number(writes.ended.len() as i64);
        writes.ended.iter().for_each(|id| feed.number(*id));
        feed.number(writes.checkpoints.len() as i64);
        for (id, remaining) in &writes.checkpoints {
            feed.number(*id);
            feed.number(*remaining);
        }
        feed.number(writes.compacted.unwrap_or(0));
        feed.maybe(writes.members.as_ref().map(prost::Message::encode_to_vec).as_deref());
        feed.maybe(writes.alarms.as_ref().map(prost::Message::encode_to_vec).as_deref());
        feed.number(writes.auth.len() as i64);
        for (key, value) in &writes.auth {
            feed.bytes(key);
            feed.maybe(value.as_deref());
        }
        feed.maybe(refused.map(|error| error.to_string()).as_deref().map(str::as_bytes));
        self.0 = feed.finish();
    }
}

/// Whether it lies on disk, and the index or the compacted revision.
type Subject = (bool, u64);

/// What members said of themselves, by what it is about (D2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Votes(BTreeMap<Subject, BTreeMap<u64, Hash>>);

impl Votes {
    /// Rebuilding from disk.
    #[must_use]
    pub fn from_wire(wire: &HashVotes) -> Self {
        let mut votes = Self::default();
        for vote in &wire.votes {
            if let Ok(hash) = Hash::try_from(&*vote.hash) {
                votes.0.entry((vote.at_rest, vote.index)).or_default().insert(vote.member, hash);
            }
        }
        votes
    }

    /// As they are stored.
    #[must_use]
    pub fn to_wire(&self) -> HashVotes {
        let one = |(at_rest, index): Subject, (member, hash): (&u64, &Hash)| HashVote {
            index,
            member: *member,
            hash: hash.to_vec().into(),
            at_rest,
        };
        HashVotes { votes: self.0.iter().flat_map(|(about, votes)| votes.iter().map(|v| one(*about, v))).collect() }
    }

    /// Takes a vote; returns who is found to be wrong by it, [`NOBODY_KNOWS`] among them.
    ///
    /// A vote that is too old, of nobody who is a member, or makes no sense, is nothing.
    pub fn apply(&mut self, vote: &HashVote, members: &Members) -> Vec<u64> {
        let Ok(hash) = Hash::try_from(&*vote.hash) else { return Vec::new() };
        if members.get(vote.member).is_none() {
            return Vec::new();
        }
        let about = (vote.at_rest, vote.index);
        self.0.entry(about).or_default().insert(vote.member, hash);
        let alike: Vec<Subject> = self.0.range((about.0, 0)..=(about.0, u64::MAX)).map(|(about, _)| *about).collect();
        for old in alike.iter().take(alike.len().saturating_sub(CHECKS_MAX)) {
            self.0.remove(old);
        }
        self.0.get(&about).map(|votes| wrong(votes, members)).unwrap_or_default()
    }
}

/// Who differs from the majority (D3).
fn wrong(votes: &BTreeMap<u64, Hash>, members: &Members) -> Vec<u64> {
    let voters = members.voters().count();
    let mut counts = BTreeMap::<Hash, usize>::new();
    for hash in members.voters().filter_map(|member| votes.get(&member.id)) {
        *counts.entry(*hash).or_default() += 1;
    }
    let voted: usize = counts.values().sum();
    match counts.iter().find(|(_, count)| **count > voters / 2) {
        Some((right, _)) => {
            let is_wrong = |(member, hash): &(&u64, &Hash)| *hash != right && members.get(**member).is_some();
            votes.iter().filter(is_wrong).map(|(member, _)| *member).collect()
        }
        None if voted == voters && voters > 0 => vec![NOBODY_KNOWS],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
