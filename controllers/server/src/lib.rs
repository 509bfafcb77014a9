//! The controllers' shell: informers in, reconciles decided by `controllers-core`, writes out.
//!
//! One task owns one queue. Informers put in keys, the owner takes a key, shows its
//! controller what was observed and makes the writes it asks for; a write that fails
//! puts the key back, later and later.
//!
//! Absences: nothing here decides what to write; nothing polls but node health.

mod collect;
mod execute;
mod informers;
mod owner;
mod queue;

use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the controllers are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The cluster's CA certificate, PEM, which every namespace gets.
    pub root_ca: String,
}

/// Why the controllers don't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no CA to give to namespaces.
    #[error("root_ca is empty: pods would have no way to know the API")]
    NoRootCa,
}

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`RunError::NoRootCa`].
    pub fn validate(&self) -> Result<(), RunError> {
        if self.root_ca.trim().is_empty() { Err(RunError::NoRootCa) } else { Ok(()) }
    }
}

/// Keys and changes that wait for the owner.
const INBOX_MAX: usize = 1024;

/// Runs all controllers until `shutdown`.
///
/// # Errors
/// [`RunError`] for settings that can't work.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    config.validate()?;
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let caches = informers::start(&client, &sender, &shutdown);
    collect::start(&client, &sender, &shutdown);
    drop(sender);
    owner::Owner::new(client, config, caches).run(inbox, shutdown).await;
    Ok(())
}
