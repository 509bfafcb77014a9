//! The next segment, made beforehand.
//!
//! A file that grows has its length, and where its blocks lie, written with each sync: to a journal, in a write of its
//! own. One that holds zeros already costs a sync only what is written. A thread makes it, slowly, so that the log's
//! syncs don't wait behind it.

use std::fs::{File, OpenOptions};
use std::io::Result;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::segment::{Blocks, open_direct};

/// Zeros are written so many at once,
const CHUNK_BYTES: usize = 256 << 10;
/// with a pause in between: at most 128 MiB a second, of which a sync waits for one chunk at most.
const PAUSE: Duration = Duration::from_millis(2);

/// A segment that is being made, or is ready.
pub(super) struct Spare {
    path: PathBuf,
    bytes: u64,
    making: Option<JoinHandle<Result<File>>>,
    is_made: Arc<AtomicBool>,
    is_ended: Arc<AtomicBool>,
}

impl Spare {
    /// None yet; what a process before this one left is deleted. It stands in the folder under this name until it is
    /// taken.
    pub(super) fn new(path: PathBuf, bytes: u64) -> Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { path, bytes, making: None, is_made: Arc::default(), is_ended: Arc::default() })
    }

    /// Has one made, unless it is.
    pub(super) fn prepare(&mut self) {
        if self.making.is_some() {
            return;
        }
        self.is_made = Arc::default();
        let (path, bytes, is_made, is_ended) =
            (self.path.clone(), self.bytes, self.is_made.clone(), self.is_ended.clone());
        let make = move || {
            let file = make(&path, bytes, &is_ended).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
            is_made.store(true, Ordering::Release);
            Ok(file)
        };
        match std::thread::Builder::new().name("store-log-next".to_owned()).spawn(make) {
            Ok(making) => self.making = Some(making),
            Err(error) => tracing::warn!(%error, "no thread to make the log's next segment; it will grow instead"),
        }
    }

    /// Whether one can be taken.
    pub(super) fn is_ready(&self) -> bool {
        self.making.is_some() && self.is_made.load(Ordering::Acquire)
    }

    /// The one that is ready, under its new name. None if there is none, or making it failed: the log goes on without.
    pub(super) fn take(&mut self, path: &Path) -> Option<File> {
        let is_ready = self.is_ready();
        // Once it is ready the thread does nothing more.
        let made = self.making.take_if(|making| is_ready || making.is_finished())?.join().ok()?;
        made.and_then(|file| std::fs::rename(&self.path, path).map(|()| file))
            .inspect_err(
                |error| tracing::warn!(%error, "the log's next segment can't be made beforehand; it will grow"),
            )
            .ok()
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        if let Some(making) = self.making.take() {
            // What it failed with matters to nobody any more.
            let _ = making.join();
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes a file of zeros, durably but for its name.
fn make(path: &Path, bytes: u64, is_ended: &AtomicBool) -> Result<File> {
    let file = open_direct(OpenOptions::new().write(true).create_new(true), path)?;
    let zeros = Blocks::zeros(CHUNK_BYTES);
    for place in (0..bytes).step_by(CHUNK_BYTES) {
        if is_ended.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        file.write_all_at(zeros.bytes(), place)?;
        std::thread::sleep(PAUSE);
    }
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(spare: &Spare) {
        while !spare.making.as_ref().is_some_and(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_is_taken_once_under_its_new_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, segment) = (dir.path().join("next"), dir.path().join("segment"));
        std::fs::write(&path, "half a file").expect("left by a process before");
        let mut spare = Spare::new(path.clone(), 1 << 20).expect("a spare");
        assert!(!path.exists() && spare.take(&segment).is_none());
        spare.prepare();
        ended(&spare);
        assert!(spare.is_ready() && spare.take(&segment).is_some());
        assert_eq!(std::fs::read(&segment).expect("read"), vec![0; 1 << 20]);
        assert!(!path.exists() && !spare.is_ready() && spare.take(&segment).is_none());
    }

    #[test]
    fn one_that_cannot_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("next");
        let mut spare = Spare::new(path.clone(), 1 << 20).expect("a spare");
        std::fs::create_dir(&path).expect("in the way");
        spare.prepare();
        ended(&spare);
        assert!(!spare.is_ready() && spare.take(&dir.path().join("segment")).is_none());
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1, "the folder in the way");
    }

    #[test]
    fn one_that_is_being_made_goes_with_its_owner() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spare = Spare::new(dir.path().join("next"), 1 << 40).expect("a spare");
        spare.prepare();
        drop(spare);
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0);
    }
}
