//! Backups: a copy of the state as one file.
//!
//! Layout: a magic line; a header; files of RocksDB, each a name, a length, its bytes and their
//! CRC-32, until an empty name; zeros up to a multiple of 512; the SHA-256 of all that. So its
//! size is 32 beyond a multiple of 512, by which `etcdctl snapshot save` tells a whole one.
//! Numbers are big-endian; names and header stand behind their length.
//!
//! Invariants
//!   K1  A backup is read as it was written, or refused: no bit of it is without a checksum, and nothing follows.
//!   K2  Space grows with what really comes, not with what is announced.
//! Checked by: backup/tests.rs, fuzz/fuzz_targets/backup.rs (K1).

use std::io::{ErrorKind, Read, Write};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::wire::BackupHeader;

const MAGIC: &[u8; 19] = b"KEELSON SNAPSHOT 1\n";
const BLOCK: u64 = 512;
const HASH_BYTES: usize = 32;
const PIECE_BYTES: usize = 256 << 10;
/// Headers and names are far smaller.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Why a backup wasn't read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// Another kind of file.
    #[error("no snapshot of Keelson's store")]
    Foreign,
    /// What is read isn't what was written.
    #[error("damaged at byte {offset}: {why}")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// It can't be got at.
    #[error("reading it")]
    Read(#[source] std::io::Error),
    /// Its files can't be laid down.
    #[error("laying down its files")]
    Files(#[source] E),
}

/// Where the files of a backup go, one after the other.
pub trait Files {
    /// Why one can't be laid down.
    type Error;

    /// Begins a file that must not be there.
    ///
    /// # Errors
    /// It is there, or can't be made.
    fn create(&mut self, name: &str) -> Result<(), Self::Error>;

    /// Its next bytes.
    ///
    /// # Errors
    /// They can't be written.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Makes it durable.
    ///
    /// # Errors
    /// It can't be.
    fn close(&mut self) -> Result<(), Self::Error>;
}

/// What a backup will consist of; its size is known before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    header: Vec<u8>,
    files: Vec<(String, u64)>,
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

impl Outline {
    /// Of files with these names and sizes, in this order.
    #[must_use]
    pub fn new(header: &BackupHeader, files: Vec<(String, u64)>) -> Self {
        Self { header: header.encode_to_vec(), files }
    }

    /// Bytes of the whole.
    #[must_use]
    pub fn size(&self) -> u64 {
        let files = self.files.iter().map(|(name, size)| 4 + name.len() as u64 + 8 + size + 4);
        let plain = MAGIC.len() as u64 + 4 + self.header.len() as u64 + files.sum::<u64>() + 4;
        plain.next_multiple_of(BLOCK) + HASH_BYTES as u64
    }

    /// Writes it, with the files that `open` finds.
    ///
    /// # Errors
    /// A file is shorter than it was, or can't be read; or `out` takes no more.
    pub fn write<R: Read>(
        &self,
        out: impl Write,
        mut open: impl FnMut(&str) -> std::io::Result<R>,
    ) -> std::io::Result<()> {
        let mut out = Hashing::new(out);
        out.write_all(MAGIC)?;
        write_text(&mut out, &self.header)?;
        for (name, size) in &self.files {
            write_text(&mut out, name.as_bytes())?;
            out.write_all(&size.to_be_bytes())?;
            let crc = copy(&mut open(name)?, *size, |piece| out.write_all(piece))??;
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

/// Copies so many bytes; their CRC-32. The outer error is the reader's, the inner one `to`'s.
fn copy<E>(
    from: &mut impl Read,
    size: u64,
    mut to: impl FnMut(&[u8]) -> Result<(), E>,
) -> std::io::Result<Result<u32, E>> {
    let mut crc = crc32fast::Hasher::new();
    let (mut piece, mut left) = (vec![0; PIECE_BYTES.min(usize::try_from(size).unwrap_or(PIECE_BYTES))], size);
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        from.read_exact(&mut piece[..wanted])?;
        crc.update(&piece[..wanted]);
        if let Err(error) = to(&piece[..wanted]) {
            return Ok(Err(error));
        }
        left -= wanted as u64;
    }
    Ok(Ok(crc.finalize()))
}

/// Reads a backup, every checksum compared; what was laid down of one that is refused isn't to be used.
///
/// # Errors
/// [`ReadError`] says what is wrong, and where.
pub fn read<F: Files>(from: impl Read, files: &mut F) -> Result<BackupHeader, ReadError<F::Error>> {
    let mut source = Source { file: Hashing::new(from) };
    match source.bytes::<{ MAGIC.len() }, F::Error>() {
        Ok(magic) if magic == *MAGIC => {}
        Err(ReadError::Read(error)) => return Err(ReadError::Read(error)),
        _ => return Err(ReadError::Foreign),
    }
    let header = BackupHeader::decode(source.text()?.as_slice()).map_err(|_| source.damaged("its header"))?;
    source.unpack(files)?;
    source.end()?;
    Ok(header)
}

/// A backup being read.
struct Source<R> {
    file: Hashing<R>,
}

impl<R: Read> Source<R> {
    fn damaged<E>(&self, why: &'static str) -> ReadError<E> {
        ReadError::Damaged { offset: self.file.at, why }
    }

    fn short<E>(&self, error: std::io::Error) -> ReadError<E> {
        match error.kind() {
            ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => ReadError::Read(error),
        }
    }

    fn bytes<const N: usize, E>(&mut self) -> Result<[u8; N], ReadError<E>> {
        let mut bytes = [0; N];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(self.short(error)),
        }
    }

    fn text<E>(&mut self) -> Result<Vec<u8>, ReadError<E>> {
        let length = u32::from_be_bytes(self.bytes()?) as usize;
        if length > TEXT_BYTES_MAX {
            return Err(self.damaged("an impossible length"));
        }
        let mut text = Vec::new();
        match (&mut self.file).take(length as u64).read_to_end(&mut text) {
            Ok(read) if read == length => Ok(text),
            Ok(_) => Err(self.damaged("it ends too early")),
            Err(error) => Err(ReadError::Read(error)),
        }
    }

    fn unpack<F: Files>(&mut self, files: &mut F) -> Result<(), ReadError<F::Error>> {
        loop {
            let name = String::from_utf8(self.text()?).map_err(|_| self.damaged("a file's name can't be read"))?;
            if name.is_empty() {
                return Ok(());
            }
            if !is_plain(&name) {
                return Err(self.damaged("a file's name is none of RocksDB's"));
            }
            let size = u64::from_be_bytes(self.bytes()?);
            files.create(&name).map_err(ReadError::Files)?;
            let crc = match copy(&mut self.file, size, |piece| files.append(piece)) {
                Ok(crc) => crc.map_err(ReadError::Files)?,
                Err(error) => return Err(self.short(error)),
            };
            files.close().map_err(ReadError::Files)?;
            if crc.to_be_bytes() != self.bytes()? {
                return Err(self.damaged("a file's checksum is wrong"));
            }
        }
    }

    fn end<E>(&mut self) -> Result<(), ReadError<E>> {
        while !self.file.at.is_multiple_of(BLOCK) {
            if self.bytes::<1, E>()? != [0] {
                return Err(self.damaged("what should be empty isn't"));
            }
        }
        let hash: [u8; HASH_BYTES] = self.file.hash.clone().finalize().into();
        if hash != self.bytes::<HASH_BYTES, E>()? {
            return Err(self.damaged("the checksum of the whole is wrong"));
        }
        let mut more = Vec::new();
        match (&mut self.file).take(1).read_to_end(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("something follows its end")),
            Err(error) => Err(ReadError::Read(error)),
        }
    }
}

/// Whether a file's name stays in its folder.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().all(allowed) && !name.starts_with('.')
}

#[cfg(test)]
mod tests;
