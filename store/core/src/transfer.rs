//! Snapshots on their way: the files of a copy of the state, as bytes of a connection.
//!
//! Each file: its name, and chunks that each carry a CRC-32; an empty chunk ends a file, an empty
//! name the files. Names and chunks stand behind their length, in four big-endian bytes.
//!
//! Invariants
//!   V1  What is received are the bytes that were sent, or it is refused.
//!   V2  No more is asked for at once than a chunk may hold, nor more files than a state has.
//! Checked by: the tests below, fuzz/fuzz_targets/backup.rs.

use crate::backup::is_plain;

/// Bytes of a chunk.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;
const NAME_BYTES_MAX: usize = 255;
/// RocksDB makes a few files; more would be somebody's mischief.
const FILES_MAX: usize = 100_000;
const LENGTH_BYTES: usize = 4;
const SUM_BYTES: usize = 4;

/// What ends a file, and the files.
pub const END: [u8; LENGTH_BYTES] = [0; LENGTH_BYTES];

/// What is sent before a name or a chunk.
#[must_use]
pub fn length(bytes: &[u8]) -> [u8; LENGTH_BYTES] {
    // Names and chunks are far shorter than 4 GiB.
    (bytes.len() as u32).to_be_bytes()
}

/// What is sent behind a chunk.
#[must_use]
pub fn sum(chunk: &[u8]) -> [u8; SUM_BYTES] {
    crc32fast::hash(chunk).to_be_bytes()
}

/// Why a copy isn't taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferFault {
    /// A name or a chunk.
    #[error("{length} bytes where at most {limit} are allowed")]
    TooLong {
        /// What was announced.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It could lead out of its folder, or isn't text.
    #[error("a file of the name {0:?}")]
    Name(String),
    /// Its CRC differs.
    #[error("a chunk of a snapshot was damaged on its way")]
    Damaged,
    /// V2.
    #[error("more files than a state has")]
    TooMany,
    /// Other bytes came than were wanted.
    #[error("{0} bytes came where others were wanted")]
    Unwanted(usize),
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// A file begins.
    File(String),
    /// Bytes of it.
    Chunk(Vec<u8>),
    /// It is whole.
    FileEnd,
    /// All are.
    End,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    #[default]
    NameLength,
    Name(usize),
    ChunkLength,
    Chunk(usize),
    Nothing,
}

/// Receives a copy.
///
/// Order of calls: [`Incoming::wants`], [`Incoming::handle`] with exactly so many bytes; until [`Arrived::End`].
#[derive(Debug, Default)]
pub struct Incoming {
    next: Next,
    files: usize,
}

impl Incoming {
    /// How many bytes are to be read next; none at the end.
    #[must_use]
    pub fn wants(&self) -> usize {
        match self.next {
            Next::NameLength | Next::ChunkLength => LENGTH_BYTES,
            Next::Name(length) => length,
            Next::Chunk(length) => length + SUM_BYTES,
            Next::Nothing => 0,
        }
    }

    /// Takes the bytes that were wanted; says what they were, unless they only announced what follows.
    ///
    /// # Errors
    /// [`TransferFault`]; then nothing that follows can be read.
    pub fn handle(&mut self, bytes: Vec<u8>) -> Result<Option<Arrived>, TransferFault> {
        let unwanted = TransferFault::Unwanted(bytes.len());
        if bytes.len() != self.wants() {
            return Err(unwanted);
        }
        let (next, arrived) = match self.next {
            Next::NameLength => match announced(&bytes, NAME_BYTES_MAX)? {
                0 => (Next::Nothing, Some(Arrived::End)),
                _ if self.files == FILES_MAX => return Err(TransferFault::TooMany),
                length => (Next::Name(length), None),
            },
            Next::Name(_) => {
                self.files += 1;
                (Next::ChunkLength, Some(Arrived::File(name(bytes)?)))
            }
            Next::ChunkLength => match announced(&bytes, CHUNK_BYTES_MAX)? {
                0 => (Next::NameLength, Some(Arrived::FileEnd)),
                length => (Next::Chunk(length), None),
            },
            Next::Chunk(length) => (Next::ChunkLength, Some(Arrived::Chunk(checked(bytes, length)?))),
            Next::Nothing => return Err(unwanted),
        };
        self.next = next;
        Ok(arrived)
    }
}

