//! RocksDB: how the state lies in it.
//!
//! | family | key | value |
//! |---|---|---|
//! | `records` | revision | the key and its numbers, without the value but with its length |
//! | `values` | revision | the value; none for a deletion |
//! | `leases` | number | seconds, and those that the last checkpoint left |
//! | `auth` | a name | a user, a role, or what holds for all of them |
//! | `meta` | a name | applied index with its hash, revision, compacted revision, members, alarms, votes |
//!
//! Records and values lie apart so that the index is rebuilt without reading values. Both are
//! ordered by revision: writes append, and compaction moves whole files.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use nix::fcntl::OFlag;
use prost::Message as _;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, IteratorMode, LruCacheOptions,
    Options, ReadOptions, ReadTier, WriteBatch, WriteOptions,
};
use store_core::alarms::Alarms;
use store_core::auth::Auth;
use store_core::divergence::{Chain, Hash, Votes};
use store_core::errors::RequestError;
use store_core::machine::Machine;
use store_core::membership::Members;
use store_core::mvcc::{Change, Mvcc, Revision, Values};
use store_core::wire::{AlarmList, HashVotes, KeyValue, Membership, Record};

use super::StateError;
use super::folder::Generation;

pub(super) const RECORDS: &str = "records";
pub(super) const VALUES: &str = "values";
pub(super) const LEASES: &str = "leases";
pub(super) const AUTH: &str = "auth";
pub(super) const META: &str = "meta";
const FAMILIES: [&str; 5] = [RECORDS, VALUES, LEASES, AUTH, META];

pub(super) const APPLIED: &[u8] = b"applied";
pub(super) const COMPACTED: &[u8] = b"compacted";
pub(super) const REVISION: &[u8] = b"revision";
pub(super) const MEMBERS: &[u8] = b"members";
pub(super) const ALARMS: &[u8] = b"alarms";
pub(super) const VOTES: &[u8] = b"votes";
pub(super) const CONDEMNED: &[u8] = b"condemned";
/// How far an import has come; none in a member.
pub(super) const IMPORT: &[u8] = b"import";

const MEMTABLE_BYTES: usize = 8 << 20;
const CACHE_BYTES: usize = 16 << 20;
/// Parts of the cache, as a power of two: each is full for itself, and of many small ones some are full long before all are.
const CACHE_SHARD_BITS: i32 = 2;
/// What is read at once: lists read values that lie behind each other, and each block is looked for by itself.
const BLOCK_BYTES: usize = 16 << 10;

/// Revisions for each value that is read, up to which it is quicker to walk past the others than to look values up.
const SPARSE: u64 = 4;
/// So far a walk goes for the next value; then it looks for it.
const STEPS_MAX: usize = 16;

/// The first thing that couldn't be read, if there is one.
pub(crate) type Damage = Arc<OnceLock<String>>;

/// An open database.
pub(super) struct Disk {
    pub(super) db: DB,
    /// Told of what can't be read.
    pub(super) damage: Damage,
    /// Removed from disk with the last user, if it was replaced. Stands behind `db`, which is closed first.
    pub(super) generation: Generation,
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_keep_log_file_num(2);
    options.set_max_open_files(256);
    options.set_max_background_jobs(2);
    options
}

/// Whether files in a folder can be written past the system's page cache. Source: open(2), `EINVAL`.
fn can_be_direct(folder: &Path) -> bool {
    let path = folder.join("DIRECT");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(OFlag::O_DIRECT.bits());
    let opened = options.open(&path);
    // The next attempt takes what is left of this one.
    let _ = std::fs::remove_file(&path);
    // What else is wrong with the folder, opening the database tells.
    opened.is_ok()
}

fn family(name: &str, cache: &Cache) -> ColumnFamilyDescriptor {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(BLOCK_BYTES);
    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_block_based_table_factory(&blocks);
    ColumnFamilyDescriptor::new(name, options)
}

