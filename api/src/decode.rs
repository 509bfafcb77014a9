//! Decoding: bytes to an object that its schema allows.
//!
//! Problem. Kubernetes decodes as Go does: unknown fields are dropped or told, a
//!          null is an absent field, times and quantities take their canonical form.
//! Idea.    One pass builds the tree and notes duplicate keys; a second walks it
//!          along the schema table and prunes, checks and normalises in place.
//!
//! Invariants
//!   C1  What leaves has no field that the schema doesn't know, and no null where
//!       the schema names a type.
//!   C2  Every scalar has its schema's type.
//! Source: `sigs.k8s.io/json` (strict errors), apimachinery `serializer/json`.

#[cfg(test)]
mod tests;
mod tree;

use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::schema::{Element, Shape, TypeId};
use crate::time;

/// What becomes of unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// Dropped in silence.
    Ignore,
    /// Dropped and told.
    Warn,
    /// Refused.
    Strict,
}

/// A decoded object.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, pruned and normalised.
    pub object: Value,
    /// What to warn of.
    pub warnings: Vec<String>,
}

/// Why bytes are no object. The texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes aren't JSON or YAML.
    #[error("{0}")]
    Syntax(String),
    /// A value has another type than its field.
    #[error("json: cannot unmarshal {found} into Go struct field {place} of type {wanted}")]
    Type {
        /// What stands there.
        found: &'static str,
        /// Struct and path.
        place: String,
        /// What belongs there.
        wanted: String,
    },
    /// A value has the right type and can't be read.
    #[error("{0}")]
    Value(String),
    /// Unknown or duplicate fields under [`Validation::Strict`].
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Decodes JSON. Without a type only the syntax is checked.
///
/// # Errors
/// See [`DecodeError`].
pub fn json(bytes: &[u8], ty: Option<TypeId>, validation: Validation) -> Result<Decoded, DecodeError> {
    let (object, duplicates) = tree::parse(bytes).map_err(|e| DecodeError::Syntax(e.to_string()))?;
    finish(object, duplicates, ty, validation)
}

/// Decodes one YAML document.
///
/// # Errors
/// See [`DecodeError`].
pub fn yaml(bytes: &[u8], ty: Option<TypeId>, validation: Validation) -> Result<Decoded, DecodeError> {
    // JSON is YAML, and is told apart by its first character, as upstream does.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
        return json(bytes, ty, validation);
    }
    let (object, duplicates) = tree::parse_yaml(bytes)
        .map_err(|e| DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {e}")))?;
    finish(object, duplicates, ty, validation)
}

fn finish(
    mut object: Value,
    duplicates: Vec<String>,
    ty: Option<TypeId>,
    validation: Validation,
) -> Result<Decoded, DecodeError> {
    let mut findings: Vec<String> = duplicates.into_iter().map(|path| format!("duplicate field {path:?}")).collect();
    if let Some(ty) = ty {
        findings.extend(walk(ty, &mut object)?);
    } else if !object.is_object() {
        return Err(DecodeError::Syntax("the body isn't a JSON object".to_owned()));
    }
    let warnings = judge(findings, validation)?;
    Ok(Decoded { object, warnings })
}

fn judge(findings: Vec<String>, validation: Validation) -> Result<Vec<String>, DecodeError> {
    match validation {
        Validation::Ignore => Ok(Vec::new()),
        Validation::Warn => Ok(findings),
        Validation::Strict if findings.is_empty() => Ok(findings),
        Validation::Strict => Err(DecodeError::Strict(findings)),
    }
}

/// Checks, prunes and normalises a tree that was made otherwise, such as by a patch.
///
/// # Errors
/// See [`DecodeError`].
pub fn check(ty: TypeId, object: &mut Value, validation: Validation) -> Result<Vec<String>, DecodeError> {
    let findings = walk(ty, object)?;
    judge(findings, validation)
}

