//! The state thread: applies committed entries, answers who waits, tells watchers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use raft::eraftpb::Entry;
use store_core::auth::TokenChange;
use store_core::errors::RequestError;
use store_core::mvcc::Answer;

use super::flush::Flushes;
use super::{Copied, Engine, Input, Outcome};
use crate::metrics::Metrics;
use crate::state::{Done, Kept, Received, StateError};

/// What the state thread is given.
pub(super) enum ToState {
    /// Committed entries, in order.
    Apply(Vec<Entry>),
    /// Replace the state; tell when it is durable.
    Install { received: Box<Received>, index: u64, done: SyncSender<()> },
    /// Somebody wants a copy of the state.
    Copy(tokio::sync::oneshot::Sender<Result<Arc<Copied>, RequestError>>),
    /// A peer needs a copy of the state.
    Build,
}

/// Entries and about as many bytes that are applied together: readers wait for so long.
const TOGETHER_ENTRIES: usize = 64;
const TOGETHER_BYTES: usize = 1 << 20;
/// A batch that takes longer to apply is counted as slow, as in etcd.
const SLOW_APPLY: Duration = Duration::from_millis(100);
/// So many are answered by the state's thread itself.
const ANSWERS_FEW: usize = 4;
/// Pause between slices of collection while nothing else is to do.
const COLLECT_PAUSE: Duration = Duration::from_millis(5);
/// A slice is collected after this time even if there is much else to do: who compacts may wait for it.
const COLLECT_OVERDUE: Duration = Duration::from_millis(50);

pub(super) fn run(engine: &Arc<Engine>, inbox: &Receiver<ToState>, flushes: Flushes) {
    if let Err(error) = work(engine, inbox, flushes) {
        engine.tell(match error {
            StateError::Diverged => Input::Diverged,
            error => Input::Failed(error.to_string()),
        });
    }
    // A clean end: what was applied needs no replay at the next start.
    if let Err(error) = engine.state.flush() {
        tracing::warn!(%error, "flushing the state at the end");
    }
}

fn work(engine: &Arc<Engine>, inbox: &Receiver<ToState>, mut flushes: Flushes) -> Result<(), StateError> {
    // Compaction of an earlier run may not be done.
    let mut collecting = true;
    // What the last compaction kept, until it is compared.
    let mut kept = None;
    let mut last_slice = Instant::now();
    loop {
        let next = if collecting || kept.is_some() {
            let waited = if last_slice.elapsed() < COLLECT_OVERDUE {
                inbox.recv_timeout(COLLECT_PAUSE)
            } else {
                Err(RecvTimeoutError::Timeout)
            };
            match waited {
                Ok(next) => next,
                Err(RecvTimeoutError::Timeout) => {
                    collecting = collecting && collect(engine)?;
                    kept = kept.map(|kept| engine.read_kept(kept)).transpose()?.flatten();
                    last_slice = Instant::now();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        } else {
            match inbox.recv() {
                Ok(next) => next,
                Err(_) => return Ok(()),
            }
        };
        match next {
            ToState::Apply(list) => {
                let (last, begun) = (list.last().map(|e| e.index), Instant::now());
                for some in together(&list) {
                    flushes.count(some.len(), bytes_of(some));
                    if let Some(compacted) = apply(engine, some)? {
                        collecting = true;
                        kept = Some(Kept::of(compacted));
                    }
                }
                if begun.elapsed() > SLOW_APPLY {
                    engine.metrics.slow_applies.inc();
                }
                if let Some(index) = last {
                    // Either the owner finds it stored, or it is seen here that the owner wants to know.
                    engine.applied.store(index, Ordering::SeqCst);
                    if engine.applied_wanted.load(Ordering::SeqCst) {
                        engine.tell(Input::Applied { index });
                    }
                    engine.watch_space();
                    flushes.ask(index);
                }
            }
            ToState::Install { received, index, done } => {
                engine.state.install(*received)?;
                engine.applied.store(index, Ordering::SeqCst);
                let revision = engine.state.read().revision();
                engine.restart_ring(revision);
                // raft took the configuration from the snapshot itself.
                engine.tell(Input::Members { change: None, members: Box::new(engine.state.members()) });
                // Whose password changed in between isn't known, so no token is good any more.
                engine.change_tokens(TokenChange::AllGone);
                collecting = true;
                kept = None;
                // The owner waits for this; it ends only with the member.
                let _ = done.send(());
            }
            ToState::Build => {
                engine.tell(Input::Copied(copy(engine)?));
            }
            ToState::Copy(reply) => {
                let copied = copy(engine).map_err(|error| {
                    // A full disk, say: that backup fails, the member goes on.
                    tracing::warn!(%error, "copying the state for a backup");
                    RequestError::CopyFailed
                });
                // Whoever wanted it may have gone; the copy goes with it.
                let _ = reply.send(copied);
            }
        }
    }
}

fn count(metrics: &Metrics, done: &Done) {
    match &done.answer {
        Ok(Answer::Put(_)) => metrics.puts.inc(),
        Ok(Answer::DeleteRange(_)) => metrics.deletes.inc(),
        Ok(Answer::Txn(_)) => metrics.txns.inc(),
        _ => 0,
    };
    metrics.leases_granted.inc_by(done.granted.len() as u64);
    metrics.leases_ended.inc_by(done.ended.len() as u64);
}

fn copy(engine: &Arc<Engine>) -> Result<Arc<Copied>, StateError> {
    let number = engine.next_copy.fetch_add(1, Ordering::Relaxed);
    Ok(Arc::new(Copied::of(&engine.state, &engine.copies, number)?))
}

/// Collects a slice; returns whether there is more, and tells who waits for the end.
fn collect(engine: &Engine) -> Result<bool, StateError> {
    let more = engine.state.collect()?;
    if !more {
        let to = engine.state.read().compacted();
        engine.collected.send_replace(to);
    }
    Ok(more)
}

fn bytes_of(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.data.len()).sum()
}

/// Parts of a list, each to be applied together.
fn together(mut list: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.data.len();
            bytes <= TOGETHER_BYTES
        };
        // One that is larger goes alone.
        let count = list.iter().take(TOGETHER_ENTRIES).take_while(fits).count().max(1);
        let (some, rest) = list.split_at_checked(count)?;
        list = rest;
        Some(some)
    })
}

