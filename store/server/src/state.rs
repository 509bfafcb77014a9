//! The state on disk: RocksDB without a log of its own.
//!
//! Each command is one WriteBatch that carries the applied index with the data, and
//! column families are flushed together: after a crash the state is that of some
//! applied index, from which the raft log goes on.
//!
//! Invariants
//!   S1  Data and applied index are never on disk without each other.
//!   S2  Readers see the index and the values of the same revision.

use std::path::Path;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, Snapshot, SnapshotMetadata};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, FlushOptions, IteratorMode, Options, WriteBatch, WriteOptions,
};
use store_core::errors::RequestError;
use store_core::mvcc::{Answer, Change, Mvcc, Revision, Values};
use store_core::wire::{Command, KeyValue};

const CHANGES: &str = "changes";
const LEASES: &str = "leases";
const META: &str = "meta";
const APPLIED: &[u8] = b"applied";
const COMPACTED: &[u8] = b"compacted";
const REVISION: &[u8] = b"revision";
const MEMTABLE_BYTES: usize = 8 << 20;
const CACHE_BYTES: usize = 16 << 20;
/// A snapshot larger than this isn't sent in one message.
const SNAPSHOT_BYTES_MAX: usize = 256 << 20;

/// Why the state can't be used. The member must stop.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// RocksDB refuses.
    #[error("state in {path}: {why}")]
    Disk {
        /// The folder.
        path: String,
        /// What RocksDB said.
        why: String,
    },
    /// What is read isn't what was written.
    #[error("the state is damaged: {0}; restore this member's folder from a copy")]
    Damaged(&'static str),
}

/// The state.
pub(crate) struct State {
    mvcc: RwLock<Mvcc>,
    disk: Disk,
}

/// RocksDB, and where it is.
struct Disk {
    db: DB,
    path: String,
}

impl Disk {
    fn error(&self, error: &rocksdb::Error) -> StateError {
        StateError::Disk { path: self.path.clone(), why: error.to_string() }
    }

    fn family(&self, name: &str) -> &rocksdb::ColumnFamily {
        // All families are opened with the database.
        self.db.cf_handle(name).unwrap_or_else(|| panic!("column family {name} was opened"))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|e| self.error(&e))
    }
}

impl Values for Disk {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        match self.db.get_pinned_cf(self.family(CHANGES), change_key(at)) {
            Ok(Some(bytes)) => KeyValue::decode(&*bytes).map(|kv| kv.value).map_err(|_| RequestError::Disk),
            _ => Err(RequestError::Disk),
        }
    }
}

fn change_key(at: Revision) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&at.main.to_be_bytes());
    key[8..].copy_from_slice(&at.sub.to_be_bytes());
    key
}

fn revision_of(key: &[u8]) -> Option<Revision> {
    let main = i64::from_be_bytes(key.get(..8)?.try_into().ok()?);
    let sub = i64::from_be_bytes(key.get(8..16)?.try_into().ok()?);
    Some(Revision { main, sub })
}

fn number(bytes: &[u8]) -> Option<i64> {
    bytes.get(..8)?.try_into().ok().map(i64::from_be_bytes)
}

/// What applying an entry did.
pub(crate) struct Applied {
    pub(crate) request_id: u64,
    pub(crate) answer: Result<Answer, RequestError>,
    pub(crate) revision: i64,
    pub(crate) changes: Vec<Change>,
    pub(crate) granted: Vec<(i64, i64)>,
    pub(crate) ended: Vec<i64>,
}