fn walk(ty: TypeId, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut walker = Walker { findings: Vec::new(), path: Vec::new() };
    let Value::Object(map) = object else {
        return Err(DecodeError::Type { found: kind_of(object), place: ty.name().to_owned(), wanted: ty.go_name() });
    };
    walker.members(ty, map)?;
    Ok(walker.findings)
}

enum Step {
    Field(&'static str),
    Index(usize),
    Key(String),
}

struct Walker {
    findings: Vec<String>,
    path: Vec<Step>,
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Walker {
    /// The place as strict errors print it: `spec.containers[0].image`.
    fn shown(&self, last: Option<&str>) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => join(&mut out, name),
                Step::Key(key) => join(&mut out, key),
                Step::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        if let Some(last) = last {
            join(&mut out, last);
        }
        out
    }

    /// The place as Go's type errors print it: no indexes.
    fn go_place(&self, owner: TypeId) -> String {
        let names: Vec<&str> =
            self.path.iter().filter_map(|s| if let Step::Field(name) = s { Some(*name) } else { None }).collect();
        format!("{}.{}", owner.name(), names.join("."))
    }

    fn mismatch(&self, owner: TypeId, value: &Value, wanted: impl Into<String>) -> DecodeError {
        DecodeError::Type { found: kind_of(value), place: self.go_place(owner), wanted: wanted.into() }
    }

    fn members(&mut self, ty: TypeId, map: &mut Map<String, Value>) -> Result<(), DecodeError> {
        let mut dropped: Vec<String> = Vec::new();
        for (name, value) in map.iter_mut() {
            let Some(field) = ty.field(name) else {
                self.findings.push(format!("unknown field {:?}", self.shown(Some(name))));
                dropped.push(name.clone());
                continue;
            };
            if value.is_null() && field.shape != Shape::One(Element::Json) {
                dropped.push(name.clone());
                continue;
            }
            self.path.push(Step::Field(field.name));
            self.shape(ty, field.shape, value)?;
            self.path.pop();
        }
        // Retaining once keeps the order and is linear, whatever was dropped.
        if !dropped.is_empty() {
            map.retain(|name, _| !dropped.iter().any(|d| d == name));
        }
        Ok(())
    }

    fn shape(&mut self, owner: TypeId, shape: Shape, value: &mut Value) -> Result<(), DecodeError> {
        match shape {
            Shape::One(element) => self.element(owner, element, value),
            Shape::List(element) => {
                let Value::Array(list) = value else {
                    return Err(self.mismatch(owner, value, format!("[]{}", go_type(element))));
                };
                for (index, one) in list.iter_mut().enumerate() {
                    self.path.push(Step::Index(index));
                    self.element(owner, element, one)?;
                    self.path.pop();
                }
                Ok(())
            }
            Shape::Map(element) => {
                let Value::Object(map) = value else {
                    return Err(self.mismatch(owner, value, format!("map[string]{}", go_type(element))));
                };
                for (key, one) in map.iter_mut() {
                    self.path.push(Step::Key(key.clone()));
                    self.element(owner, element, one)?;
                    self.path.pop();
                    if element == Element::Quantity {
                        round_up_milli(one);
                    }
                }
                Ok(())
            }
        }
    }

    fn element(&mut self, owner: TypeId, element: Element, value: &mut Value) -> Result<(), DecodeError> {
        if value.is_null() {
            // In a list or a map Go makes a null the element's zero value.
            *value = zero(element);
        }
        let fits = match element {
            Element::String | Element::Duration => value.is_string(),
            Element::Bool => value.is_boolean(),
            Element::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Element::Int64 => value.is_i64(),
            Element::Double => value.is_number(),
            Element::Bytes => return self.bytes(owner, value),
            Element::Quantity => return self.quantity(value),
            Element::Time => return self.time(owner, value, false),
            Element::MicroTime => return self.time(owner, value, true),
            Element::IntOrString => value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Element::FieldsV1 => value.is_object(),
            Element::Raw
            | Element::Json
            | Element::SchemaOrArray(_)
            | Element::SchemaOrBool(_)
            | Element::SchemaOrStrings(_) => true,
            Element::StringList => value.as_array().is_some_and(|l| l.iter().all(Value::is_string)),
            Element::Ref(ty) => match value {
                Value::Object(map) => return self.members(ty, map),
                _ => false,
            },
        };
        if fits { Ok(()) } else { Err(self.number_error(owner, element, value)) }
    }

