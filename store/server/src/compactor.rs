//! Compacts as [`AutoCompaction`] says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use store_core::auth::Asker;
use store_core::auto_compaction::{AutoCompaction, Retention};
use store_core::errors::RequestError;
use store_core::wire::CompactionRequest;
use store_core::wire::command::Request;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// Compacts while this member leads, until it stops.
pub(crate) async fn run(engine: Arc<Engine>, retention: Retention, stop: CancellationToken) {
    let begun = Instant::now();
    let now_ms = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let revision = || engine.state.read().revision();
    let mut auto = AutoCompaction::new(retention, now_ms(), revision());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(auto.every_ms())) => {}
        }
        let leads = engine.position().borrow().leader == engine.id;
        let Some(to) = auto.tick(now_ms(), revision(), leads) else { continue };
        let request = Request::Compact(CompactionRequest { revision: to, physical: false });
        match engine.propose(&Asker::Member, request).await {
            Ok(_) => tracing::info!(revision = to, "compacted by itself"),
            Err(RequestError::Compacted) => {}
            Err(error) => {
                tracing::warn!(revision = to, %error, "compacting by itself; it will be tried again");
                continue;
            }
        }
        auto.done(now_ms(), to);
    }
}