impl State {
    /// Opens the state; returns it with the index and term it has durably applied.
    pub(crate) fn open(path: &Path) -> Result<(Self, u64, u64), StateError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(256);
        options.set_max_background_jobs(2);
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let family = |name: &str| {
            let mut blocks = BlockBasedOptions::default();
            blocks.set_block_cache(&cache);
            let mut options = Options::default();
            options.set_write_buffer_size(MEMTABLE_BYTES);
            options.set_max_write_buffer_number(2);
            options.set_compression_type(rocksdb::DBCompressionType::Lz4);
            options.set_block_based_table_factory(&blocks);
            ColumnFamilyDescriptor::new(name, options)
        };
        let shown = path.display().to_string();
        let db = DB::open_cf_descriptors(&options, path, [CHANGES, LEASES, META, "default"].map(family))
            .map_err(|e| StateError::Disk { path: shown.clone(), why: e.to_string() })?;
        let disk = Disk { db, path: shown };
        let mvcc = load(&disk)?;
        let (index, term) = applied(&disk)?;
        Ok((Self { mvcc: RwLock::new(mvcc), disk }, index, term))
    }

    /// The state for reading; held as short as possible.
    pub(crate) fn read(&self) -> (RwLockReadGuard<'_, Mvcc>, &impl Values) {
        (self.mvcc.read(), &self.disk)
    }

    /// Bytes on disk.
    pub(crate) fn size(&self) -> i64 {
        let property =
            |name| self.disk.db.property_int_value_cf(self.disk.family(CHANGES), name).ok().flatten().unwrap_or(0);
        let total = property("rocksdb.total-sst-files-size") + property("rocksdb.cur-size-all-mem-tables");
        i64::try_from(total).unwrap_or(i64::MAX)
    }

    /// Applies one entry; `None` if it holds no command (S1, S2).
    pub(crate) fn apply(&self, entry: &Entry) -> Result<Option<Applied>, StateError> {
        let mut batch = WriteBatch::default();
        let meta = self.disk.family(META);
        batch.put_cf(meta, APPLIED, position(entry.index, entry.term));
        if entry.data.is_empty() {
            self.disk.write(batch)?;
            return Ok(None);
        }
        let command = Command::decode(&*entry.data).map_err(|_| StateError::Damaged("a command can't be read"))?;
        let mut mvcc = self.mvcc.write();
        let (writes, answer) = mvcc.apply(&command, &self.disk);
        if answer == Err(RequestError::Disk) {
            return Err(StateError::Damaged("a value that the index knows is missing"));
        }
        for change in &writes.changes {
            batch.put_cf(self.disk.family(CHANGES), change_key(change.at), change.kv.encode_to_vec());
        }
        if !writes.changes.is_empty() {
            batch.put_cf(meta, REVISION, mvcc.revision().to_be_bytes());
        }
        for (id, ttl) in &writes.granted {
            batch.put_cf(self.disk.family(LEASES), id.to_be_bytes(), ttl.to_be_bytes());
        }
        for id in &writes.ended {
            batch.delete_cf(self.disk.family(LEASES), id.to_be_bytes());
        }
        if let Some(compacted) = writes.compacted {
            batch.put_cf(meta, COMPACTED, compacted.to_be_bytes());
        }
        self.disk.write(batch)?;
        Ok(Some(Applied {
            request_id: command.request_id,
            answer,
            revision: mvcc.revision(),
            changes: writes.changes,
            granted: writes.granted,
            ended: writes.ended,
        }))
    }

    /// Deletes a slice of what compaction left behind; `false` once all is gone.
    pub(crate) fn collect(&self) -> Result<bool, StateError> {
        let (gone, more) = self.mvcc.write().collect();
        if !gone.is_empty() {
            let mut batch = WriteBatch::default();
            for at in gone {
                batch.delete_cf(self.disk.family(CHANGES), change_key(at));
            }
            self.disk.write(batch)?;
        }
        Ok(more)
    }

    /// Makes everything applied durable.
    pub(crate) fn flush(&self) -> Result<(), StateError> {
        let families = [CHANGES, LEASES, META].map(|name| self.disk.family(name));
        self.disk.db.flush_cfs_opt(&families, &FlushOptions::default()).map_err(|e| self.disk.error(&e))
    }

    /// The changes of the revisions `from..=to`, in order, at most about `limit` of them:
    /// a revision is never cut.
    pub(crate) fn changes(&self, from: i64, to: i64, limit: usize) -> Result<Vec<Change>, RequestError> {
        let start = change_key(Revision { main: from, sub: 0 });
        let mode = IteratorMode::From(&start, rocksdb::Direction::Forward);
        let mut out: Vec<Change> = Vec::new();
        for item in self.disk.db.iterator_cf(self.disk.family(CHANGES), mode) {
            let (key, value) = item.map_err(|_| RequestError::Disk)?;
            let at = revision_of(&key).ok_or(RequestError::Disk)?;
            let full = out.len() >= limit && out.last().is_some_and(|last| last.at.main != at.main);
            if at.main > to || full {
                break;
            }
            let kv = KeyValue::decode(&*value).map_err(|_| RequestError::Disk)?;
            out.push(Change { at, kv });
        }
        Ok(out)
    }

    /// The whole state as a snapshot at what was applied last.
    pub(crate) fn snapshot(&self, conf_state: ConfState) -> Result<Snapshot, StateError> {
        let mvcc = self.mvcc.read();
        let (index, term) = applied(&self.disk)?;
        let mut data = Vec::new();
        for word in [mvcc.revision(), mvcc.compacted(), mvcc.leases().count() as i64] {
            data.extend_from_slice(&word.to_be_bytes());
        }
        for (id, ttl) in mvcc.leases() {
            data.extend_from_slice(&id.to_be_bytes());
            data.extend_from_slice(&ttl.to_be_bytes());
        }
        for item in self.disk.db.iterator_cf(self.disk.family(CHANGES), IteratorMode::Start) {
            let (key, value) = item.map_err(|e| self.disk.error(&e))?;
            data.extend_from_slice(&key);
            data.extend_from_slice(&(value.len() as u32).to_be_bytes());
            data.extend_from_slice(&value);
            if data.len() > SNAPSHOT_BYTES_MAX {
                return Err(StateError::Damaged("the state is too large to be sent as one snapshot"));
            }
        }
        let metadata =
            SnapshotMetadata { index, term, conf_state: Some(conf_state).into(), ..SnapshotMetadata::default() };
        Ok(Snapshot { data: data.into(), metadata: Some(metadata).into(), ..Snapshot::default() })
    }

    /// Replaces the state by a peer's snapshot.
    pub(crate) fn install(&self, snapshot: &Snapshot) -> Result<(), StateError> {
        const SHORT: StateError = StateError::Damaged("a snapshot is cut short");
        let metadata = snapshot.get_metadata();
        let mut rest: &[u8] = &snapshot.data;
        let mut take = |count: usize| -> Option<&[u8]> {
            let (taken, left) = rest.split_at_checked(count)?;
            rest = left;
            Some(taken)
        };
        let mut mvcc = self.mvcc.write();
        let mut batch = WriteBatch::default();
        for name in [CHANGES, LEASES] {
            batch.delete_range_cf(self.disk.family(name), &[][..], &[0xff; 17][..]);
        }
        let revision = take(8).and_then(number).ok_or(SHORT)?;
        let compacted = take(8).and_then(number).ok_or(SHORT)?;
        let leases = take(8).and_then(number).ok_or(SHORT)?;
        for _ in 0..leases {
            let (id, ttl) = (take(8).ok_or(SHORT)?.to_vec(), take(8).ok_or(SHORT)?.to_vec());
            batch.put_cf(self.disk.family(LEASES), id, ttl);
        }
        while let Some(key) = take(16) {
            let key = key.to_vec();
            let length = take(4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).ok_or(SHORT)?;
            let value = take(length as usize).ok_or(SHORT)?;
            batch.put_cf(self.disk.family(CHANGES), key, value);
        }
        let meta = self.disk.family(META);
        batch.put_cf(meta, REVISION, revision.to_be_bytes());
        batch.put_cf(meta, COMPACTED, compacted.to_be_bytes());
        batch.put_cf(meta, APPLIED, position(metadata.index, metadata.term));
        self.disk.write(batch)?;
        *mvcc = load(&self.disk)?;
        drop(mvcc);
        self.flush()
    }
}

