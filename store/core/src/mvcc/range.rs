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

impl Mvcc {
    /// Answers a read of the state as it is now. The header is the shell's.
    ///
    /// # Errors
    /// [`RequestError`] for a revision out of reach or a sort that doesn't exist.
    pub fn range(&self, request: &RangeRequest, values: &impl Values) -> Result<RangeResponse, RequestError> {
        super::check::range(request)?;
        let revision = self.read_revision(request.revision)?;
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        // Without filter and order a read takes no more keys than it needs to know whether there are more. A target
        // without an order sorts only those: so it is in etcd, and clients see it.
        let enough = if filters(request) || request.sort_order != SortOrder::None as i32 {
            usize::MAX
        } else {
            limit.map_or(usize::MAX, |limit| limit.saturating_add(1))
        };
        let found: Vec<(&Bytes, &Version)> = if request.count_only {
            Vec::new()
        } else {
            let all = self.index.range(&request.key, &request.range_end, revision);
            all.filter(|entry| passes(request, entry.1)).take(enough).collect()
        };
        let count = self.count(&request.key, &request.range_end, revision);
        let mut response = RangeResponse { count, ..RangeResponse::default() };
        if let Some(limit) = limit.filter(|limit| found.len() > *limit) {
            response.more = true;
            response.kvs = sorted(request, found, limit, values)?;
        } else {
            response.kvs = sorted(request, found, usize::MAX, values)?;
        }
        Ok(response)
    }

    /// Keys of a range that a read at `revision` sees. Only keys beside those that changed later are looked at.
    #[must_use]
    pub fn count(&self, key: &[u8], range_end: &[u8], revision: i64) -> i64 {
        self.index.count(key, range_end, revision) as i64
    }

    /// A piece of a range in order of its keys, at a revision that isn't 0: at most `limit` keys, and none after
    /// those that fill `bytes_max`; at least one, if there is one.
    ///
    /// # Errors
    /// [`RequestError::Compacted`] if the revision has gone meanwhile.
    pub fn piece(
        &self,
        request: &RangeRequest,
        limit: usize,
        bytes_max: usize,
        values: &impl Values,
    ) -> Result<Vec<KeyValue>, RequestError> {
        let revision = self.read_revision(request.revision)?;
        let (mut kvs, mut bytes) = (Vec::new(), 0);
        for entry in self.index.range(&request.key, &request.range_end, revision).take(limit) {
            let kv = read(&entry, !request.keys_only, values)?;
            bytes += kv.key.len() + kv.value.len();
            kvs.push(kv);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(kvs)
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

    /// The key as it was just before a revision, for watchers that ask for it.
    ///
    /// # Errors
    /// [`RequestError::Disk`].
    pub fn before(&self, key: &[u8], revision: i64, values: &impl Values) -> Result<Option<KeyValue>, RequestError> {
        let Some(version) = self.index.at(key, revision - 1) else { return Ok(None) };
        // Compacted history isn't whole: what is left of it may be the wrong version.
        if revision - 1 < self.compacted {
            return Ok(None);
        }
        let value = values.value(version.at)?;
        Ok(Some(key_value(&Bytes::copy_from_slice(key), version, value)))
    }
}

pub(super) fn key_value(key: &Bytes, version: &Version, value: Bytes) -> KeyValue {
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

fn read((key, version): &(&Bytes, &Version), with_value: bool, values: &impl Values) -> Result<KeyValue, RequestError> {
    let value = if with_value { values.value(version.at)? } else { Bytes::new() };
    Ok(key_value(key, version, value))
}

/// The first `limit` in the order that is asked for; what is equal in it stays in the order of keys.
fn sorted(
    request: &RangeRequest,
    mut found: Vec<(&Bytes, &Version)>,
    limit: usize,
    values: &impl Values,
) -> Result<Vec<KeyValue>, RequestError> {
    let target = SortTarget::try_from(request.sort_target).map_err(|_| RequestError::InvalidSort)?;
    let descend = request.sort_order == SortOrder::Descend as i32;
    let directed = |ordering: Ordering| if descend { ordering.reverse() } else { ordering };
    if target == SortTarget::Value {
        // The values themselves are the order: all are read, and keys_only drops them after.
        let mut kvs = found.iter().map(|entry| read(entry, true, values)).collect::<Result<Vec<_>, _>>()?;
        kvs.sort_by(|a, b| directed(a.value.cmp(&b.value)));
        kvs.truncate(limit);
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        return Ok(kvs);
    }
    // Keys come ascending anyway.
    if target != SortTarget::Key || descend {
        found.sort_by(|a, b| directed(compare(target, a, b)));
    }
    found.truncate(limit);
    found.iter().map(|entry| read(entry, !request.keys_only, values)).collect()
}

fn compare(target: SortTarget, a: &(&Bytes, &Version), b: &(&Bytes, &Version)) -> Ordering {
    match target {
        SortTarget::Key | SortTarget::Value => a.0.cmp(b.0),
        SortTarget::Version => a.1.version.cmp(&b.1.version),
        SortTarget::Create => a.1.create.cmp(&b.1.create),
        SortTarget::Mod => a.1.at.main.cmp(&b.1.at.main),
    }
}
