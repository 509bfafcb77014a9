//! Protobuf to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{DEPTH_MAX, ProtobufError};
use crate::schema::{Element, Field, Shape, TypeId, Wire};
use crate::time;

/// Reads fields of one message; never beyond it (P1).
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(ProtobufError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    /// The next field's tag and wire type; `None` at the end.
    pub(super) fn key(&mut self) -> Result<Option<(u64, u64)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        Ok(Some((key >> 3, key & 7)))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], ProtobufError> {
        let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        if length > self.rest.len() {
            return Err(ProtobufError::Truncated);
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, wire: u64) -> Result<(), ProtobufError> {
        match wire {
            0 => self.varint().map(|_| ()),
            1 => self.take(8).map(|_| ()),
            2 => self.bytes().map(|_| ()),
            5 => self.take(4).map(|_| ()),
            other => Err(ProtobufError::WireType(other, 0)),
        }
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Utf8)
}

/// Fields whose Go type isn't a pointer, so that zero means absent. Others keep their zero:
/// `replicas: 0` and `automountServiceAccountToken: false` mean something.
const ABSENT_IF_ZERO: [&str; 31] = [
    "containerPort",
    "count",
    "failureThreshold",
    "generation",
    "globalDefault",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "observedGeneration",
    "paused",
    "periodSeconds",
    "publishNotReadyAddresses",
    "readOnly",
    "remainingItemCount",
    "retryAfterSeconds",
    "stdin",
    "stdinOnce",
    "successThreshold",
    "timeoutSeconds",
    "tty",
    "unschedulable",
    "readyReplicas",
    "availableReplicas",
    "updatedReplicas",
    "unavailableReplicas",
    "fullyLabeledReplicas",
    "externalPort",
];
/// Strings that may be empty on purpose: pointers in Go.
const KEPT_IF_EMPTY: [&str; 2] = ["storageClassName", "volumeAttributesClassName"];

fn is_absent(field: &Field, value: &Value) -> bool {
    if field.required {
        return value.is_null();
    }
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() && !KEPT_IF_EMPTY.contains(&field.name),
        Value::Number(number) => number.as_i64() == Some(0) && ABSENT_IF_ZERO.contains(&field.name),
        Value::Bool(flag) => !flag && ABSENT_IF_ZERO.contains(&field.name),
        _ => false,
    }
}

/// Reads a message of a type.
pub(super) fn message(ty: TypeId, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Depth);
    }
    let mut out = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.key()? {
        match find(ty, tag) {
            None => reader.skip(wire)?,
            Some(Wire::Embedded(_, inner)) => {
                expect(wire, 2, tag)?;
                out.extend(message(inner, reader.bytes()?, depth + 1)?);
            }
            Some(Wire::Field(index)) => {
                let field = &ty.fields()[usize::from(index)];
                read_field(field, wire, &mut reader, depth, &mut out)?;
            }
        }
    }
    Ok(out)
}

fn find(ty: TypeId, tag: u64) -> Option<Wire> {
    ty.wire().iter().copied().find(|step| match step {
        Wire::Embedded(own, _) => u64::from(*own) == tag,
        Wire::Field(index) => u64::from(ty.fields()[usize::from(*index)].tag) == tag,
    })
}

fn expect(wire: u64, wanted: u64, tag: u64) -> Result<(), ProtobufError> {
    if wire == wanted { Ok(()) } else { Err(ProtobufError::WireType(wire, tag)) }
}

fn read_field(
    field: &Field,
    wire: u64,
    reader: &mut Reader<'_>,
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    match field.shape {
        Shape::One(kind) => {
            let value = element(field, kind, wire, reader, depth)?;
            if !is_absent(field, &value) {
                out.insert(field.name.to_owned(), value);
            }
        }
        Shape::List(kind) => {
            let slot = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let value = element(field, kind, wire, reader, depth)?;
            if let Value::Array(list) = slot {
                list.push(value);
            }
        }
        Shape::Map(kind) => {
            expect(wire, 2, u64::from(field.tag))?;
            let mut entry = Reader::new(reader.bytes()?);
            let (mut key, mut value) = (String::new(), zero(kind));
            while let Some((tag, wire)) = entry.key()? {
                match tag {
                    1 => {
                        expect(wire, 2, 1)?;
                        key = text(entry.bytes()?)?;
                    }
                    2 => value = element(field, kind, wire, &mut entry, depth)?,
                    _ => entry.skip(wire)?,
                }
            }
            let slot = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = slot {
                map.insert(key, value);
            }
        }
    }
    Ok(())
}

