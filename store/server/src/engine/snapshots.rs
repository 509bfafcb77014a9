//! Snapshots for peers that are too far behind: a copy of the state, offered while it is needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::{Message, Snapshot, SnapshotMetadata};
use store_core::errors::RequestError;
use store_core::wire::BackupHeader;
use tokio::sync::oneshot;

use super::{Engine, Input};
use crate::state::{Received, State, StateError};

/// The folder of copies, in the member's.
pub(super) const FOLDER: &str = "copies";

/// A copy of the state; its folder goes with the last that sends it.
pub(crate) struct Copied {
    pub(crate) path: PathBuf,
    pub(crate) metadata: SnapshotMetadata,
    pub(crate) header: BackupHeader,
}

impl Drop for Copied {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            // The next start removes it.
            tracing::warn!(path = %self.path.display(), %error, "removing a copy of the state");
        }
    }
}

impl Copied {
    /// Copies the state into a folder below `copies`.
    pub(super) fn of(state: &State, copies: &Path, number: u64) -> Result<Self, StateError> {
        let path = copies.join(number.to_string());
        let (metadata, header) = state.copy_to(&path)?;
        Ok(Self { path, metadata, header })
    }

    /// As raft offers it: the files go a way of their own.
    pub(super) fn to_raft(&self) -> Snapshot {
        Snapshot { metadata: Some(self.metadata.clone()).into(), ..Snapshot::default() }
    }
}

/// Makes the folder of copies anew: what a crash left is of no use.
pub(super) fn prepare(copies: &Path) -> Result<(), StateError> {
    if copies.exists() {
        std::fs::remove_dir_all(copies).map_err(|e| folder_error(copies, e))?;
    }
    std::fs::create_dir_all(copies).map_err(|e| folder_error(copies, e))
}

fn folder_error(path: &Path, source: std::io::Error) -> StateError {
    StateError::Folder { path: path.display().to_string(), source }
}

impl Engine {
    /// The copy that a snapshot's message stands for; `None` if it was taken back meanwhile.
    pub(crate) fn copied(&self, metadata: &SnapshotMetadata) -> Option<Arc<Copied>> {
        self.copied.lock().clone().filter(|copied| copied.metadata == *metadata)
    }

    /// A copy of the state as it is now, for a backup.
    pub(crate) async fn copy(&self) -> Result<Arc<Copied>, RequestError> {
        let (reply, copied) = oneshot::channel();
        if !self.send(Input::Copy(reply)) {
            return Err(RequestError::Busy);
        }
        copied.await.map_err(|_| RequestError::Stopped)?
    }

    /// Gives a received snapshot to raft, which may take it or not; returns when it has.
    pub(crate) async fn take_snapshot(&self, message: Message, received: Received) -> Result<(), RequestError> {
        let (done, taken) = oneshot::channel();
        let input = Input::Received { message: Box::new(message), received: Box::new(received), done };
        if !self.send(input) {
            return Err(RequestError::Busy);
        }
        taken.await.map_err(|_| RequestError::Stopped)
    }
}
