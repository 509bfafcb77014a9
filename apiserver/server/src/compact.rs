//! Compaction: history older than five minutes is dropped, as kube-apiserver does.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::storage::Storage;

const EVERY: Duration = Duration::from_secs(300);

/// Drops, every five minutes, what was history five minutes ago.
pub(crate) async fn run(storage: Storage, shutdown: CancellationToken) {
    let mut floor = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Ok(revision) = storage.revision().await else { continue };
        if floor > 0
            && let Err(error) = storage.compact(floor).await
        {
            tracing::warn!(%error, revision = floor, "compacting the store");
        }
        floor = revision;
    }
}
