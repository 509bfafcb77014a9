//! Hashes by which members, and backups, are compared.

use store_core::divergence::{AtRest, Hash};
use store_core::errors::RequestError;
use store_core::mvcc::{Change, Revision, Values as _};

use super::{State, StateError};

/// Times that a hash is begun anew because of a compaction.
const ATTEMPTS: usize = 3;

/// Records, and bytes of values, that are read at once for [`Kept`].
const SLICE_RECORDS: usize = 1000;
const SLICE_BYTES: usize = 1 << 20;

/// A hash of keys with their history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) hash: u32,
    pub(crate) compacted: i64,
    pub(crate) revision: i64,
}

/// The hash of what a compaction keeps of the revisions since the one before, on its way.
pub(crate) struct Kept {
    next: Revision,
    to: i64,
    hash: AtRest,
}

/// What came of reading on.
pub(crate) enum Slice {
    More(Kept),
    Done {
        compacted: i64,
        hash: Hash,
    },
    /// By the next compaction.
    Overtaken,
}

impl Kept {
    /// Compaction moved from one revision to another.
    pub(crate) fn of((from, to): (i64, i64)) -> Self {
        Self { next: Revision { main: from + 1, sub: 0 }, to, hash: AtRest::default() }
    }
}

impl State {
    /// Reads on. What is hashed doesn't depend on how far the collection of compacted versions has come.
    pub(crate) fn read_kept(&self, mut kept: Kept) -> Result<Slice, StateError> {
        let current = self.current.read();
        let (mvcc, disk) = (&current.machine.mvcc, &current.disk);
        if mvcc.compacted() != kept.to {
            return Ok(Slice::Overtaken);
        }
        let (mut records, mut bytes) = (0, 0);
        for record in disk.records(kept.next) {
            let (at, mut kv, _) = record?;
            if at.main > kept.to {
                break;
            }
            if records == SLICE_RECORDS || bytes >= SLICE_BYTES {
                kept.next = at;
                return Ok(Slice::More(kept));
            }
            records += 1;
            let is_kept = at.main == kept.to || mvcc.newest_at(&kv.key, kept.to) == Some(at);
            if is_kept && kv.version != 0 {
                kv.value =
                    disk.value(at).map_err(|_| StateError::Damaged("a value that the index knows is missing"))?;
            }
            if is_kept {
                bytes += kv.value.len();
                kept.hash.add(&Change { at, kv });
            }
        }
        Ok(Slice::Done { compacted: kept.to, hash: kept.hash.hash() })
    }

    /// The hash of everything that reads between the compacted revision and `revision` (0: the newest) can see.
    ///
    /// It doesn't depend on how far the collection of compacted versions has come.
    pub(crate) fn hash_kv(&self, revision: i64) -> Result<Hashed, RequestError> {
        for _ in 0..ATTEMPTS {
            let (compacted, newest) = {
                let mvcc = self.read();
                (mvcc.compacted(), mvcc.revision())
            };
            let wanted = if revision <= 0 { newest } else { revision };
            match () {
                () if wanted < compacted => return Err(RequestError::Compacted),
                () if wanted > newest => return Err(RequestError::Future),
                () => {}
            }
            let hash = self.hash_between(compacted, wanted);
            // A compaction meanwhile may have taken what was to be hashed.
            if self.read().compacted() == compacted {
                return Ok(Hashed { hash: hash?, compacted, revision: wanted });
            }
        }
        Err(RequestError::Busy)
    }

    fn hash_between(&self, compacted: i64, revision: i64) -> Result<u32, RequestError> {
        let disk = self.disk();
        let mut hash = crc32fast::Hasher::new();
        for record in disk.records(Revision { main: 0, sub: 0 }) {
            let (at, kv, _) = record.map_err(|_| RequestError::Disk)?;
            if at.main > revision {
                break;
            }
            // Of what is compacted, the newest version of each key still counts.
            let is_seen = at.main > compacted || self.read().newest_at(&kv.key, compacted) == Some(at);
            if !is_seen {
                continue;
            }
            for word in [at.main, at.sub, kv.create_revision, kv.version, kv.lease, kv.key.len() as i64] {
                hash.update(&word.to_be_bytes());
            }
            hash.update(&kv.key);
            if kv.version != 0 {
                hash.update(&disk.value(at)?);
            }
        }
        Ok(hash.finalize())
    }
}
