//! Entries of the log, as peers send them: commands that a member applies.
#![no_main]

use fuzz::same;
use libfuzzer_sys::fuzz_target;
use protobuf::Message as _;
use raft::eraftpb::Entry;
use store_core::machine;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::parse_from_bytes(bytes) else { return };
    let read = |entry: &Entry| machine::command(entry).map(|command| format!("{command:?}")).ok();
    let written = entry.write_to_bytes().expect("it came in fewer bytes");
    let again = Entry::parse_from_bytes(&written).expect("what was written is read");
    same(&read(&again), &read(&entry), "an entry's command");
});
