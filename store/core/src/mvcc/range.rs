//! Reads: ranges with their filters, order and limit.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{Mvcc, Revision, Values, Version};
use crate::errors::RequestError;
use crate::wire::range_request::{SortOrder, SortTarget};
use crate::wire::{KeyValue, RangeRequest, RangeResponse};

/// Whether a key lies in etcd's range of `start` and `end`.
#[must_use]
pub fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        b"" => key == start,
        b"\0" => key >= start,
        end => key >= start && key < end,
    }
}

/// A read on its way: which keys and versions it is about. It may be looked for bit by bit, and the values read after
/// the state was let go of: what a revision holds doesn't change until it is collected.
#[derive(Debug)]
pub struct Search {
    request: RangeRequest,
    revision: i64,
    /// Keys after which no more are looked for.
    enough: usize,
    /// Where to go on; `None` once everything is found.
    from: Option<Bytes>,
    found: Vec<Found>,
    count: i64,
}

/// A key and the version of it that a read sees.
pub(super) type Found = (Bytes, Version);

impl Search {
    /// Begins a read of the state as it is now.
    ///
    /// # Errors
    /// [`RequestError`] for a revision out of reach or a sort that doesn't exist.
    pub fn new(mvcc: &Mvcc, request: &RangeRequest) -> Result<Self, RequestError> {
        super::check::range(request)?;
        let revision = mvcc.read_revision(request.revision)?;
        // Without filter and order a read takes no more keys than it needs to know whether there are more. A target
        // without an order sorts only those: so it is in etcd, and clients see it.
        let enough = if filters(request) || request.sort_order != SortOrder::None as i32 {
            usize::MAX
        } else {
            limit(request).map_or(usize::MAX, |limit| limit.saturating_add(1))
        };
        let count = mvcc.count(&request.key, &request.range_end, revision);
        let from = (!request.count_only).then(|| request.key.clone());
        Ok(Self { request: request.clone(), revision, enough, from, found: Vec::new(), count })
    }

    /// Begins a piece of a range, in order of its keys, at a revision that isn't 0: at most `keys_max` keys.
    ///
    /// # Errors
    /// [`RequestError::Compacted`] if the revision has gone meanwhile.
    pub fn piece(mvcc: &Mvcc, request: &RangeRequest, keys_max: usize) -> Result<Self, RequestError> {
        let revision = mvcc.read_revision(request.revision)?;
        let (from, found) = (Some(request.key.clone()), Vec::new());
        let mut search = Self { request: request.clone(), revision, enough: keys_max, from, found, count: 0 };
        search.go_on(mvcc, keys_max);
        Ok(search)
    }

    /// The revision that is read.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Looks at up to `keys_max` keys more, in a state where the revision isn't collected; `false` once all is found.
    pub fn go_on(&mut self, mvcc: &Mvcc, keys_max: usize) -> bool {
        let Some(from) = self.from.take() else { return false };
        let mut keys = mvcc.index.range(&from, &self.request.range_end, self.revision);
        let mut last = None;
        for (key, version) in keys.by_ref().take(keys_max) {
            last = Some(key);
            if passes(&self.request, version) {
                self.found.push((Bytes::copy_from_slice(key), *version));
            }
            if self.found.len() >= self.enough {
                return false;
            }
        }
        // The next key there can be.
        self.from = keys.next().and(last).map(|last| [last, &[0]].concat().into());
        self.from.is_some()
    }

    /// What was found, up to the key whose value fills `bytes_max`; at least one, if there is one.
    ///
    /// # Errors
    /// [`RequestError`] of a value that can't be read.
    pub fn fill(self, bytes_max: usize, values: &impl Values) -> Result<Vec<KeyValue>, RequestError> {
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        for (key, version) in &self.found {
            let kv = read((key, version), !self.request.keys_only, values)?;
            bytes += kv.key.len() + kv.value.len();
            kvs.push(kv);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(kvs)
    }

    /// The answer, without its header. `admit` is told the bytes of each key and value before the next is read.
    ///
    /// # Errors
    /// [`RequestError`] of a value that can't be read, or of `admit`.
    pub fn finish(
        self,
        values: &impl Values,
        mut admit: impl FnMut(usize) -> Result<(), RequestError>,
    ) -> Result<RangeResponse, RequestError> {
        let mut read = |entry: Found, with_value: bool| {
            let kv = read((&entry.0, &entry.1), with_value, values)?;
            admit(size_of::<KeyValue>() + kv.key.len() + kv.value.len())?;
            Ok(kv)
        };
        if self.is_by_value() {
            return self.by_value(read);
        }
        let with_values = !self.keys_only();
        let (count, more, found) = self.picked()?;
        let kvs = found.into_iter().map(|entry| read(entry, with_values)).collect::<Result<_, _>>()?;
        Ok(RangeResponse { kvs, more, count, ..RangeResponse::default() })
    }

    /// Whether the values themselves are the order.
    #[must_use]
    pub fn is_by_value(&self) -> bool {
        self.request.sort_target == SortTarget::Value as i32
    }

    /// Bytes of the keys and values that were found.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let value = |version: &Version| if self.keys_only() { 0 } else { version.value_bytes as usize };
        self.found.iter().map(|(key, version)| key.len() + value(version)).sum()
    }

