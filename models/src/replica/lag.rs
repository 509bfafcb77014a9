//! What the state thread was handed and hasn't told of yet.
//!
//! Problem. A member's state applies at its own pace: the replica hears of a change of members, and of what was applied,
//!          after other messages, ticks and writes, or after a snapshot replaced the state and the log (A8).
//! Idea.    One queue stands for the orders to the state thread and for what it tells the owner. Each turn applies and
//!          tells; what a snapshot overtook was applied before, to the state that is gone, and is only told.
//!
//! As in `store/server/src/engine/apply.rs`: each change of members is told by itself, the index at the end of what was
//! handed out at once; a snapshot's state waits until the thread has done all it was given. A power cut takes the queue.
//! `Image` says what was applied; the queue, what was handed out besides: together they tell members apart, as the audit confirms.

use raft::eraftpb::{Entry, EntryType};

/// A turn of the state thread.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Due {
    /// To be applied; if one is a change of members, the last.
    pub(super) entries: Vec<Entry>,
    /// The index that is told as applied, after the last of what was handed out at once.
    pub(super) told: Option<u64>,
}

impl Due {
    /// Whether it tells of a change of members up to the index.
    pub(super) fn changes_before(&self, index: u64) -> bool {
        self.entries.last().is_some_and(|entry| is_change(entry) && entry.index <= index)
    }
}

/// The turns that it takes to apply what a step hands out.
pub(super) fn dues(entries: Vec<Entry>) -> Vec<Due> {
    let Some(told) = entries.last().map(|entry| entry.index) else { return Vec::new() };
    let due = |part: &[Entry]| Due { entries: part.to_vec(), told: None };
    let mut dues: Vec<Due> = entries.split_inclusive(is_change).map(due).collect();
    match dues.last_mut() {
        Some(last) if !last.entries.last().is_some_and(is_change) => last.told = Some(told),
        // That it is applied is told by itself.
        _ => dues.push(Due { entries: Vec::new(), told: Some(told) }),
    }
    dues
}

fn is_change(entry: &Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryConfChange
}
