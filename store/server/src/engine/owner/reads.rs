//! Linearizable reads: an index from the leader, then the wait until the state has applied it (E2).

use raft::ReadState;
use store_core::errors::RequestError;
use tokio::sync::oneshot;

use super::Owner;

/// Ticks after which a read that got no index is asked for again.
const READ_RETRY_TICKS: u64 = 5;

type Reader = oneshot::Sender<Result<(), RequestError>>;

/// Reads on their way: all that wait share one round.
#[derive(Default)]
pub(super) struct Reads {
    waiting: Vec<Reader>,
    asked: Option<(Vec<u8>, Vec<Reader>, u64)>,
    /// Confirmed at an index that the state hasn't applied yet.
    confirmed: Vec<(u64, Vec<Reader>)>,
}

impl Reads {
    pub(super) fn wait(&mut self, reader: Reader) {
        self.waiting.push(reader);
    }
}

impl Owner {
    pub(super) fn ask_for_reads(&mut self) {
        self.reads.waiting.retain(|reader| !reader.is_closed());
        if !self.replica.indexes_reads() {
            // Asked now, it would be lost; the leader's first commit comes by here.
            return;
        }
        if self.reads.asked.is_none() && !self.reads.waiting.is_empty() {
            let context = self.replica.read_index();
            self.reads.asked = Some((context, std::mem::take(&mut self.reads.waiting), self.ticks));
        }
    }

    pub(super) fn ask_again(&mut self) {
        if let Some((_, readers, _)) = self.reads.asked.take() {
            self.reads.waiting.extend(readers);
        }
    }

    /// What was asked for may be lost on its way.
    pub(super) fn retry_reads(&mut self) {
        let late = match &self.reads.asked {
            Some((_, _, since)) => self.ticks - since >= READ_RETRY_TICKS,
            // Held back for want of a leader who can answer.
            None => !self.reads.waiting.is_empty() && self.ticks.is_multiple_of(READ_RETRY_TICKS),
        };
        if late {
            self.engine.metrics.slow_read_indexes.inc();
            self.ask_again();
        }
    }

    pub(super) fn reads_confirmed(&mut self, reads: &[ReadState]) {
        for read in reads {
            if let Some((_, readers, _)) = self.reads.asked.take_if(|(context, ..)| *context == read.request_ctx) {
                self.reads.confirmed.push((read.index, readers));
            }
        }
        self.answer_reads();
    }

    pub(super) fn answer_reads(&mut self) {
        let applied = self.engine.applied();
        for (_, readers) in self.reads.confirmed.extract_if(.., |(index, _)| *index <= applied) {
            for reader in readers {
                // The client may have gone.
                let _ = reader.send(Ok(()));
            }
        }
    }
}
