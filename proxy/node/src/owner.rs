//! The owner: hears the watches, keeps the table in step.
//!
//! Invariants
//!   O1  `held` is what the kernel's table holds, or `None` if that isn't known.
//!   O2  A change reaches the kernel `coalesce` after it is heard, unless the last try failed: then after a pause.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use proxy_core::node::Node;
use proxy_core::observed::{Reason, ServiceName};
use proxy_core::ruleset::Ruleset;
use proxy_core::transaction::{afresh, between};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::mirror::Mirror;
use crate::nft::Nft;
use crate::{Config, RunError};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(crate) struct Owner {
    node: Node,
    nft: Nft,
    coalesce: Duration,
    check_every: Duration,
    services: Mirror<Service>,
    slices: Mirror<EndpointSlice>,
    /// O1.
    held: Option<Ruleset>,
    /// What was said to be left out already.
    skipped: BTreeSet<(ServiceName, Reason)>,
    /// The pause after the next failure.
    pause: Duration,
}

impl Owner {
    pub(crate) fn new(node: Node, nft: Nft, config: &Config) -> Self {
        Self {
            node,
            nft,
            coalesce: config.coalesce,
            check_every: config.check_every,
            services: Mirror::new(),
            slices: Mirror::new(),
            held: None,
            skipped: BTreeSet::new(),
            pause: FIRST_PAUSE,
        }
    }

    /// Works until shutdown.
    pub(crate) async fn run(mut self, client: Client, shutdown: CancellationToken) -> Result<(), RunError> {
        let all = watcher::Config::default;
        let mut services = pin!(watcher(Api::<Service>::all(client.clone()), all()).default_backoff());
        let mut slices = pin!(watcher(Api::<EndpointSlice>::all(client), all()).default_backoff());
        let mut checks = interval(self.check_every);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When to look at what differs; `None` while nothing does.
        let mut due: Option<Instant> = None;
        loop {
            let changed = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = services.next() => match event.ok_or(RunError::WatchEnded("services"))? {
                    Ok(event) => self.services.hear(event),
                    Err(error) => interrupted("services", &error),
                },
                event = slices.next() => match event.ok_or(RunError::WatchEnded("endpointslices"))? {
                    Ok(event) => self.slices.hear(event),
                    Err(error) => interrupted("endpointslices", &error),
                },
                () = at(due) => {
                    due = self.reconcile().await;
                    false
                }
                _ = checks.tick() => self.check().await,
            };
            if changed && due.is_none() {
                due = Some(Instant::now() + self.coalesce);
            }
        }
    }

    /// Brings the table in step; when to try again, if that fails.
    async fn reconcile(&mut self) -> Option<Instant> {
        let (Some(services), Some(slices)) = (self.services.all(), self.slices.all()) else { return None };
        let built = proxy_core::build(&self.node, services, slices);
        for ((namespace, name), reason) in built.skipped.difference(&self.skipped) {
            tracing::warn!(%namespace, %name, %reason, "not all of this service is served");
        }
        self.skipped = built.skipped;
        let is_first = self.held.is_none();
        let transaction = match &self.held {
            Some(held) => between(held, &built.ruleset),
            None => afresh(&built.ruleset),
        };
        if transaction.is_empty() {
            return None;
        }
        let begun = Instant::now();
        match self.nft.apply(transaction.to_string()).await {
            Ok(()) => {
                let (commands, elapsed) = (transaction.commands().len(), begun.elapsed());
                if is_first {
                    tracing::info!(commands, ?elapsed, "the table is made");
                } else {
                    tracing::debug!(commands, ?elapsed, "the table is in step");
                }
                self.held = Some(built.ruleset);
                self.pause = FIRST_PAUSE;
                None
            }
            Err(error) => {
                tracing::warn!(%error, pause = ?self.pause, "the table is made anew after a pause");
                self.held = None;
                let again = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                Some(again)
            }
        }
    }

    /// Looks whether the table is there; whether something has to be done.
    async fn check(&mut self) -> bool {
        if self.held.is_none() {
            return false;
        }
        match self.nft.has_table().await {
            Ok(true) => false,
            Ok(false) => {
                tracing::warn!("somebody removed the table");
                self.held = None;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the table can't be looked at");
                false
            }
        }
    }
}

fn interrupted(kind: &str, error: &watcher::Error) -> bool {
    tracing::warn!(%error, kind, "a watch was interrupted");
    false
}

/// Waits for a time; for ever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
