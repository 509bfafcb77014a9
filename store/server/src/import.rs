//! Moving in: a backup made of another store's keys, with their revisions, versions and leases.
//!
//! Problem. To clients, revisions are promises: kube-apiserver hands them out as resource versions.
//!          Writing the keys anew would make others.
//! Idea.    Keys are read at one revision and laid down as that revision's state, which counts as
//!          compacted below; changes after it are laid down as they were made. What comes of it is a
//!          backup, which `snapshot restore` makes members of.
//!
//! Invariants
//!   I1  Progress and what it speaks of are on disk together: an import that was killed goes on.
//!   I2  What is finished is the source's state at one revision, whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use store_core::wire::{BackupHeader, ImportProgress, KeyValue};

use crate::backup::{BackupError, Plan, io};
use crate::state::{ImportState, State};

/// What isn't durable yet is no more than this.
const FLUSH_BYTES: u64 = 16 << 20;
/// Nor older.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// Why an import can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Files.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// What is there already is another's.
    #[error(
        "{folder} holds an import from cluster {held:x}, this is cluster {asked:x}: remove the folder to begin anew"
    )]
    OtherSource {
        /// The folder.
        folder: String,
        /// Whose import it is.
        held: u64,
        /// Who was asked for.
        asked: u64,
    },
    /// I2 doesn't hold.
    #[error("{found} keys came where the source has {expected}: remove {folder} and begin anew")]
    Miscounted {
        /// The folder.
        folder: String,
        /// Keys in the import.
        found: u64,
        /// Keys at the source at the same revision.
        expected: u64,
    },
}

impl From<crate::StateError> for ImportError {
    fn from(error: crate::StateError) -> Self {
        Self::Backup(error.into())
    }
}

/// An import under way, in a folder beside the file that it will be.
///
/// Getters: [`Import::progress`]. Order of calls: [`Import::begin`] unless something is there,
/// [`Import::page`] until `paged`, [`Import::changes`] and [`Import::leases`] at will, [`Import::finish`].
pub struct Import {
    file: PathBuf,
    folder: PathBuf,
    state: ImportState,
    unflushed: u64,
    flushed: Instant,
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Where an import's state lies in its folder.
fn state_in(folder: &Path) -> PathBuf {
    folder.join("state")
}

impl Import {
    /// Begins an import into a file, or goes on with one that was interrupted.
    ///
    /// # Errors
    /// [`BackupError::Occupied`] if the file is there.
    pub fn open(file: &Path) -> Result<Self, ImportError> {
        if file.exists() {
            return Err(BackupError::FileExists(file.display().to_string()).into());
        }
        let folder = beside(file, ".import");
        let state = ImportState::open(&state_in(&folder))?;
        Ok(Self { file: file.to_owned(), folder, state, unflushed: 0, flushed: Instant::now() })
    }

    /// How far it is; all zeros before [`Import::begin`].
    #[must_use]
    pub fn progress(&self) -> &ImportProgress {
        self.state.progress()
    }

    /// The folder with what came so far.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether what is there came from this cluster; so does what isn't there.
    ///
    /// # Errors
    /// [`ImportError::OtherSource`].
    pub fn check_source(&self, cluster_id: u64) -> Result<(), ImportError> {
        let held = self.progress().cluster_id;
        if held == 0 || held == cluster_id {
            return Ok(());
        }
        Err(ImportError::OtherSource { folder: self.folder.display().to_string(), held, asked: cluster_id })
    }

    /// Forgets what is there and begins at a revision of the source.
    ///
    /// # Errors
    /// [`ImportError::Backup`].
    pub fn begin(&mut self, cluster_id: u64, revision: i64) -> Result<(), ImportError> {
        let progress = ImportProgress { cluster_id, pinned: revision, watched: revision, ..ImportProgress::default() };
        Ok(self.state.begin(progress)?)
    }

    /// Takes the next keys in order, read at the pinned revision; `more` says whether others follow.
    ///
    /// # Errors
    /// [`ImportError::Backup`].
    pub fn page(&mut self, kvs: Vec<KeyValue>, more: bool) -> Result<(), ImportError> {
        let mut progress = self.progress().clone();
        if let Some(last) = kvs.last() {
            // The least key behind it.
            progress.next_key = [&last.key[..], b"\0"].concat().into();
        }
        progress.paged = !more;
        progress.keys += kvs.len() as u64;
        let bytes = size(&kvs);
        progress.bytes += bytes;
        self.write(kvs, progress, bytes)
    }

