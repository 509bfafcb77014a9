//! Counting and paging through many keys, as kube-apiserver lists: 500 at a time with the number of all.
//!
//! Limit: a page reads 500 keys that lie beside each other, ≈ 50 ns each with their copies; counting a million keys adds
//! up ≈ 10,000 numbers, a few microseconds, where a walk over the keys would take tens of milliseconds.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use store_core::errors::RequestError;
use store_core::mvcc::{Mvcc, Revision, Values};
use store_core::wire::command::Request;
use store_core::wire::{Command, PutRequest, RangeRequest};

const KEYS: u32 = 1_000_000;
/// Writes after the revision that the later pages of a list are of.
const LATER: u32 = 1_000;

/// Reading values isn't what is measured.
struct Empty;

impl Values for Empty {
    fn value(&self, _: Revision) -> Result<Bytes, RequestError> {
        Ok(Bytes::new())
    }
}

fn put(mvcc: &mut Mvcc, number: u32) {
    let key = Bytes::from(format!("/registry/pods/default/{number:09}"));
    let put = PutRequest { key, ..PutRequest::default() };
    let command = Command { request: Some(Request::Put(put)), ..Command::default() };
    assert!(mvcc.apply(&command, &Empty).1.is_ok(), "a plain put is never refused");
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0u64) << 10
}

fn store_index(criterion: &mut Criterion) {
    let (before, mut mvcc) = (resident(), Mvcc::new());
    for number in 0..KEYS {
        // All of them, in no order.
        put(&mut mvcc, (u64::from(number) * 2_654_435_761 % u64::from(KEYS)) as u32);
    }
    println!("{} bytes a key, with its 32 bytes", (resident() - before) / u64::from(KEYS));
    let pinned = mvcc.revision();
    for number in 0..LATER {
        put(&mut mvcc, number * (KEYS / LATER));
    }
    let all = RangeRequest { key: "/registry/".into(), range_end: "/registry0".into(), ..RangeRequest::default() };
    let page = RangeRequest { limit: 500, ..all.clone() };
    let requests = [
        ("count", RangeRequest { count_only: true, ..all.clone() }),
        ("count_at", RangeRequest { count_only: true, revision: pinned, ..all }),
        ("page", page.clone()),
        ("page_at", RangeRequest { revision: pinned, ..page }),
    ];
    let mut group = criterion.benchmark_group("store_index");
    group.sample_size(10);
    for (name, request) in requests {
        group.bench_function(format!("{name}/{KEYS}"), |bencher| {
            bencher.iter(|| {
                let answer = mvcc.range(black_box(&request), &Empty);
                assert!(answer.is_ok_and(|answer| answer.count == i64::from(KEYS)), "all keys are there");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, store_index);
criterion_main!(benches);
