//! The scheduler's shell: watches in, decisions by `scheduler-core`, bindings out.
//!
//! One task owns the state. Watches tell it what there is; for the pod that is next it asks the core for
//! a node, assumes the pod there at once and sends the binding beside, so that decisions don't wait for
//! the API. A binding that failed takes the assumption back; one that wasn't answered is sent again.
//!
//! Two schedulers of one name may run at once over Keelson's apiserver: a binding tells what its decision knew, and is
//! refused if its node was given a pod since (`scheduler_core::bindings`). kube-apiserver doesn't ask: there one
//! scheduler overcommits nothing, whatever goes unanswered, and two may, as two kube-schedulers would.
//!
//! Absences: nothing here decides which pod is next or where it goes, nor what is known of the cluster
//! (`scheduler_core::state`); nothing polls but for pods that waited for too long.

mod events;
mod owner;
mod watch;
mod write;

use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the scheduler is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which pods are its own: those whose `schedulerName` is this. Events come from this name.
    pub scheduler_name: String,
    /// Bindings on their way at once.
    pub binds_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".to_owned(), binds_max: 128 }
    }
}

/// Why the scheduler doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No pod would be its own.
    #[error("scheduler_name is empty")]
    NoName,
    /// No pod would be bound.
    #[error("binds_max is 0")]
    NoBinds,
}

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`RunError`] for settings that can't work.
    pub fn validate(&self) -> Result<(), RunError> {
        if self.scheduler_name.trim().is_empty() {
            Err(RunError::NoName)
        } else if self.binds_max == 0 {
            Err(RunError::NoBinds)
        } else {
            Ok(())
        }
    }
}

/// What watches saw and the owner hasn't taken in.
const INBOX_MAX: usize = 1024;

/// Schedules until `shutdown`.
///
/// # Errors
/// [`RunError`] for settings that can't work.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    config.validate()?;
    let (told, inbox) = mpsc::channel(INBOX_MAX);
    let (events, waiting) = mpsc::channel(events::WAITING_MAX);
    watch::start(&client, &told, &shutdown);
    drop(told);
    let recorder = events::run(client.clone(), config.scheduler_name.clone(), waiting, shutdown.clone());
    let recorder = tokio::spawn(recorder);
    owner::Owner::new(client, config, events).run(inbox, shutdown).await;
    // It ends by the same token; a panic in it was about events only.
    let _ = recorder.await;
    Ok(())
}
