//! Linearizable reads: an index from the leader, then the wait until the state has applied it.
//!
//! Invariant
//!   R1  A reader is answered only after the state has applied an index that a majority confirmed after he asked.

use raft::ReadState;

use super::Replica;

/// Ticks after which a read that got no index is asked for again.
const RETRY_TICKS: u64 = 5;

/// Reads on their way: all that wait share one round.
#[derive(Debug, Clone)]
pub struct Reads<R> {
    waiting: Vec<R>,
    /// The context that was asked for, by whom, and since which tick.
    asked: Option<(Vec<u8>, Vec<R>, u64)>,
    /// Confirmed at an index that the state hasn't applied yet.
    confirmed: Vec<(u64, Vec<R>)>,
}

impl<R> Default for Reads<R> {
    fn default() -> Self {
        Self { waiting: Vec::new(), asked: None, confirmed: Vec::new() }
    }
}

impl<R> Reads<R> {
    /// Somebody wants to read.
    pub fn wait(&mut self, reader: R) {
        self.waiting.push(reader);
    }

    /// Asks for an index for those who wait and are still `wanted`, if none is asked for already.
    pub fn ask(&mut self, tick: u64, replica: &mut Replica, wanted: impl FnMut(&R) -> bool) {
        self.waiting.retain(wanted);
        if !replica.indexes_reads() {
            // Asked now, it would be lost; the leader's first commit comes by here.
            return;
        }
        if self.asked.is_none() && !self.waiting.is_empty() {
            self.asked = Some((replica.read_index(), std::mem::take(&mut self.waiting), tick));
        }
    }

    /// What was asked for may be lost: it is asked for again.
    pub fn ask_again(&mut self) {
        if let Some((_, readers, _)) = self.asked.take() {
            self.waiting.extend(readers);
        }
    }

    /// Time passes; whether somebody waits for too long, and is asked for again.
    pub fn retry(&mut self, tick: u64) -> bool {
        let late = match &self.asked {
            Some((_, _, since)) => tick - since >= RETRY_TICKS,
            // Held back for want of a leader who can answer.
            None => !self.waiting.is_empty() && tick.is_multiple_of(RETRY_TICKS),
        };
        if late {
            self.ask_again();
        }
        late
    }

    /// The leader confirmed indexes.
    pub fn confirm(&mut self, reads: &[ReadState]) {
        for read in reads {
            if let Some((_, readers, _)) = self.asked.take_if(|(context, ..)| *context == read.request_ctx) {
                self.confirmed.push((read.index, readers));
            }
        }
    }

    /// Whether somebody may read once the state has applied more.
    #[must_use]
    pub fn wait_for_state(&self) -> bool {
        !self.confirmed.is_empty()
    }

    /// Those who may read now (R1).
    pub fn ready(&mut self, applied: u64) -> Vec<R> {
        self.confirmed.extract_if(.., |(index, _)| *index <= applied).flat_map(|(_, readers)| readers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(readers: Vec<u8>) -> Reads<u8> {
        Reads { asked: Some((b"context".to_vec(), readers, 10)), ..Reads::default() }
    }

    fn confirmation(context: &[u8], index: u64) -> ReadState {
        ReadState { index, request_ctx: context.to_vec() }
    }

    /// R1.
    #[test]
    fn readers_wait_for_their_own_index_and_for_the_state() {
        let mut reads = asked(vec![1, 2]);
        reads.wait(3);
        reads.confirm(&[confirmation(b"another", 4)]);
        assert!(reads.ready(9).is_empty(), "confirmed for somebody else");
        reads.confirm(&[confirmation(b"context", 7)]);
        assert!(reads.ready(6).is_empty() && reads.wait_for_state());
        assert_eq!(reads.ready(7), [1, 2]);
        assert!(!reads.wait_for_state());
        assert!(reads.ready(7).is_empty(), "once");
    }

    #[test]
    fn what_gets_no_index_is_asked_for_again() {
        let mut reads = asked(vec![1]);
        assert!(!reads.retry(14));
        assert!(reads.retry(15));
        reads.confirm(&[confirmation(b"context", 7)]);
        assert_eq!((reads.ready(9), reads.waiting), (vec![], vec![1]), "a late answer is to nobody");
    }
}
