//! The answer to a range, looked through while it comes: keys and revisions without a copy of each value.

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

/// A field of a message.
struct Field<'a> {
    tag: u64,
    value: Value<'a>,
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// What a message's bytes begin with.
enum Next<'a> {
    /// A field, and what is behind it.
    Field(Field<'a>, &'a [u8]),
    /// Nothing, or the beginning of a field that lacks at least so many bytes.
    Missing(usize),
}

fn next(bytes: &[u8]) -> Result<Next<'_>, Error> {
    let Some((key, rest)) = varint(bytes)? else { return Ok(Next::Missing(1)) };
    let (value, rest) = match key & 7 {
        0 => match varint(rest)? {
            Some((number, rest)) => (Value::Number(number), rest),
            None => return Ok(Next::Missing(1)),
        },
        2 => {
            let Some((length, rest)) = varint(rest)? else { return Ok(Next::Missing(1)) };
            let length = usize::try_from(length).map_err(|_| UNREADABLE)?;
            if rest.len() < length {
                return Ok(Next::Missing(length - rest.len()));
            }
            let (value, rest) = rest.split_at(length);
            (Value::Bytes(value), rest)
        }
        width @ (1 | 5) => {
            let length = if width == 1 { 8 } else { 4 };
            if rest.len() < length {
                return Ok(Next::Missing(length - rest.len()));
            }
            (Value::Fixed, &rest[length..])
        }
        _ => return Err(UNREADABLE),
    };
    Ok(Next::Field(Field { tag: key >> 3, value }, rest))
}

const UNREADABLE: Error = Error::Wrong("an answer can't be decoded");

/// A number and what is behind it; nothing if its end didn't come.
fn varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Error> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((number, &bytes[at + 1..])));
        }
    }
    if bytes.len() < 10 { Ok(None) } else { Err(UNREADABLE) }
}

/// A message that is all there, field by field.
fn whole<'a>(mut bytes: &'a [u8], mut each: impl FnMut(Field<'a>)) -> Result<(), Error> {
    while !bytes.is_empty() {
        let Next::Field(field, rest) = next(bytes)? else { return Err(UNREADABLE) };
        each(field);
        bytes = rest;
    }
    Ok(())
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