fn zero(kind: Element) -> Value {
    match kind {
        Element::String | Element::Bytes => "".into(),
        Element::Quantity => "0".into(),
        Element::Ref(_) => Value::Object(Map::new()),
        Element::StringList => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

fn element(
    field: &Field,
    kind: Element,
    wire: u64,
    reader: &mut Reader<'_>,
    depth: usize,
) -> Result<Value, ProtobufError> {
    let wanted = match kind {
        Element::Bool | Element::Int32 | Element::Int64 => 0,
        Element::Double => 1,
        _ => 2,
    };
    expect(wire, wanted, u64::from(field.tag))?;
    match kind {
        Element::Bool => return Ok((reader.varint()? != 0).into()),
        Element::Int32 => return Ok((reader.varint()? as i32).into()),
        Element::Int64 => return Ok((reader.varint()? as i64).into()),
        Element::Double => {
            let raw = reader.take(8)?;
            let number = f64::from_le_bytes(raw.try_into().map_err(|_| ProtobufError::Truncated)?);
            return Ok(serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number));
        }
        _ => {}
    }
    let bytes = reader.bytes()?;
    match kind {
        Element::String => Ok(text(bytes)?.into()),
        Element::Bytes => Ok(STANDARD.encode(bytes).into()),
        Element::Quantity => Ok(wrapped_text(bytes, 1)?.unwrap_or_else(|| "0".to_owned()).into()),
        Element::Time | Element::MicroTime => read_time(kind, bytes),
        Element::Duration => Ok(go_duration(numbers(bytes)?.0).into()),
        Element::IntOrString => {
            let (kind, int) = numbers(bytes)?;
            Ok(if kind == 1 { wrapped_text(bytes, 3)?.unwrap_or_default().into() } else { int.into() })
        }
        Element::Raw | Element::FieldsV1 | Element::Json => {
            let raw = wrapped_text(bytes, 1)?.unwrap_or_default();
            if raw.is_empty() {
                return Ok(Value::Null);
            }
            serde_json::from_str(&raw).map_err(|_| ProtobufError::Value(field.name.to_owned()))
        }
        Element::StringList => {
            let mut list = Vec::new();
            each(bytes, |tag, inner| {
                if tag == 1 {
                    list.push(text(inner)?.into());
                }
                Ok(())
            })?;
            Ok(Value::Array(list))
        }
        Element::SchemaOrArray(ty) => {
            schema_or(ty, bytes, depth, |inner| message(ty, inner, depth + 1).map(Value::Object))
        }
        Element::SchemaOrStrings(ty) => schema_or(ty, bytes, depth, |inner| text(inner).map(Value::String)),
        Element::SchemaOrBool(ty) => {
            let mut schema = None;
            let allows = numbers(bytes)?.0 != 0;
            each(bytes, |tag, inner| {
                if tag == 2 {
                    schema = Some(message(ty, inner, depth + 1)?);
                }
                Ok(())
            })?;
            Ok(schema.map_or(Value::Bool(allows), Value::Object))
        }
        Element::Ref(ty) => Ok(Value::Object(message(ty, bytes, depth + 1)?)),
        // Scalars were read above.
        Element::Bool | Element::Int32 | Element::Int64 | Element::Double => Ok(Value::Null),
    }
}

fn read_time(kind: Element, bytes: &[u8]) -> Result<Value, ProtobufError> {
    // Go writes a zero time as an empty message.
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (seconds, nanos) = numbers(bytes)?;
    let nanos = i32::try_from(nanos).unwrap_or(0);
    let shown = if kind == Element::Time { time::format_seconds(seconds) } else { time::format_micros(seconds, nanos) };
    Ok(shown.map_or(Value::Null, Value::String))
}

/// Calls `visit` for each length-delimited field; others are skipped.
fn each(bytes: &[u8], mut visit: impl FnMut(u64, &[u8]) -> Result<(), ProtobufError>) -> Result<(), ProtobufError> {
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.key()? {
        if wire == 2 {
            visit(tag, reader.bytes()?)?;
        } else {
            reader.skip(wire)?;
        }
    }
    Ok(())
}

/// The text under a tag.
fn wrapped_text(bytes: &[u8], wanted: u64) -> Result<Option<String>, ProtobufError> {
    let mut found = None;
    each(bytes, |tag, inner| {
        if tag == wanted {
            found = Some(text(inner)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// The numbers under tags 1 and 2; 0 if absent.
fn numbers(bytes: &[u8]) -> Result<(i64, i64), ProtobufError> {
    let (mut first, mut second) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.key()? {
        match (tag, wire) {
            (1, 0) => first = reader.varint()? as i64,
            (2, 0) => second = reader.varint()? as i64,
            _ => reader.skip(wire)?,
        }
    }
    Ok((first, second))
}

fn schema_or(
    ty: TypeId,
    bytes: &[u8],
    depth: usize,
    item: impl Fn(&[u8]) -> Result<Value, ProtobufError>,
) -> Result<Value, ProtobufError> {
    let (mut schema, mut list) = (None, Vec::new());
    each(bytes, |tag, inner| {
        match tag {
            1 => schema = Some(message(ty, inner, depth + 1)?),
            2 => list.push(item(inner)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(schema.map_or(Value::Array(list), Value::Object))
}

/// Go's print of a duration: `1m30s`.
fn go_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if total < 1_000_000_000 {
        let (unit, name) = if total < 1_000 {
            (1, "ns")
        } else if total < 1_000_000 {
            (1_000, "µs")
        } else {
            (1_000_000, "ms")
        };
        return format!("{sign}{}{name}", if unit == 1 { total.to_string() } else { fraction(total, unit) });
    }
    let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
    let seconds = fraction(total % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}