impl Disk {
    pub(super) fn open(generation: Generation, damage: Damage) -> Result<Self, StateError> {
        let mut parts = LruCacheOptions::default();
        parts.set_capacity(CACHE_BYTES);
        parts.set_num_shard_bits(CACHE_SHARD_BITS);
        let cache = Cache::new_lru_cache_opts(&parts);
        let families = FAMILIES.into_iter().chain(["default"]).map(|name| family(name, &cache));
        let mut options = options();
        // A file that is written once costs the page cache more than the disk, and puts out what is read.
        let is_direct = generation.path().parent().is_some_and(can_be_direct);
        options.set_use_direct_io_for_flush_and_compaction(is_direct);
        let db = DB::open_cf_descriptors(&options, generation.path(), families)
            .map_err(|e| StateError::Disk { path: generation.path().display().to_string(), why: e.to_string() })?;
        Ok(Self { db, damage, generation })
    }

    pub(super) fn error(&self, error: &rocksdb::Error) -> StateError {
        StateError::Disk { path: self.generation.path().display().to_string(), why: error.to_string() }
    }

    /// What was written and can't be read any more, a flipped bit say: the member must stop.
    fn unreadable(&self, error: &rocksdb::Error) -> StateError {
        let error = self.error(error);
        // Only the first counts.
        let _ = self.damage.set(error.to_string());
        error
    }