fn position(index: u64, term: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&index.to_be_bytes());
    out[8..].copy_from_slice(&term.to_be_bytes());
    out
}

fn applied(disk: &Disk) -> Result<(u64, u64), StateError> {
    let found = disk.db.get_cf(disk.family(META), APPLIED).map_err(|e| disk.error(&e))?;
    let Some(bytes) = found else { return Ok((0, 0)) };
    let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    word(0).zip(word(8)).ok_or(StateError::Damaged("the applied index can't be read"))
}

/// Rebuilds the index from the changes.
fn load(disk: &Disk) -> Result<Mvcc, StateError> {
    let mut mvcc = Mvcc::new();
    let meta = |key: &[u8]| -> Result<i64, StateError> {
        let found = disk.db.get_cf(disk.family(META), key).map_err(|e| disk.error(&e))?;
        Ok(found.as_deref().and_then(number).unwrap_or(0))
    };
    for item in disk.db.iterator_cf(disk.family(LEASES), IteratorMode::Start) {
        let (id, ttl) = item.map_err(|e| disk.error(&e))?;
        let both = number(&id).zip(number(&ttl)).ok_or(StateError::Damaged("a lease can't be read"))?;
        mvcc.restore_lease(both.0, both.1);
    }
    let compacted = meta(COMPACTED)?;
    if compacted > 0 {
        mvcc.restore_compacted(compacted);
    }
    for item in disk.db.iterator_cf(disk.family(CHANGES), IteratorMode::Start) {
        let (key, value) = item.map_err(|e| disk.error(&e))?;
        let at = revision_of(&key).ok_or(StateError::Damaged("a revision can't be read"))?;
        let kv = KeyValue::decode(&*value).map_err(|_| StateError::Damaged("a change can't be read"))?;
        mvcc.restore_change(at, &kv);
    }
    mvcc.restore_revision(meta(REVISION)?);
    Ok(mvcc)
}
