//! A member's whole state at rest, kept once however many states it is part of.

use std::collections::BTreeSet;

use raft::eraftpb::Message;
use raft::{ProgressState, StateRole};
use store_core::replica::Image;

use super::disk::{Content, Disk, Entries, Record};
use super::entry::{Slot, index_of};
use super::lag::Due;
use super::packet::{self, ReadContext};
use super::shell::{Effect, Input, Manner, Shell};
use super::symmetry::{Digests, IDENTITY, MEMBERS_MAX, Permutation, digests, rank, renumber};

/// How a member came to be as it is: what its disk held when it started, and all inputs since.
///
/// The replica can't be copied; it is made again by doing the same again.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) id: u64,
    pub(super) content: Content,
    pub(super) state: Vec<Slot>,
    /// The run of the member, counted over those in which it asked for reads: the others make no difference.
    pub(super) boot: u64,
    /// Inputs, and whether the disk stalled.
    pub(super) inputs: Vec<(Input, bool)>,
}

impl History {
    /// A member before a start.
    pub(super) fn new(id: u64, content: Content, state: Vec<Slot>, boot: u64) -> Self {
        Self { id, content, state, boot, inputs: Vec::new() }
    }

    /// The run that follows after a power cut.
    pub(super) fn next_boot(&self) -> u64 {
        self.boot + u64::from(self.inputs.iter().any(|(input, _)| *input == Input::Read))
    }

    /// Does it all again, including the start.
    pub(super) fn replay(&self, manner: Manner) -> (Shell, Vec<Effect>) {
        let mut effects = Vec::new();
        let mut shell = Shell::start(self, manner, &mut effects);
        for (input, stall) in &self.inputs {
            effects.clear();
            shell.take(*input, *stall, &mut effects);
        }
        (shell, effects)
    }
}

/// Whether a member runs.
#[derive(Debug)]
pub(super) enum Status {
    Up(Box<Image>),
    Down,
    /// It panicked: a bug.
    Broken(String),
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) status: Status,
    /// The log in memory; of a member that is down, the log on disk.
    pub(super) log: Entries,
    pub(super) disk: Disk,
    /// Steps whose persistence is on its way.
    pub(super) pending: usize,
    /// Turns of the state thread that are left.
    pub(super) due: usize,
    /// It will tell of a change of members that a snapshot holds already.
    pub(super) overtaken: bool,
    /// What was applied.
    pub(super) state: Vec<Slot>,
    /// How much of it is durable.
    pub(super) floor: u64,
    pub(super) history: History,
    pub(super) digests: Digests,
    /// Where it stands in the order that exchanges leave alone.
    pub(super) rank: u64,
}

/// Each is kept once, so that it is equal to itself alone.
impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Member {
    /// A running member, and what tells it from others.
    pub(super) fn running(shell: &Shell, history: History, exchanges: &[Permutation]) -> (Vec<u8>, Self) {
        let (image, log) = (shell.image(), shell.entries());
        let write = |permutation: &Permutation, bytes: &mut Vec<u8>| {
            bytes.push(1);
            encode_image(&image, permutation, bytes);
            encode_entries(&log, permutation, bytes);
            encode_disk(&shell.disk, permutation, bytes);
            encode_slots(&shell.state, permutation, bytes);
            number(bytes, shell.floor);
            number(bytes, history.next_boot());
            if !shell.forwarded.is_empty() {
                bytes.push(0xfc);
                bytes.extend(&shell.forwarded);
            }
            shell.due.iter().for_each(|due| encode_due(due, permutation, bytes));
            for (context, index) in &shell.readers {
                bytes.push(0xfa);
                bytes.extend(context.renumbered(permutation));
                number(bytes, *index);
            }
            for step in &shell.pending {
                bytes.extend([0xfe, u8::from(step.sync)]);
                step.records.iter().for_each(|record| encode_record(record, permutation, bytes));
                encode_messages(&step.after, permutation, bytes);
            }
        };
        let (key, digests) = (key(history.id, exchanges, write), digests(exchanges, write));
        let member = Self {
            disk: shell.disk.clone(),
            pending: shell.pending.len(),
            due: shell.due.len(),
            overtaken: shell.due.iter().any(|due| due.changes_before(index_of(&shell.state))),
            state: shell.state.clone(),
            floor: shell.floor,
            rank: rank(&digests),
            digests,
            status: Status::Up(Box::new(image)),
            log,
            history,
        };
        (key, member)
    }

    /// A member after a power cut.
    pub(super) fn down(
        id: u64,
        content: Content,
        state: Vec<Slot>,
        boot: u64,
        exchanges: &[Permutation],
    ) -> (Vec<u8>, Self) {
        let disk = Disk { synced: content.clone(), unsynced: Vec::new() };
        let write = |permutation: &Permutation, bytes: &mut Vec<u8>| {
            bytes.push(2);
            encode_disk(&disk, permutation, bytes);
            encode_slots(&state, permutation, bytes);
            number(bytes, boot);
        };
        let (key, digests) = (key(id, exchanges, write), digests(exchanges, write));
        let member = Self {
            status: Status::Down,
            log: content.log.clone(),
            disk: disk.clone(),
            pending: 0,
            due: 0,
            overtaken: false,
            state: state.clone(),
            floor: index_of(&state),
            history: History::new(id, content, state, boot),
            rank: rank(&digests),
            digests,
        };
        (key, member)
    }

    /// A member that panicked on an input.
    pub(super) fn broken(before: &Self, why: String, exchanges: &[Permutation]) -> (Vec<u8>, Self) {
        let write = |permutation: &Permutation, bytes: &mut Vec<u8>| {
            bytes.push(3);
            encode_disk(&before.disk, permutation, bytes);
        };
        let digests = digests(exchanges, write);
        let member = Self {
            status: Status::Broken(why),
            log: before.log.clone(),
            disk: before.disk.clone(),
            pending: 0,
            due: 0,
            overtaken: false,
            state: before.state.clone(),
            floor: before.floor,
            history: before.history.clone(),
            rank: rank(&digests),
            digests,
        };
        (key(before.history.id, exchanges, write), member)
    }

    pub(super) fn id(&self) -> u64 {
        self.history.id
    }

    pub(super) fn image(&self) -> Option<&Image> {
        match &self.status {
            Status::Up(image) => Some(image),
            _ => None,
        }
    }
}

