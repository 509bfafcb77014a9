//! Commands of the log: whatever a client may ask for is applied without a panic, and alike by every member.
#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use fuzz::same;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use store_core::errors::RequestError;
use store_core::machine::Machine;
use store_core::mvcc::{Answer, Revision, Values, check};
use store_core::wire::Command;

/// As many operations as a transaction may have by default.
const TXN_OPS_MAX: usize = 128;

#[derive(Default)]
struct Disk(BTreeMap<Revision, Bytes>);

impl Values for Disk {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        self.0.get(&at).cloned().ok_or(RequestError::Disk)
    }
}

fn run(commands: &[Command]) -> (Machine, Vec<Result<Answer, RequestError>>) {
    let (mut machine, mut disk, mut answers) = (Machine::default(), Disk::default(), Vec::new());
    for (command, index) in commands.iter().zip(1..) {
        let (writes, answer) = machine.apply(index, command, &disk);
        assert!(answer != Err(RequestError::Disk), "a value that is needed isn't there: {command:?}");
        for change in writes.changes.iter().filter(|change| change.kv.version > 0) {
            disk.0.insert(change.at, change.kv.value.clone());
        }
        answers.push(answer);
    }
    (machine, answers)
}

fuzz_target!(|bytes: &[u8]| {
    let (mut rest, mut commands) = (bytes, Vec::new());
    while let Ok(command) = Command::decode_length_delimited(&mut rest) {
        if command.request.as_ref().is_some_and(|request| check::request(request, TXN_OPS_MAX).is_ok()) {
            commands.push(command);
        }
    }
    same(&run(&commands), &run(&commands), "two members");
});