fn announced(bytes: &[u8], limit: usize) -> Result<usize, TransferFault> {
    let length = bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes)) as usize;
    if length > limit { Err(TransferFault::TooLong { length, limit }) } else { Ok(length) }
}

fn name(bytes: Vec<u8>) -> Result<String, TransferFault> {
    let name =
        String::from_utf8(bytes).map_err(|e| TransferFault::Name(String::from_utf8_lossy(e.as_bytes()).into()))?;
    if is_plain(&name) { Ok(name) } else { Err(TransferFault::Name(name)) }
}

/// A chunk without the sum behind it, if that is the chunk's.
fn checked(mut bytes: Vec<u8>, length: usize) -> Result<Vec<u8>, TransferFault> {
    let told = bytes.split_off(length);
    if told == sum(&bytes) { Ok(bytes) } else { Err(TransferFault::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives of bytes, and what is left of them.
    fn arrived(mut bytes: &[u8]) -> Result<(Vec<Arrived>, usize), TransferFault> {
        let (mut incoming, mut all) = (Incoming::default(), Vec::new());
        while incoming.wants() > 0 {
            let Some((now, rest)) = bytes.split_at_checked(incoming.wants()) else { break };
            bytes = rest;
            all.extend(incoming.handle(now.to_vec())?);
        }
        Ok((all, bytes.len()))
    }

    fn behind_length(bytes: &[u8]) -> Vec<u8> {
        [&length(bytes)[..], bytes].concat()
    }

    fn chunk(bytes: &[u8]) -> Vec<u8> {
        [behind_length(bytes), sum(bytes).to_vec()].concat()
    }

    /// V1.
    #[test]
    fn a_copy_arrives_as_it_was_sent() {
        let file = [behind_length(b"CURRENT"), chunk(b"MANI"), chunk(b"FEST"), END.to_vec()].concat();
        let empty = [behind_length(b"LOG"), END.to_vec()].concat();
        let bytes = [&file[..], &empty, &END, b"rest"].concat();
        let text = |bytes: &[u8]| Arrived::Chunk(bytes.to_vec());
        let expected = [
            Arrived::File("CURRENT".to_owned()),
            text(b"MANI"),
            text(b"FEST"),
            Arrived::FileEnd,
            Arrived::File("LOG".to_owned()),
            Arrived::FileEnd,
            Arrived::End,
        ];
        assert_eq!(arrived(&bytes), Ok((expected.to_vec(), 4)));
    }

    #[test]
    fn what_is_no_copy_is_refused() {
        let mut damaged = [behind_length(b"a"), chunk(b"text")].concat();
        damaged[10] ^= 1;
        assert_eq!(arrived(&damaged), Err(TransferFault::Damaged));
        assert_eq!(arrived(&behind_length(b"../a")), Err(TransferFault::Name("../a".to_owned())));
        assert_eq!(arrived(&behind_length(b"\xff")), Err(TransferFault::Name("\u{fffd}".to_owned())));
        assert_eq!(arrived(&[0, 0, 1, 0]), Err(TransferFault::TooLong { length: 256, limit: 255 }));
        let long = [behind_length(b"a"), vec![0, 4, 0, 1]].concat();
        assert_eq!(arrived(&long), Err(TransferFault::TooLong { length: 0x4_0001, limit: CHUNK_BYTES_MAX }));
        assert_eq!(Incoming::default().handle(vec![0; 3]), Err(TransferFault::Unwanted(3)));
    }

    /// V2.
    #[test]
    fn a_state_has_only_so_many_files() {
        let file = [behind_length(b"a"), END.to_vec()].concat();
        let most = file.repeat(FILES_MAX);
        assert!(arrived(&[&most[..], &END].concat()).is_ok());
        assert_eq!(arrived(&[&most[..], &file].concat()), Err(TransferFault::TooMany));
    }
}
