//! A message on its way, kept once for all states in which it is.

use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::entry::{Slot, Value, repack, unpack};
use super::member::Member;
use super::symmetry::{Digests, Permutation, digests, renumber};

/// A message.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) message: Message,
    pub(super) digests: Digests,
}

/// Each is kept once, so that it is equal to itself alone.
impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Packet {
    pub(super) fn new(message: Message, exchanges: &[Permutation]) -> Self {
        let digests = digests(exchanges, |permutation, bytes| encode(&message, permutation, bytes));
        Self { message, digests }
    }

    /// Whether the network may lose it. What becomes of a snapshot is no message.
    pub(super) fn may_be_lost(&self) -> bool {
        self.message.msg_type != MessageType::MsgSnapStatus
    }

    /// Whether it may come twice. Nothing tells a proposal from itself: its transport, a stream, must not repeat it.
    pub(super) fn may_come_twice(&self) -> bool {
        self.message.msg_type != MessageType::MsgPropose
    }

    /// What messages keep their order on: from whom to whom, and what becomes of snapshots apart from the rest.
    pub(super) fn link(&self) -> (u64, u64, bool) {
        (self.message.from, self.message.to, self.message.msg_type == MessageType::MsgSnapStatus)
    }
}

/// What tells a read from all others: who was asked, in which of its runs, for which read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadContext {
    pub(super) member: u64,
    boot: u64,
    number: u64,
}

impl ReadContext {
    /// Its bytes begin with the member, as `Replica::read_index` makes them; `None` of anything else.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [member, boot, number] = bytes.as_chunks::<8>().0 else { return None };
        let [member, boot, number] = [member, boot, number].map(|n| u64::from_be_bytes(*n));
        (bytes.len() == 24).then_some(Self { member, boot, number })
    }

    /// As it would be if members had other numbers.
    pub(super) fn renumbered(self, permutation: &Permutation) -> Vec<u8> {
        let numbers = [renumber(permutation, self.member), self.boot, self.number];
        numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    pub(super) fn digest(self, permutation: &Permutation) -> u64 {
        renumber(permutation, self.member) << 16 | self.boot << 8 | self.number
    }
}

/// Whether the receiver ignores the message, now and whenever it arrives later.
///
/// A member's durable term never falls. Once it has passed the message's, or is the
/// message's and the member isn't what an answer in that term is for, it won't become
/// that again: it campaigns only in terms above its durable one.
/// The audit delivers such messages nevertheless and looks whether anything changes.
pub(super) fn is_spent(message: &Message, receiver: &Member) -> bool {
    let durable = receiver.disk.synced.term;
    let role = receiver.image().map(|image| image.role);
    match message.msg_type {
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVoteResponse => message.term < durable,
        MessageType::MsgRequestVoteResponse => {
            message.term < durable || message.term == durable && role != Some(StateRole::Candidate)
        }
        MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => {
            message.term < durable || message.term == durable && role != Some(StateRole::Leader)
        }
        // Its sender knows nothing of it any more.
        MessageType::MsgSnapStatus => role.is_none(),
        _ => false,
    }
}

/// What the sender of a snapshot learns: it was taken, or lost.
pub(super) fn snapshot_status(snapshot: &Message, taken: bool) -> Message {
    let (from, to) = (snapshot.to, snapshot.from);
    Message { msg_type: MessageType::MsgSnapStatus, from, to, reject: !taken, ..Message::default() }
}

/// Writes a message as it would be if members had other numbers.
pub(super) fn encode(message: &Message, permutation: &Permutation, bytes: &mut Vec<u8>) {
    let mut message = message.clone();
    message.from = renumber(permutation, message.from);
    message.to = renumber(permutation, message.to);
    if let Some(context) = ReadContext::parse(&message.context) {
        message.context = context.renumbered(permutation).into();
    }
    for entry in message.entries.iter_mut() {
        if let Some(context) = ReadContext::parse(&entry.data) {
            entry.data = context.renumbered(permutation).into();
        } else if let slot @ Slot { value: Value::Change(..), .. } = Slot::of(entry) {
            entry.data = slot.code(permutation).to_vec().into();
        }
    }
    if message.msg_type == MessageType::MsgSnapshot {
        let snapshot = message.mut_snapshot();
        snapshot.data = repack(&unpack(&snapshot.data), permutation).into();
        // It says the same.
        snapshot.mut_metadata().clear_conf_state();
    }
    // Writing to memory fails only for unset required fields, which proto3 doesn't have.
    bytes.extend(message.write_length_delimited_to_bytes().unwrap_or_default());
}

/// Messages to different members overtake each other anyway: only the order on a link counts.
pub(super) fn by_link(messages: &[Message], permutation: &Permutation) -> Vec<Message> {
    let mut sorted = messages.to_vec();
    sorted.sort_by_key(|message| renumber(permutation, message.to));
    sorted
}

/// A message in a few words.
pub(super) fn describe(message: &Message) -> String {
    let kind = format!("{:?}", message.msg_type);
    let mut text = format!("{} term {}", kind.trim_start_matches("Msg"), message.term);
    match message.msg_type {
        MessageType::MsgAppend => {
            text += &format!(" after {}@{}", message.index, message.log_term);
            let entries: Vec<String> = message.entries.iter().map(|e| super::trace::slot(Slot::of(e))).collect();
            text += &format!(" [{}] commit {}", entries.join(" "), message.commit);
        }
        MessageType::MsgPropose => {
            let entries: Vec<String> = message.entries.iter().map(|e| super::trace::what(Slot::of(e).value)).collect();
            text += &format!(" [{}]", entries.join(" "));
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            text += &format!(" log {}@{}", message.index, message.log_term);
        }
        MessageType::MsgSnapshot => {
            let metadata = message.get_snapshot().get_metadata();
            text += &format!(" of {}@{}", metadata.index, metadata.term);
        }
        MessageType::MsgHeartbeat => text += &format!(" commit {}", message.commit),
        MessageType::MsgAppendResponse => text += &format!(" index {}", message.index),
        _ => {}
    }
    if message.reject {
        text += " (refused)";
    }
    text
}
