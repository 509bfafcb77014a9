//! The log thread: writes what steps ask for, one sync for all that gathered.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use raft::eraftpb::{HardState, Message};
use store_core::replica::Persist;
use store_core::trace::Event;

use super::{Engine, Input};
use crate::trace::TraceError;
use crate::wal::{Wal, WalError};

/// What the log thread is given.
pub(super) enum ToLog {
    /// Write, then release the messages that depend on it: they are the owner's again.
    Step { number: u64, persist: Persist, after: Vec<Message> },
    /// Begin anew behind an installed snapshot, then go on as with a step.
    Reset { number: u64, index: u64, term: u64, hard_state: HardState, after: Vec<Message> },
    /// Entries up to here are durably applied.
    Release(u64),
}

/// Why what steps ask for isn't durable.
#[derive(Debug, thiserror::Error)]
enum PersistError {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("{0}: {source}", source = .0.source)]
    Trace(#[from] TraceError),
}

/// Steps that one sync covers at most.
const BATCH_STEPS_MAX: usize = 1024;

pub(super) fn run(engine: &Arc<Engine>, mut wal: Wal, inbox: &Receiver<ToLog>) {
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_STEPS_MAX {
            match inbox.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        if let Err(error) = write(engine, &mut wal, batch) {
            // E3: nothing that this batch would have acknowledged leaves.
            engine.tell(Input::Failed(error.to_string()));
            return;
        }
    }
}

fn write(engine: &Arc<Engine>, wal: &mut Wal, batch: Vec<ToLog>) -> Result<(), PersistError> {
    let (mut sync, mut last, mut released) = (false, None, Vec::new());
    let mut release = None;
    for item in batch {
        match item {
            ToLog::Step { number, persist, after } => {
                wal.push(&persist.entries, persist.hard_state.as_ref());
                sync |= persist.sync;
                last = Some(number);
                released.extend(after);
            }
            ToLog::Reset { number, index, term, hard_state, after } => {
                wal.reset(index, term, &hard_state)?;
                last = Some(number);
                released.extend(after);
            }
            ToLog::Release(index) => release = Some(index),
        }
    }
    if last.is_some() {
        let begun = Instant::now();
        wal.flush(sync)?;
        if sync {
            engine.metrics.log_sync.observe(begun.elapsed().as_secs_f64());
        }
    }
    if let (Some(trace), Some(step)) = (&engine.trace, last) {
        trace.write([Event::Durable { step }])?;
    }
    if let Some(step) = last {
        engine.tell(Input::Persisted { step, after: released });
    }
    if let Some(index) = release {
        wal.release(index)?;
    }
    Ok(())
}