    pub(super) fn keys_only(&self) -> bool {
        self.request.keys_only
    }

    /// How many keys are answered, if not all that were found.
    fn cut(&self) -> Option<usize> {
        limit(&self.request).filter(|limit| self.found.len() > *limit)
    }

    /// The count, whether there are more, and the keys that are answered, in the order that is asked for; what is equal
    /// in it stays in the order of keys.
    pub(super) fn picked(self) -> Result<(i64, bool, Vec<Found>), RequestError> {
        let target = SortTarget::try_from(self.request.sort_target).map_err(|_| RequestError::InvalidSort)?;
        let (cut, descend, mut found) = (self.cut(), self.descends(), self.found);
        // Keys come ascending anyway.
        if target != SortTarget::Key || descend {
            found.sort_by(|a, b| directed(compare(target, a, b), descend));
        }
        found.truncate(cut.unwrap_or(usize::MAX));
        Ok((self.count, cut.is_some(), found))
    }

    /// In the order of values: all are read, and `keys_only` drops them after.
    fn by_value(
        self,
        mut read: impl FnMut(Found, bool) -> Result<KeyValue, RequestError>,
    ) -> Result<RangeResponse, RequestError> {
        let (cut, descend) = (self.cut(), self.descends());
        let mut kvs = self.found.into_iter().map(|entry| read(entry, true)).collect::<Result<Vec<_>, _>>()?;
        kvs.sort_by(|a, b| directed(a.value.cmp(&b.value), descend));
        kvs.truncate(cut.unwrap_or(usize::MAX));
        if self.request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(RangeResponse { kvs, more: cut.is_some(), count: self.count, ..RangeResponse::default() })
    }

    fn descends(&self) -> bool {
        self.request.sort_order == SortOrder::Descend as i32
    }
}

fn directed(ordering: Ordering, descend: bool) -> Ordering {
    if descend { ordering.reverse() } else { ordering }
}

fn limit(request: &RangeRequest) -> Option<usize> {
    usize::try_from(request.limit).ok().filter(|limit| *limit > 0)
}

impl Mvcc {
    /// Answers a read of the state as it is now, all at once. The header is the shell's.
    ///
    /// # Errors
    /// [`RequestError`] for a revision out of reach or a sort that doesn't exist.
    pub fn range(&self, request: &RangeRequest, values: &impl Values) -> Result<RangeResponse, RequestError> {
        let mut search = Search::new(self, request)?;
        search.go_on(self, usize::MAX);
        search.finish(values, |_| Ok(()))
    }

    /// Keys of a range that a read at `revision` sees. Only keys beside those that changed later are looked at.
    #[must_use]
    pub fn count(&self, key: &[u8], range_end: &[u8], revision: i64) -> i64 {
        self.index.count(key, range_end, revision) as i64
    }

    /// The revision that a read asks for, if it can be had. 0 is the newest.
    ///
    /// # Errors
    /// [`RequestError::Compacted`], [`RequestError::Future`].
    pub fn read_revision(&self, asked: i64) -> Result<i64, RequestError> {
        match asked {
            asked if asked > self.revision => Err(RequestError::Future),
            asked if asked <= 0 => Ok(self.revision),
            asked if asked < self.compacted => Err(RequestError::Compacted),
            asked => Ok(asked),
        }
    }

    /// The version of a key just before a revision, for watchers that ask for it; `None` if it is collected.
    #[must_use]
    pub fn before(&self, key: &[u8], revision: i64) -> Option<Version> {
        // Compacted history isn't whole: what is left of it may be the wrong version. Of what was before the compacted
        // revision itself, collection takes all or nothing.
        self.index.at(key, revision - 1).filter(|_| revision >= self.compacted).copied()
    }
}

/// A key's version and its value, as clients see them.
#[must_use]
pub fn key_value(key: &Bytes, version: &Version, value: Bytes) -> KeyValue {
    KeyValue {
        key: key.clone(),
        create_revision: version.create,
        mod_revision: version.at.main,
        version: version.version,
        value,
        lease: version.lease,
    }
}

/// Whether revisions are bounded.
pub(super) fn filters(request: &RangeRequest) -> bool {
    let RangeRequest { min_mod_revision, max_mod_revision, min_create_revision, max_create_revision, .. } = request;
    [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision].iter().any(|bound| **bound != 0)
}

fn passes(request: &RangeRequest, version: &Version) -> bool {
    let Revision { main, .. } = version.at;
    let within = |min: i64, max: i64, value: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(request.min_mod_revision, request.max_mod_revision, main)
        && within(request.min_create_revision, request.max_create_revision, version.create)
}

fn read((key, version): (&Bytes, &Version), with_value: bool, values: &impl Values) -> Result<KeyValue, RequestError> {
    let value = if with_value { values.value(version.at)? } else { Bytes::new() };
    Ok(key_value(key, version, value))
}

fn compare(target: SortTarget, a: &Found, b: &Found) -> Ordering {
    match target {
        SortTarget::Key | SortTarget::Value => a.0.cmp(&b.0),
        SortTarget::Version => a.1.version.cmp(&b.1.version),
        SortTarget::Create => a.1.create.cmp(&b.1.create),
        SortTarget::Mod => a.1.at.main.cmp(&b.1.at.main),
    }
}
