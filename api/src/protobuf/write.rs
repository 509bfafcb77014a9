//! JSON to protobuf.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{DEPTH_MAX, ProtobufError};
use crate::schema::{Element, Field, Shape, TypeId, Wire};
use crate::time;

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length-delimited field.
pub(super) fn bytes(tag: u32, content: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(tag) << 3 | 2, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn number(tag: u32, value: i64, out: &mut Vec<u8>) {
    varint(u64::from(tag) << 3, out);
    // Negative numbers are ten bytes of two's complement.
    varint(value as u64, out);
}

fn wrong(field: &Field) -> ProtobufError {
    ProtobufError::Value(field.name.to_owned())
}

/// Writes the members of an object in tag order (P2).
pub(super) fn message(ty: TypeId, object: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Depth);
    }
    for step in ty.wire() {
        match step {
            Wire::Embedded(tag, inner) => {
                // The members of an embedded struct stand beside its owner's in JSON.
                let mut content = Vec::new();
                message(*inner, object, depth + 1, &mut content)?;
                bytes(*tag, &content, out);
            }
            Wire::Field(index) => {
                let field = &ty.fields()[usize::from(*index)];
                match object.get(field.name) {
                    None | Some(Value::Null) => {}
                    Some(value) => shape(field, value, depth, out)?,
                }
            }
        }
    }
    Ok(())
}

fn shape(field: &Field, value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    match field.shape {
        Shape::One(inner) => element(field, field.tag, inner, value, depth, out),
        Shape::List(inner) => {
            let list = value.as_array().ok_or_else(|| wrong(field))?;
            list.iter().try_for_each(|one| element(field, field.tag, inner, one, depth, out))
        }
        Shape::Map(inner) => {
            let map = value.as_object().ok_or_else(|| wrong(field))?;
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for key in keys {
                let mut entry = Vec::new();
                bytes(1, key.as_bytes(), &mut entry);
                element(field, 2, inner, &map[key], depth, &mut entry)?;
                bytes(field.tag, &entry, out);
            }
            Ok(())
        }
    }
}

fn element(
    field: &Field,
    tag: u32,
    kind: Element,
    value: &Value,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    let text = || value.as_str().ok_or_else(|| wrong(field));
    let mut content = Vec::new();
    match kind {
        Element::String => {
            bytes(tag, text()?.as_bytes(), out);
            return Ok(());
        }
        Element::Bool => {
            number(tag, i64::from(value.as_bool().ok_or_else(|| wrong(field))?), out);
            return Ok(());
        }
        Element::Int32 | Element::Int64 => {
            number(tag, value.as_i64().ok_or_else(|| wrong(field))?, out);
            return Ok(());
        }
        Element::Double => {
            varint(u64::from(tag) << 3 | 1, out);
            out.extend_from_slice(&value.as_f64().ok_or_else(|| wrong(field))?.to_le_bytes());
            return Ok(());
        }
        Element::Bytes => content = STANDARD.decode(text()?).map_err(|_| wrong(field))?,
        Element::Quantity => {
            let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            bytes(1, plain.as_bytes(), &mut content);
        }
        // Go's zero time, null in JSON, is an empty message.
        Element::Time | Element::MicroTime if value.is_null() => {}
        Element::Time | Element::MicroTime => {
            let (seconds, nanos) = time::parse(text()?).map_err(|_| wrong(field))?;
            number(1, seconds, &mut content);
            number(2, i64::from(if kind == Element::Time { 0 } else { nanos }), &mut content);
        }
        Element::Duration => number(1, duration_nanos(text()?).ok_or_else(|| wrong(field))?, &mut content),
        Element::IntOrString => match value {
            Value::String(text) => int_or_string(1, 0, text, &mut content),
            _ => int_or_string(0, value.as_i64().ok_or_else(|| wrong(field))?, "", &mut content),
        },
        Element::Raw | Element::FieldsV1 | Element::Json => bytes(1, value.to_string().as_bytes(), &mut content),
        Element::StringList => {
            for one in value.as_array().ok_or_else(|| wrong(field))? {
                bytes(1, one.as_str().ok_or_else(|| wrong(field))?.as_bytes(), &mut content);
            }
        }
        Element::SchemaOrArray(ty) => schema_or(ty, value, depth, &mut content, |list, out| {
            for one in list {
                let mut inner = Vec::new();
                message(ty, one, depth + 1, &mut inner)?;
                bytes(2, &inner, out);
            }
            Ok(())
        })?,
        Element::SchemaOrStrings(ty) => schema_or(ty, value, depth, &mut content, |list, out| {
            for one in list {
                bytes(2, one.as_str().ok_or_else(|| wrong(field))?.as_bytes(), out);
            }
            Ok(())
        })?,
        Element::SchemaOrBool(ty) => {
            number(1, i64::from(value.as_bool().unwrap_or(true)), &mut content);
            if value.is_object() {
                let mut inner = Vec::new();
                message(ty, value, depth + 1, &mut inner)?;
                bytes(2, &inner, &mut content);
            }
        }
        Element::Ref(ty) => {
            if !value.is_object() {
                return Err(wrong(field));
            }
            message(ty, value, depth + 1, &mut content)?;
        }
    }
    bytes(tag, &content, out);
    Ok(())
}

fn int_or_string(kind: i64, int: i64, text: &str, out: &mut Vec<u8>) {
    number(1, kind, out);
    number(2, int, out);
    bytes(3, text.as_bytes(), out);
}

/// A schema under tag 1, or a list that `write_list` puts under tag 2.
fn schema_or(
    ty: TypeId,
    value: &Value,
    depth: usize,
    out: &mut Vec<u8>,
    write_list: impl FnOnce(&[Value], &mut Vec<u8>) -> Result<(), ProtobufError>,
) -> Result<(), ProtobufError> {
    match value {
        Value::Array(list) => write_list(list, out),
        _ => {
            let mut inner = Vec::new();
            message(ty, value, depth + 1, &mut inner)?;
            bytes(1, &inner, out);
            Ok(())
        }
    }
}

/// Nanoseconds of a Go duration such as `1m30.5s`.
fn duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
        let (unit, scale) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        total += amount * scale;
        rest = &rest[unit.len()..];
    }
    Some(if negative { -(total as i64) } else { total as i64 })
}
