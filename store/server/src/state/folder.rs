//! The state's folder: generations, of which one is current.
//!
//! A snapshot from the leader becomes a generation of its own and takes the other's place by one
//! rename, so that a crash leaves the old state or the new one. While it is open, nobody else opens it: what looks left
//! behind may be what the other one is about to use.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::StateError;

const CURRENT: &str = "CURRENT";
const FIRST: &str = "1";

const LOCK: &str = "LOCK";

/// The state's folder.
pub(super) struct Folder {
    path: PathBuf,
    /// The system takes the lock back when it is closed, however the process ends.
    _lock: File,
}

/// One generation's folder; removed with it, once it was replaced.
pub(super) struct Generation {
    path: PathBuf,
    is_replaced: AtomicBool,
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> StateError + '_ {
    move |source| StateError::Folder { path: path.display().to_string(), source }
}

fn lock(folder: &Path) -> Result<File, StateError> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: folder.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(failed(&path)(error)),
    }
}

impl Folder {
    /// Opens the folder, or makes it; what was left behind by a crash goes.
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(path).map_err(failed(path))?;
        let folder = Self { path: path.to_owned(), _lock: lock(path)? };
        let current = folder.current()?;
        for entry in std::fs::read_dir(path).map_err(failed(path))?.flatten() {
            let is_kept = entry.file_name() == CURRENT || entry.path() == current.path;
            if !is_kept && entry.path().is_dir() {
                std::fs::remove_dir_all(entry.path()).map_err(failed(&entry.path()))?;
            }
        }
        Ok(folder)
    }

    /// The generation in use.
    pub(super) fn current(&self) -> Result<Generation, StateError> {
        let pointer = self.path.join(CURRENT);
        let name = match std::fs::read_to_string(&pointer) {
            Ok(name) => name,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => FIRST.to_owned(),
            Err(error) => return Err(failed(&pointer)(error)),
        };
        let path = self.path.join(name.trim());
        // Made anew it would be empty, and nobody would miss what was in it.
        if pointer.exists() && !path.is_dir() {
            return Err(StateError::Gone(path.display().to_string()));
        }
        Ok(Generation::at(path))
    }

    /// A folder of its own for a generation that comes. One of the name may be in use: a snapshot can come twice.
    pub(super) fn next(&self, name: &str) -> Result<Generation, StateError> {
        let (mut path, mut others) = (self.path.join(name), 0_u32);
        while path.exists() {
            others += 1;
            path = self.path.join(format!("{name}-{others}"));
        }
        std::fs::create_dir(&path).map_err(failed(&path))?;
        Ok(Generation::at(path))
    }

    /// Makes a generation the current one; durable on return.
    pub(super) fn switch_to(&self, generation: &Generation) -> Result<(), StateError> {
        let name = generation.path.file_name().unwrap_or_default();
        let temporary = self.path.join("CURRENT.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(name.as_encoded_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, self.path.join(CURRENT))?;
            // The rename itself must survive a power cut.
            File::open(&self.path)?.sync_all()
        };
        write().map_err(failed(&temporary))
    }
}

impl Generation {
    fn at(path: PathBuf) -> Self {
        Self { path, is_replaced: AtomicBool::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It is the current one from now on.
    pub(super) fn keep(&self) {
        self.is_replaced.store(false, Ordering::Release);
    }

    /// It isn't current any more, or isn't yet: it goes with its last user.
    pub(super) fn replace(&self) {
        self.is_replaced.store(true, Ordering::Release);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.is_replaced.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            // The next start removes it.
            tracing::warn!(path = %self.path.display(), %error, "removing a replaced state");
        }
    }
}
