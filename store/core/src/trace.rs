//! What a member's part in consensus did, as events that can be judged later, away from the member.
//!
//! [`Replica::record`](crate::replica::Replica::record) makes them; a shell writes each as a line of JSON before anything
//! that it tells of leaves the member, and adds [`Event::Durable`] once its disk has done what steps asked for. Whether the
//! traces of all members together are a behaviour of Raft is decided by `models validate trace`.
//!
//! Entries are told by marks, commands aren't in a trace: no more than a checksum of what users wrote.

use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType, Message, MessageType, SnapshotMetadata};
use serde::{Deserialize, Serialize};

use crate::replica::Persist;

/// A line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Whose trace it is.
    pub member: u64,
    /// Counts the lines since the member's start, from 0: one that is missing is noticed.
    pub number: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened in a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// It started, from what its disk held.
    Start {
        /// What it is then.
        view: View,
        /// Index and term that its log begins behind.
        base: (u64, u64),
        /// Its log.
        entries: Vec<Mark>,
        /// How far its state is.
        applied: u64,
        /// Who votes and who learns, as its state has it.
        members: Members,
    },
    /// An input, and what the member is after it. Those that change nothing that a view shows are left out, but for
    /// messages, reads and what is durable.
    Input {
        /// What it was told.
        cause: Cause,
        /// What it is then.
        view: View,
    },
    /// Effects were handed out.
    Step(Effects),
    /// What steps up to this one asked for is on disk. Follows what is written, comes before messages that waited for it.
    Durable {
        /// The step's number.
        step: u64,
    },
}

/// What a member was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Time passed, or it was told to stand.
    Time,
    /// A message came.
    Message(Letter),
    /// Clients' commands, or a change of members.
    Propose(Vec<Mark>),
    /// A change of members was applied, and who votes since.
    Changed(Change, Members),
    /// A read asks for its index.
    Read(String),
    /// Steps up to this number are durable.
    Persisted(u64),
    /// The state machine is further.
    Applied(u64),
}

/// A member's part in consensus, between two inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The current term.
    pub term: u64,
    /// Whom this term's vote went to; 0 if to nobody.
    pub vote: u64,
    /// Its part.
    pub role: Role,
    /// Who leads, as far as it knows; 0 if nobody.
    pub leader: u64,
    /// Index up to which entries are committed.
    pub commit: u64,
    /// Index and term of its log's last entry.
    pub last: (u64, u64),
}

/// A part in a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "Raft's own words")]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// An entry: its term, a checksum of what is in it, and the change of members that it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark(
    /// The term it was made in; 0 in a proposal on its way.
    pub u64,
    /// CRC-32 of its type, data and context.
    pub u32,
    /// The change of members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub Option<Change>,
);

/// A change of members, of one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// This member votes from now on.
    Voter(u64),
    /// This member learns from now on.
    Learner(u64),
    /// This member is none any more.
    Remove(u64),
}

/// Who takes part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Members {
    /// Who votes, sorted.
    pub voters: Vec<u64>,
    /// Who learns, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u64>,
}

/// A message between members, as far as Raft goes. What a kind of message doesn't use is left out of its line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Letter {
    /// What it is: raft-rs's name, without its `Msg`.
    pub kind: String,
    /// Who sent it.
    pub from: u64,
    /// Whom to.
    pub to: u64,
    /// The sender's term, or the one that it would stand for; 0 for what is passed on.
    pub term: u64,
    /// What the kind makes of it: the last entry, the one before the entries, the one acknowledged.
    #[serde(skip_serializing_if = "is_zero")]
    pub index: u64,
    /// The term that belongs to `index`.
    #[serde(skip_serializing_if = "is_zero")]
    pub log_term: u64,
    /// What the sender knows to be committed.
    #[serde(skip_serializing_if = "is_zero")]
    pub commit: u64,
    /// The term of that entry.
    #[serde(skip_serializing_if = "is_zero")]
    pub commit_term: u64,
    /// Whether it says no.
    #[serde(skip_serializing_if = "is_false")]
    pub reject: bool,
    /// Where a log may agree.
    #[serde(skip_serializing_if = "is_zero")]
    pub hint: u64,
    /// Entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Mark>,
    /// Index and term of a snapshot, and who takes part at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<(u64, u64, Members)>,
    /// What a read or a hand-over is told by, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub context: String,
}

