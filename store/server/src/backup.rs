//! Backups: a copy of the state as one file.
//!
//! Layout: a magic line; a header; files of RocksDB, each a name, a length, its bytes and their
//! CRC-32, until an empty name; zeros up to a multiple of 512; the SHA-256 of all that. So its
//! size is 32 beyond a multiple of 512, by which `etcdctl snapshot save` tells a whole one.
//! Numbers are big-endian; names and header stand behind their length.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use store_core::wire::BackupHeader;

const MAGIC: &[u8; 19] = b"KEELSON SNAPSHOT 1\n";
const BLOCK: u64 = 512;
const PIECE_BYTES: usize = 256 << 10;
/// Headers and names are far smaller.
const TEXT_BYTES_MAX: usize = 1 << 20;

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
    header: Vec<u8>,
    files: Vec<(String, PathBuf, u64)>,
}

/// Counts and hashes what passes.
struct Hashing<S> {
    inner: S,
    hash: Sha256,
    at: u64,
}

impl<S> Hashing<S> {
    fn new(inner: S) -> Self {
        Self { inner, hash: Sha256::new(), at: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.update(&bytes[..read]);
        self.at += read as u64;
        Ok(read)
    }
}

impl Plan {
    /// A backup of a copy of the state.
    pub(crate) fn of(folder: &Path, header: &BackupHeader) -> std::io::Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| std::io::Error::other("a file without a name"))?;
            files.push((name, entry.path(), entry.metadata()?.len()));
        }
        files.sort();
        Ok(Self { header: header.encode_to_vec(), files })
    }

    /// Bytes of the whole.
    pub(crate) fn size(&self) -> u64 {
        let files = self.files.iter().map(|(name, _, size)| 4 + name.len() as u64 + 8 + size + 4);
        let plain = MAGIC.len() as u64 + 4 + self.header.len() as u64 + files.sum::<u64>() + 4;
        plain.next_multiple_of(BLOCK) + 32
    }

    /// Writes it.
    pub(crate) fn write(&self, out: impl Write) -> std::io::Result<()> {
        let mut out = Hashing::new(out);
        out.write_all(MAGIC)?;
        write_text(&mut out, &self.header)?;
        for (name, path, size) in &self.files {
            write_text(&mut out, name.as_bytes())?;
            out.write_all(&size.to_be_bytes())?;
            let crc = copy(&mut File::open(path)?, &mut out, *size)?;
            out.write_all(&crc.to_be_bytes())?;
        }
        write_text(&mut out, b"")?;
        let padding = out.at.next_multiple_of(BLOCK) - out.at;
        out.write_all(&vec![0; usize::try_from(padding).unwrap_or(0)])?;
        let hash = out.hash.clone().finalize();
        out.inner.write_all(&hash)?;
        out.inner.flush()
    }
}

fn write_text(out: &mut impl Write, text: &[u8]) -> std::io::Result<()> {
    out.write_all(&(text.len() as u32).to_be_bytes())?;
    out.write_all(text)
}

/// Copies so many bytes; returns their CRC-32.
fn copy(from: &mut impl Read, to: &mut impl Write, size: u64) -> std::io::Result<u32> {
    let mut crc = crc32fast::Hasher::new();
    let (mut piece, mut left) = (vec![0; PIECE_BYTES], size);
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        from.read_exact(&mut piece[..wanted])?;
        crc.update(&piece[..wanted]);
        to.write_all(&piece[..wanted])?;
        left -= wanted as u64;
    }
    Ok(crc.finalize())
}

/// A backup being read.
struct Source<'a> {
    path: &'a Path,
    file: Hashing<std::io::BufReader<File>>,
}

impl Source<'_> {
    fn damaged(&self, why: &'static str) -> BackupError {
        BackupError::Damaged { path: self.path.display().to_string(), offset: self.file.at, why }
    }

    fn short(&self, error: std::io::Error) -> BackupError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => io(self.path)(error),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(self.short(error)),
        }
    }

    fn text(&mut self) -> Result<Vec<u8>, BackupError> {
        let length = u32::from_be_bytes(self.bytes()?) as usize;
        if length > TEXT_BYTES_MAX {
            return Err(self.damaged("an impossible length"));
        }
        let mut text = vec![0; length];
        match self.file.read_exact(&mut text) {
            Ok(()) => Ok(text),
            Err(error) => Err(self.short(error)),
        }
    }

    fn unpack(&mut self, folder: &Path) -> Result<(), BackupError> {
        loop {
            let name = String::from_utf8(self.text()?).map_err(|_| self.damaged("a file's name can't be read"))?;
            if name.is_empty() {
                return Ok(());
            }
            if !is_plain(&name) {
                return Err(self.damaged("a file's name is none of RocksDB's"));
            }
            let size = u64::from_be_bytes(self.bytes()?);
            let path = folder.join(name);
            let mut file = File::create_new(&path).map_err(io(&path))?;
            let crc = match copy(&mut self.file, &mut file, size) {
                Ok(crc) => crc,
                Err(error) => return Err(self.short(error)),
            };
            file.sync_all().map_err(io(&path))?;
            if crc.to_be_bytes() != self.bytes()? {
                return Err(self.damaged("a file's checksum is wrong"));
            }
        }
    }

    fn end(&mut self) -> Result<(), BackupError> {
        while !self.file.at.is_multiple_of(BLOCK) {
            if self.bytes::<1>()? != [0] {
                return Err(self.damaged("what should be empty isn't"));
            }
        }
        let hash: [u8; 32] = self.file.hash.clone().finalize().into();
        if hash != self.bytes::<32>()? { Err(self.damaged("the checksum of the whole is wrong")) } else { Ok(()) }
    }
}

/// Whether a file's name stays in its folder.
pub(crate) fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().all(allowed) && !name.starts_with('.')
}

/// Unpacks a backup into an empty folder, every checksum compared.
///
/// # Errors
/// [`BackupError`] names the file, and the place of what is wrong in it.
pub(crate) fn unpack(path: &Path, folder: &Path) -> Result<BackupHeader, BackupError> {
    let file = std::io::BufReader::with_capacity(PIECE_BYTES, File::open(path).map_err(io(path))?);
    let mut source = Source { path, file: Hashing::new(file) };
    if source.bytes().ok().as_ref() != Some(MAGIC) {
        return Err(BackupError::Foreign(path.display().to_string()));
    }
    let header = BackupHeader::decode(source.text()?.as_slice()).map_err(|_| source.damaged("its header"))?;
    source.unpack(folder)?;
    source.end()?;
    Ok(header)
}

#[cfg(test)]
mod tests;
