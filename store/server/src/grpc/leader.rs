//! Streams of clients that want to be told when nobody leads, so that they try another member.
//!
//! Source: etcd `server/etcdserver/api/v3rpc/interceptor.go`.

use std::future::Future;

use store_core::errors::RequestError;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::{Service, status};

/// Election timeouts without a leader after which a stream ends: opening it again costs more than waiting a little.
const ELECTIONS_MAX: u32 = 3;

impl Service {
    /// For a client that asked for it (`hasleader: true`): refuses at once if nobody leads; later, what is returned
    /// ends when nobody has led for [`ELECTIONS_MAX`] election timeouts. For others it never does.
    pub(super) fn leaderless(
        &self,
        metadata: &MetadataMap,
    ) -> Result<impl Future<Output = RequestError> + Send + 'static, Status> {
        let wanted = metadata.get("hasleader").is_some_and(|value| value == "true");
        let mut position = self.engine.position();
        if wanted && position.borrow().leader == 0 {
            return Err(status(RequestError::NoLeader));
        }
        let patience = self.config.election_timeout * ELECTIONS_MAX;
        Ok(async move {
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
        })
    }
}
