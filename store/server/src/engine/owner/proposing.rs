//! When the owner proposes what has gathered.

use std::time::Duration;

use prost::Message as _;
use store_core::wire::{Command, command::Request};

use super::Owner;

impl Owner {
    pub(super) fn propose_if_full(&mut self) {
        if self.proposals.is_full() {
            self.propose_gathered();
        }
    }

    /// While the disk is at work what comes gathers, to be sent and written together.
    pub(super) fn may_propose(&self) -> bool {
        !self.proposals.is_empty() && !self.disk.is_busy() && self.held_until().is_none()
    }

    pub(super) fn held_until(&self) -> Option<Duration> {
        self.proposals.held_until(&self.replica, self.begun.elapsed())
    }

    pub(super) fn propose_gathered(&mut self) {
        for dropped in self.proposals.propose(&mut self.replica, self.begun.elapsed()) {
            // The client may have gone.
            let _ = dropped.send(());
        }
    }

    /// Proposes what the leader decides by itself; `false` if it can't be made now.
    pub(super) fn propose(&mut self, request: Request) -> bool {
        let command = Command { request: Some(request), by_member: true, ..Command::default() };
        self.replica.propose(command.encode_to_vec()).is_ok()
    }
}