    /// Takes changes in order, whole revisions from the pinned one on; what is there already is passed over.
    /// A deletion is a key with a revision and no version.
    ///
    /// # Errors
    /// [`ImportError::Backup`].
    pub fn changes(&mut self, changes: Vec<KeyValue>) -> Result<(), ImportError> {
        let mut progress = self.progress().clone();
        let Some(last) = changes.last() else { return Ok(()) };
        progress.watched = progress.watched.max(last.mod_revision);
        let is_new = |kv: &KeyValue| is_new(self.progress(), kv);
        let new: Vec<KeyValue> = changes.into_iter().filter(is_new).collect();
        progress.pin_watched = true;
        let bytes = size(&new);
        self.write(new, progress, bytes)
    }

    fn write(&mut self, kvs: Vec<KeyValue>, progress: ImportProgress, bytes: u64) -> Result<(), ImportError> {
        self.state.write(kvs, progress)?;
        self.unflushed += bytes;
        if self.unflushed >= FLUSH_BYTES || self.flushed.elapsed() >= FLUSH_EVERY {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes what came durable.
    ///
    /// # Errors
    /// [`ImportError::Backup`].
    pub fn flush(&mut self) -> Result<(), ImportError> {
        self.state.flush()?;
        (self.unflushed, self.flushed) = (0, Instant::now());
        Ok(())
    }

    /// Of these leases, those whose time to live isn't known yet.
    ///
    /// # Errors
    /// [`ImportError::Backup`].
    pub fn unknown_leases(&self, ids: &BTreeSet<i64>) -> Result<Vec<i64>, ImportError> {
        let mut unknown = Vec::new();
        for id in ids {
            if self.state.lease_ttl(*id)?.is_none() {
                unknown.push(*id);
            }
        }
        Ok(unknown)
    }

    /// Takes leases: number and the seconds that they were granted.
    ///
    /// # Errors
    /// [`ImportError::Backup`].
    pub fn leases(&mut self, leases: &[(i64, i64)]) -> Result<(), ImportError> {
        Ok(self.state.put_leases(leases)?)
    }

    /// Makes the file, of everything up to the last change, with these leases and no others. The source has
    /// `keys` keys at that revision: as many must have come (I2).
    ///
    /// # Errors
    /// [`ImportError`]; then what came is still there.
    pub fn finish(self, leases: &BTreeSet<i64>, keys: u64) -> Result<BackupHeader, ImportError> {
        let Self { file, folder, state, .. } = self;
        let cluster_id = state.progress().cluster_id;
        state.keep_leases(leases)?;
        state.complete()?;
        let copy = folder.join("copy");
        if copy.exists() {
            std::fs::remove_dir_all(&copy).map_err(io(&copy))?;
        }
        let state = State::open(&state_in(&folder))?;
        let (_, header) = state.copy_to(&copy)?;
        if header.keys != keys {
            let (found, folder) = (header.keys, folder.display().to_string());
            return Err(ImportError::Miscounted { folder, found, expected: keys });
        }
        let header = BackupHeader { cluster_id, ..header };
        write_file(&file, &copy, &header)?;
        drop(state);
        std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
        Ok(header)
    }
}

fn write_file(file: &Path, copy: &Path, header: &BackupHeader) -> Result<(), BackupError> {
    let part = beside(file, ".part");
    let plan = Plan::of(copy, header).map_err(io(copy))?;
    let out = File::create(&part).map_err(io(&part))?;
    plan.write(std::io::BufWriter::new(&out)).map_err(io(&part))?;
    out.sync_all().map_err(io(&part))?;
    std::fs::rename(&part, file).map_err(io(file))?;
    // The rename itself must survive a power cut.
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

fn size(kvs: &[KeyValue]) -> u64 {
    kvs.iter().map(|kv| (kv.key.len() + kv.value.len()) as u64).sum()
}

/// Whether a change isn't there yet. Of the pinned revision, pages have brought all but deletions.
fn is_new(progress: &ImportProgress, kv: &KeyValue) -> bool {
    let of_pin = kv.mod_revision == progress.pinned && kv.version == 0 && !progress.pin_watched;
    kv.mod_revision > progress.watched || of_pin
}

#[cfg(test)]
mod tests;
