//! Backups in files: a copy of the state as one file; its layout is `store_core::backup`'s matter.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use store_core::backup::{Files, Outline, ReadError, read};
use store_core::wire::BackupHeader;

const PIECE_BYTES: usize = 256 << 10;

/// What is wrong with a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system refuses.
    #[error("using {path}")]
    Io {
        /// Which file or folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error("{0} is no snapshot of Keelson's store")]
    Foreign(String),
    /// What is read isn't what was written.
    #[error("{path} is damaged at byte {offset}: {why}; use another copy")]
    Damaged {
        /// The file.
        path: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// Something is there already.
    #[error("{0} isn't empty; restore into a new folder")]
    Occupied(String),
    /// The file to be made is there.
    #[error("{0} is there already; name another file")]
    FileExists(String),
    /// The copy inside.
    #[error(transparent)]
    State(#[from] crate::StateError),
    /// The settings.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// The file that says who a member is.
    #[error(transparent)]
    Identity(#[from] crate::IdentityError),
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError + '_ {
    move |source| BackupError::Io { path: path.display().to_string(), source }
}

/// What a backup will consist of; its size is known before it is written.
pub(crate) struct Plan {
    outline: Outline,
    folder: PathBuf,
}

impl Plan {
    /// A backup of a copy of the state.
    pub(crate) fn of(folder: &Path, header: &BackupHeader) -> std::io::Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| std::io::Error::other("a file without a name"))?;
            files.push((name, entry.metadata()?.len()));
        }
        files.sort();
        Ok(Self { outline: Outline::new(header, files), folder: folder.to_owned() })
    }

    /// Bytes of the whole.
    pub(crate) fn size(&self) -> u64 {
        self.outline.size()
    }

    /// Writes it.
    pub(crate) fn write(&self, out: impl Write) -> std::io::Result<()> {
        self.outline.write(out, |name| File::open(self.folder.join(name)))
    }
}

/// Files laid down in a folder.
struct Folder<'a> {
    folder: &'a Path,
    open: Option<(PathBuf, File)>,
}

impl Files for Folder<'_> {
    type Error = BackupError;

    fn create(&mut self, name: &str) -> Result<(), BackupError> {
        let path = self.folder.join(name);
        let file = File::create_new(&path).map_err(io(&path))?;
        self.open = Some((path, file));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.open.as_mut().map_or(Ok(()), |(path, file)| file.write_all(bytes).map_err(io(path)))
    }

    fn close(&mut self) -> Result<(), BackupError> {
        self.open.take().map_or(Ok(()), |(path, file)| file.sync_all().map_err(io(&path)))
    }
}

/// Unpacks a backup into an empty folder, every checksum compared.
///
/// # Errors
/// [`BackupError`] names the file, and the place of what is wrong in it.
pub(crate) fn unpack(path: &Path, folder: &Path) -> Result<BackupHeader, BackupError> {
    let file = std::io::BufReader::with_capacity(PIECE_BYTES, File::open(path).map_err(io(path))?);
    let named = || path.display().to_string();
    read(file, &mut Folder { folder, open: None }).map_err(|error| match error {
        ReadError::Foreign => BackupError::Foreign(named()),
        ReadError::Damaged { offset, why } => BackupError::Damaged { path: named(), offset, why },
        ReadError::Read(source) => io(path)(source),
        ReadError::Files(error) => error,
    })
}

#[cfg(test)]
mod tests;
