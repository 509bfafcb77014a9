//! What a put passes between network and disk, each stage alone: encoding, the log, watchers.
//!
//! Limits, of values of 1 KiB. Encoding copies what it encodes: ≈ 0.1 µs a KiB from a cache, and an allocation or two;
//! decoding a command from shared bytes copies nothing. The log encodes and checksums each entry (CRC-32 at ≈ 10 GB/s:
//! 0.1 µs), so that beside a sync (0.2–0.5 ms) a hundred entries of a flush cost a tenth of it. A watcher should take ≈ 10 ns
//! for an event that it looks at and as much again, a counter's increment, for one that it wants.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry};
use store_core::mvcc::{Change, Revision};
use store_core::wal::{Damage, Segments, Wal};
use store_core::watch::{Ring, Told};
use store_core::wire::command::Request;
use store_core::wire::{Command, KeyValue, PutRequest};

const VALUE_BYTES: usize = 1024;
/// As the shell's.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Bytes that a watcher is given at once, as the shell does.
const SLICE_BYTES: usize = 1 << 20;
/// Changes that watchers look at.
const CHANGES: i64 = 100;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/default/{number:09}"))
}

fn command(number: u64) -> Command {
    let put = PutRequest { key: key(number), value: vec![7; VALUE_BYTES].into(), ..PutRequest::default() };
    Command { request_id: number, request: Some(Request::Put(put)), ..Command::default() }
}

/// Segments in memory that is forgotten, or in a folder with a sync for each frame.
#[derive(Default)]
struct Sink {
    dir: Option<PathBuf>,
    open: Option<File>,
}

impl Sink {
    fn path(&self, number: u64) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(number.to_string()))
    }
}

impl Segments for Sink {
    type Error = std::io::Error;

    fn numbers(&mut self) -> Result<Vec<u64>, Self::Error> {
        Ok(Vec::new())
    }

    fn read(&mut self, _: u64) -> Result<Vec<u8>, Self::Error> {
        Ok(Vec::new())
    }

    fn cut(&mut self, _: u64, _: usize) -> Result<(), Self::Error> {
        Ok(())
    }

    fn create(&mut self, number: u64) -> Result<(), Self::Error> {
        if let Some(path) = self.path(number) {
            self.open = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        Ok(())
    }

    fn append(&mut self, header: &[u8], content: &[u8]) -> Result<(), Self::Error> {
        let Some(file) = &mut self.open else {
            black_box((header, content));
            return Ok(());
        };
        file.write_all(header)?;
        file.write_all(content)?;
        file.sync_data()
    }

    fn remove(&mut self, number: u64) -> Result<(), Self::Error> {
        self.path(number).map_or(Ok(()), std::fs::remove_file)
    }

    fn damaged(&self, damage: Damage) -> Self::Error {
        std::io::Error::other(damage.why)
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store_codec");
    let command = command(1);
    let encoded = Bytes::from(command.encode_to_vec());
    let entry = Entry { index: 1, term: 1, data: encoded.clone(), ..Entry::default() };
    let entry_bytes = protobuf::Message::write_to_bytes(&entry).unwrap_or_default();
    group.throughput(Throughput::Bytes(VALUE_BYTES as u64));
    group.bench_function("command_encode", |bencher| bencher.iter(|| black_box(&command).encode_to_vec()));
    group.bench_function("command_decode", |bencher| bencher.iter(|| Command::decode(black_box(encoded.clone()))));
    group.bench_function("entry_encode", |bencher| {
        bencher.iter(|| protobuf::Message::write_to_bytes(black_box(&entry)));
    });
    group.bench_function("entry_decode", |bencher| {
        bencher.iter(|| <Entry as protobuf::Message>::parse_from_bytes(black_box(&entry_bytes)));
    });
    group.finish();
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store_log");
    let dir = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("store_stages_log")));
    // Beside the program: folders for temporary files are often in memory, where a sync costs nothing.
    let dir = dir.unwrap_or_else(|| PathBuf::from("store_stages_log"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("what an earlier run left is removed");
    }
    std::fs::create_dir_all(&dir).expect("a folder for the log");
    for (place, dir) in [("memory", None), ("synced", Some(dir.clone()))] {
        for entries in [1, 64, 256] {
            let sink = Sink { dir: dir.clone(), open: None };
            let opened = Wal::open(sink, SEGMENT_BYTES, (0, 0), ConfState::default());
            let (mut wal, _) = opened.expect("a new log opens");
            let data = Bytes::from(command(1).encode_to_vec());
            let mut index = 0;
            group.throughput(Throughput::Elements(entries));
            group.bench_function(format!("{place}/{entries}"), |bencher| {
                bencher.iter(|| {
                    let next = |_| {
                        index += 1;
                        Entry { index, term: 1, data: data.clone(), ..Entry::default() }
                    };
                    let batch: Vec<Entry> = (0..entries).map(next).collect();
                    wal.push(&batch, None);
                    wal.flush(true).expect("written");
                    // What is applied is let go, so that the disk doesn't fill.
                    wal.release(index).expect("released");
                });
            });
        }
    }
    group.finish();
    std::fs::remove_dir_all(&dir).expect("the folder is removed");
}

fn change(main: i64) -> Change {
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    let kv = KeyValue { key: key(main as u64), value, version: 2, mod_revision: main, ..KeyValue::default() };
    Change { at: Revision { main, sub: 0 }, kv }
}

fn watch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store_watch");
    let mut ring = Ring::new(0);
    group.throughput(Throughput::Elements(1));
    let one = change(1);
    group.bench_function("encode_event", |bencher| bencher.iter(|| Told::new(black_box(one.clone()), ring.kept())));
    for main in 1..=CHANGES {
        let told = Arc::new(Told::new(change(main), ring.kept()));
        ring.push(vec![told]);
    }
    // The first is the smoke size. Each watcher looks at every change; it wants all of them, or one in a hundred.
    for watchers in [1, 1_000] {
        group.throughput(Throughput::Elements(watchers * CHANGES as u64));
        group.bench_function(format!("wants_all/{watchers}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..watchers {
                    black_box(ring.slice(1, CHANGES, SLICE_BYTES, |key, _| key.starts_with(b"/registry/")));
                }
            });
        });
        let only = key(50);
        group.bench_function(format!("wants_one/{watchers}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..watchers {
                    black_box(ring.slice(1, CHANGES, SLICE_BYTES, |key, _| key == only));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, codec, log, watch);
criterion_main!(benches);
