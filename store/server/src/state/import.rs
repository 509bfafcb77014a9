//! A state that is filled from another store, before it has members or an index in memory.
//!
//! Progress is written in the same batch as what came, so that after a crash both are those of
//! some moment, and the import goes on from there. Memory holds one page, never the index.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;
use rocksdb::WriteBatch;
use store_core::mvcc::{Change, Revision};
use store_core::wire::{ImportProgress, KeyValue};

use super::StateError;
use super::disk::{COMPACTED, Damage, Disk, IMPORT, LEASES, META, RECORDS, REVISION, VALUES, lease_times};
use super::folder::Folder;

/// The state under way.
pub(crate) struct ImportState {
    disk: Disk,
    progress: ImportProgress,
}

impl ImportState {
    /// Opens what is there; an empty state otherwise.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let disk = Disk::open(Folder::open(path)?.current()?, Damage::default())?;
        let progress = match disk.get(IMPORT)? {
            None => ImportProgress::default(),
            Some(bytes) => ImportProgress::decode(&*bytes).map_err(|_| StateError::Damaged("an import's progress"))?,
        };
        Ok(Self { disk, progress })
    }

    pub(crate) fn progress(&self) -> &ImportProgress {
        &self.progress
    }

    /// Forgets everything and begins with a progress.
    pub(crate) fn begin(&mut self, progress: ImportProgress) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        for family in [RECORDS, VALUES, LEASES] {
            // Keys are numbers of 16 bytes at most.
            batch.delete_range_cf(self.disk.family(family), &[][..], &[0xff; 17][..]);
        }
        batch.put_cf(self.disk.family(META), IMPORT, progress.encode_to_vec());
        self.disk.write(batch)?;
        self.progress = progress;
        self.disk.flush()
    }

    /// Writes changes with what they make of the progress. Changes of one revision come in their order; those
    /// that are there already go before.
    pub(crate) fn write(&mut self, kvs: Vec<KeyValue>, progress: ImportProgress) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        let mut places = BTreeMap::<i64, i64>::new();
        for kv in kvs {
            let main = kv.mod_revision;
            let sub = match places.get(&main) {
                Some(last) => last + 1,
                None => self.there_at(main)?,
            };
            places.insert(main, sub);
            self.disk.put_change(&mut batch, &Change { at: Revision { main, sub }, kv });
        }
        batch.put_cf(self.disk.family(META), IMPORT, progress.encode_to_vec());
        self.disk.write(batch)?;
        self.progress = progress;
        Ok(())
    }

    /// How many changes of a revision are there.
    fn there_at(&self, main: i64) -> Result<i64, StateError> {
        let mut sub = 0;
        while self.disk.has_change(Revision { main, sub })? {
            sub += 1;
        }
        Ok(sub)
    }

    /// Whether a lease's time to live is known.
    pub(crate) fn lease_ttl(&self, id: i64) -> Result<Option<i64>, StateError> {
        let found = self.disk.db.get_cf(self.disk.family(LEASES), id.to_be_bytes()).map_err(|e| self.disk.error(&e))?;
        Ok(found.and_then(|times| times.first_chunk().copied()).map(i64::from_be_bytes))
    }

    /// Adds leases: number and seconds.
    pub(crate) fn put_leases(&self, leases: &[(i64, i64)]) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        for (id, ttl) in leases {
            batch.put_cf(self.disk.family(LEASES), id.to_be_bytes(), lease_times(*ttl, 0));
        }
        self.disk.write(batch)
    }

    /// Keeps only these leases.
    pub(crate) fn keep_leases(&self, kept: &std::collections::BTreeSet<i64>) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        for item in self.disk.db.iterator_cf(self.disk.family(LEASES), rocksdb::IteratorMode::Start) {
            let (id, _) = item.map_err(|e| self.disk.error(&e))?;
            let is_kept = id.as_ref().try_into().is_ok_and(|id| kept.contains(&i64::from_be_bytes(id)));
            if !is_kept {
                batch.delete_cf(self.disk.family(LEASES), id);
            }
        }
        self.disk.write(batch)
    }

    /// Makes what was written durable.
    pub(crate) fn flush(&self) -> Result<(), StateError> {
        self.disk.flush()
    }

    /// Closes a state that is complete: it is what its source was at the revision that was watched last.
    pub(crate) fn complete(self) -> Result<(), StateError> {
        let (meta, mut batch) = (self.disk.family(META), WriteBatch::default());
        batch.put_cf(meta, REVISION, self.progress.watched.to_be_bytes());
        batch.put_cf(meta, COMPACTED, self.progress.pinned.to_be_bytes());
        self.disk.write(batch)?;
        self.disk.flush()
    }
}
