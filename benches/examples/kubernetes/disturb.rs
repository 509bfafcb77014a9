//! What operators and machines do to a store: members are killed, stopped, moved, backed up and replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::store::{MEMBERS, Store};

/// Longer than an election takes.
const STOPPED: Duration = Duration::from_secs(5);
/// A killed member is started again after this.
const DOWN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(500);

/// What is done to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    KillLeader,
    StopFollower,
    MoveLeader,
    Defragment,
    Snapshot,
    StopLeader,
    KillFollower,
    Replace,
}

/// In turn.
const ALL: [Kind; 8] = [
    Kind::KillLeader,
    Kind::Snapshot,
    Kind::StopFollower,
    Kind::MoveLeader,
    Kind::Replace,
    Kind::Defragment,
    Kind::StopLeader,
    Kind::KillFollower,
];

impl Kind {
    /// As tables and charts call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill -9 the leader",
            Self::StopFollower => "stop a follower 5 s",
            Self::MoveLeader => "move the leader",
            Self::Defragment => "defragment all",
            Self::Snapshot => "save a snapshot",
            Self::StopLeader => "stop the leader 5 s",
            Self::KillFollower => "kill -9 a follower",
            Self::Replace => "replace a member",
        }
    }

    async fn run(self, store: &Store, turn: usize) -> Result<()> {
        let (leader, _) = store.leader().await?;
        let follower = (leader + 1 + turn % 2) % MEMBERS;
        match self {
            Self::KillLeader => kill(store, leader).await,
            Self::KillFollower => kill(store, follower).await,
            Self::StopLeader => stop(store, leader).await,
            Self::StopFollower => stop(store, follower).await,
            Self::Snapshot => store.snapshot(turn % MEMBERS).await.map(drop),
            Self::MoveLeader => {
                let target = store.glance(follower).await?.id;
                store.client(leader).await?.move_leader(target).await?;
                Ok(())
            }
            Self::Defragment => {
                for at in 0..MEMBERS {
                    store.client(at).await?.defragment().await?;
                }
                Ok(())
            }
            Self::Replace => {
                let id = store.glance(follower).await?.id;
                store.replace(follower, id).await
            }
        }
    }
}

async fn kill(store: &Store, at: usize) -> Result<()> {
    store.kill(at)?;
    tokio::time::sleep(DOWN).await;
    store.run(at)
}

async fn stop(store: &Store, at: usize) -> Result<()> {
    store.signal(at, Signal::SIGSTOP)?;
    tokio::time::sleep(STOPPED).await;
    store.signal(at, Signal::SIGCONT)
}

/// One disturbance that was survived.
#[derive(Clone)]
pub(crate) struct Disturbance {
    pub(crate) kind: Kind,
    /// Since the run's beginning.
    pub(crate) at: Duration,
    /// Until all members followed one leader and kept up.
    pub(crate) settled: Duration,
}

/// All of them in turn until told to stop.
pub(crate) struct Disturber {
    pub(crate) store: Arc<Store>,
    pub(crate) begun: Instant,
    pub(crate) every: Duration,
    pub(crate) stop: AtomicBool,
    pub(crate) done: Mutex<Vec<Disturbance>>,
}

impl Disturber {
    pub(crate) async fn run(self: Arc<Self>) -> Result<()> {
        for (turn, kind) in ALL.iter().cycle().copied().enumerate() {
            let due = Instant::now() + self.every;
            while Instant::now() < due {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
            }
            let (at, begun) = (self.begun.elapsed(), Instant::now());
            kind.run(&self.store, turn).await.with_context(|| format!("to {}", kind.name()))?;
            self.store.settled().await.with_context(|| format!("after to {}", kind.name()))?;
            let disturbance = Disturbance { kind, at, settled: begun.elapsed() };
            println!(
                "{:6.0} s  {}: settled after {:.1} s",
                at.as_secs_f64(),
                kind.name(),
                disturbance.settled.as_secs_f64()
            );
            self.done.lock().unwrap_or_else(PoisonError::into_inner).push(disturbance);
        }
        Ok(())
    }

    pub(crate) fn done(&self) -> Vec<Disturbance> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
