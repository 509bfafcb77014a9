//! The state on disk: RocksDB without a log of its own.
//!
//! Commands that are applied together are one WriteBatch that carries the applied index with the data, and
//! column families are flushed together: after a crash the state is that of some
//! applied index, from which the raft log goes on.
//!
//! Invariants
//!   S1  Data and applied index are never on disk without each other.
//!   S2  Readers see the index and the values of the same revision, and users and roles as
//!       they were at it.
//!   S3  A snapshot replaces the state as a whole or not at all.

mod batch;
mod disk;
mod folder;
mod hash;
mod import;
mod reads;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use prost::Message as _;
use raft::eraftpb::{Entry, SnapshotMetadata};
use rocksdb::WriteBatch;
use store_core::alarms::Alarms;
use store_core::auth::Auth;
use store_core::divergence::Votes;
use store_core::errors::RequestError;
use store_core::machine::Machine;
use store_core::membership::Members;
use store_core::mvcc::{Mvcc, Revision, Values};
use store_core::wire::{BackupHeader, KeyValue};
use store_shared::Pins;

use batch::Batch;
pub(crate) use batch::{Applied, Done};
use disk::{APPLIED, COMPACTED, CONDEMNED, Damage, Disk, MEMBERS, META, REVISION, VOTES, position};
use folder::{Folder, Generation};
pub(crate) use hash::{Hashed, Kept, Slice};
pub(crate) use import::ImportState;
pub(crate) use reads::Found;