    pub(super) fn family(&self, name: &str) -> &ColumnFamily {
        // All families are opened with the database.
        self.db.cf_handle(name).unwrap_or_else(|| panic!("column family {name} was opened"))
    }

    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|e| self.error(&e))
    }

    /// Makes everything written durable, all families at one point.
    pub(super) fn flush(&self) -> Result<(), StateError> {
        let families = FAMILIES.map(|name| self.family(name));
        self.db.flush_cfs_opt(&families, &FlushOptions::default()).map_err(|e| self.error(&e))
    }

    /// A copy at what was written last: hard links, so it takes no space until files are replaced.
    pub(super) fn copy_to(&self, path: &Path) -> Result<(), StateError> {
        self.flush()?;
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.db).map_err(|e| self.error(&e))?;
        checkpoint.create_checkpoint(path).map_err(|e| self.error(&e))
    }

    /// Reads every value: the index is built without them, and a copy is made of links.
    pub(super) fn read_values(&self) -> Result<(), StateError> {
        let mut options = ReadOptions::default();
        // What is read once doesn't push out what is read often.
        options.fill_cache(false);
        for item in self.db.iterator_cf_opt(self.family(VALUES), options, IteratorMode::Start) {
            item.map_err(|e| self.unreadable(&e))?;
        }
        Ok(())
    }

    /// Bytes on disk and in memory.
    pub(super) fn size(&self) -> u64 {
        let property = |family, name| self.db.property_int_value_cf(self.family(family), name).ok().flatten();
        let names = ["rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"];
        let sizes = [RECORDS, VALUES].into_iter().flat_map(|family| names.map(|name| property(family, name)));
        sizes.flatten().sum()
    }

    pub(super) fn put_change(&self, batch: &mut WriteBatch, change: &Change) {
        let key = change_key(change.at);
        let kv = &change.kv;
        let record = Record {
            key: kv.key.clone(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
            // Requests are far smaller.
            value_bytes: u32::try_from(kv.value.len()).unwrap_or(u32::MAX),
        };
        batch.put_cf(self.family(RECORDS), key, record.encode_to_vec());
        if change.kv.version != 0 {
            batch.put_cf(self.family(VALUES), key, &change.kv.value);
        }
    }

    pub(super) fn delete_change(&self, batch: &mut WriteBatch, at: Revision) {
        batch.delete_cf(self.family(RECORDS), change_key(at));
        batch.delete_cf(self.family(VALUES), change_key(at));
    }

    /// Whether a change is there.
    pub(super) fn has_change(&self, at: Revision) -> Result<bool, StateError> {
        let found = self.db.get_pinned_cf(self.family(RECORDS), change_key(at)).map_err(|e| self.error(&e))?;
        Ok(found.is_some())
    }

    /// Records from a revision on: changes without their values, and how long those are.
    pub(super) fn records(
        &self,
        from: Revision,
    ) -> impl Iterator<Item = Result<(Revision, KeyValue, u32), StateError>> + '_ {
        let start = change_key(from);
        let mode = IteratorMode::From(&start, rocksdb::Direction::Forward);
        self.db.iterator_cf(self.family(RECORDS), mode).map(|item| {
            let (key, record) = item.map_err(|e| self.unreadable(&e))?;
            let at = revision_of(&key).ok_or(StateError::Damaged("a revision can't be read"))?;
            let record = Record::decode(&*record).map_err(|_| StateError::Damaged("a record can't be read"))?;
            let Record { key, create_revision, mod_revision, version, lease, value_bytes } = record;
            let kv = KeyValue { key, create_revision, mod_revision, version, lease, value: Bytes::new() };
            Ok((at, kv, value_bytes))
        })
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.db.get_cf(self.family(META), key).map_err(|e| self.error(&e))
    }

    /// Index and term of the last entry whose effects are here; zeros in a new database.
    pub(super) fn applied(&self) -> Result<(u64, u64), StateError> {
        let Some(bytes) = self.get(APPLIED)? else { return Ok((0, 0)) };
        let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        word(0).zip(word(8)).ok_or(StateError::Damaged("the applied index can't be read"))
    }

    /// The hash of everything up to the applied index.
    fn chain(&self) -> Result<Chain, StateError> {
        let Some(bytes) = self.get(APPLIED)? else { return Ok(Chain::default()) };
        let hash = bytes.get(16..).and_then(|bytes| Hash::try_from(bytes).ok());
        hash.map(Chain::of).ok_or(StateError::Damaged("the hash of what was applied can't be read"))
    }

    /// Whether a majority found this state to be wrong.
    pub(super) fn is_condemned(&self) -> Result<bool, StateError> {
        Ok(self.get(CONDEMNED)?.is_some())
    }

    /// Rebuilds what is kept in memory.
    pub(super) fn load(&self) -> Result<Machine, StateError> {
        let members = match self.get(MEMBERS)? {
            None => Members::default(),
            Some(bytes) => {
                let wire = Membership::decode(&*bytes).map_err(|_| StateError::Damaged("the members can't be read"))?;
                Members::from_wire(wire)
            }
        };
        let alarms = match self.get(ALARMS)? {
            None => Alarms::default(),
            Some(bytes) => {
                let list = AlarmList::decode(&*bytes).map_err(|_| StateError::Damaged("the alarms can't be read"))?;
                Alarms::from_wire(&list)
            }
        };
        let votes = match self.get(VOTES)? {
            None => Votes::default(),
            Some(bytes) => {
                let wire = HashVotes::decode(&*bytes).map_err(|_| StateError::Damaged("the votes can't be read"))?;
                Votes::from_wire(&wire)
            }
        };
        let (mvcc, auth) = (self.load_mvcc()?, Arc::new(self.load_auth()?));
        Ok(Machine { mvcc, members, auth, alarms, chain: self.chain()?, votes })
    }

    fn load_auth(&self) -> Result<Auth, StateError> {
        let mut auth = Auth::new();
        for item in self.db.iterator_cf(self.family(AUTH), IteratorMode::Start) {
            let (key, value) = item.map_err(|e| self.error(&e))?;
            auth.restore(&key, &value).map_err(|_| StateError::Damaged("an entry of users and roles can't be read"))?;
        }
        auth.restored();
        Ok(auth)
    }

    fn load_mvcc(&self) -> Result<Mvcc, StateError> {
        let mut mvcc = Mvcc::new();
        let meta = |key: &[u8]| Ok(self.get(key)?.as_deref().and_then(number).unwrap_or(0));
        for item in self.db.iterator_cf(self.family(LEASES), IteratorMode::Start) {
            let (id, times) = item.map_err(|e| self.error(&e))?;
            let (ttl, remaining) = times.split_at_checked(8).ok_or(StateError::Damaged("a lease can't be read"))?;
            let lease = number(&id).zip(number(ttl)).zip(number(remaining));
            let ((id, ttl), remaining) = lease.ok_or(StateError::Damaged("a lease can't be read"))?;
            mvcc.restore_lease(id, ttl, remaining);
        }
        let compacted = meta(COMPACTED)?;
        if compacted > 0 {
            mvcc.restore_compacted(compacted);
        }
        for record in self.records(Revision { main: 0, sub: 0 }) {
            let (at, kv, value_bytes) = record?;
            mvcc.restore_change(at, &kv, value_bytes);
        }
        mvcc.restore_revision(meta(REVISION)?);
        Ok(mvcc)
    }
}

