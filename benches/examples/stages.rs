//! What a put passes between network and disk, a stage a run, for counting instructions.
//!
//! `stages` names the stages and how many operations each does, `stages NAME` does one: the same work in every run. What
//! counts is what happens inside `measured`; all else prepares it. No clock, no threads, no hash of a random seed, and the
//! system's allocator, because others give memory back by the clock. `cargo xtask instructions` runs it under valgrind.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, Message, MessageType};
use store_core::errors::RequestError;
use store_core::mvcc::{Change, Mvcc, Revision, Values};
use store_core::peers::Frame;
use store_core::wal::{Damage, Segments, Wal};
use store_core::watch::{Ring, Told};
use store_core::wire::command::Request;
use store_core::wire::{Command, KeyValue, PutRequest};

const VALUE_BYTES: usize = 1024;
/// As the shell's.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Bytes that a watcher is given at once, as the shell does.
const SLICE_BYTES: usize = 1 << 20;
/// Entries of a flush, and of a message between members.
const BATCH: u64 = 64;
/// Batches of a stage.
const BATCHES: u64 = 16;
/// Operations of the other stages.
const OPERATIONS: u64 = BATCH * BATCHES;
/// Keys that are there.
const KEYS: u64 = 10_000;
/// Watchers that look at each change.
const WATCHERS: u64 = 100;
/// Changes that they look at.
const CHANGES: u64 = 100;

/// A stage's work, prepared.
type Work = Box<dyn FnMut()>;

/// A stage: its name, its operations, and what prepares it.
type Stage = (&'static str, u64, fn() -> Work);

const STAGES: [Stage; 11] = [
    ("command-encode", OPERATIONS, command_encode),
    ("command-decode", OPERATIONS, command_decode),
    ("frame-encode", OPERATIONS, frame_encode),
    ("frame-decode", OPERATIONS, frame_decode),
    ("log-append", OPERATIONS, log_append),
    ("log-read", OPERATIONS, log_read),
    ("apply-create", OPERATIONS, apply_create),
    ("apply-overwrite", OPERATIONS, apply_overwrite),
    ("watch-push", OPERATIONS, watch_push),
    ("watch-wants-all", WATCHERS * CHANGES, watch_wants_all),
    ("watch-wants-one", WATCHERS * CHANGES, watch_wants_one),
];

/// What is counted.
#[inline(never)]
fn measured(work: &mut Work) {
    work();
    // Something follows, so that this function isn't left before its work is done.
    black_box(());
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        STAGES.iter().for_each(|(name, operations, _)| println!("{name} {operations}"));
        return ExitCode::SUCCESS;
    };
    let Some((.., prepare)) = STAGES.iter().find(|stage| stage.0 == name) else {
        eprintln!("there is no stage {name}");
        return ExitCode::FAILURE;
    };
    measured(&mut prepare());
    ExitCode::SUCCESS
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/default/{number:09}"))
}

fn value() -> Bytes {
    vec![7; VALUE_BYTES].into()
}

fn command(number: u64) -> Command {
    let put = PutRequest { key: key(number), value: value(), ..PutRequest::default() };
    Command { request_id: number, request: Some(Request::Put(put)), ..Command::default() }
}

fn commands(numbers: impl Iterator<Item = u64>) -> Vec<Command> {
    numbers.map(command).collect()
}

fn command_encode() -> Work {
    let commands = commands(0..OPERATIONS);
    Box::new(move || commands.iter().for_each(|command| drop(black_box(command.encode_to_vec()))))
}

fn command_decode() -> Work {
    let encoded: Vec<Bytes> = commands(0..OPERATIONS).iter().map(|command| command.encode_to_vec().into()).collect();
    Box::new(move || encoded.iter().for_each(|bytes| drop(black_box(Command::decode(bytes.clone())))))
}

fn entries(first: u64) -> Vec<Entry> {
    let entry = |index| {
        let data = Bytes::from(command(index).encode_to_vec());
        Entry { index, term: 1, data, ..Entry::default() }
    };
    (first..first + BATCH).map(entry).collect()
}

/// The batches of a stage, in the order of the log.
fn batches() -> Vec<Vec<Entry>> {
    (0..BATCHES).map(|batch| entries(1 + batch * BATCH)).collect()
}

