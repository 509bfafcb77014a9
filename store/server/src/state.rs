//! The state on disk: RocksDB without a log of its own.
//!
//! Each command is one WriteBatch that carries the applied index with the data, and
//! column families are flushed together: after a crash the state is that of some
//! applied index, from which the raft log goes on.
//!
//! Invariants
//!   S1  Data and applied index are never on disk without each other.
//!   S2  Readers see the index and the values of the same revision, and users and roles as
//!       they were at it.
//!   S3  A snapshot replaces the state as a whole or not at all.

mod disk;
mod folder;
mod hash;
mod import;
mod reads;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use prost::Message as _;
use raft::eraftpb::{ConfChange, Entry, SnapshotMetadata};
use rocksdb::WriteBatch;
use store_core::alarms::Alarms;
use store_core::auth::{Auth, TokenChange};
use store_core::divergence::{Hash, Votes};
use store_core::errors::RequestError;
use store_core::machine::{Machine, command};
use store_core::membership::Members;
use store_core::mvcc::{Answer, Change, Mvcc, Revision, Values};
use store_core::wire::{BackupHeader, KeyValue};
use store_shared::Pins;

use disk::{
    ALARMS, APPLIED, AUTH, COMPACTED, CONDEMNED, Damage, Disk, LEASES, MEMBERS, META, REVISION, VOTES, lease_times,
    position,
};
use folder::{Folder, Generation};
pub(crate) use hash::{Hashed, Kept, Slice};
pub(crate) use import::ImportState;

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

/// What applying an entry did.
pub(crate) struct Applied {
    pub(crate) request_id: u64,
    pub(crate) answer: Result<Answer, RequestError>,
    pub(crate) revision: i64,
    pub(crate) changes: Vec<Change>,
    pub(crate) granted: Vec<(i64, i64)>,
    pub(crate) ended: Vec<i64>,
    pub(crate) checkpoints: Vec<(i64, i64)>,
    /// The members, if they changed.
    pub(crate) members: Option<Members>,
    /// The compacted revision before and after, if it moved.
    pub(crate) compacted: Option<(i64, i64)>,
    /// What raft must be told of it.
    pub(crate) conf_change: Option<ConfChange>,
    pub(crate) tokens: Option<TokenChange>,
}

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
        let current = RwLock::new(Current { machine, disk: Arc::new(disk) });
        Ok(Self { folder, current, damage, pins: Pins::default() })
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

    /// Users and roles. Not for who holds the state: asking twice for what a writer waits for ends nowhere.
    pub(crate) fn auth(&self) -> Arc<Auth> {
        self.current.read().machine.auth.clone()
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

    /// The hash of everything that was applied.
    pub(crate) fn hash(&self) -> Hash {
        self.current.read().machine.chain.hash()
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

    /// Applies one entry; `None` if it holds no command (S1, S2).
    pub(crate) fn apply(&self, entry: &Entry) -> Result<Option<Applied>, StateError> {
        let read = command(entry).map_err(|_| StateError::Damaged("a command can't be read"))?;
        let mut current = self.current.write();
        let Current { machine, disk } = &mut *current;
        let mut batch = WriteBatch::default();
        let meta = disk.family(META);
        let Some((command, conf_change)) = read else {
            batch.put_cf(meta, APPLIED, position(entry.index, entry.term, machine.chain.hash()));
            disk.write(batch)?;
            return Ok(None);
        };
        let compacted = machine.mvcc.compacted();
        let (writes, answer) = machine.apply(entry.index, &command, &**disk);
        if answer == Err(RequestError::Disk) {
            return Err(StateError::Damaged("a value that the index knows is missing"));
        }
        batch.put_cf(meta, APPLIED, position(entry.index, entry.term, machine.chain.hash()));
        for change in &writes.changes {
            disk.put_change(&mut batch, change);
        }
        if !writes.changes.is_empty() {
            batch.put_cf(meta, REVISION, machine.mvcc.revision().to_be_bytes());
        }
        for (id, ttl) in &writes.granted {
            batch.put_cf(disk.family(LEASES), id.to_be_bytes(), lease_times(*ttl, 0));
        }
        for (id, remaining) in &writes.checkpoints {
            let ttl = machine.mvcc.lease_ttl(*id).unwrap_or(0);
            batch.put_cf(disk.family(LEASES), id.to_be_bytes(), lease_times(ttl, *remaining));
        }
        for id in &writes.ended {
            batch.delete_cf(disk.family(LEASES), id.to_be_bytes());
        }
        if let Some(compacted) = writes.compacted {
            batch.put_cf(meta, COMPACTED, compacted.to_be_bytes());
        }
        if let Some(members) = &writes.members {
            batch.put_cf(meta, MEMBERS, members.encode_to_vec());
        }
        if let Some(alarms) = &writes.alarms {
            batch.put_cf(meta, ALARMS, alarms.encode_to_vec());
        }
        if let Some(votes) = &writes.votes {
            batch.put_cf(meta, VOTES, votes.encode_to_vec());
        }
        for (key, value) in &writes.auth {
            match value {
                Some(value) => batch.put_cf(disk.family(AUTH), key, value),
                None => batch.delete_cf(disk.family(AUTH), key),
            }
        }
        disk.write(batch)?;
        Ok(Some(Applied {
            request_id: command.request_id,
            // A change that was refused is none to raft either.
            conf_change: conf_change.filter(|_| answer.is_ok()),
            answer,
            revision: machine.mvcc.revision(),
            members: writes.members.is_some().then(|| machine.members.clone()),
            changes: writes.changes,
            granted: writes.granted,
            ended: writes.ended,
            checkpoints: writes.checkpoints,
            compacted: writes.compacted.map(|to| (compacted, to)),
            tokens: writes.tokens,
        }))
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
        old.disk.generation.replace();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
