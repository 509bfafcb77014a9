//! The controllers' shell: informers in, reconciles decided by `controllers-core`, writes out.
//!
//! One task owns one queue. Informers put in keys, the owner takes a key, shows its
//! controller what was observed and makes the writes it asks for; a write that fails
//! puts the key back, later and later. Of several processes over one API, one acts (`elect`): there, begun when it wins
//! the election and ended when it loses it, is all of the above.
//!
//! Absences: nothing here decides what to write; nothing polls but node health.

mod collect;
mod elect;
mod execute;
mod informers;
mod owner;

use controllers_core::election::Timing;
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the controllers are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The cluster's CA certificate, PEM, which every namespace gets.
    pub root_ca: String,
    /// Whether others may run the same controllers over the same API: then one of them acts. A lone one acts at once,
    /// also after it was killed, when its last lease hasn't ended yet.
    pub leader_elect: bool,
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

/// Runs all controllers until `shutdown`; with [`Config::leader_elect`] whenever this process leads.
///
/// # Errors
/// [`RunError`] for settings that can't work.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    config.validate()?;
    if config.leader_elect {
        let own = client.clone();
        let act = move |reign, stop| act(own.clone(), config.clone(), reign, stop);
        elect::run(client, Timing::default(), shutdown, act).await;
    } else {
        act(client, config, elect::Reign::without_end(), shutdown).await;
    }
    Ok(())
}

/// Watches and writes until `stop`. When it returns, nothing of it is on its way any more but what has left the process.
async fn act(client: Client, config: Config, reign: elect::Reign, stop: CancellationToken) {
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let caches = informers::start(&client, &sender, &stop);
    let kinds = collect::start(&client, &sender, &stop);
    drop(sender);
    let writer = execute::Writer { client, reign };
    owner::Owner::new(writer, config, caches, kinds).run(inbox, stop).await;
}
