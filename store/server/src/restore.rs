//! Members out of backups: what `snapshot restore` and `snapshot status` do.

use std::path::Path;

use store_core::membership::Members;
use store_core::wire::BackupHeader;

use crate::backup::{BackupError, io, unpack};
use crate::config::Config;
use crate::identity::{self, Identity};
use crate::state::State;

/// What a backup holds, as `etcdctl snapshot status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupStatus {
    /// Hash of all keys with their history.
    pub hash: u32,
    /// The newest revision.
    pub revision: i64,
    /// Keys that are there at it.
    pub keys: u64,
    /// Bytes of the file.
    pub size: u64,
}

/// How a member is restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// By how much the revision is raised, so that clients that saw later ones don't see it go back.
    pub bump_revision: i64,
}

/// Reads a backup as a whole and says what it holds.
///
/// # Errors
/// [`BackupError`].
pub fn status(path: &Path) -> Result<BackupStatus, BackupError> {
    let beside = path.with_extension("unpacked");
    let result = (|| {
        std::fs::create_dir(&beside).map_err(io(&beside))?;
        let generation = beside.join("1");
        std::fs::create_dir(&generation).map_err(io(&generation))?;
        let BackupHeader { revision, keys, .. } = unpack(path, &generation)?;
        let state = State::open(&beside)?;
        let hashed = state.hash_kv(0).map_err(|_| crate::StateError::Damaged("its keys can't be hashed"))?;
        let size = std::fs::metadata(path).map_err(io(path))?.len();
        Ok(BackupStatus { hash: hashed.hash, revision, keys, size })
    })();
    let _ = std::fs::remove_dir_all(&beside);
    result
}

/// Makes the folder of a member out of a backup: of a new cluster that begins with the backup's keys.
///
/// Every member of it is restored from the same file, with settings of its own.
///
/// # Errors
/// [`BackupError`]; then there is no folder.
pub fn restore(path: &Path, config: &Config, options: &RestoreOptions) -> Result<BackupHeader, BackupError> {
    config.validate_founding()?;
    let target = &config.data_dir;
    let is_occupied = std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
    if is_occupied {
        return Err(BackupError::Occupied(target.display().to_string()));
    }
    let part = target.with_extension("part");
    let result = fill(path, &part, config, options).and_then(|header| {
        std::fs::rename(&part, target).map_err(io(target))?;
        Ok(header)
    });
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&part);
    }
    result
}

fn fill(path: &Path, part: &Path, config: &Config, options: &RestoreOptions) -> Result<BackupHeader, BackupError> {
    let generation = part.join("state/1");
    std::fs::create_dir_all(&generation).map_err(io(&generation))?;
    let header = unpack(path, &generation)?;
    let members = Members::new(config.cluster_id(), config.founders());
    let state = State::open(&part.join("state"))?;
    state.restore(&members, options.bump_revision)?;
    let id = members.iter().find(|member| member.name == config.name).map_or(0, |member| member.id);
    identity::write(&part.join(identity::FILE), &Identity { id, folder: identity::new_folder(), members })?;
    Ok(header)
}
