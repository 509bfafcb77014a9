//! Applying committed puts: what the state thread does between two writes to RocksDB.
//!
//! Limit: a put makes one revision. It copies no value (`Bytes` is shared), looks the key up
//! twice in the index and adds one `Version` of 40 bytes: some 17 comparisons of 32-byte
//! keys at 100,000 keys, each likely a cache miss of ≈ 80 ns, so ≈ 2–3 µs a put. Three members
//! on one machine commit ≈ 10,000 puts a second, so that applying takes 2–3 % of a core.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use store_core::errors::RequestError;
use store_core::mvcc::{Mvcc, Revision, Values};
use store_core::wire::command::Request;
use store_core::wire::{Command, PutRequest};

const VALUE_BYTES: usize = 1024;
/// Puts in one measured round.
const PUTS: u32 = 1_000;

/// A plain put reads no value.
struct NoValues;

impl Values for NoValues {
    fn value(&self, _: Revision) -> Result<Bytes, RequestError> {
        Err(RequestError::Disk)
    }
}

fn put(number: u32, value: &Bytes) -> Command {
    let key = Bytes::from(format!("/registry/pods/default/{number:09}"));
    let put = PutRequest { key, value: value.clone(), ..PutRequest::default() };
    Command { request_id: u64::from(number), request: Some(Request::Put(put)), ..Command::default() }
}

/// The `n`th of a fixed sequence that visits all keys in no order.
fn scattered(n: u32, keys: u32) -> u32 {
    (u64::from(n) * 2_654_435_761 % u64::from(keys)) as u32
}

fn filled(keys: u32, value: &Bytes) -> Mvcc {
    let mut mvcc = Mvcc::new();
    for number in 0..keys {
        let (_, answer) = mvcc.apply(&put(number, value), &NoValues);
        assert!(answer.is_ok(), "a plain put is never refused");
    }
    mvcc
}

fn apply_all(mvcc: &mut Mvcc, commands: &[Command]) {
    for command in commands {
        let (writes, answer) = mvcc.apply(command, &NoValues);
        assert!(answer.is_ok(), "a plain put is never refused");
        black_box(writes);
    }
}

fn store_apply(criterion: &mut Criterion) {
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    let mut group = criterion.benchmark_group("store_apply");
    group.throughput(Throughput::Elements(u64::from(PUTS)));
    group.sample_size(20);
    // The first is the smoke size.
    for keys in [1_000, 100_000] {
        let full = filled(keys, &value);
        let overwrites: Vec<Command> = (0..PUTS).map(|n| put(scattered(n, keys), &value)).collect();
        group.bench_function(format!("overwrite/{keys}"), |bencher| {
            // The clone is outside of what is measured.
            bencher.iter_batched_ref(|| full.clone(), |mvcc| apply_all(mvcc, &overwrites), BatchSize::LargeInput);
        });
        let new: Vec<Command> = (0..PUTS).map(|n| put(keys + n, &value)).collect();
        group.bench_function(format!("create/{keys}"), |bencher| {
            bencher.iter_batched_ref(|| full.clone(), |mvcc| apply_all(mvcc, &new), BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, store_apply);
criterion_main!(benches);