    fn number_error(&self, owner: TypeId, element: Element, value: &Value) -> DecodeError {
        // Go shows the number that doesn't fit.
        if let (Value::Number(number), Element::Int32 | Element::Int64 | Element::IntOrString) = (value, element) {
            let place = self.go_place(owner);
            return DecodeError::Value(format!(
                "json: cannot unmarshal number {number} into Go struct field {place} of type {}",
                go_type(element)
            ));
        }
        self.mismatch(owner, value, go_type(element))
    }

    fn bytes(&self, owner: TypeId, value: &Value) -> Result<(), DecodeError> {
        use base64::Engine as _;
        let Value::String(text) = value else { return Err(self.mismatch(owner, value, "[]uint8")) };
        match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(_) => Ok(()),
            Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
                Err(DecodeError::Value(format!("illegal base64 data at input byte {at}")))
            }
            Err(_) => Err(DecodeError::Value(format!("illegal base64 data at input byte {}", text.len()))),
        }
    }

    fn quantity(&self, value: &mut Value) -> Result<(), DecodeError> {
        let text = match &*value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        match text.parse::<Quantity>() {
            Ok(quantity) => {
                *value = quantity.to_string().into();
                Ok(())
            }
            Err(error) => Err(DecodeError::Value(format!("unable to parse quantity at {}: {error}", self.shown(None)))),
        }
    }

    fn time(&self, owner: TypeId, value: &mut Value, micro: bool) -> Result<(), DecodeError> {
        // In a map a null time is Go's zero time, and stays null.
        if value.is_null() {
            return Ok(());
        }
        let Value::String(text) = &*value else { return Err(self.mismatch(owner, value, "string")) };
        let parsed = time::parse(text).ok().and_then(|(seconds, nanos)| {
            if micro { time::format_micros(seconds, nanos) } else { time::format_seconds(seconds) }
        });
        match parsed {
            Some(canonical) => {
                *value = canonical.into();
                Ok(())
            }
            None => Err(DecodeError::Value(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            ))),
        }
    }
}

/// Maps of quantities are resource lists, of which thousandths are kept.
/// Source: `SetDefaults_ResourceList`.
fn round_up_milli(value: &mut Value) {
    if let Some(quantity) = value.as_str().and_then(|text| text.parse::<Quantity>().ok()) {
        *value = quantity.round_up_milli().to_string().into();
    }
}

fn join(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}

fn zero(element: Element) -> Value {
    match element {
        Element::String | Element::Duration | Element::Bytes => "".into(),
        Element::Quantity => "0".into(),
        Element::Bool => false.into(),
        Element::Int32 | Element::Int64 | Element::Double | Element::IntOrString => 0.into(),
        Element::StringList => Value::Array(Vec::new()),
        Element::Ref(_) | Element::FieldsV1 => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

fn go_type(element: Element) -> String {
    match element {
        Element::String | Element::Time | Element::MicroTime | Element::Duration | Element::Quantity => {
            "string".to_owned()
        }
        Element::Bool => "bool".to_owned(),
        Element::Int32 => "int32".to_owned(),
        Element::Int64 => "int64".to_owned(),
        Element::Double => "float64".to_owned(),
        Element::Bytes => "uint8".to_owned(),
        Element::IntOrString => "intstr.IntOrString".to_owned(),
        Element::StringList => "[]string".to_owned(),
        Element::Ref(ty) => ty.go_name(),
        _ => "object".to_owned(),
    }
}
