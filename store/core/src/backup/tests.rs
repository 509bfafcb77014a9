use std::convert::Infallible;

use super::*;

/// Files in memory; of one that is there already a second is made.
#[derive(Debug, Default, PartialEq)]
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

fn header() -> BackupHeader {
    BackupHeader { cluster_id: 7, revision: 12, keys: 3, ..BackupHeader::default() }
}

fn files() -> Memory {
    Memory(vec![("000012.sst".to_owned(), vec![5; 300_000]), ("CURRENT".to_owned(), b"MANIFEST-1".to_vec())])
}

fn written(files: &Memory) -> Vec<u8> {
    let sizes = files.0.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
    let outline = Outline::new(&header(), sizes);
    let find = |name: &str| files.0.iter().find(|(known, _)| known == name).map(|(_, bytes)| bytes.as_slice());
    let mut bytes = Vec::new();
    outline.write(&mut bytes, |name| find(name).ok_or(ErrorKind::NotFound.into())).expect("written");
    assert_eq!(bytes.len() as u64, outline.size());
    bytes
}

/// With a checksum of the whole that fits, whatever it holds.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - HASH_BYTES);
    let hash = Sha256::digest(&bytes);
    bytes.extend(hash);
    bytes
}

fn refused(bytes: &[u8]) -> String {
    read(bytes, &mut Memory::default()).expect_err("damaged").to_string()
}

#[test]
fn what_was_written_is_read() {
    let mut read_files = Memory::default();
    assert_eq!(read(written(&files()).as_slice(), &mut read_files).expect("whole"), header());
    assert_eq!(read_files, files());
    assert_eq!(written(&files()).len() % 512, 32, "as etcdctl wants it");
}

/// K1.
#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let small = Memory(files().0.split_off(1));
    let whole = written(&small);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        refused(&flipped);
        refused(&whole[..at]);
    }
    assert_eq!(refused(b"a bbolt file"), "no snapshot of Keelson's store");
}

#[test]
fn what_follows_the_end_is_noticed() {
    let mut bytes = written(&files());
    bytes.push(0);
    assert!(refused(&bytes).ends_with("something follows its end"));
}

#[test]
fn names_stay_in_their_folder() {
    for name in ["../../etc/passwd", ".hidden", "a/b", "a\0"] {
        let bytes = written(&Memory(vec![(name.to_owned(), Vec::new())]));
        assert!(refused(&bytes).ends_with("a file's name is none of RocksDB's"), "{name}");
    }
}

/// K2: a file is announced that is far larger than what comes.
#[test]
fn impossible_lengths_are_refused() {
    let bytes = written(&Memory(vec![("a".to_owned(), Vec::new())]));
    let name = MAGIC.len() + 4 + header().encoded_len() + 4;
    let mut long = bytes.clone();
    long[name + 1..name + 9].fill(0xff);
    assert!(refused(&sealed(long)).ends_with("it ends too early"));
    let mut long_name = bytes;
    long_name[name - 4] = 1;
    assert!(refused(&sealed(long_name)).ends_with("an impossible length"));
}
