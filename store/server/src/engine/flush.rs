//! The flushing thread: makes durable what the state's thread applied, while that one goes on.
//!
//! RocksDB writes what was put into it before a flush began; what comes meanwhile goes into a memtable of its own. So a
//! flush told of after index N covers N, and whoever applies needn't wait for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use super::{Engine, Input};

/// Entries and bytes after which the state is made durable, so that the log can be cut. RocksDB makes a file of as many
/// bytes of values by itself: to ask a little earlier costs no file more, and the log stays short in memory.
const ENTRIES: u64 = 20_000;
const BYTES: usize = 7 << 20;

/// What was applied since it was last asked for a flush, and where that is asked.
pub(super) struct Flushes {
    asked: SyncSender<u64>,
    entries: u64,
    bytes: usize,
}

/// The two ends: who counts, and what the thread is given. `rank` is this member's place among `members`: they apply the
/// same entries at the same time, and shouldn't all flush at once.
pub(super) fn pair(rank: usize, members: usize) -> (Flushes, Receiver<u64>) {
    let (asked, inbox) = sync_channel(1);
    (Flushes { asked, entries: 0, bytes: BYTES * rank / members.max(1) }, inbox)
}

impl Flushes {
    /// Entries were applied.
    pub(super) fn count(&mut self, entries: usize, bytes: usize) {
        self.entries += entries as u64;
        self.bytes += bytes;
    }

    /// Asks for a flush if one is due: `index` is applied. If the thread has one to do already, the next call asks.
    pub(super) fn ask(&mut self, index: u64) {
        if self.entries < ENTRIES && self.bytes < BYTES {
            return;
        }
        match self.asked.try_send(index) {
            Ok(()) => (self.entries, self.bytes) = (0, 0),
            // A thread that has ended told so by `Failed`, which is on its way.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

pub(super) fn run(engine: &Arc<Engine>, inbox: &Receiver<u64>) {
    while let Ok(index) = inbox.recv() {
        let begun = Instant::now();
        if let Err(error) = engine.state.flush() {
            engine.tell(Input::Failed(error.to_string()));
            return;
        }
        engine.metrics.state_flush.observe(begun.elapsed().as_secs_f64());
        // raft must know of what is cut off that it is applied.
        engine.tell(Input::Applied { index });
        // A snapshot may have taken the state's place meanwhile: it is of a later index, and durable.
        engine.tell(Input::Flushed { index });
    }
}
