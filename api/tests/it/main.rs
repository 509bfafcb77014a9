//! The oracle of decoding and transcoding: every kind of Kubernetes 1.36 with
//! every field filled, as JSON, YAML and protobuf.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use api::decode::{self, Validation};
use api::protobuf;
use api::schema::kind_type;
use serde_json::Value;

const GOLDEN: &[u8] = include_bytes!("../golden/kubernetes-1.36.tar.gz");

/// One kind in its three encodings.
#[derive(Default)]
struct Golden {
    json: Vec<u8>,
    yaml: Vec<u8>,
    pb: Vec<u8>,
}

fn golden() -> BTreeMap<String, Golden> {
    let mut all: BTreeMap<String, Golden> = BTreeMap::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(GOLDEN));
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let (Some(stem), Some(extension)) = (path.file_stem(), path.extension().and_then(|e| e.to_str())) else {
            continue;
        };
        let golden = all.entry(stem.to_string_lossy().into_owned()).or_default();
        let slot = match extension {
            "json" => &mut golden.json,
            "yaml" => &mut golden.yaml,
            "pb" => &mut golden.pb,
            _ => continue,
        };
        entry.read_to_end(slot).expect("bytes");
    }
    all.retain(|name, _| !Path::new(name).as_os_str().is_empty());
    all
}

/// Keys in order, so that trees compare by content.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect::<BTreeMap<_, _>>().into_iter().collect(),
        ),
        Value::Array(list) => list.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    sorted(a) == sorted(b)
}

fn difference(path: &str, a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for (key, inner) in x {
                match y.get(key) {
                    None => return format!("{path}.{key} is missing in the second"),
                    Some(other) if !same(inner, other) => return difference(&format!("{path}.{key}"), inner, other),
                    Some(_) => {}
                }
            }
            y.keys()
                .find(|k| !x.contains_key(*k))
                .map_or(String::new(), |k| format!("{path}.{k} is missing in the first"))
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            let at = x.iter().zip(y).position(|(p, q)| !same(p, q)).unwrap_or(0);
            difference(&format!("{path}[{at}]"), &x[at], &y[at])
        }
        _ => format!("{path}: {a} against {b}"),
    }
}

#[test]
fn every_kind_decodes_alike_and_encodes_byte_for_byte() {
    let all = golden();
    assert_eq!(all.len(), 185);
    let mut faults = Vec::new();
    for (name, golden) in &all {
        if let Err(fault) = check(golden) {
            faults.push(format!("{name}: {fault}"));
        }
    }
    assert!(faults.is_empty(), "{} of {} kinds:\n{}", faults.len(), all.len(), faults.join("\n"));
}

fn check(golden: &Golden) -> Result<(), String> {
    let plain: Value = serde_json::from_slice(&golden.json).map_err(|e| e.to_string())?;
    let text = |field: &str| plain[field].as_str().unwrap_or("").to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api::gvk::split_api_version(&api_version);
    // A WatchEvent names no kind of its own.
    let ty = if kind.is_empty() { kind_type("", "v1", "WatchEvent") } else { kind_type(group, version, &kind) };
    let ty = ty.ok_or_else(|| format!("no type for {api_version} {kind}"))?;
    let from_json = decode::json(&golden.json, Some(ty), Validation::Strict).map_err(|e| format!("json: {e}"))?.object;
    if !same(&from_json, &plain) {
        return Err(format!("json lost something: {}", difference("", &plain, &from_json)));
    }
    let from_yaml = decode::yaml(&golden.yaml, Some(ty), Validation::Strict).map_err(|e| format!("yaml: {e}"))?.object;
    if !same(&from_yaml, &from_json) {
        return Err(format!("yaml and json differ: {}", difference("", &from_json, &from_yaml)));
    }
    let envelope = protobuf::decode_envelope(&golden.pb).map_err(|e| format!("envelope: {e}"))?;
    if (envelope.api_version.as_str(), envelope.kind.as_str()) != (api_version.as_str(), kind.as_str()) {
        return Err(format!("the envelope says {} {}", envelope.api_version, envelope.kind));
    }
    let from_pb = protobuf::decode(ty, envelope.raw).map_err(|e| format!("protobuf: {e}"))?;
    let mut bare = from_json.clone();
    if !kind.is_empty()
        && let Some(map) = bare.as_object_mut()
    {
        map.shift_remove("kind");
        map.shift_remove("apiVersion");
    }
    if !same(&from_pb, &bare) {
        return Err(format!("protobuf and json differ: {}", difference("", &bare, &from_pb)));
    }
    let raw = protobuf::encode(ty, &from_json).map_err(|e| format!("encoding: {e}"))?;
    let encoded = protobuf::encode_envelope(&api_version, &kind, &raw);
    if encoded != golden.pb {
        let at = encoded.iter().zip(&golden.pb).position(|(a, b)| a != b).unwrap_or(encoded.len().min(golden.pb.len()));
        return Err(format!("the encoding differs at byte {at} of {} ({} made)", golden.pb.len(), encoded.len()));
    }
    Ok(())
}
