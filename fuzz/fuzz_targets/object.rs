//! Objects as JSON or YAML: what is decoded is decoded again to the same, and a second time without a warning.
#![no_main]

use api::decode::{Validation, json, yaml};
use api::gvk::GroupVersionKind;
use api::schema::{TypeId, kind_type};
use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;

/// The type that an object names, or else that a number names.
fn type_of(bytes: &[u8], number: usize) -> Option<TypeId> {
    let named = json(bytes, None, Validation::Ignore).ok().and_then(|decoded| {
        let kind = GroupVersionKind::of(&decoded.object);
        kind_type(&kind.group, &kind.version, &kind.kind)
    });
    named.or_else(|| TypeId::all().nth(number * 8 % api::schema::type_count()))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    let ty = type_of(rest, which);
    let decode = if which == usize::from(b'y') { yaml } else { json };
    let Ok(decoded) = decode(rest, ty, Validation::Warn) else { return };
    let text = serde_json::to_vec(&decoded.object).expect("a tree has a text");
    let again = json(&text, ty, Validation::Strict).expect("what was decoded is an object");
    same(&again.object, &decoded.object, "an object");
});
