use std::io::ErrorKind;

use raft::eraftpb::SnapshotMetadata;
use store_core::wire::BackupHeader;
use tempfile::TempDir;
use tokio::io::{BufReader, BufWriter, DuplexStream, duplex};

use super::*;

/// Far longer than anything here takes but hanging; far shorter than what a test may take.
const SHORT: Patience = Patience { step: Duration::from_millis(200), load: Duration::from_millis(200) };
/// More than that many steps.
const TEST_MAX: Duration = Duration::from_secs(20);
/// As on a connection: what is written last may wait here.
const BUFFER_BYTES: usize = 64 << 10;

/// A copy of three files: of several chunks, of a few bytes, of none.
fn copied() -> Copied {
    let path = tempfile::tempdir().expect("a folder").keep();
    let large: Vec<u8> = (0..2 * CHUNK_BYTES_MAX + 1000).map(|n| (n * 7 % 251) as u8).collect();
    for (name, bytes) in [("000001.sst", large.as_slice()), ("CURRENT", b"MANIFEST"), ("LOG", b"")] {
        std::fs::write(path.join(name), bytes).expect("written");
    }
    Copied { path, metadata: SnapshotMetadata::default(), header: BackupHeader::default() }
}

fn files(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let mut files: Vec<_> = entries.map(|e| (e.file_name(), std::fs::read(e.path()).expect("read"))).collect();
    files.sort();
    files
}

fn metrics() -> Metrics {
    Metrics::new(1, "3.6.0")
}

async fn on_the_wire(copied: &Copied) -> Vec<u8> {
    let mut bytes = Vec::new();
    let sent = send_files(&mut bytes, &copied.path, SHORT).await.expect("sent");
    assert_eq!(sent, 2 * CHUNK_BYTES_MAX as u64 + 1008);
    bytes
}

async fn received(mut bytes: &[u8]) -> (TempDir, std::io::Result<()>) {
    let folder = tempfile::tempdir().expect("a folder");
    let result = receive_files(&mut bytes, folder.path(), &metrics(), SHORT).await;
    (folder, result)
}

#[tokio::test]
async fn a_copy_arrives_as_it_was() {
    let copied = copied();
    let (folder, result) = received(&on_the_wire(&copied).await).await;
    result.expect("received");
    assert_eq!(files(folder.path()), files(&copied.path));
}

/// Where a bit of the large file is: what it is sent as stands once in the whole.
#[tokio::test]
async fn a_flipped_bit_is_noticed() {
    let copied = copied();
    let bytes = on_the_wire(&copied).await;
    let large = std::fs::read(copied.path.join("000001.sst")).expect("read");
    let begin =
        bytes.windows(CHUNK_BYTES_MAX).position(|part| part == &large[..CHUNK_BYTES_MAX]).expect("the first chunk");
    // In its first chunk, the CRC behind it, the length of the second, and the last.
    for at in [begin, begin + 1000, begin + CHUNK_BYTES_MAX - 1, begin + CHUNK_BYTES_MAX, begin + CHUNK_BYTES_MAX + 5] {
        for bit in [0, 7] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let (_, result) = received(&damaged).await;
            let error = result.expect_err("a damaged copy");
            assert!([ErrorKind::InvalidData, ErrorKind::UnexpectedEof].contains(&error.kind()), "{at}: {error}");
        }
    }
}

#[tokio::test]
async fn a_copy_that_is_cut_off_is_none() {
    let bytes = on_the_wire(&copied()).await;
    let near_the_end = (bytes.len() - 40..bytes.len()).chain([0, 1, 3, 10]);
    for length in (0..bytes.len()).step_by(30_011).chain(near_the_end) {
        let (_, result) = received(&bytes[..length]).await;
        assert_eq!(result.expect_err("cut off").kind(), ErrorKind::UnexpectedEof, "after {length} bytes");
    }
}

/// A connection on which the other side has gone silent.
fn silent() -> (BufWriter<DuplexStream>, BufReader<DuplexStream>) {
    let (ours, theirs) = duplex(1024);
    (BufWriter::with_capacity(BUFFER_BYTES, ours), BufReader::new(theirs))
}

#[tokio::test]
async fn a_receiver_that_hangs_is_given_up() {
    let copied = copied();
    let total = on_the_wire(&copied).await.len();
    // The last of these has taken everything and doesn't say that it has loaded it.
    for taken in [0, 1000, total / 2, total - 2 * BUFFER_BYTES, total - 2000, total] {
        let (mut stream, mut other) = silent();
        let taking = tokio::spawn(async move {
            tokio::io::copy(&mut (&mut other).take(taken as u64), &mut tokio::io::sink()).await.expect("taken");
            other
        });
        let message = Message { to: 2, ..Message::default() };
        let metrics = metrics();
        let sent = send(&mut stream, &metrics, message, &copied, SHORT);
        let sent = tokio::time::timeout(TEST_MAX, sent).await.unwrap_or_else(|_| panic!("still waiting after {taken}"));
        assert_eq!(sent.expect_err("nobody answers").kind(), ErrorKind::TimedOut, "after {taken} bytes");
        drop(taking.await.expect("no panic"));
    }
}

#[tokio::test]
async fn a_sender_that_hangs_is_given_up() {
    let bytes = on_the_wire(&copied()).await;
    for given in [0, 2, 10, 1000, bytes.len() / 2, bytes.len() - 20, bytes.len() - 1] {
        let (mut stream, mut other) = silent();
        let part = bytes[..given].to_vec();
        let giving = tokio::spawn(async move {
            stream.write_all(&part).await.expect("written");
            stream.flush().await.expect("given");
            stream
        });
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = metrics();
        let received = receive_files(&mut other, folder.path(), &metrics, SHORT);
        let received = tokio::time::timeout(TEST_MAX, received).await;
        let received = received.unwrap_or_else(|_| panic!("still waiting after {given}"));
        assert_eq!(received.expect_err("nothing comes").kind(), ErrorKind::TimedOut, "after {given} bytes");
        drop(giving.await.expect("no panic"));
    }
}
