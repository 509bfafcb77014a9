//! What becomes of this member's hash: it is said at the indexes at which all say theirs, and a
//! member that a majority finds wrong ends.

use prost::Message as _;
use store_core::divergence::{CHECK_ENTRIES, Hash, NOBODY_KNOWS};
use store_core::wire::command::Request;
use store_core::wire::{Command, HashVote};
use tokio::sync::oneshot;

use super::{Engine, Input};
use crate::state::{Kept, Slice, StateError};

impl Engine {
    /// An entry was applied, with which all hashes to this.
    pub(super) fn vote(&self, index: u64, hash: Hash) {
        if index.is_multiple_of(CHECK_ENTRIES) {
            self.say(index, hash, false);
        }
    }

    /// Reads on what a compaction kept; returns what is left to be read.
    pub(super) fn read_kept(&self, kept: Kept) -> Result<Option<Kept>, StateError> {
        match self.state.read_kept(kept)? {
            Slice::More(kept) => return Ok(Some(kept)),
            Slice::Done { compacted, hash } => self.say(compacted.cast_unsigned(), hash, true),
            Slice::Overtaken => tracing::debug!("the next compaction came before the last one was compared"),
        }
        Ok(None)
    }

    fn say(&self, index: u64, hash: Hash, at_rest: bool) {
        // One alone has nobody to agree with.
        if self.members.borrow().iter().count() < 2 {
            return;
        }
        let vote = HashVote { index, member: self.id, hash: hash.to_vec().into(), at_rest };
        let command = Command { request: Some(Request::Vote(vote)), by_member: true, ..Command::default() };
        // One that is dropped is made up for by the next.
        let (dropped, _) = oneshot::channel();
        self.send(Input::Propose { command: command.encode_to_vec().into(), dropped });
    }

    /// Members were found to be wrong.
    pub(super) fn judge(&self, wrong: &[u64]) -> Result<(), StateError> {
        for member in wrong.iter().filter(|member| **member != self.id) {
            if *member == NOBODY_KNOWS {
                tracing::error!(
                    "members came to different states, and none has a majority; the alarm CORRUPT is raised"
                );
            } else {
                tracing::error!(
                    member = format!("{member:x}"),
                    "a member came to another state than the majority; the alarm CORRUPT is raised"
                );
            }
        }
        if !wrong.contains(&self.id) {
            return Ok(());
        }
        // It must not answer again after a restart, either.
        self.state.condemn()?;
        Err(StateError::Diverged)
    }
}
