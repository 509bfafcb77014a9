//! Reads the embedded table.
//!
//! Always holds: the text is the generator's, so a line it cannot read is a broken build and panics
//! on the first use; nothing from outside comes here.

use std::collections::HashMap;

use super::{Element, Field, ListType, PatchStrategy, Shape, Table, Type, TypeId, Wire};

struct Raw {
    field: Field,
    embedded: bool,
}

pub(super) fn table(text: &'static str) -> Table {
    let mut packages: Vec<&'static str> = Vec::new();
    let mut types: Vec<Type> = Vec::new();
    let mut by_name = HashMap::new();
    // Types refer forward, so all are named before any field is read.
    for line in text.lines() {
        if let Some(package) = line.strip_prefix("P ") {
            packages.push(package);
        } else if let Some(rest) = line.strip_prefix("T ") {
            let (index, name) = rest.split_once(' ').expect("T <package> <name>");
            let package = packages[index.parse::<usize>().expect("a package index")];
            by_name.insert((package, name), id(types.len()));
            types.push(Type { package, name, fields: vec![], by_name: vec![], wire: vec![], gvks: vec![] });
        }
    }
    let mut raws: Vec<Vec<Raw>> = Vec::with_capacity(types.len());
    for line in text.lines() {
        if line.starts_with("T ") {
            raws.push(Vec::new());
        } else if let Some(rest) = line.strip_prefix("G ") {
            let mut parts = rest.split(' ').map(|part| if part == "-" { "" } else { part });
            let gvk = std::array::from_fn(|_| parts.next().expect("G <group> <version> <kind>"));
            types[raws.len() - 1].gvks.push(gvk);
        } else if let Some(rest) = line.strip_prefix(' ') {
            let owner = types[raws.len() - 1].package;
            let raw = field(rest, owner, &packages, &by_name);
            raws.last_mut().expect("a field follows its type").push(raw);
        } else if line.starts_with("R ") {
            break;
        }
    }
    finish(types, &raws, by_name)
}

fn finish(mut types: Vec<Type>, raws: &[Vec<Raw>], by_name: HashMap<(&'static str, &'static str), TypeId>) -> Table {
    let mut by_gvk = HashMap::new();
    for (index, ty) in types.iter_mut().enumerate() {
        ty.fields = flatten(index, raws);
        ty.by_name = (0..ty.fields.len()).map(|at| u16::try_from(at).expect("few fields")).collect();
        ty.by_name.sort_by_key(|at| ty.fields[usize::from(*at)].name);
        let mut wire: Vec<(u32, Wire)> = Vec::new();
        for raw in raws[index].iter().filter(|raw| raw.field.tag != 0) {
            let step = match raw.field.shape {
                Shape::One(Element::Ref(inner)) if raw.embedded => Wire::Embedded(raw.field.tag, inner),
                _ => {
                    let at = ty.fields.iter().position(|field| field.name == raw.field.name);
                    Wire::Field(u16::try_from(at.expect("a field of its own")).expect("few fields"))
                }
            };
            wire.push((raw.field.tag, step));
        }
        wire.sort_by_key(|(tag, _)| *tag);
        ty.wire = wire.into_iter().map(|(_, step)| step).collect();
        for gvk in &ty.gvks {
            by_gvk.insert(*gvk, id(index));
        }
    }
    Table { types, by_name, by_gvk }
}

/// The fields of a type with those of its embedded structs in their places.
fn flatten(index: usize, raws: &[Vec<Raw>]) -> Vec<Field> {
    let mut out = Vec::new();
    for raw in &raws[index] {
        match raw.field.shape {
            Shape::One(Element::Ref(inner)) if raw.embedded => out.extend(flatten(usize::from(inner.0), raws)),
            _ => out.push(raw.field.clone()),
        }
    }
    out
}

fn id(index: usize) -> TypeId {
    TypeId(u16::try_from(index).expect("fewer than 65,536 types"))
}

fn field(
    line: &'static str,
    owner: &'static str,
    packages: &[&'static str],
    by_name: &HashMap<(&'static str, &'static str), TypeId>,
) -> Raw {
    let mut parts = line.split(' ');
    let mut next = || parts.next().expect("<field> <shape> <tag>");
    let (name, shape, tag) = (next(), next(), next().parse().expect("a tag"));
    let read = |text: &'static str| element(text, owner, packages, by_name);
    let shape = match shape.split_at(1) {
        ("[", inner) => Shape::List(read(inner)),
        ("{", inner) => Shape::Map(read(inner)),
        _ => Shape::One(read(shape)),
    };
    let mut raw = Raw {
        field: Field {
            name,
            shape,
            tag,
            required: false,
            list_type: None,
            list_map_keys: Box::new([]),
            map_atomic: false,
            patch_strategy: PatchStrategy::default(),
            patch_merge_key: None,
        },
        embedded: false,
    };
    for attribute in parts {
        apply(attribute, &mut raw);
    }
    raw
}

fn apply(attribute: &'static str, raw: &mut Raw) {
    let (mark, rest) = attribute.split_at(1);
    let (value, key) = rest.split_once(':').unwrap_or((rest, ""));
    match mark {
        "!" => raw.field.required = true,
        "^" => raw.embedded = true,
        "@" => raw.field.map_atomic = true,
        "=" => {
            raw.field.list_type = match value {
                "atomic" => Some(ListType::Atomic),
                "set" => Some(ListType::Set),
                "map" => Some(ListType::Map),
                other => panic!("unknown list type {other}"),
            };
            raw.field.list_map_keys = key.split(',').filter(|key| !key.is_empty()).collect();
        }
        "~" => {
            raw.field.patch_merge_key = (!key.is_empty()).then_some(key);
            for strategy in value.split(',').filter(|strategy| !strategy.is_empty()) {
                match strategy {
                    "merge" => raw.field.patch_strategy.merge = true,
                    "replace" => raw.field.patch_strategy.replace = true,
                    "retainKeys" => raw.field.patch_strategy.retain_keys = true,
                    other => panic!("unknown patch strategy {other}"),
                }
            }
        }
        other => panic!("unknown attribute {other}"),
    }
}

fn element(
    text: &'static str,
    owner: &'static str,
    packages: &[&'static str],
    by_name: &HashMap<(&'static str, &'static str), TypeId>,
) -> Element {
    let schema = || by_name[&(owner, "JSONSchemaProps")];
    match text {
        "s" => Element::String,
        "b" => Element::Bool,
        "i" => Element::Int32,
        "l" => Element::Int64,
        "d" => Element::Double,
        "y" => Element::Bytes,
        "q" => Element::Quantity,
        "t" => Element::Time,
        "m" => Element::MicroTime,
        "u" => Element::Duration,
        "o" => Element::IntOrString,
        "r" => Element::Raw,
        "f" => Element::FieldsV1,
        "j" => Element::Json,
        "w" => Element::StringList,
        "A" => Element::SchemaOrArray(schema()),
        "B" => Element::SchemaOrBool(schema()),
        "C" => Element::SchemaOrStrings(schema()),
        reference => {
            let (package, name) = reference.split_once(':').expect("<package>:<type>");
            let package = packages[package.parse::<usize>().expect("a package index")];
            Element::Ref(by_name[&(package, name)])
        }
    }
}
