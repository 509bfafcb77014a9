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

/// F1.
#[test]
fn a_torn_end_is_cut_off_and_damage_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut wal, _) = open(dir.path()).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1)], None);
    wal.flush(true).expect("written");
    drop(wal);
    let path = newest(dir.path());
    let bytes = std::fs::read(&path).expect("read");
    // The last record has 19 bytes.
    for cut in 1..19 {
        std::fs::write(&path, &bytes[..bytes.len() - cut]).expect("write");
        let (_, log) = open(dir.path()).expect("a torn end");
        assert_eq!(indexes(&log), [(1, 1)], "{cut}");
        // Opening began another segment: away with it.
        std::fs::remove_file(newest(dir.path())).expect("removed");
    }
    for at in 0..bytes.len() - 19 {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        std::fs::write(&path, &flipped).expect("write");
        assert!(matches!(open(dir.path()), Err(WalError::Damaged { .. })), "byte {at}");
    }
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
