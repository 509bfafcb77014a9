//! Backups, as a disk gives them back, and snapshots on their way between members.
#![no_main]

use std::convert::Infallible;

use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use store_core::backup::{Files, Outline, ReadError, read};
use store_core::transfer::{Arrived, CHUNK_BYTES_MAX, END, Incoming, TransferFault, length, sum};
use store_core::wire::BackupHeader;

const HASH_BYTES: usize = 32;

/// Files in memory.
#[derive(Debug, Clone, Default, PartialEq)]
struct Memory(Vec<(String, Vec<u8>)>);

impl Files for Memory {
    type Error = Infallible;

    fn create(&mut self, name: &str) -> Result<(), Infallible> {
        self.0.push((name.to_owned(), Vec::new()));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.last_mut().expect("one is open").1.extend(bytes);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

type Whole = (BackupHeader, Memory);

fn opened(bytes: &[u8]) -> Result<Whole, ReadError<Infallible>> {
    let mut files = Memory::default();
    read(bytes, &mut files).map(|header| (header, files))
}

fn written((header, files): &Whole) -> Vec<u8> {
    let sizes = files.0.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
    let outline = Outline::new(header, sizes);
    let (mut bytes, mut next) = (Vec::new(), files.0.iter());
    outline.write(&mut bytes, |_| Ok(next.next().expect("as many as it was made of").1.as_slice())).expect("room");
    assert_eq!(bytes.len() as u64, outline.size());
    bytes
}

/// Files as a script says: a byte is how long a name is, another how long the content.
fn files(mut script: &[u8]) -> Memory {
    let mut files = Memory::default();
    while let Some(([name, size], rest)) = script.split_first_chunk::<2>() {
        let (content, rest) = rest.split_at(usize::from(*size).min(rest.len()));
        let name = format!("{}{}", "0".repeat(usize::from(name % 16)), files.0.len());
        files.0.push((name, content.to_vec()));
        script = rest;
    }
    files
}

/// Whatever stands in it, with checksums that fit or not: what is read is written and read as the same.
fn any(bytes: &[u8]) {
    let mut bytes = [b"KEELSON SNAPSHOT 1\n", bytes].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    sealed(bytes);
}

fn sealed(mut bytes: Vec<u8>) {
    let hash = Sha256::digest(&bytes);
    bytes.extend(hash);
    let Ok(whole) = opened(&bytes) else { return };
    let again = written(&whole);
    // All but the header has one form.
    if bytes[19..].starts_with(&again[19..23 + whole.0.encoded_len()]) {
        assert_eq!(again, bytes, "{whole:?}");
    }
    same(&opened(&again).ok().as_ref(), &Some(&whole), "a backup written again");
}

/// One that was written: flipped or cut it is refused; with a checksum that fits what was flipped, it is read as
/// what it says.
fn harmed(which: usize, place: [u8; 3], script: &[u8]) {
    let header = BackupHeader { cluster_id: 7, revision: i64::from(place[2]), ..BackupHeader::default() };
    let whole = (header, files(script));
    let mut bytes = written(&whole);
    same(&opened(&bytes).ok().as_ref(), &Some(&whole), "a backup");
    let at = (usize::from(place[0]) << 8 | usize::from(place[1])) % bytes.len();
    match which % 3 {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << (place[2] % 8),
        _ => {
            bytes.truncate(bytes.len() - HASH_BYTES);
            let at = at % bytes.len();
            bytes[at] ^= 1 << (place[2] % 8);
            return sealed(bytes);
        }
    }
    assert!(opened(&bytes).is_err(), "harmed at {at}, and read");
}

/// What arrives of bytes, and how many of them were taken.
fn arrived(bytes: &[u8]) -> (Vec<Arrived>, usize, Option<TransferFault>) {
    let (mut incoming, mut all, mut at) = (Incoming::default(), Vec::new(), 0);
    while incoming.wants() > 0 {
        assert!(incoming.wants() <= CHUNK_BYTES_MAX + 4, "{} bytes are wanted at once", incoming.wants());
        let Some(now) = bytes.get(at..at + incoming.wants()) else { break };
        match incoming.handle(now.to_vec()) {
            Ok(one) => all.extend(one),
            Err(fault) => return (all, at, Some(fault)),
        }
        at += now.len();
    }
    (all, at, None)
}

fn sent(all: &[Arrived]) -> Vec<u8> {
    let one = |one: &Arrived| match one {
        Arrived::File(name) => [&length(name.as_bytes())[..], name.as_bytes()].concat(),
        Arrived::Chunk(chunk) => [&length(chunk)[..], chunk, &sum(chunk)].concat(),
        Arrived::FileEnd | Arrived::End => END.to_vec(),
    };
    all.iter().flat_map(one).collect()
}

/// A snapshot on its way: what arrived is sent as the same bytes, and a chunk that was flipped doesn't arrive.
fn transfer(bytes: &[u8]) {
    let (all, taken, fault) = arrived(bytes);
    let again = sent(&all);
    assert!(bytes[..taken].starts_with(&again), "{all:?}");
    if fault.is_none() && all.last() == Some(&Arrived::End) {
        same(&again.len(), &taken, "a copy sent on");
    }
}

/// A copy as it is sent, harmed in a chunk.
fn harmed_transfer(place: [u8; 3], script: &[u8]) {
    let mut all = Vec::new();
    for (name, content) in files(script).0 {
        all.push(Arrived::File(name));
        all.extend(content.chunks(100).map(|chunk| Arrived::Chunk(chunk.to_vec())));
        all.push(Arrived::FileEnd);
    }
    all.push(Arrived::End);
    let mut bytes = sent(&all);
    same(&arrived(&bytes), &(all.clone(), bytes.len(), None), "a copy");
    let chunks: Vec<usize> = (0..all.len()).filter(|at| matches!(all[*at], Arrived::Chunk(_))).collect();
    let Some(at) = chunks.get(usize::from(place[0]) % chunks.len().max(1)) else { return };
    let (begin, end) = (sent(&all[..*at]).len() + 4, sent(&all[..=*at]).len());
    bytes[begin + usize::from(place[1]) % (end - begin)] ^= 1 << (place[2] % 8);
    same(&arrived(&bytes).2, &Some(TransferFault::Damaged), "a chunk that was flipped");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    match which % 4 {
        0 => any(rest),
        1 => transfer(rest),
        way => {
            let Some((place, script)) = rest.split_first_chunk::<3>() else { return };
            if way == 2 { harmed(which / 4, *place, script) } else { harmed_transfer(*place, script) }
        }
    }
});
