//! JSON to protobuf and back, by the schema table: what a list or a watch in protobuf costs.
//!
//! The pod is the golden one of Kubernetes 1.36: every field filled, 1,586 values in 59 KB of
//! indented JSON (31 KB without spaces, 13 KB in protobuf), six times an ordinary pod. It is its own smoke size.
//!
//! Limit: a tree of `serde_json` values takes an allocation for each key, one for most values, and a
//! hashed place in a map that keeps order: ≈ 200–400 ns a value, so 0.3–0.6 ms for this one. JSON to
//! protobuf parses first and can't be faster than that; the way back builds the same tree, from less to read.

use std::hint::black_box;
use std::io::Read as _;

use api::protobuf;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;

const GOLDEN: &[u8] = include_bytes!("../../api/tests/golden/kubernetes-1.36.tar.gz");

/// The file of the archive with this name.
fn golden(name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(GOLDEN));
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        if entry.path().expect("a path").file_name().is_some_and(|n| n == name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("bytes");
            return bytes;
        }
    }
    panic!("the archive holds no {name}")
}

fn transcoding(criterion: &mut Criterion) {
    let json = golden("core.v1.Pod.json");
    let pb = golden("core.v1.Pod.pb");
    let object: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(protobuf::encode_object(&object).expect("a known kind"), pb, "what is measured is right");

    let mut group = criterion.benchmark_group("transcoding");
    group.throughput(Throughput::Bytes(json.len() as u64));
    group.bench_function("json_parse", |b| {
        b.iter(|| serde_json::from_slice::<Value>(black_box(&json)).expect("JSON"));
    });
    group.bench_function("json_to_protobuf", |b| {
        b.iter(|| {
            let object: Value = serde_json::from_slice(black_box(&json)).expect("JSON");
            protobuf::encode_object(&object).expect("a known kind")
        });
    });
    group.bench_function("protobuf_to_json", |b| {
        b.iter(|| {
            let object = protobuf::decode_object(black_box(&pb)).expect("a known kind");
            serde_json::to_vec(&object).expect("JSON")
        });
    });
    group.finish();
}

criterion_group!(benches, transcoding);
criterion_main!(benches);
