//! v3lock: a lock is the first place of a queue.
//!
//! Source: etcd `server/etcdserver/api/v3lock/lock.go`.

use tonic::{Request, Response, Status};

use super::Service;
use super::locks::lock_server::Lock;
use super::locks::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use super::places::{Caller, prefix};

#[tonic::async_trait]
impl Lock for Service {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, LockRequest { name, lease }) = Caller::of(self, request);
        let prefix = prefix(&name);
        let place = caller.queue(&prefix, lease, bytes::Bytes::new()).await?;
        caller.wait_for_turn(&prefix, &place).await?;
        // The lease may have ended while it waited.
        let (holds, header) = caller.holds(&place).await?;
        if !holds {
            return Err(Status::unknown("mutex: session is expired"));
        }
        Ok(Response::new(LockResponse { header, key: place.key }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = Caller::of(self, request);
        Ok(Response::new(UnlockResponse { header: caller.delete(key).await? }))
    }
}
