//! Schemas of the table's types, in either dialect.

use std::collections::BTreeSet;

use api::schema::{Element, Field, ListType, Shape, TypeId};
use serde_json::{Map, Value, json};

/// Which OpenAPI version a document is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn prefix(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }
}

/// Types without fields that kubectl knows by name.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// Name of the list type of a kind, which the table doesn't hold.
pub(crate) fn list_name(ty: TypeId) -> String {
    format!("{}List", ty.full_name())
}

/// A reference to a type.
pub(crate) fn reference(name: &str, dialect: Dialect) -> Value {
    json!({"$ref": format!("{}{name}", dialect.prefix())})
}

/// The schemas of the types and of all that they refer to.
pub(crate) fn closure(roots: &BTreeSet<TypeId>, dialect: Dialect) -> Map<String, Value> {
    let mut seen: BTreeSet<TypeId> = roots.clone();
    let mut todo: Vec<TypeId> = roots.iter().copied().collect();
    while let Some(ty) = todo.pop() {
        for field in ty.fields() {
            if let Some(inner) = referred(field.shape.element())
                && seen.insert(inner)
            {
                todo.push(inner);
            }
        }
    }
    let mut out: Map<String, Value> = seen.iter().map(|ty| (ty.full_name(), schema(*ty, dialect))).collect();
    for ty in roots.iter().filter(|ty| ty.field("metadata").is_some()) {
        out.entry(list_name(*ty)).or_insert_with(|| list(*ty, dialect));
    }
    for (name, format) in
        [(TIME, "date-time"), (MICRO_TIME, "date-time"), (QUANTITY, ""), (INT_OR_STRING, "int-or-string")]
    {
        out.entry(name.to_owned()).or_insert_with(|| scalar(format, dialect));
    }
    out
}

fn scalar(format: &str, dialect: Dialect) -> Value {
    match (format, dialect) {
        ("", Dialect::V2) => json!({"type": "string"}),
        ("", Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ("int-or-string", Dialect::V3) => {
            json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
        }
        (format, _) => json!({"type": "string", "format": format}),
    }
}

fn referred(element: Element) -> Option<TypeId> {
    match element {
        Element::Ref(ty) | Element::SchemaOrArray(ty) | Element::SchemaOrBool(ty) | Element::SchemaOrStrings(ty) => {
            Some(ty)
        }
        _ => None,
    }
}

fn schema(ty: TypeId, dialect: Dialect) -> Value {
    let mut out = Map::new();
    let properties: Map<String, Value> =
        ty.fields().iter().map(|f| (f.name.to_owned(), property(f, dialect))).collect();
    out.insert("type".into(), "object".into());
    if !properties.is_empty() {
        out.insert("properties".into(), properties.into());
    }
    let required: Vec<Value> = ty.required().map(|f| f.name.into()).collect();
    if !required.is_empty() {
        out.insert("required".into(), required.into());
    }
    // A type that is the body of any kind (DeleteOptions) isn't one kind's own.
    let kinds: Vec<Value> = ty
        .gvks()
        .iter()
        .filter(|[group, _, _]| *group != "*")
        .map(|[group, version, kind]| json!({"group": group, "version": version, "kind": kind}))
        .collect();
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".into(), kinds.into());
    }
    out.into()
}

fn list(ty: TypeId, dialect: Dialect) -> Value {
    let kinds: Vec<Value> = ty
        .gvks()
        .iter()
        .map(|[group, version, kind]| json!({"group": group, "version": version, "kind": format!("{kind}List")}))
        .collect();
    json!({"type": "object", "required": ["items"], "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "items": {"type": "array", "items": reference(&ty.full_name(), dialect)}},
        "x-kubernetes-group-version-kind": kinds})
}

fn property(field: &Field, dialect: Dialect) -> Value {
    let mut schema = match field.shape {
        Shape::One(element) => one(element, dialect),
        Shape::List(element) => json!({"type": "array", "items": one(element, dialect)}),
        Shape::Map(element) => json!({"type": "object", "additionalProperties": one(element, dialect)}),
    };
    let extensions = extensions(field);
    if extensions.is_empty() {
        return schema;
    }
    // Siblings of a $ref are ignored in v3: the reference goes into an allOf.
    if dialect == Dialect::V3 && schema.get("$ref").is_some() {
        schema = json!({"allOf": [schema]});
    }
    if let Some(map) = schema.as_object_mut() {
        map.extend(extensions);
    }
    schema
}

fn extensions(field: &Field) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(list_type) = field.list_type {
        let name = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        out.insert("x-kubernetes-list-type".into(), name.into());
    }
    if !field.list_map_keys.is_empty() {
        out.insert("x-kubernetes-list-map-keys".into(), json!(field.list_map_keys));
    }
    if field.map_atomic {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    let strategy = field.patch_strategy;
    let strategies: Vec<&str> =
        [(strategy.merge, "merge"), (strategy.replace, "replace"), (strategy.retain_keys, "retainKeys")]
            .into_iter()
            .filter_map(|(set, name)| set.then_some(name))
            .collect();
    if !strategies.is_empty() {
        out.insert("x-kubernetes-patch-strategy".into(), strategies.join(",").into());
    }
    if let Some(key) = field.patch_merge_key {
        out.insert("x-kubernetes-patch-merge-key".into(), key.into());
    }
    out
}

fn one(element: Element, dialect: Dialect) -> Value {
    match element {
        Element::String => json!({"type": "string"}),
        Element::Bool => json!({"type": "boolean"}),
        Element::Int32 => json!({"type": "integer", "format": "int32"}),
        Element::Int64 => json!({"type": "integer", "format": "int64"}),
        Element::Double => json!({"type": "number", "format": "double"}),
        Element::Bytes => json!({"type": "string", "format": "byte"}),
        Element::Duration => json!({"type": "string"}),
        Element::Quantity => reference(QUANTITY, dialect),
        Element::Time => reference(TIME, dialect),
        Element::MicroTime => reference(MICRO_TIME, dialect),
        Element::IntOrString => reference(INT_OR_STRING, dialect),
        Element::Raw | Element::FieldsV1 => json!({"type": "object"}),
        Element::Json | Element::SchemaOrArray(_) | Element::SchemaOrBool(_) | Element::SchemaOrStrings(_) => json!({}),
        Element::StringList => json!({"type": "array", "items": {"type": "string"}}),
        Element::Ref(ty) => reference(&ty.full_name(), dialect),
    }
}