/// Exact, unlike a digest: two members are the same if and only if these are. Empty on a walk.
fn key(id: u64, exchanges: &[Permutation], write: impl Fn(&Permutation, &mut Vec<u8>)) -> Vec<u8> {
    if exchanges.is_empty() {
        return Vec::new();
    }
    let mut key = vec![id as u8];
    write(&IDENTITY, &mut key);
    key
}

fn number(bytes: &mut Vec<u8>, value: u64) {
    // Terms and indexes of a bounded model; a wrapped one would merge states.
    assert!(value < 0xf0, "{value} is beyond what a model of this size meets");
    bytes.push(value as u8);
}

fn encode_image(image: &Image, permutation: &Permutation, bytes: &mut Vec<u8>) {
    let role = match image.role {
        StateRole::Follower => 0,
        StateRole::PreCandidate => 1,
        StateRole::Candidate => 2,
        StateRole::Leader => 3,
    };
    for value in [
        image.term,
        renumber(permutation, image.vote),
        renumber(permutation, image.leader),
        role,
        image.committed,
        image.persisted,
        image.applied,
        image.election_elapsed as u64,
        image.pending_conf_index,
        renumber(permutation, image.transferee),
        set(&image.voters, permutation),
        set(&image.learners, permutation),
        // 0 isn't the index of a snapshot.
        image.snapshot_wanted.unwrap_or(0),
        image.snapshot_offered.unwrap_or(0),
    ] {
        number(bytes, value);
    }
    let mut known = [[0xffu8; 7]; MEMBERS_MAX];
    for (id, granted) in &image.votes {
        known[permutation[*id as usize - 1]][0] = u8::from(*granted);
    }
    for (id, peer) in &image.peers {
        let state = match peer.state {
            ProgressState::Probe => 0,
            ProgressState::Replicate => 1,
            ProgressState::Snapshot => 2,
        };
        known[permutation[*id as usize - 1]][1..].copy_from_slice(&[
            peer.matched as u8,
            peer.next as u8,
            state,
            u8::from(peer.paused),
            u8::from(peer.recent_active),
            peer.pending_snapshot as u8,
        ]);
    }
    bytes.extend(known.as_flattened());
    if image.contexts > 0 || !image.reads.is_empty() {
        bytes.push(0xfd);
        number(bytes, image.contexts);
        for read in &image.reads {
            if let Some(context) = ReadContext::parse(&read.context) {
                bytes.extend(context.renumbered(permutation));
            }
            number(bytes, renumber(permutation, read.from));
            number(bytes, read.index);
            number(bytes, set(&read.acks, permutation));
        }
    }
}

/// A bit for each member.
fn set(members: &BTreeSet<u64>, permutation: &Permutation) -> u64 {
    members.iter().map(|id| 1 << renumber(permutation, *id)).sum()
}

fn encode_slots(slots: &[Slot], permutation: &Permutation, bytes: &mut Vec<u8>) {
    slots.iter().for_each(|slot| bytes.extend(slot.code(permutation)));
    bytes.push(0xff);
}

fn encode_entries(entries: &Entries, permutation: &Permutation, bytes: &mut Vec<u8>) {
    number(bytes, entries.base);
    number(bytes, entries.base_term);
    encode_slots(&entries.slots, permutation, bytes);
}

fn encode_disk(disk: &Disk, permutation: &Permutation, bytes: &mut Vec<u8>) {
    let content = &disk.synced;
    encode_entries(&content.log, permutation, bytes);
    for value in [content.term, renumber(permutation, content.vote), content.commit] {
        number(bytes, value);
    }
    disk.unsynced.iter().for_each(|record| encode_record(record, permutation, bytes));
    bytes.push(0xff);
}

fn encode_record(record: &Record, permutation: &Permutation, bytes: &mut Vec<u8>) {
    let (kind, index, [a, b]) = match *record {
        Record::Entry(index, slot) => (1, index, slot.code(permutation)),
        Record::InPlace(index, slot) => (2, index, slot.code(permutation)),
        Record::State { term, vote, commit } => (3, commit, [term as u8, renumber(permutation, vote) as u8]),
        Record::Reset(index, term) => (4, index, [term as u8, 0]),
    };
    number(bytes, kind);
    number(bytes, index);
    bytes.extend([a, b]);
}

fn encode_due(due: &Due, permutation: &Permutation, bytes: &mut Vec<u8>) {
    bytes.push(0xfb);
    for entry in &due.entries {
        number(bytes, entry.index);
        bytes.extend(Slot::of(entry).code(permutation));
    }
    bytes.push(0xff);
    // 0 isn't the index of an entry.
    number(bytes, due.told.unwrap_or(0));
}

fn encode_messages(messages: &[Message], permutation: &Permutation, bytes: &mut Vec<u8>) {
    for message in packet::by_link(messages, permutation) {
        packet::encode(&message, permutation, bytes);
    }
    bytes.push(0xff);
}