fn frames() -> Vec<Frame> {
    let message = |entries: Vec<Entry>| {
        let mut message = Message { entries: entries.into(), from: 1, to: 2, term: 1, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        Frame::Raft(Box::new(message))
    };
    batches().into_iter().map(message).collect()
}

fn frame_encode() -> Work {
    let frames = frames();
    Box::new(move || frames.iter().for_each(|frame| drop(black_box(frame.encode()))))
}

fn frame_decode() -> Work {
    let encoded: Vec<Bytes> = frames().iter().map(|frame| frame.encode().expect("small").into()).collect();
    Box::new(move || encoded.iter().for_each(|bytes| drop(black_box(Frame::decode(bytes)))))
}

/// Segments in memory, which are kept or forgotten.
#[derive(Default, Clone)]
struct Memory {
    keep: bool,
    kept: BTreeMap<u64, Vec<u8>>,
}

impl Segments for Memory {
    type Error = String;

    fn numbers(&mut self) -> Result<Vec<u64>, String> {
        Ok(self.kept.keys().copied().collect())
    }

    fn read(&mut self, number: u64) -> Result<Vec<u8>, String> {
        self.kept.get(&number).cloned().ok_or_else(|| format!("no segment {number}"))
    }

    fn cut(&mut self, number: u64, _: usize) -> Result<(), String> {
        Err(format!("segment {number} is torn"))
    }

    fn create(&mut self, number: u64) -> Result<(), String> {
        if self.keep {
            self.kept.insert(number, Vec::new());
        }
        Ok(())
    }

    fn append(&mut self, header: &[u8], content: &[u8]) -> Result<(), String> {
        black_box((header, content));
        if let Some(mut segment) = self.kept.last_entry() {
            segment.get_mut().extend_from_slice(header);
            segment.get_mut().extend_from_slice(content);
        }
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Result<(), String> {
        self.kept.remove(&number);
        Ok(())
    }

    fn damaged(&self, damage: Damage) -> String {
        damage.why.to_owned()
    }
}

fn open(segments: Memory) -> Wal<Memory> {
    let (log, _) = Wal::open(segments, SEGMENT_BYTES, (0, 0), ConfState::default()).expect("the log opens");
    log
}

fn append(log: &mut Wal<Memory>, batches: &[Vec<Entry>]) {
    for batch in batches {
        log.push(batch, None);
        log.flush(true).expect("memory takes all");
    }
}

fn log_append() -> Work {
    let (mut log, batches) = (open(Memory::default()), batches());
    Box::new(move || append(&mut log, &batches))
}

fn log_read() -> Work {
    let mut log = open(Memory { keep: true, ..Memory::default() });
    append(&mut log, &batches());
    let mut segments = Some(log.into_segments());
    Box::new(move || drop(black_box(segments.take().map(open))))
}

/// A plain put reads no value.
struct NoValues;

impl Values for NoValues {
    fn value(&self, _: Revision) -> Result<Bytes, RequestError> {
        Err(RequestError::Disk)
    }
}

fn apply_all(mvcc: &mut Mvcc, commands: &[Command]) {
    for command in commands {
        let (writes, answer) = mvcc.apply(command, &NoValues);
        assert!(answer.is_ok(), "a plain put is never refused");
        black_box(writes);
    }
}

fn apply(numbers: impl Iterator<Item = u64>) -> Work {
    let mut mvcc = Mvcc::new();
    apply_all(&mut mvcc, &commands(0..KEYS));
    let commands = commands(numbers);
    Box::new(move || apply_all(&mut mvcc, &commands))
}

fn apply_create() -> Work {
    apply(KEYS..KEYS + OPERATIONS)
}

fn apply_overwrite() -> Work {
    // A fixed sequence that visits keys in no order.
    apply((0..OPERATIONS).map(|n| n * 2_654_435_761 % KEYS))
}

fn change(main: u64) -> Change {
    let main = main as i64;
    let kv = KeyValue { key: key(main as u64), value: value(), version: 2, mod_revision: main, ..KeyValue::default() };
    Change { at: Revision { main, sub: 0 }, kv }
}

fn tell(ring: &mut Ring, changes: Vec<Change>) {
    for change in changes {
        let told = Arc::new(Told::new(change, ring.kept()));
        ring.push(vec![told]);
    }
}

fn watch_push() -> Work {
    let (mut ring, mut changes) = (Ring::new(0), (1..=OPERATIONS).map(change).collect());
    Box::new(move || tell(&mut ring, std::mem::take(&mut changes)))
}

fn watch(wanted: impl Fn(&[u8]) -> bool + 'static) -> Work {
    let mut ring = Ring::new(0);
    tell(&mut ring, (1..=CHANGES).map(change).collect());
    Box::new(move || {
        for _ in 0..WATCHERS {
            black_box(ring.slice(1, CHANGES as i64, SLICE_BYTES, |key, _| wanted(key)));
        }
    })
}

fn watch_wants_all() -> Work {
    watch(|key| key.starts_with(b"/registry/"))
}

fn watch_wants_one() -> Work {
    let only = key(50);
    watch(move |key| key == only)
}
