//! Messages field by field, without a copy of anything.
//!
//! Source: Protocol Buffers, "Encoding".

use super::Error;

/// A field of a message.
pub(super) struct Field<'a> {
    pub(super) tag: u64,
    pub(super) value: Value<'a>,
}

pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// What a message's bytes begin with.
pub(super) enum Next<'a> {
    /// A field, and what is behind it.
    Field(Field<'a>, &'a [u8]),
    /// Nothing, or the beginning of a field that lacks at least so many bytes.
    Missing(usize),
}

pub(super) fn next(bytes: &[u8]) -> Result<Next<'_>, Error> {
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
pub(super) fn whole<'a>(mut bytes: &'a [u8], mut each: impl FnMut(Field<'a>)) -> Result<(), Error> {
    while !bytes.is_empty() {
        let Next::Field(field, rest) = next(bytes)? else { return Err(UNREADABLE) };
        each(field);
        bytes = rest;
    }
    Ok(())
}
