//! What entries hold, and the state that comes of applying them.
//!
//! A state is what was applied, in order: one value for each index from the founding at
//! index 1 on. Of a member that is yet to join it is empty. Who votes follows from it.

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType};

use super::symmetry::{IDENTITY, MEMBERS_MAX, Permutation, renumber};

/// The term in which a cluster is founded.
pub(super) const FOUNDING_TERM: u64 = 1;

/// Proposals at most, and as many that followers send on: an entry's code has room for so many.
pub(super) const PROPOSALS_MAX: u8 = 0x1f;
/// The first number of proposals that followers send on, less one.
pub(super) const FORWARDED: u8 = 0x20;

/// What a change of members does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    AddLearner,
    /// Makes a learner a voter.
    Promote,
    Remove,
}

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// Of a new leader, or of a change that raft refused.
    Nothing,
    /// The proposal of this number; those that followers send on have numbers above [`FORWARDED`].
    Proposal(u8),
    Change(Change, u64),
    /// The members that begin the cluster, a bit for each.
    Founding(u8),
}

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) term: u64,
    pub(super) value: Value,
}

impl Slot {
    /// The entry by which so many members begin a cluster.
    pub(super) fn founding(founders: u8) -> Self {
        Self { term: FOUNDING_TERM, value: Value::Founding((1 << founders) - 1) }
    }

    pub(super) fn of(entry: &Entry) -> Self {
        let value = match (entry.get_entry_type(), entry.data.first()) {
            (EntryType::EntryConfChange, _) => Value::of_change(&conf_change(entry)),
            (_, Some(number)) => Value::Proposal(*number),
            (_, None) => Value::Nothing,
        };
        Self { term: entry.term, value }
    }

    pub(super) fn entry(self, index: u64) -> Entry {
        let mut entry = Entry { index, term: self.term, ..Entry::default() };
        match self.value {
            Value::Proposal(number) => entry.data = vec![number].into(),
            Value::Change(change, member) => {
                entry.set_entry_type(EntryType::EntryConfChange);
                entry.data = encoded(&to_conf_change(change, member)).into();
            }
            Value::Nothing | Value::Founding(_) => {}
        }
        entry
    }

    /// Two bytes, as they would be if members had other numbers.
    pub(super) fn code(self, permutation: &Permutation) -> [u8; 2] {
        let value = match self.value {
            Value::Nothing => 0,
            Value::Proposal(number) => number,
            Value::Change(change, member) => 0x40 | (change as u8) << 4 | renumber(permutation, member) as u8,
            Value::Founding(founders) => {
                let members = (0..MEMBERS_MAX).filter(|at| founders & 1 << at != 0);
                0x80 | members.map(|at| 1u8 << permutation[at]).sum::<u8>()
            }
        };
        [self.term as u8, value]
    }

    fn decode([term, value]: [u8; 2]) -> Self {
        let member = u64::from(value & 0xf);
        let value = match value {
            0 => Value::Nothing,
            1..0x40 => Value::Proposal(value),
            0x40..0x50 => Value::Change(Change::AddLearner, member),
            0x50..0x60 => Value::Change(Change::Promote, member),
            0x60..0x80 => Value::Change(Change::Remove, member),
            0x80.. => Value::Founding(value & 0x7f),
        };
        Self { term: u64::from(term), value }
    }
}

impl Value {
    fn of_change(change: &ConfChange) -> Self {
        let kind = match change.get_change_type() {
            ConfChangeType::AddLearnerNode => Change::AddLearner,
            ConfChangeType::AddNode => Change::Promote,
            ConfChangeType::RemoveNode => Change::Remove,
        };
        Self::Change(kind, change.node_id)
    }
}

/// The change that raft is asked for.
pub(super) fn to_conf_change(change: Change, member: u64) -> ConfChange {
    let mut conf_change = ConfChange { node_id: member, ..ConfChange::default() };
    conf_change.set_change_type(match change {
        Change::AddLearner => ConfChangeType::AddLearnerNode,
        Change::Promote => ConfChangeType::AddNode,
        Change::Remove => ConfChangeType::RemoveNode,
    });
    conf_change
}

/// The change that an entry asks for.
pub(super) fn conf_change(entry: &Entry) -> ConfChange {
    // Production encoded it.
    ConfChange::parse_from_bytes(&entry.data).unwrap_or_default()
}

pub(super) fn encoded(message: &impl protobuf::Message) -> Vec<u8> {
    // Writing to memory fails only for unset required fields, which proto3 doesn't have.
    message.write_to_bytes().unwrap_or_default()
}

/// How far a state is.
pub(super) fn index_of(state: &[Slot]) -> u64 {
    state.len() as u64
}

/// The term of what a state applied last.
pub(super) fn term_of(state: &[Slot]) -> u64 {
    state.last().map_or(0, |slot| slot.term)
}

/// Who votes and who learns after all that was applied; nobody is known to a member that is yet to join.
pub(super) fn conf_state(state: &[Slot]) -> ConfState {
    let (mut voters, mut learners) = (Vec::new(), Vec::new());
    for slot in state {
        match slot.value {
            Value::Founding(founders) => {
                voters.extend((1..=MEMBERS_MAX as u64).filter(|id| founders & 1 << (id - 1) != 0))
            }
            Value::Change(change, member) => {
                voters.retain(|id| *id != member);
                learners.retain(|id| *id != member);
                match change {
                    Change::AddLearner => learners.push(member),
                    Change::Promote => voters.push(member),
                    Change::Remove => {}
                }
            }
            Value::Nothing | Value::Proposal(_) => {}
        }
    }
    ConfState::from((voters, learners))
}

/// A state as a snapshot carries it.
pub(super) fn pack(state: &[Slot]) -> Vec<u8> {
    repack(state, &IDENTITY)
}

/// The same, as it would be if members had other numbers.
pub(super) fn repack(state: &[Slot], permutation: &Permutation) -> Vec<u8> {
    state.iter().flat_map(|slot| slot.code(permutation)).collect()
}

/// The state that a snapshot carries.
pub(super) fn unpack(data: &[u8]) -> Vec<Slot> {
    data.as_chunks::<2>().0.iter().map(|code| Slot::decode(*code)).collect()
}
