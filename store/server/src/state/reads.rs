//! Reads: keys are looked for in slices and values are read while nobody is held up, however much is read.
//!
//! What an open read sees isn't collected (`store_shared::Pins` R1).

use std::sync::Arc;

use bytes::Bytes;
use store_core::auth::Auth;
use store_core::errors::RequestError;
use store_core::machine::Machine;
use store_core::mvcc::{Encoding, Mvcc, Reading, Search, Values, key_value};
use store_core::wire::{KeyValue, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse};
use store_shared::Pin;

use super::State;
use super::disk::{Cached, Disk};

/// Keys that are looked at before others may have the state.
const SLICE_KEYS: usize = 2_000;

/// Larger answers are for those who may wait for room, and are made in pieces.
const AT_ONCE_BYTES: usize = 64 << 10;

/// A read whose keys are found; its values are still on disk.
pub(crate) struct Found<'a, T> {
    read: T,
    disk: Arc<Disk>,
    /// The newest revision when it began.
    newest: i64,
    _pins: Vec<Pin<'a>>,
}

impl<'a> Found<'a, Search> {
    /// Whether its answer is large enough to be made in pieces, and can be.
    pub(crate) fn suits_pieces(&self) -> bool {
        !self.read.is_by_value() && self.read.bytes() > AT_ONCE_BYTES
    }

    /// The newest revision when it began.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// The answer, without its header. `admit` is told its bytes as it grows.
    ///
    /// # Errors
    /// [`RequestError`] of `admit`, or of a value that can't be read.
    pub(crate) fn finish(
        self,
        admit: impl FnMut(usize) -> Result<(), RequestError>,
    ) -> Result<RangeResponse, RequestError> {
        self.read.finish(&*self.disk, admit)
    }

    /// The answer in pieces. `admit` is told the bytes of all of it.
    ///
    /// # Errors
    /// [`RequestError`] of `admit`.
    pub(crate) fn encode(
        self,
        header: Option<ResponseHeader>,
        admit: impl FnMut(usize) -> Result<(), RequestError>,
    ) -> Result<Found<'a, Encoding>, RequestError> {
        let Self { read, disk, newest, _pins } = self;
        Ok(Found { read: read.encode(header, admit)?, disk, newest, _pins })
    }
}

impl Found<'_, Encoding> {
    /// Bytes that are left.
    pub(crate) fn bytes(&self) -> usize {
        self.read.bytes()
    }

    /// The next piece of about so many bytes, if there is one.
    ///
    /// # Errors
    /// [`RequestError`] of a value that can't be read.
    pub(crate) fn piece(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, RequestError> {
        self.read.piece(bytes_max, &*self.disk)
    }
}

impl State {
    /// Begins a read, if users and roles `allow` it.
    ///
    /// # Errors
    /// [`RequestError`] of `allow`, or for a revision out of reach.
    pub(crate) fn find_range(
        &self,
        request: &RangeRequest,
        allow: impl Fn(&Auth) -> Result<(), RequestError>,
    ) -> Result<Found<'_, Search>, RequestError> {
        let begin = |machine: &Machine, _: &Disk| {
            allow(&machine.auth)?;
            Search::new(&machine.mvcc, request)
        };
        self.find(begin, std::slice::from_mut)
    }

    /// Answers a read, and says the revision at which it was answered; else as [`State::find_range`] and
    /// [`Found::finish`].
    ///
    /// # Errors
    /// Theirs.
    pub(crate) fn range(
        &self,
        request: &RangeRequest,
        allow: impl Fn(&Auth) -> Result<(), RequestError>,
        admit: impl FnMut(usize) -> Result<(), RequestError>,
    ) -> Result<(RangeResponse, i64), RequestError> {
        let found = self.find_range(request, allow)?;
        let newest = found.newest;
        Ok((found.finish(admit)?, newest))
    }

    /// Answers a read of one key, if nothing need be waited for, neither who writes nor the disk; else `None`.
    pub(crate) fn one_at_once(
        &self,
        request: &RangeRequest,
        allow: impl Fn(&Auth) -> Result<(), RequestError>,
    ) -> Option<Result<(RangeResponse, i64), RequestError>> {
        if !request.range_end.is_empty() {
            return None;
        }
        // Held to the end: nothing is collected meanwhile.
        let current = self.current.try_read()?;
        let (mvcc, cached) = (&current.machine.mvcc, Cached::new(&current.disk));
        let search = allow(&current.machine.auth).and_then(|()| Search::new(mvcc, request));
        let answer = search.and_then(|mut search| {
            search.go_on(mvcc, 1);
            search.finish(&cached, |bytes| if bytes > AT_ONCE_BYTES { Err(RequestError::Busy) } else { Ok(()) })
        });
        let is_too_large = answer == Err(RequestError::Busy);
        (!cached.missed() && !is_too_large).then(|| answer.map(|answer| (answer, mvcc.revision())))
    }

    /// Answers a transaction that only reads, all of it as of one revision, and that revision. The header is the
    /// caller's. `admit` is told the bytes of the answer as it grows.
    ///
    /// # Errors
    /// [`RequestError`] of `allow` or `admit`, or what it would be refused for in the log.
    pub(crate) fn read_txn(
        &self,
        request: &TxnRequest,
        allow: impl Fn(&Mvcc, &Auth) -> Result<(), RequestError>,
        admit: impl FnMut(usize) -> Result<(), RequestError>,
    ) -> Result<(TxnResponse, i64), RequestError> {
        let begin = |machine: &Machine, disk: &Disk| {
            allow(&machine.mvcc, &machine.auth)?;
            Reading::new(&machine.mvcc, request, disk)
        };
        let found = self.find(begin, |reading| &mut reading.searches)?;
        Ok((found.read.finish(&*found.disk, admit)?, found.newest))
    }

    /// Begins a read in one state and looks for the keys of all its searches.
    fn find<T>(
        &self,
        begin: impl Fn(&Machine, &Disk) -> Result<T, RequestError>,
        searches: impl Fn(&mut T) -> &mut [Search],
    ) -> Result<Found<'_, T>, RequestError> {
        loop {
            let mut found = {
                let current = self.current.read();
                let mut read = begin(&current.machine, &current.disk)?;
                let pins = searches(&mut read).iter().map(|search| self.pins.pin(search.revision())).collect();
                let newest = current.machine.mvcc.revision();
                Found { read, disk: current.disk.clone(), newest, _pins: pins }
            };
            let disk = found.disk.clone();
            if searches(&mut found.read).iter_mut().all(|search| self.find_keys(search, &disk)) {
                return Ok(found);
            }
        }
    }

    /// Looks for a search's keys, slice by slice; `false` if a snapshot replaced the state meanwhile, which may have
    /// collected the revision: then the read begins again.
    fn find_keys(&self, search: &mut Search, disk: &Arc<Disk>) -> bool {
        loop {
            let current = self.current.read();
            if !Arc::ptr_eq(&current.disk, disk) {
                return false;
            }
            if !search.go_on(&current.machine.mvcc, SLICE_KEYS) {
                return true;
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
