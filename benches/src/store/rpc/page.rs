//! The answer to a range, looked through while it comes: keys and revisions without a copy of each value.

use super::fields::{Next, Value, next, whole};
use super::{Answer, Error};

const HEADER: u64 = 1;
const KVS: u64 = 2;
const MORE: u64 = 3;
const HEADER_REVISION: u64 = 3;
const KEY: u64 = 1;
const MOD_REVISION: u64 = 3;
const VALUE: u64 = 5;

/// A key of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Found<'a> {
    pub(in crate::store) key: &'a [u8],
    pub(in crate::store) mod_revision: i64,
    /// Bytes of its value.
    pub(in crate::store) value: usize,
}

/// An answer: each key goes to `each`, in the store's order.
pub(in crate::store) struct Page<F> {
    each: F,
    /// The beginning of a field whose end didn't come yet.
    begun: Vec<u8>,
    /// The store's revision.
    pub(in crate::store) revision: i64,
    /// Keys follow that the limit left out.
    pub(in crate::store) more: bool,
    /// The last key.
    pub(in crate::store) last: Vec<u8>,
}

impl<F: FnMut(&Found<'_>)> Page<F> {
    pub(in crate::store) fn new(each: F) -> Self {
        Self { each, begun: Vec::new(), revision: 0, more: false, last: Vec::new() }
    }

    /// Whether nothing is missing.
    pub(in crate::store) fn end(&self) -> Result<(), Error> {
        if self.begun.is_empty() { Ok(()) } else { Err(Error::Wrong("an answer is cut off")) }
    }

    /// All whole fields at the beginning, in turn; how many bytes they have.
    fn fields(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let (mut rest, mut last) = (bytes, None);
        while let Next::Field(field, after) = next(rest)? {
            rest = after;
            match (field.tag, field.value) {
                (HEADER, Value::Bytes(header)) => self.revision = number(header, HEADER_REVISION)?,
                (KVS, Value::Bytes(kv)) => {
                    let found = found(kv)?;
                    (self.each)(&found);
                    last = Some(found.key);
                }
                (MORE, Value::Number(more)) => self.more = more != 0,
                _ => {}
            }
        }
        if let Some(last) = last {
            self.last.clear();
            self.last.extend_from_slice(last);
        }
        Ok(bytes.len() - rest.len())
    }
}

impl<F: FnMut(&Found<'_>)> Answer for Page<F> {
    fn piece(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        while !self.begun.is_empty() && !piece.is_empty() {
            let Next::Missing(missing) = next(&self.begun)? else { unreachable!("whole fields don't stay") };
            let (more, rest) = piece.split_at(missing.min(piece.len()));
            let mut begun = std::mem::take(&mut self.begun);
            begun.extend_from_slice(more);
            piece = rest;
            let whole = self.fields(&begun)?;
            begun.drain(..whole);
            self.begun = begun;
        }
        let whole = self.fields(piece)?;
        self.begun.extend_from_slice(&piece[whole..]);
        Ok(())
    }
}

fn number(message: &[u8], tag: u64) -> Result<i64, Error> {
    let mut found = 0;
    whole(message, |field| {
        if let Value::Number(number) = field.value
            && field.tag == tag
        {
            // As protobuf keeps signed numbers.
            found = number.cast_signed();
        }
    })?;
    Ok(found)
}

fn found(kv: &[u8]) -> Result<Found<'_>, Error> {
    let mut found = Found::default();
    whole(kv, |field| match (field.tag, field.value) {
        (KEY, Value::Bytes(key)) => found.key = key,
        (MOD_REVISION, Value::Number(revision)) => found.mod_revision = revision.cast_signed(),
        (VALUE, Value::Bytes(value)) => found.value = value.len(),
        _ => {}
    })?;
    Ok(found)
}
