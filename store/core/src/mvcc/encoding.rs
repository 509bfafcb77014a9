//! A range's answer as the bytes of its message, made piece by piece.
//!
//! Problem. As a message, each value of a large answer is copied three times and has memory of its own.
//! Idea.    The index knows how long values are, so the whole answer's length is known before any is read, and each is
//!          copied once, from where it lies to its place among the bytes that are sent.
//!
//! Invariants
//!   E1  The pieces together are the bytes that the answer has as a message.
//! Checked by: mvcc/tests/encoding.rs.

use std::collections::VecDeque;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, int64, key_len};

use super::range::{Found, Search};
use super::{Revision, Values};
use crate::errors::RequestError;
use crate::wire::event::EventType;
use crate::wire::{KeyValue, RangeResponse, ResponseHeader};

/// Numbers of fields. Source: etcd `kv.proto`, `rpc.proto`.
const KVS: u32 = 2;
const KEY: u32 = 1;
const CREATE_REVISION: u32 = 2;
const MOD_REVISION: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

/// An answer on its way: keys are found, values not read yet.
#[derive(Debug)]
pub struct Encoding {
    /// What stands before the keys; taken by the first piece.
    head: Vec<u8>,
    found: VecDeque<Found>,
    with_values: bool,
    /// What stands behind them; taken by the last piece.
    tail: Vec<u8>,
    bytes: usize,
}

/// A place that a value is read into.
struct Hole {
    at: Revision,
    from: usize,
    bytes: usize,
}

impl Search {
    /// The answer as bytes. `admit` is told of each key with its value; an order by value can't be had so.
    ///
    /// # Errors
    /// [`RequestError::InvalidSort`], or that of `admit`.
    pub fn encode(
        self,
        header: Option<ResponseHeader>,
        mut admit: impl FnMut(usize) -> Result<(), RequestError>,
    ) -> Result<Encoding, RequestError> {
        let with_values = !self.keys_only();
        let (count, more, found) = self.picked()?;
        let head = RangeResponse { header, ..RangeResponse::default() }.encode_to_vec();
        let tail = RangeResponse { more, count, ..RangeResponse::default() }.encode_to_vec();
        let mut bytes = head.len() + tail.len();
        for entry in &found {
            let entry = entry_len(entry, with_values);
            admit(entry)?;
            bytes += entry;
        }
        Ok(Encoding { head, found: found.into(), with_values, tail, bytes })
    }
}

impl Encoding {
    /// Bytes of all pieces that are left.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next piece: it ends with the key that fills `bytes_max`, or with the answer; `None` behind that.
    ///
    /// # Errors
    /// [`RequestError::Disk`] of a value that can't be read or isn't as long as the index says.
    pub fn piece(&mut self, bytes_max: usize, values: &impl Values) -> Result<Option<Vec<u8>>, RequestError> {
        if self.bytes == 0 {
            return Ok(None);
        }
        let (mut keys, mut bytes) = (0, self.head.len());
        for entry in &self.found {
            if bytes >= bytes_max {
                break;
            }
            bytes += entry_len(entry, self.with_values);
            keys += 1;
        }
        if keys == self.found.len() {
            bytes += self.tail.len();
        }
        let mut out = Vec::with_capacity(bytes);
        out.append(&mut self.head);
        let mut holes = Vec::with_capacity(keys);
        for entry in self.found.drain(..keys) {
            holes.extend(encode_entry(&entry, self.with_values, &mut out));
        }
        if self.found.is_empty() {
            out.append(&mut self.tail);
        }
        fill(&mut out, holes, values)?;
        assert_eq!(out.len(), bytes, "E1: lengths are known before");
        self.bytes -= bytes;
        Ok(Some(out))
    }
}

