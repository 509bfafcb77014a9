//! Streams of clients that want to be told when nobody leads, so that they try another member.
//!
//! Source: etcd `server/etcdserver/api/v3rpc/interceptor.go`.

use std::future::Future;

use axum::http::HeaderMap;
use store_core::errors::RequestError;
use tonic::metadata::MetadataMap;

use super::Service;

/// Election timeouts without a leader after which a stream ends: opening it again costs more than waiting a little.
const ELECTIONS_MAX: u32 = 3;

/// Whether a client wants to be refused rather than wait for a leader.
pub(super) fn wants_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

impl Service {
    /// For a stream whose client asked for it: ends when nobody has led for [`ELECTIONS_MAX`] election timeouts. For
    /// others it never does.
    pub(super) fn leaderless(&self, metadata: &MetadataMap) -> impl Future<Output = RequestError> + Send + 'static {
        let wanted = wants_leader(metadata.as_ref());
        let mut position = self.engine.position();
        let patience = self.config.election_timeout * ELECTIONS_MAX;
        async move {
            if !wanted {
                std::future::pending::<()>().await;
            }
            loop {
                if position.wait_for(|p| p.leader == 0).await.is_err() {
                    return RequestError::Stopped;
                }
                if tokio::time::timeout(patience, position.wait_for(|p| p.leader != 0)).await.is_err() {
                    return RequestError::NoLeader;
                }
            }
        }
    }
}
