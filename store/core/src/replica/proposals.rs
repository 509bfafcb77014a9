//! Proposals: what comes together goes into the log together.
//!
//! Each message between members costs about the same whatever is in it: encoding, a system call, waking threads, a step
//! of raft. A leader that is given its proposals one by one sends each to every follower in a message of its own. Given
//! together they are one message for each follower, and on a follower one message to the leader.
//!
//! Where many wait, each batch that goes before the last one is committed only makes both smaller: what comes is held
//! until then. Few don't wait for each other, nor anybody long, as for members that are far away.

use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{ConfChange, Entry, EntryType, Message, MessageType};

use super::Replica;
use crate::trace::{Cause, Mark};

/// Commands and bytes that go together; more go as another piece. raft cuts messages of appends by bytes itself.
const TOGETHER_MAX: usize = 1024;
/// See [`TOGETHER_MAX`].
const TOGETHER_BYTES_MAX: usize = 1 << 20;

/// Behind so many that went together others are held.
const MANY: usize = 8;
/// For no longer than this.
const HELD_MAX: Duration = Duration::from_millis(4);

/// Why a proposal didn't go into the log. It was certainly not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nobody leads, or too much is waiting for commit.
    #[error("the proposal was dropped")]
    Dropped,
}

/// What has gathered to be proposed; `T` is how whoever waits is told that it was dropped.
#[derive(Debug)]
pub struct Proposals<T> {
    entries: Vec<Entry>,
    bytes: usize,
    /// Who waits for this member's own; whoever waits for what peers sent waits there.
    waiting: Vec<T>,
    /// How many went together last, and when.
    last: (usize, Duration),
}

impl<T> Default for Proposals<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), bytes: 0, waiting: Vec::new(), last: (0, Duration::ZERO) }
    }
}

impl<T> Proposals<T> {
    /// Adds a command.
    pub fn add(&mut self, command: Bytes, waiting: T) {
        self.bytes += command.len();
        self.entries.push(Entry { data: command, ..Entry::default() });
        self.waiting.push(waiting);
    }

    /// Adds what a peer sends to the leader that this member is; gives any other message back.
    pub fn take(&mut self, replica: &Replica, mut message: Message) -> Option<Message> {
        if message.msg_type != MessageType::MsgPropose || !replica.is_leader() {
            return Some(message);
        }
        let entries = message.take_entries().into_iter();
        // Changes of members are proposed by leaders alone; an empty entry is what a term begins with.
        for entry in entries.filter(|entry| entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty())
        {
            self.bytes += entry.data.len();
            self.entries.push(entry);
        }
        None
    }

    /// Whether as much has gathered as goes together.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= TOGETHER_MAX || self.bytes >= TOGETHER_BYTES_MAX
    }

    /// Whether nothing has gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Until when what has gathered is held for what the leader proposed before it; `None` if it isn't.
    #[must_use]
    pub fn held_until(&self, replica: &Replica, now: Duration) -> Option<Duration> {
        let (many, since) = self.last;
        let log = &replica.node.raft.raft_log;
        let is_undecided = replica.is_leader() && log.committed < log.last_index();
        let until = since + HELD_MAX;
        (!self.is_empty() && many >= MANY && is_undecided && now < until).then_some(until)
    }

    /// Proposes all that has gathered; returns who is to be told that it was dropped. What peers sent and is dropped is
    /// lost as on its way. `now` is of any clock that goes forward.
    #[must_use]
    pub fn propose(&mut self, replica: &mut Replica, now: Duration) -> Vec<T> {
        self.last = (self.entries.len(), now);
        let (entries, waiting) = (std::mem::take(&mut self.entries), std::mem::take(&mut self.waiting));
        self.bytes = 0;
        if entries.is_empty() || replica.propose_entries(entries).is_ok() { Vec::new() } else { waiting }
    }
}

impl Replica {
    /// Puts a command into the log, or on its way to the leader's.
    ///
    /// # Errors
    /// [`ProposeError::Dropped`]: nobody leads or the log is full of uncommitted entries.
    pub fn propose(&mut self, command: Vec<u8>) -> Result<(), ProposeError> {
        self.propose_entries(vec![Entry { data: command.into(), ..Entry::default() }])
    }

    /// Puts entries into the log, or on their way to the leader's: all or none.
    fn propose_entries(&mut self, entries: Vec<Entry>) -> Result<(), ProposeError> {
        let marks = self
            .is_recorded()
            .then(|| entries.iter().map(|entry| Mark::new(0, EntryType::EntryNormal, &entry.data, &[])).collect());
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: self.id(),
            entries: entries.into(),
            ..Message::default()
        };
        self.node.step(message).map_err(|_| ProposeError::Dropped)?;
        if let Some(marks) = marks {
            self.note_change(|| Cause::Propose(marks));
        }
        Ok(())
    }

    /// Puts a change of members into the log, as the leader. Its context is the command it goes with.
    ///
    /// # Errors
    /// [`ProposeError::Dropped`]: this member doesn't lead, or an earlier change isn't applied yet.
    pub fn propose_members(&mut self, change: &ConfChange) -> Result<(), ProposeError> {
        // raft-rs would put an empty entry into its place without a word.
        if !self.is_leader() || self.node.raft.has_pending_conf() {
            return Err(ProposeError::Dropped);
        }
        self.node.propose_conf_change(Vec::new(), change.clone()).map_err(|_| ProposeError::Dropped)?;
        self.note_change(|| Cause::Propose(vec![Mark::from(change)]));
        Ok(())
    }
}