/// Applies entries, tells watchers, then answers; returns from where to where they moved the compacted revision.
fn apply(engine: &Arc<Engine>, entries: &[Entry]) -> Result<Option<(i64, i64)>, StateError> {
    let begun = Instant::now();
    let (mut changes, mut answers) = (Vec::new(), Vec::with_capacity(entries.len()));
    let (mut revision, mut compacted) = (0, None);
    for applied in engine.state.apply(entries)? {
        engine.vote(applied.index, applied.hash);
        let Some(mut done) = applied.done else { continue };
        if let Ok(Answer::Voted(wrong)) = &done.answer {
            engine.judge(wrong)?;
        }
        count(&engine.metrics, &done);
        tell(engine, applied.index, &mut done);
        changes.append(&mut done.changes);
        revision = done.revision;
        compacted = done.compacted.or(compacted);
        answers.push((done.request_id, done.answer.map(|answer| (answer, done.revision))));
    }
    if !changes.is_empty() {
        engine.publish(changes, revision);
    }
    answer(engine, answers, begun.elapsed());
    Ok(compacted)
}

/// Tells who waits. Many are told by a thread of theirs: each costs this one more than the thread that goes on with it.
fn answer(engine: &Arc<Engine>, answers: Vec<(u64, Outcome)>, applying: Duration) {
    let are_few = answers.len() <= ANSWERS_FEW;
    let tell = move |engine: &Engine| {
        for (request_id, outcome) in answers {
            engine.answer(request_id, outcome, applying);
        }
    };
    if are_few {
        return tell(engine);
    }
    let engine = engine.clone();
    engine.clone().runtime.spawn(async move { tell(&engine) });
}

/// Tells the owner, and who gives out tokens, what a command changed for them.
fn tell(engine: &Engine, index: u64, done: &mut Done) {
    if let Some(change) = done.tokens.take() {
        engine.change_tokens(change);
    }
    let granted = std::mem::take(&mut done.granted);
    let (ended, checkpoints) = (std::mem::take(&mut done.ended), std::mem::take(&mut done.checkpoints));
    if !(granted.is_empty() && ended.is_empty() && checkpoints.is_empty()) {
        engine.tell(Input::Leases { granted, ended, checkpoints });
    }
    if let Some(members) = done.members.take() {
        let change = done.conf_change.take().map(|change| (index, Box::new(change)));
        engine.tell(Input::Members { change, members: Box::new(members) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_applied_in_parts_of_bounded_size() {
        let entry = |bytes: usize| Entry { data: vec![0; bytes].into(), ..Entry::default() };
        let counts = |list: &[Entry]| together(list).map(<[Entry]>::len).collect::<Vec<_>>();
        assert_eq!(counts(&[]), [0; 0]);
        assert_eq!(counts(&vec![entry(100); 2 * TOGETHER_ENTRIES + 1]), [TOGETHER_ENTRIES, TOGETHER_ENTRIES, 1]);
        let (half, large) = (TOGETHER_BYTES / 2, TOGETHER_BYTES + 1);
        assert_eq!(counts(&[entry(half), entry(half), entry(half), entry(large), entry(1)]), [2, 1, 1, 1]);
    }
}
