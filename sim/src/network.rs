//! The way from one member to another, as `store/server/src/peers` goes it: a connection in each direction, frames in
//! order. A connection that breaks loses what was on its way, or it arrives beside what the next one brings; nothing is
//! sent twice.

use std::collections::VecDeque;

use raft::eraftpb::Message;

use crate::queue::{MS, Time};

/// What members send each other.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Raft(Message),
    /// Renew a lease.
    Question {
        nonce: u64,
        lease: i64,
    },
    Answer {
        nonce: u64,
        seconds: Option<i64>,
    },
}

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    /// Nobody can be reached.
    Cut,
    /// Nothing arrives, and all of it does later.
    Held,
}

/// One direction between two members.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) fate: Fate,
    /// The connection's number, and when it is there.
    connection: u32,
    up_at: Time,
    /// When what was sent last arrives.
    last: Time,
    /// What connections up to this one carried is lost.
    lost_to: u32,
    pub(crate) held: VecDeque<Frame>,
}

impl Default for Link {
    fn default() -> Self {
        Self { fate: Fate::Open, connection: 1, up_at: 0, last: 0, lost_to: 0, held: VecDeque::new() }
    }
}

/// Until a lost connection is dialled again.
pub(crate) const DIAL_PAUSE: Time = 100 * MS;

impl Link {
    /// When a frame arrives that leaves now, and by which connection; `None`: there is none.
    pub(crate) fn send(&mut self, now: Time, delay: Time) -> Option<(Time, u32)> {
        if self.fate == Fate::Cut || now < self.up_at {
            return None;
        }
        self.last = self.last.max(now + delay);
        Some((self.last, self.connection))
    }

    /// Whether a frame that a connection carried arrives.
    pub(crate) fn carries(&self, connection: u32) -> bool {
        self.fate != Fate::Cut && connection > self.lost_to
    }

    /// The connection breaks; with `lose` what it carried is gone.
    pub(crate) fn reset(&mut self, now: Time, lose: bool) {
        if lose {
            self.lost_to = self.connection;
            self.held.clear();
        }
        self.connection += 1;
        self.up_at = now + DIAL_PAUSE;
        self.last = self.up_at;
    }
}
