//! Hashes by which members, and backups, are compared.

use store_core::errors::RequestError;
use store_core::mvcc::Values as _;

use super::State;

/// Times that a hash is begun anew because of a compaction.
const ATTEMPTS: usize = 3;

/// A hash of keys with their history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) hash: u32,
    pub(crate) compacted: i64,
    pub(crate) revision: i64,
}

impl State {
    /// The hash of everything that reads between the compacted revision and `revision` (0: the newest) can see.
    ///
    /// It doesn't depend on how far the collection of compacted versions has come.
    pub(crate) fn hash_kv(&self, revision: i64) -> Result<Hashed, RequestError> {
        for _ in 0..ATTEMPTS {
            let (compacted, newest) = {
                let (mvcc, _) = self.read();
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
            if self.read().0.compacted() == compacted {
                return Ok(Hashed { hash: hash?, compacted, revision: wanted });
            }
        }
        Err(RequestError::Busy)
    }

    fn hash_between(&self, compacted: i64, revision: i64) -> Result<u32, RequestError> {
        let disk = self.disk();
        let mut hash = crc32fast::Hasher::new();
        for record in disk.records(0) {
            let (at, kv, _) = record.map_err(|_| RequestError::Disk)?;
            if at.main > revision {
                break;
            }
            // Of what is compacted, the newest version of each key still counts.
            let is_seen = at.main > compacted || self.read().0.newest_at(&kv.key, compacted) == Some(at);
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
