use super::*;
use raft::Storage as _;

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: format!("e{index}").into(), ..Entry::default() }
}

fn open(dir: &Path) -> Result<(Wal, Log), WalError> {
    Wal::open(dir, 0, 0, ConfState::from((vec![1], vec![])))
}

fn indexes(log: &Log) -> Vec<(u64, u64)> {
    log.entries().map(|e| (e.index, e.term)).collect()
}

fn newest(dir: &Path) -> PathBuf {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).expect("a folder").flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.pop().expect("a segment")
}

#[test]
fn what_was_written_is_read_back_and_the_last_wins() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut wal, _) = open(dir.path()).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1), entry(3, 1)], None);
    wal.flush(true).expect("written");
    wal.push(&[entry(2, 2)], Some(&HardState { term: 2, vote: 1, commit: 1, ..HardState::default() }));
    wal.flush(true).expect("written");
    drop(wal);
    let (_, log) = open(dir.path()).expect("opened");
    assert_eq!(indexes(&log), [(1, 1), (2, 2)]);
    assert_eq!(log.hard_state().vote, 1);
}

/// A log of three frames in one segment: its bytes, and where the last begins.
fn written(dir: &Path, last: &Entry) -> (PathBuf, Vec<u8>, usize) {
    let (mut wal, _) = open(dir).expect("opened");
    wal.push(&[entry(1, 1)], None);
    wal.flush(true).expect("written");
    let path = newest(dir);
    let begin = std::fs::read(&path).expect("read").len();
    wal.push(std::slice::from_ref(last), None);
    wal.flush(true).expect("written");
    let bytes = std::fs::read(&path).expect("read");
    (path, bytes, begin)
}

/// Reads a log of these bytes, and leaves the folder as it was.
fn reread(path: &Path, bytes: &[u8]) -> Result<Vec<(u64, u64)>, WalError> {
    std::fs::write(path, bytes).expect("write");
    let dir = path.parent().expect("a folder");
    let read = open(dir).map(|(_, log)| indexes(&log));
    // Opening began another segment: away with it.
    if newest(dir) != path {
        std::fs::remove_file(newest(dir)).expect("removed");
    }
    read
}

/// F1.
#[test]
fn a_torn_end_is_cut_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, bytes, begin) = written(dir.path(), &entry(2, 1));
    for length in begin..bytes.len() {
        assert_eq!(reread(&path, &bytes[..length]).expect("a torn end"), [(1, 1)], "{length}");
        // The file has its length already, its last sector isn't written.
        let mut zeros = bytes[..length.min(begin)].to_vec();
        zeros.resize(length, 0);
        assert_eq!(reread(&path, &zeros).expect("a torn end"), [(1, 1)], "{length}");
    }
}

/// F1: of a large frame any sector may be missing.
#[test]
fn a_last_frame_with_a_missing_sector_is_cut_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let large = Entry { data: vec![7; 4000].into(), ..entry(2, 1) };
    let (path, bytes, begin) = written(dir.path(), &large);
    for sector in begin / 512..bytes.len().div_ceil(512) {
        let mut torn = bytes.clone();
        let end = (512 * (sector + 1)).min(bytes.len());
        torn[begin.max(512 * sector)..end].fill(0);
        assert_eq!(reread(&path, &torn).expect("a torn end"), [(1, 1)], "{sector}");
    }
}

/// F1: the last frame too was acknowledged, if it was written whole.
#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, bytes, _) = written(dir.path(), &entry(2, 1));
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(reread(&path, &flipped), Err(WalError::Damaged { .. })), "bit {bit}");
    }
}

/// F1: a sector that a disk lost of what it had synced.
#[test]
fn zeros_before_an_intact_frame_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, bytes, begin) = written(dir.path(), &entry(2, 1));
    let mut lost = bytes.clone();
    lost[..begin].fill(0);
    assert!(matches!(reread(&path, &lost), Err(WalError::Damaged { offset: 0, .. })));
}

/// Content that looks like a frame isn't taken for one that was synced behind a torn one.
#[test]
fn a_frame_inside_an_entry_is_only_content() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, log, _) = written(dir.path(), &entry(2, 1));
    let other = tempfile::tempdir().expect("a folder");
    let (path, bytes, _) = written(other.path(), &Entry { data: log.into(), ..entry(2, 1) });
    assert_eq!(reread(&path, &bytes[..bytes.len() - 1]).expect("a torn end"), [(1, 1)]);
}

/// A crash just after a segment was made, before its first record was written.
#[test]
fn an_empty_segment_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut wal, _) = open(dir.path()).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1)], None);
    wal.flush(true).expect("written");
    create_segment(dir.path(), number_of(&newest(dir.path())) + 1).expect("made");
    drop(wal);
    let (mut wal, _) = open(dir.path()).expect("opened");
    wal.push(&[entry(3, 1)], None);
    wal.flush(true).expect("written");
    wal.release(2).expect("released");
    drop(wal);
    let (_, log) = Wal::open(dir.path(), 2, 1, ConfState::default()).expect("opened");
    assert_eq!(indexes(&log), [(3, 1)]);
}

#[test]
fn applied_segments_are_released_and_the_rest_still_joins() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut wal, _) = open(dir.path()).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1)], None);
    wal.rotate().expect("rotated");
    wal.push(&[entry(3, 2)], None);
    wal.flush(true).expect("written");
    wal.release(2).expect("released");
    drop(wal);
    let (_, log) = Wal::open(dir.path(), 2, 1, ConfState::default()).expect("opened");
    assert_eq!(indexes(&log), [(3, 2)]);
    assert_eq!(log.term(2).expect("known"), 1);
}

#[test]
fn a_state_ahead_of_the_log_begins_it_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut wal, _) = open(dir.path()).expect("opened");
    wal.push(&[entry(1, 1)], None);
    wal.flush(true).expect("written");
    drop(wal);
    let (_, log) = Wal::open(dir.path(), 9, 4, ConfState::default()).expect("opened");
    assert_eq!(
        (log.first_index().expect("known"), log.last_index().expect("known"), log.hard_state().commit),
        (10, 9, 9)
    );
}

/// F2 across segments: what was replaced stood in a segment that was deleted since.
#[test]
fn entries_that_replace_some_of_a_deleted_segment_are_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut wal, _) = open(dir.path()).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1), entry(3, 1)], None);
    wal.rotate().expect("rotated");
    wal.push(&[entry(2, 2), entry(3, 2), entry(4, 2)], None);
    wal.flush(true).expect("written");
    wal.release(3).expect("released");
    drop(wal);
    let (_, log) = Wal::open(dir.path(), 3, 2, ConfState::default()).expect("opened");
    assert_eq!(indexes(&log), [(3, 2), (4, 2)]);
}
