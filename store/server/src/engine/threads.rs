//! The engine's threads, and the runtime that the owner's thread is.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use store_core::errors::RequestError;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use super::{End, LOG_QUEUE_MAX, Opened, apply, flush, owner, persist};
use crate::peers::Peers;

/// A runtime of one thread. What still runs when it goes is broken off, and nobody waits for it.
pub(super) struct Quiet {
    /// Only what drops it takes it.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Quiet {
    pub(super) fn new() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Makes this thread the runtime's, until the future ends.
    fn run(self, future: impl Future<Output = ()>) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(future);
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The running threads.
pub(crate) struct Running {
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Waits for the threads to end, after the owner was told to stop.
    pub(crate) fn join(self) {
        for thread in self.threads {
            // Its panic was caught and told of.
            let _ = thread.join();
        }
    }
}

/// Starts the engine's threads.
pub(crate) fn run(opened: Opened, peers: Arc<Peers>, shutdown: CancellationToken) -> std::io::Result<Running> {
    let Opened { engine, mut receiver, replica, wal, timing, runtime, .. } = opened;
    let own = replica.id();
    let (to_log, log_inbox) = sync_channel(LOG_QUEUE_MAX);
    let (to_state, state_inbox) = sync_channel(1024);
    // Without one of them the member would neither work nor end: it ends, and says why.
    let (ending, cancelled) = (engine.clone(), shutdown.clone());
    let spawn = |name: &'static str, work: Box<dyn FnOnce() + Send>| {
        let (ending, cancelled) = (ending.clone(), cancelled.clone());
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
                ending.ended.send_replace(Some(End::Panicked(name)));
                ending.fail_waiting(RequestError::Stopped);
                cancelled.cancel();
            }
        })
    };
    let owner_thread = {
        let owner = owner::Owner::new(engine.clone(), peers, replica, to_log, to_state, timing);
        spawn("store-raft", Box::new(move || runtime.run(owner.run(&mut receiver, &shutdown))))?
    };
    let log_thread = {
        let engine = engine.clone();
        spawn("store-log", Box::new(move || persist::run(&engine, wal, &log_inbox)))?
    };
    let members = engine.state.members();
    let rank = members.iter().position(|member| member.id == own).unwrap_or(0);
    let (flushes, flush_inbox) = flush::pair(rank, members.iter().count());
    let flush_thread = {
        let engine = engine.clone();
        spawn("store-flush", Box::new(move || flush::run(&engine, &flush_inbox)))?
    };
    let state_thread = spawn("store-state", Box::new(move || apply::run(&engine, &state_inbox, flushes)))?;
    Ok(Running { threads: vec![owner_thread, log_thread, state_thread, flush_thread] })
}