impl Values for Disk {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        match self.db.get_cf(self.family(VALUES), change_key(at)) {
            Ok(Some(bytes)) => Ok(bytes.into()),
            Ok(None) => Err(RequestError::Disk),
            Err(error) => Err(self.no_value(&error)),
        }
    }

    fn each(&self, ats: &[Revision], take: &mut dyn FnMut(usize, &[u8])) -> Result<(), RequestError> {
        let (Some(first), Some(last)) = (ats.first(), ats.last()) else { return Ok(()) };
        let revisions = last.main.abs_diff(first.main);
        if revisions <= ats.len() as u64 * SPARSE {
            return self.walk(ats, take);
        }
        let (values, keys) = (self.family(VALUES), ats.iter().map(|at| change_key(*at)).collect::<Vec<_>>());
        let found = self.db.batched_multi_get_cf(values, &keys, true);
        found.into_iter().enumerate().try_for_each(|(place, value)| match value {
            Ok(Some(value)) => {
                take(place, &value);
                Ok(())
            }
            Ok(None) => Err(RequestError::Disk),
            Err(error) => Err(self.no_value(&error)),
        })
    }
}

impl Disk {
    fn no_value(&self, error: &rocksdb::Error) -> RequestError {
        self.unreadable(error);
        RequestError::Disk
    }

    /// Values that lie close to each other, by walking past those between them.
    fn walk(&self, ats: &[Revision], take: &mut dyn FnMut(usize, &[u8])) -> Result<(), RequestError> {
        let mut values = self.db.raw_iterator_cf(self.family(VALUES));
        for (place, at) in ats.iter().enumerate() {
            let key = change_key(*at);
            if place == 0 || !step_to(&mut values, &key) {
                values.seek(key);
            }
            let value = values.item().filter(|(found, _)| *found == key);
            let Some((_, value)) = value else {
                values.status().map_err(|error| self.no_value(&error))?;
                return Err(RequestError::Disk);
            };
            take(place, value);
        }
        Ok(())
    }
}

/// Steps to a key or behind it; `false` if it is further away than is worth walking.
fn step_to(values: &mut rocksdb::DBRawIterator<'_>, key: &[u8]) -> bool {
    for _ in 0..STEPS_MAX {
        values.next();
        if values.key().is_none_or(|found| found >= key) {
            return true;
        }
    }
    false
}

/// Values as far as they are in memory.
pub(super) struct Cached<'a> {
    disk: &'a Disk,
    missed: Cell<bool>,
}

impl<'a> Cached<'a> {
    pub(super) fn new(disk: &'a Disk) -> Self {
        Self { disk, missed: Cell::new(false) }
    }

    /// Whether a value was asked for that isn't there.
    pub(super) fn missed(&self) -> bool {
        self.missed.get()
    }
}

impl Values for Cached<'_> {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::BlockCache);
        let found = self.disk.db.get_cf_opt(self.disk.family(VALUES), change_key(at), &options);
        // Whether it is on disk, or can't be read, is told to who reads it there.
        found.ok().flatten().map(Bytes::from).ok_or_else(|| {
            self.missed.set(true);
            RequestError::Disk
        })
    }
}

fn change_key(at: Revision) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&at.main.to_be_bytes());
    key[8..].copy_from_slice(&at.sub.to_be_bytes());
    key
}

fn revision_of(key: &[u8]) -> Option<Revision> {
    Some(Revision { main: number(key)?, sub: number(key.get(8..)?)? })
}

fn number(bytes: &[u8]) -> Option<i64> {
    bytes.get(..8)?.try_into().ok().map(i64::from_be_bytes)
}

pub(super) fn lease_times(ttl: i64, remaining: i64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&ttl.to_be_bytes());
    out[8..].copy_from_slice(&remaining.to_be_bytes());
    out
}

pub(super) fn position(index: u64, term: u64, hash: Hash) -> [u8; 32] {
    let mut out = [0; 32];
    out[..8].copy_from_slice(&index.to_be_bytes());
    out[8..16].copy_from_slice(&term.to_be_bytes());
    out[16..].copy_from_slice(&hash);
    out
}
