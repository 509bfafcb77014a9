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
        let (order, target) = sort(request)?;
        let revision = self.read_revision(request.revision)?;
        let filters = request.min_mod_revision
            | request.max_mod_revision
            | request.min_create_revision
            | request.max_create_revision;
        let simple = filters == 0 && order == SortOrder::None;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let mut found: Vec<(&Bytes, &Version)> = Vec::new();
        let mut count = 0i64;
        for entry in self.index.range(&request.key, &request.range_end, revision) {
            count += 1;
            let wanted = !request.count_only && (!simple || limit == 0 || found.len() < limit);
            if wanted && passes(request, entry.1) {
                found.push(entry);
            }
        }
        let mut response = RangeResponse { count, ..RangeResponse::default() };
        if request.count_only {
            return Ok(response);
        }
        let by_value = target == SortTarget::Value && order != SortOrder::None;
        let read = |(key, version): &(&Bytes, &Version), with_value: bool| -> Result<KeyValue, RequestError> {
            let value = if with_value { values.value(version.at)? } else { Bytes::new() };
            Ok(key_value(key, version, value))
        };
        if by_value {
            // The values themselves are the order: all are read, and keys_only drops them after.
            let mut kvs = found.iter().map(|entry| read(entry, true)).collect::<Result<Vec<_>, _>>()?;
            kvs.sort_by(|a, b| directed(a.value.cmp(&b.value), order));
            response.more = limit > 0 && kvs.len() > limit;
            if response.more {
                kvs.truncate(limit);
            }
            if request.keys_only {
                kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
            }
            response.kvs = kvs;
            return Ok(response);
        }
        if order != SortOrder::None {
            found.sort_by(|a, b| directed(compare(target, a, b), order));
        }
        response.more = limit > 0 && if simple { count > limit as i64 } else { found.len() > limit };
        if limit > 0 {
            found.truncate(limit);
        }
        response.kvs = found.iter().map(|entry| read(entry, !request.keys_only)).collect::<Result<Vec<_>, _>>()?;
        Ok(response)
    }

    /// The revision that a read asks for, if it can be had. 0 is the newest.
    pub(super) fn read_revision(&self, asked: i64) -> Result<i64, RequestError> {
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

fn passes(request: &RangeRequest, version: &Version) -> bool {
    let Revision { main, .. } = version.at;
    let within = |min: i64, max: i64, value: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(request.min_mod_revision, request.max_mod_revision, main)
        && within(request.min_create_revision, request.max_create_revision, version.create)
}

fn sort(request: &RangeRequest) -> Result<(SortOrder, SortTarget), RequestError> {
    let order = SortOrder::try_from(request.sort_order).map_err(|_| RequestError::InvalidSort)?;
    let target = SortTarget::try_from(request.sort_target).map_err(|_| RequestError::InvalidSort)?;
    // Keys come ascending anyway; another target without an order is meant ascending.
    Ok(match (order, target) {
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => (SortOrder::None, target),
        (SortOrder::None, _) => (SortOrder::Ascend, target),
        both => both,
    })
}

fn compare(target: SortTarget, a: &(&Bytes, &Version), b: &(&Bytes, &Version)) -> Ordering {
    match target {
        SortTarget::Key | SortTarget::Value => a.0.cmp(b.0),
        SortTarget::Version => a.1.version.cmp(&b.1.version),
        SortTarget::Create => a.1.create.cmp(&b.1.create),
        SortTarget::Mod => a.1.at.cmp(&b.1.at),
    }
}

fn directed(ordering: Ordering, order: SortOrder) -> Ordering {
    if order == SortOrder::Descend { ordering.reverse() } else { ordering }
}
