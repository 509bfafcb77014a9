//! What becomes of this member's hash: it is said at the indexes at which all say theirs, and a
//! member that a majority finds wrong ends.

use prost::Message as _;
use store_core::divergence::{CHECK_ENTRIES, NOBODY_KNOWS};
use store_core::wire::command::Request;
use store_core::wire::{Command, HashVote};
use tokio::sync::oneshot;

use super::{Engine, Input};
use crate::state::StateError;

impl Engine {
    /// An entry was applied, and no other since.
    pub(super) fn vote(&self, index: u64) {
        // One alone has nobody to agree with.
        if !index.is_multiple_of(CHECK_ENTRIES) || self.members.borrow().iter().count() < 2 {
            return;
        }
        let vote = HashVote { index, member: self.id, hash: self.state.hash().to_vec().into() };
        let command = Command { request: Some(Request::Vote(vote)), by_member: true, ..Command::default() };
        // One that is dropped is made up for at the next index.
        let (dropped, _) = oneshot::channel();
        self.send(Input::Propose { command: command.encode_to_vec(), dropped });
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