/// The effects of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Effects {
    /// The step's number.
    pub step: u64,
    /// Index and term of a snapshot to install first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<(u64, u64)>,
    /// Where the entries to append begin; 0 if there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub from: u64,
    /// The entries; they replace what the log holds from there on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Mark>,
    /// Term, vote and commit to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hard_state: Option<(u64, u64, u64)>,
    /// Whether it must be on disk before `after` may leave.
    #[serde(skip_serializing_if = "is_false")]
    pub sync: bool,
    /// Messages that leave at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub now: Vec<Letter>,
    /// Messages that leave once what is to be written is durable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Letter>,
    /// The last entry that is handed out to be applied; 0 if none is.
    #[serde(skip_serializing_if = "is_zero")]
    pub apply: u64,
    /// Reads that may be answered, and from which applied index on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<(String, u64)>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl From<StateRole> for Role {
    fn from(role: StateRole) -> Self {
        match role {
            StateRole::Follower => Self::Follower,
            StateRole::PreCandidate => Self::PreCandidate,
            StateRole::Candidate => Self::Candidate,
            StateRole::Leader => Self::Leader,
        }
    }
}

impl From<&ConfState> for Members {
    fn from(state: &ConfState) -> Self {
        let sorted = |members: &[u64]| {
            let mut members = members.to_vec();
            members.sort_unstable();
            members
        };
        Self { voters: sorted(&state.voters), learners: sorted(&state.learners) }
    }
}

impl From<&ConfChange> for Change {
    fn from(change: &ConfChange) -> Self {
        match change.get_change_type() {
            ConfChangeType::AddNode => Self::Voter(change.node_id),
            ConfChangeType::AddLearnerNode => Self::Learner(change.node_id),
            ConfChangeType::RemoveNode => Self::Remove(change.node_id),
        }
    }
}

impl From<&Entry> for Mark {
    fn from(entry: &Entry) -> Self {
        Self::new(entry.term, entry.get_entry_type(), &entry.data, &entry.context)
    }
}

impl From<&ConfChange> for Mark {
    /// Of the entry that a leader makes of it.
    fn from(change: &ConfChange) -> Self {
        // Bytes in memory are always there to be written to.
        let data = change.write_to_bytes().unwrap_or_default();
        Self::new(0, EntryType::EntryConfChange, &data, &[])
    }
}

impl Mark {
    /// The mark of an entry's parts.
    #[must_use]
    pub fn new(term: u64, kind: EntryType, data: &[u8], context: &[u8]) -> Self {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&[kind as u8]);
        sum.update(&(data.len() as u64).to_be_bytes());
        sum.update(data);
        sum.update(context);
        let change = (kind == EntryType::EntryConfChange).then(|| ConfChange::parse_from_bytes(data).ok()).flatten();
        Self(term, sum.finalize(), change.as_ref().map(Change::from))
    }

    /// The mark of the entry that a leader's term begins with.
    #[must_use]
    pub fn empty(term: u64) -> Self {
        Self::new(term, EntryType::EntryNormal, &[], &[])
    }
}

impl From<&Message> for Letter {
    fn from(message: &Message) -> Self {
        let kind = format!("{:?}", message.msg_type);
        let letter = Self {
            kind: kind.strip_prefix("Msg").unwrap_or(&kind).to_owned(),
            from: message.from,
            to: message.to,
            term: message.term,
            ..Self::default()
        };
        if message.msg_type == MessageType::MsgSnapshot {
            // What goes with it travels a way of its own.
            return Self { snapshot: Some(position(message.get_snapshot().get_metadata())), ..letter };
        }
        Self {
            index: message.index,
            log_term: message.log_term,
            commit: message.commit,
            commit_term: message.commit_term,
            reject: message.reject,
            hint: message.reject_hint,
            entries: message.entries.iter().map(Mark::from).collect(),
            context: hexadecimal(&message.context),
            ..letter
        }
    }
}

impl Effects {
    /// What a step is to write, without its messages.
    pub(crate) fn to_write(step: u64, persist: &Persist) -> Self {
        Self {
            step,
            snapshot: persist.snapshot.as_ref().map(|snapshot| {
                let metadata = snapshot.get_metadata();
                (metadata.index, metadata.term)
            }),
            from: persist.entries.first().map_or(0, |entry| entry.index),
            entries: persist.entries.iter().map(Mark::from).collect(),
            hard_state: persist.hard_state.as_ref().map(|state| (state.term, state.vote, state.commit)),
            sync: persist.sync,
            ..Self::default()
        }
    }
}

fn position(metadata: &SnapshotMetadata) -> (u64, u64, Members) {
    (metadata.index, metadata.term, Members::from(metadata.get_conf_state()))
}

/// Bytes in hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |four: u8| char::from_digit(u32::from(four), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