/// Where a new cluster's log begins: one that joins later is behind it, and gets a snapshot.
const FIRST: (u64, u64) = (1, 1);

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
    /// The file system refuses.
    #[error("using {path}")]
    Folder {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody else has it.
    #[error("state in {path}: another process uses it; end that one, or give this member a folder of its own")]
    InUse {
        /// The folder.
        path: String,
    },
    /// What is read isn't what was written.
    #[error("the state is damaged: {0}; restore this member's folder from a copy")]
    Damaged(&'static str),
    /// A folder that was there isn't any more.
    #[error("the state {0} is gone; remove this member, and add it anew with an empty folder")]
    Gone(String),
    /// A majority came to another state by the same log.
    #[error("the state isn't the cluster's; remove this member, and add it anew with an empty folder")]
    Diverged,
}

/// What is in memory, and the database it belongs to.
struct Current {
    machine: Machine,
    disk: Arc<Disk>,
}

/// The state.
pub(crate) struct State {
    folder: Folder,
    current: RwLock<Current>,
    /// Of `current`, whose writer changes them: for who must not wait for it.
    auth: RwLock<Arc<Auth>>,
    live_bytes: AtomicU64,
    damage: Damage,
    pins: Pins,
}

/// A folder that files are received into; removed if nothing comes of it.
pub(crate) struct Room(Generation);

impl Room {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A state that was received and loaded, and hasn't taken the other's place yet.
pub(crate) struct Received(Current);

impl State {
    /// Opens the state.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let folder = Folder::open(path)?;
        let damage = Damage::default();
        let disk = Disk::open(folder.current()?, damage.clone())?;
        if disk.is_condemned()? {
            return Err(StateError::Diverged);
        }
        let machine = disk.load()?;
        let (auth, live_bytes) = (RwLock::new(machine.auth.clone()), machine.mvcc.live_bytes().into());
        let current = RwLock::new(Current { machine, disk: Arc::new(disk) });
        Ok(Self { folder, current, auth, live_bytes, damage, pins: Pins::default() })
    }

    /// What was found to be unreadable: the member must stop.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Index and term of what is durably applied.
    pub(crate) fn applied(&self) -> Result<(u64, u64), StateError> {
        self.current.read().disk.applied()
    }

    /// Begins a new cluster with its founders, in a new folder.
    pub(crate) fn found(&self, members: &Members) -> Result<(), StateError> {
        let mut current = self.current.write();
        let meta = current.disk.family(META);
        let mut batch = WriteBatch::default();
        batch.put_cf(meta, MEMBERS, members.to_wire().encode_to_vec());
        batch.put_cf(meta, APPLIED, position(FIRST.0, FIRST.1, current.machine.chain.hash()));
        // They are of another log's indexes.
        batch.delete_cf(meta, VOTES);
        current.disk.write(batch)?;
        current.disk.flush()?;
        current.machine.members = members.clone();
        current.machine.votes = Votes::default();
        Ok(())
    }

    /// Begins a new cluster with founders and with the keys that are here already, out of a backup.
    pub(crate) fn restore(&self, members: &Members, bump_revision: i64) -> Result<(), StateError> {
        {
            let current = self.current.read();
            let mut batch = WriteBatch::default();
            batch.delete_cf(current.disk.family(META), disk::IMPORT);
            if bump_revision > 0 {
                // Revisions in between never were: nobody may watch from there.
                let revision = current.machine.mvcc.revision().saturating_add(bump_revision).to_be_bytes();
                batch.put_cf(current.disk.family(META), REVISION, revision);
                batch.put_cf(current.disk.family(META), COMPACTED, revision);
            }
            current.disk.write(batch)?;
        }
        self.found(members)
    }

    /// The state for reading, with users and roles as they are in it; held as short as possible.
    pub(crate) fn read_as_user(&self) -> (MappedRwLockReadGuard<'_, Mvcc>, Arc<Auth>) {
        let current = self.current.read();
        let auth = current.machine.auth.clone();
        (RwLockReadGuard::map(current, |current| &current.machine.mvcc), auth)
    }

    /// Users and roles, as far as they are applied. Asked for by every request: nobody waits for a writer.
    pub(crate) fn auth(&self) -> Arc<Auth> {
        self.auth.read().clone()
    }

    /// What keys, values and leases take, as far as it is applied.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// The alarms that are raised.
    pub(crate) fn alarms(&self) -> Alarms {
        self.current.read().machine.alarms.clone()
    }

    /// The state for reading; held as short as possible.
    pub(crate) fn read(&self) -> MappedRwLockReadGuard<'_, Mvcc> {
        RwLockReadGuard::map(self.current.read(), |current| &current.machine.mvcc)
    }

    /// The members that the state knows; nobody before the first snapshot of one that joins.
    pub(crate) fn members(&self) -> Members {
        self.current.read().machine.members.clone()
    }

    /// Makes sure that this state is never served again.
    pub(crate) fn condemn(&self) -> Result<(), StateError> {
        let disk = self.disk();
        let mut batch = WriteBatch::default();
        batch.put_cf(disk.family(META), CONDEMNED, []);
        disk.write(batch)?;
        disk.flush()
    }

    /// Bytes on disk.
    pub(crate) fn size(&self) -> i64 {
        i64::try_from(self.current.read().disk.size()).unwrap_or(i64::MAX)
    }

    /// Applies entries together: all of them are on disk and seen by readers, or none (S1, S2).
    pub(crate) fn apply(&self, entries: &[Entry]) -> Result<Vec<Applied>, StateError> {
        let mut current = self.current.write();
        let Current { machine, disk } = &mut *current;
        let mut batch = Batch::new(disk);
        let applied = entries.iter().map(|entry| batch.apply(machine, entry)).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = entries.last() {
            batch.write(machine, last)?;
        }
        self.show(machine);
        Ok(applied)
    }

    /// Shows what of the state is known without its lock.
    fn show(&self, machine: &Machine) {
        if !Arc::ptr_eq(&self.auth.read(), &machine.auth) {
            *self.auth.write() = machine.auth.clone();
        }
        self.live_bytes.store(machine.mvcc.live_bytes(), Ordering::Relaxed);
    }

    /// Deletes a slice of what compaction left behind; `false` once all is gone. What open reads began with waits.
    pub(crate) fn collect(&self) -> Result<bool, StateError> {
        let mut current = self.current.write();
        // R1. Reads that begin from now on are at or after the compacted revision.
        if self.pins.any_before(current.machine.mvcc.compacted()) {
            return Ok(true);
        }
        let (gone, more) = current.machine.mvcc.collect();
        if !gone.is_empty() {
            let mut batch = WriteBatch::default();
            for at in gone {
                current.disk.delete_change(&mut batch, at);
            }
            current.disk.write(batch)?;
        }
        self.show(&current.machine);
        Ok(more)
    }

    /// Makes everything applied durable.
    pub(crate) fn flush(&self) -> Result<(), StateError> {
        self.disk().flush()
    }

    fn disk(&self) -> Arc<Disk> {
        self.current.read().disk.clone()
    }

    /// Gives `take` the changes of the revisions `from..=to` in order, the values only if it wants them, until it
    /// returns `false`. Returns whether it was given all.
    pub(crate) fn each_change(
        &self,
        from: i64,
        to: i64,
        mut take: impl FnMut(Revision, KeyValue, &dyn Fn() -> Result<Bytes, RequestError>) -> Result<bool, RequestError>,
    ) -> Result<bool, RequestError> {
        let disk = self.disk();
        for record in disk.records(Revision { main: from, sub: 0 }) {
            let (at, kv, _) = record.map_err(|_| RequestError::Disk)?;
            if at.main > to {
                break;
            }
            if !take(at, kv, &|| disk.value(at))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies the state as it is now into a folder that isn't there yet; what raft must know of it.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<(SnapshotMetadata, BackupHeader), StateError> {
        let current = self.current.read();
        let (index, term) = current.disk.applied()?;
        let Machine { mvcc, members, .. } = &current.machine;
        let header = BackupHeader {
            cluster_id: members.cluster_id(),
            index,
            term,
            revision: mvcc.revision(),
            keys: mvcc.key_count() as u64,
            version: crate::grpc::VERSION.to_owned(),
        };
        let conf_state = Some(members.conf_state()).into();
        current.disk.copy_to(path)?;
        Ok((SnapshotMetadata { index, term, conf_state, ..SnapshotMetadata::default() }, header))
    }

    /// Reads every value. What can't be read ends this member, before a copy of it is somebody else's.
    pub(crate) fn read_values(&self) -> Result<(), StateError> {
        self.disk().read_values()
    }

    /// A folder for the files of a snapshot that comes.
    pub(crate) fn make_room(&self, metadata: &SnapshotMetadata) -> Result<Room, StateError> {
        let generation = self.folder.next(&format!("{}-{}", metadata.index, metadata.term))?;
        // Until it takes the other's place, it is only a copy.
        generation.replace();
        Ok(Room(generation))
    }

    /// Opens and loads the files of a snapshot, beside the state in use.
    pub(crate) fn receive(&self, room: Room, metadata: &SnapshotMetadata) -> Result<Received, StateError> {
        let mut disk = Disk::open(room.0, Damage::default())?;
        if disk.applied()? != (metadata.index, metadata.term) {
            return Err(StateError::Damaged("a snapshot isn't of the index that it is said to be"));
        }
        let machine = disk.load()?;
        // Until here, what can't be read concerns the sender.
        disk.damage = self.damage.clone();
        Ok(Received(Current { machine, disk: Arc::new(disk) }))
    }

    /// Replaces the state by a peer's snapshot (S3).
    pub(crate) fn install(&self, received: Received) -> Result<(), StateError> {
        let Received(new) = received;
        let mut current = self.current.write();
        self.folder.switch_to(&new.disk.generation)?;
        new.disk.generation.keep();
        let old = std::mem::replace(&mut *current, new);
        self.show(&current.machine);
        old.disk.generation.replace();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