/// Reads values into their places, in the order in which they lie on disk.
fn fill(out: &mut [u8], mut holes: Vec<Hole>, values: &impl Values) -> Result<(), RequestError> {
    holes.sort_unstable_by_key(|hole| hole.at);
    let ats: Vec<Revision> = holes.iter().map(|hole| hole.at).collect();
    let mut filled = 0;
    values.each(&ats, &mut |place, value| {
        let hole = &holes[place];
        if value.len() == hole.bytes {
            out[hole.from..hole.from + hole.bytes].copy_from_slice(value);
            filled += 1;
        }
    })?;
    if filled == holes.len() { Ok(()) } else { Err(RequestError::Disk) }
}

fn number_len(tag: u32, number: i64) -> usize {
    if number == 0 { 0 } else { int64::encoded_len(tag, &number) }
}

fn encode_number(tag: u32, number: i64, out: &mut Vec<u8>) {
    if number != 0 {
        int64::encode(tag, &number, out);
    }
}

/// Of bytes in a field; none of them, no field.
fn field_len(tag: u32, bytes: usize) -> usize {
    if bytes == 0 { 0 } else { key_len(tag) + encoded_len_varint(bytes as u64) + bytes }
}

fn encode_bytes_head(tag: u32, bytes: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes as u64, out);
}

/// Of a key with its value, without what says that it is one.
fn kv_len((key, version): &Found, with_value: bool) -> usize {
    field_len(KEY, key.len())
        + number_len(CREATE_REVISION, version.create)
        + number_len(MOD_REVISION, version.at.main)
        + number_len(VERSION, version.version)
        + if with_value { field_len(VALUE, version.value_bytes as usize) } else { 0 }
        + number_len(LEASE, version.lease)
}

fn entry_len(found: &Found, with_value: bool) -> usize {
    let bytes = kv_len(found, with_value);
    key_len(KVS) + encoded_len_varint(bytes as u64) + bytes
}

/// A change as an event, without what was before, and without counting its bytes' owners up and down as prost does: each
/// of the counters is another core's. Source: etcd `kv.proto`.
pub(crate) fn encode_event(kv: &KeyValue) -> Vec<u8> {
    const TYPE: u32 = 1;
    const KV: u32 = 2;
    let KeyValue { key, create_revision, mod_revision, version, value, lease } = kv;
    let kind = if *version == 0 { EventType::Delete } else { EventType::Put } as i32;
    let bytes = kv.encoded_len();
    let mut out = Vec::with_capacity(bytes + 8);
    encode_number(TYPE, i64::from(kind), &mut out);
    encode_bytes_head(KV, bytes, &mut out);
    encode_bytes(KEY, key, &mut out);
    encode_number(CREATE_REVISION, *create_revision, &mut out);
    encode_number(MOD_REVISION, *mod_revision, &mut out);
    encode_number(VERSION, *version, &mut out);
    encode_bytes(VALUE, value, &mut out);
    encode_number(LEASE, *lease, &mut out);
    out
}

fn encode_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_bytes_head(tag, bytes.len(), out);
        out.extend_from_slice(bytes);
    }
}

/// Everything but the value, whose place it leaves.
fn encode_entry(found: &Found, with_value: bool, out: &mut Vec<u8>) -> Option<Hole> {
    let (key, version) = found;
    encode_bytes_head(KVS, kv_len(found, with_value), out);
    encode_bytes(KEY, key, out);
    encode_number(CREATE_REVISION, version.create, out);
    encode_number(MOD_REVISION, version.at.main, out);
    encode_number(VERSION, version.version, out);
    let bytes = version.value_bytes as usize;
    let hole = (with_value && bytes > 0).then(|| {
        encode_bytes_head(VALUE, bytes, out);
        let from = out.len();
        out.resize(from + bytes, 0);
        Hole { at: version.at, from, bytes }
    });
    encode_number(LEASE, version.lease, out);
    hole
}

/// That a message has the fields that are written here by hand.
const _: fn(KeyValue) = |kv| {
    let KeyValue { key: _, create_revision: _, mod_revision: _, version: _, value: _, lease: _ } = kv;
};
