//! Image archives in files; what they must hold is `agent_core::archive`'s matter.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use agent_core::archive::{ArchiveError, check};

/// Why a file isn't taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("opening {path}")]
    Open {
        /// The file asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What it holds.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Checks the archive in a file; gives the references under which its images will be known.
///
/// # Errors
/// [`FileError`] says what is wrong.
pub fn check_file(path: &Path) -> Result<Vec<String>, FileError> {
    let file = File::open(path).map_err(|source| FileError::Open { path: path.to_owned(), source })?;
    Ok(check(file)?)
}
