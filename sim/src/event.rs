//! What happens in a simulated cluster.

use std::rc::Rc;

use bytes::Bytes;
use raft::eraftpb::Message;

use crate::faults::Fault;
use crate::member::{Reply, Want};
use crate::network::Frame;
use crate::state::Content;
use crate::stream::{Answer, Id};

/// What happens.
pub(crate) enum Event {
    /// A member's owner, log thread, state thread, flushing thread, or clock: number, boot.
    Tick(u64, u64),
    Owner(u64, u64),
    Written(u64, u64),
    State(u64, u64),
    Flushed(u64, u64),
    /// A call of a member is tried again, or reads.
    Retry(u64, u64, u64),
    Read(u64, u64, u64),
    /// A watcher's turn.
    Stream(u64, u64, Id),
    /// Between members.
    Deliver {
        from: u64,
        to: u64,
        connection: u32,
        frame: Frame,
    },
    Unreachable {
        from: u64,
        to: u64,
    },
    /// A member is told that another's process has ended.
    Gone {
        peer: u64,
        to: u64,
    },
    Transfer {
        message: Box<Message>,
        content: Rc<Content>,
    },
    SnapshotSent {
        from: u64,
        to: u64,
        delivered: bool,
    },
    /// Between clients and members.
    Ask(usize),
    Call {
        client: usize,
        number: u64,
        at: u64,
        want: Want,
    },
    Reply {
        client: usize,
        number: u64,
        reply: Reply,
    },
    GiveUp {
        client: usize,
        number: u64,
    },
    /// Between watchers and members.
    Watch {
        id: Id,
        at: u64,
        wanted: (Bytes, Bytes),
        start: i64,
        /// Whether what was before a change is wanted too.
        before: bool,
    },
    Unwatch {
        id: Id,
        at: u64,
    },
    WentOn {
        id: Id,
        at: u64,
        asks: bool,
    },
    Told {
        watcher: usize,
        generation: u64,
        answer: Answer,
    },
    Doubt {
        watcher: usize,
        generation: u64,
    },
    Reconnect {
        watcher: usize,
        generation: u64,
    },
    /// Watchers move or ask how far they are.
    Stir,
    Compact,
    /// Members come and go.
    Administer,
    /// Something breaks, or is mended.
    Break,
    Mend(Fault),
    Start(u64),
    Crash(u64),
    /// Of the cluster that runs pods.
    BeginPods,
    BreakPods,
    Later(Box<dyn FnOnce()>),
}
