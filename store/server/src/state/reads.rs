//! Reads: keys are looked for in slices and values are read while nobody is held up, however much is read.
//!
//! Invariant
//!   R1  While a read is open, nothing that its revision sees is collected.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use store_core::auth::Auth;
use store_core::errors::RequestError;
use store_core::mvcc::{Search, Values, key_value};
use store_core::wire::{KeyValue, RangeRequest, RangeResponse};

use super::State;

/// Keys that are looked at before others may have the state.
const SLICE_KEYS: usize = 2_000;

/// The revisions of open reads, each with how many there are.
#[derive(Default)]
pub(super) struct Pins(Mutex<BTreeMap<i64, usize>>);

impl Pins {
    /// Opens a read; the state is held meanwhile (R1).
    fn pin(&self, revision: i64) -> Pin<'_> {
        *self.0.lock().entry(revision).or_default() += 1;
        Pin { pins: self, revision }
    }

    /// Whether a read is open at a revision before this one.
    pub(super) fn any_before(&self, revision: i64) -> bool {
        self.0.lock().range(..revision).next().is_some()
    }
}

struct Pin<'a> {
    pins: &'a Pins,
    revision: i64,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut open = self.pins.0.lock();
        if let Some(number) = open.get_mut(&self.revision) {
            *number -= 1;
            if *number == 0 {
                open.remove(&self.revision);
            }
        }
    }
}

impl State {
    /// Answers a read, if users and roles `allow` it, and the revision at which it was answered. The header is the
    /// caller's. `admit` is told the bytes of the answer as it grows.
    ///
    /// # Errors
    /// [`RequestError`] of `allow` or `admit`, or for a revision out of reach.
    pub(crate) fn range(
        &self,
        request: &RangeRequest,
        allow: impl Fn(&Auth) -> Result<(), RequestError>,
        admit: impl FnMut(usize) -> Result<(), RequestError>,
    ) -> Result<(RangeResponse, i64), RequestError> {
        loop {
            let (search, _pin, disk, newest) = {
                let current = self.current.read();
                let mvcc = &current.machine.mvcc;
                allow(&current.machine.auth)?;
                let mut search = Search::new(mvcc, request)?;
                let more = search.go_on(mvcc, SLICE_KEYS);
                let pin = self.pins.pin(search.revision());
                ((search, more), pin, current.disk.clone(), mvcc.revision())
            };
            let (mut search, mut more) = search;
            while more {
                let current = self.current.read();
                // A snapshot that replaced the state may have collected the revision: begin again.
                if !Arc::ptr_eq(&current.disk, &disk) {
                    break;
                }
                more = search.go_on(&current.machine.mvcc, SLICE_KEYS);
            }
            if !more {
                return Ok((search.finish(&*disk, admit)?, newest));
            }
        }
    }

    /// A piece of a range, in order of its keys, at a revision that isn't 0: at most `keys_max` keys, and none after
    /// those that fill `bytes_max`; at least one, if there is one.
    ///
    /// # Errors
    /// [`RequestError`] of `allow`, or `Compacted` if the revision has gone meanwhile.
    pub(crate) fn piece(
        &self,
        request: &RangeRequest,
        (keys_max, bytes_max): (usize, usize),
        allow: impl Fn(&Auth) -> Result<(), RequestError>,
    ) -> Result<Vec<KeyValue>, RequestError> {
        let (search, _pin, disk) = {
            let current = self.current.read();
            // Each time anew: what somebody may read can change meanwhile.
            allow(&current.machine.auth)?;
            let search = Search::piece(&current.machine.mvcc, request, keys_max)?;
            let pin = self.pins.pin(search.revision());
            (search, pin, current.disk.clone())
        };
        search.fill(bytes_max, &*disk)
    }

    /// A key as it was just before a revision, if it was there and isn't collected.
    pub(crate) fn before(&self, key: &Bytes, revision: i64) -> Option<KeyValue> {
        let (version, disk) = {
            let current = self.current.read();
            (current.machine.mvcc.before(key, revision)?, current.disk.clone())
        };
        // Collected since: who asks looks at the compacted revision anyway.
        let value = disk.value(version.at).ok()?;
        Some(key_value(key, &version, value))
    }
}
