use super::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use raft::Storage as _;

/// Segments in memory, shared with who looks at them.
#[derive(Debug, Clone, Default)]
struct Memory(Rc<RefCell<BTreeMap<u64, Vec<u8>>>>);

impl Memory {
    fn newest(&self) -> u64 {
        *self.0.borrow().keys().next_back().expect("a segment")
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.borrow()[&self.newest()].clone()
    }
}

impl Segments for Memory {
    type Error = Damage;

    fn numbers(&mut self) -> Result<Vec<u64>, Damage> {
        Ok(self.0.borrow().keys().copied().collect())
    }

    fn read(&mut self, number: u64) -> Result<Vec<u8>, Damage> {
        Ok(self.0.borrow()[&number].clone())
    }

    fn cut(&mut self, number: u64, bytes: usize) -> Result<(), Damage> {
        self.0.borrow_mut().get_mut(&number).expect("it is there").truncate(bytes);
        Ok(())
    }

    fn create(&mut self, number: u64) -> Result<(), Damage> {
        assert_eq!(self.0.borrow_mut().insert(number, Vec::new()), None);
        Ok(())
    }

    fn append(&mut self, header: &[u8], content: &[u8]) -> Result<(), Damage> {
        let newest = self.newest();
        self.0.borrow_mut().get_mut(&newest).expect("it is there").extend([header, content].concat());
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Result<(), Damage> {
        self.0.borrow_mut().remove(&number).expect("it is there");
        Ok(())
    }

    fn damaged(&self, damage: Damage) -> Damage {
        damage
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: format!("e{index}").into(), ..Entry::default() }
}

fn open_at(disk: &Memory, applied: (u64, u64)) -> Result<(Wal<Memory>, Log), Damage> {
    Wal::open(disk.clone(), 32 << 20, applied, ConfState::from((vec![1], vec![])))
}

fn open(disk: &Memory) -> Result<(Wal<Memory>, Log), Damage> {
    open_at(disk, (0, 0))
}

fn indexes(log: &Log) -> Vec<(u64, u64)> {
    log.entries().map(|e| (e.index, e.term)).collect()
}

#[test]
fn what_was_written_is_read_back_and_the_last_wins() {
    let disk = Memory::default();
    let (mut wal, _) = open(&disk).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1), entry(3, 1)], None);
    wal.flush(true).expect("written");
    wal.push(&[entry(2, 2)], Some(&HardState { term: 2, vote: 1, commit: 1, ..HardState::default() }));
    wal.flush(true).expect("written");
    drop(wal);
    let (_, log) = open(&disk).expect("opened");
    assert_eq!(indexes(&log), [(1, 1), (2, 2)]);
    assert_eq!(log.hard_state().vote, 1);
}

/// A log of three frames in one segment: its bytes, and where the last begins.
fn written(last: &Entry) -> (Vec<u8>, usize) {
    written_behind(&entry(1, 1), last)
}

fn written_behind(first: &Entry, last: &Entry) -> (Vec<u8>, usize) {
    let disk = Memory::default();
    let (mut wal, _) = open(&disk).expect("opened");
    wal.push(std::slice::from_ref(first), None);
    wal.flush(true).expect("written");
    let begin = disk.bytes().len();
    wal.push(std::slice::from_ref(last), None);
    wal.flush(true).expect("written");
    (disk.bytes(), begin)
}

/// Reads a log of these bytes.
fn reread(bytes: &[u8]) -> Result<Vec<(u64, u64)>, Damage> {
    let disk = Memory(Rc::new(RefCell::new(BTreeMap::from([(1, bytes.to_vec())]))));
    open(&disk).map(|(_, log)| indexes(&log))
}

/// F1.
#[test]
fn a_torn_end_is_cut_off() {
    let (bytes, begin) = written(&entry(2, 1));
    for length in begin..bytes.len() {
        assert_eq!(reread(&bytes[..length]).expect("a torn end"), [(1, 1)], "{length}");
        // The file has its length already, its last sector isn't written.
        let mut zeros = bytes[..length.min(begin)].to_vec();
        zeros.resize(length, 0);
        assert_eq!(reread(&zeros).expect("a torn end"), [(1, 1)], "{length}");
    }
}

/// F1: of a large frame any sector may be missing.
#[test]
fn a_last_frame_with_a_missing_sector_is_cut_off() {
    let large = Entry { data: vec![7; 4000].into(), ..entry(2, 1) };
    let (bytes, begin) = written(&large);
    for sector in begin / 512..bytes.len().div_ceil(512) {
        let mut torn = bytes.clone();
        let end = (512 * (sector + 1)).min(bytes.len());
        torn[begin.max(512 * sector)..end].fill(0);
        assert_eq!(reread(&torn).expect("a torn end"), [(1, 1)], "{sector}");
    }
}

/// F1, wherever in a sector the last frame begins: its header may lie in two, and either may be missing. A bit that
/// flipped in what was written whole is told from that.
#[test]
fn a_header_in_two_sectors_is_cut_off_without_one() {
    for (padding, size) in (400..500).flat_map(|padding| [0, 30, 600].map(|size| (padding, size))) {
        let first = Entry { data: vec![7; padding].into(), ..entry(1, 1) };
        let (bytes, begin) = written_behind(&first, &Entry { data: vec![7; size].into(), ..entry(2, 1) });
        let missing = |sector: usize| begin.max(512 * sector)..(512 * (sector + 1)).min(bytes.len());
        for sector in begin / 512..bytes.len().div_ceil(512) {
            let mut torn = bytes.clone();
            torn[missing(sector)].fill(0);
            let read = reread(&torn).unwrap_or_else(|damage| panic!("{begin}, {size}, {sector}: {damage:?}"));
            assert_eq!(read, if torn == bytes { vec![(1, 1), (2, 1)] } else { vec![(1, 1)] });
        }
        for bit in (8 * begin..8 * (begin + 24).min(bytes.len())).filter(|_| begin % 512 >= 500 && begin % 512 < 509) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(reread(&flipped).is_err(), "{begin}, {size}, bit {bit}");
        }
    }
}

/// F1, in a segment that was made in its length beforehand: what is cut off is only what is torn.
#[test]
fn zeros_behind_the_last_frame_are_its_end() {
    let prepared = |bytes: &[u8]| [bytes, &[0; 5000]].concat();
    let zeros = Entry { data: vec![0; 1500].into(), ..entry(2, 1) };
    for last in [entry(2, 1), Entry { data: vec![7; 4000].into(), ..entry(2, 1) }, zeros] {
        let (bytes, begin) = written(&last);
        assert_eq!(reread(&prepared(&bytes)).expect("an end"), [(1, 1), (2, 1)]);
        assert_eq!(reread(&prepared(&bytes[..begin])).expect("an end"), [(1, 1)]);
        let missing = |sector: usize| begin.max(512 * sector)..(512 * (sector + 1)).min(bytes.len());
        for sector in begin / 512..bytes.len().div_ceil(512) {
            let mut torn = prepared(&bytes);
            torn[missing(sector)].fill(0);
            let whole = if torn == prepared(&bytes) { vec![(1, 1), (2, 1)] } else { vec![(1, 1)] };
            assert_eq!(reread(&torn).expect("a torn end"), whole, "{sector}");
        }
        for bit in (0..8 * bytes.len()).step_by(3) {
            let mut flipped = prepared(&bytes);
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(reread(&flipped), Err(Damage { .. })), "bit {bit}");
        }
    }
}

/// F1: a segment with zeros behind its frames stays as it is when others follow.
#[test]
fn zeros_stand_in_older_segments_too() {
    let disk = Memory::default();
    for index in 1..4 {
        let (mut wal, log) = open(&disk).expect("opened");
        assert_eq!(indexes(&log), (1..index).map(|index| (index, 1)).collect::<Vec<_>>());
        wal.push(&[entry(index, 1)], None);
        wal.flush(true).expect("written");
        let newest = disk.newest();
        disk.0.borrow_mut().get_mut(&newest).expect("it is there").resize(4096, 0);
    }
    assert!(disk.0.borrow().values().all(|bytes| bytes.len() == 4096), "nothing was cut off");
}

/// F1: the last frame too was acknowledged, if it was written whole.
#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let (bytes, _) = written(&entry(2, 1));
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(reread(&flipped), Err(Damage { .. })), "bit {bit}");
    }
}

/// F1: zeros that were written are none that weren't.
#[test]
fn a_flipped_bit_beside_zeros_that_were_written_is_refused() {
    let zeros = Entry { data: vec![0; 2000].into(), ..entry(2, 1) };
    let (bytes, begin) = written(&zeros);
    for bit in (8 * begin..8 * bytes.len()).step_by(3) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(reread(&flipped), Err(Damage { .. })), "bit {bit}");
    }
}

/// F1: of a frame that has zeros of its own a sector may be missing as well.
#[test]
fn a_missing_sector_beside_zeros_that_were_written_is_cut_off() {
    let half = Entry { data: [vec![0; 2000], vec![7; 2000]].concat().into(), ..entry(2, 1) };
    let (bytes, begin) = written(&half);
    let missing = |sector: usize| begin.max(512 * sector)..(512 * (sector + 1)).min(bytes.len());
    for sector in begin / 512..bytes.len().div_ceil(512) {
        let mut torn = bytes.clone();
        torn[missing(sector)].fill(0);
        let whole = if torn == bytes { vec![(1, 1), (2, 1)] } else { vec![(1, 1)] };
        assert_eq!(reread(&torn).expect("a torn end"), whole, "{sector}");
    }
    for length in begin..bytes.len() {
        assert_eq!(reread(&bytes[..length]).expect("a torn end"), [(1, 1)], "{length}");
    }
}

/// F1: a sector that a disk lost of what it had synced.
#[test]
fn zeros_before_an_intact_frame_are_refused() {
    let (bytes, begin) = written(&entry(2, 1));
    let mut lost = bytes.clone();
    lost[..begin].fill(0);
    assert!(matches!(reread(&lost), Err(Damage { offset: 0, .. })));
}

/// Content that looks like a frame isn't taken for one that was synced behind a torn one.
#[test]
fn a_frame_inside_an_entry_is_only_content() {
    let (log, _) = written(&entry(2, 1));
    let (bytes, _) = written(&Entry { data: log.into(), ..entry(2, 1) });
    assert_eq!(reread(&bytes[..bytes.len() - 1]).expect("a torn end"), [(1, 1)]);
}

/// A crash just after a segment was made, before its first record was written.
#[test]
fn an_empty_segment_changes_nothing() {
    let disk = Memory::default();
    let (mut wal, _) = open(&disk).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1)], None);
    wal.flush(true).expect("written");
    disk.clone().create(disk.newest() + 1).expect("made");
    drop(wal);
    let (mut wal, _) = open(&disk).expect("opened");
    wal.push(&[entry(3, 1)], None);
    wal.flush(true).expect("written");
    wal.release(2).expect("released");
    drop(wal);
    let (_, log) = open_at(&disk, (2, 1)).expect("opened");
    assert_eq!(indexes(&log), [(3, 1)]);
}

#[test]
fn applied_segments_are_released_and_the_rest_still_joins() {
    let disk = Memory::default();
    let (mut wal, _) = open(&disk).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1)], None);
    wal.rotate().expect("rotated");
    wal.push(&[entry(3, 2)], None);
    wal.flush(true).expect("written");
    wal.release(2).expect("released");
    drop(wal);
    let (_, log) = open_at(&disk, (2, 1)).expect("opened");
    assert_eq!(indexes(&log), [(3, 2)]);
    assert_eq!(log.term(2).expect("known"), 1);
}

#[test]
fn a_state_ahead_of_the_log_begins_it_anew() {
    let disk = Memory::default();
    let (mut wal, _) = open(&disk).expect("opened");
    wal.push(&[entry(1, 1)], None);
    wal.flush(true).expect("written");
    drop(wal);
    let (_, log) = open_at(&disk, (9, 4)).expect("opened");
    assert_eq!(
        (log.first_index().expect("known"), log.last_index().expect("known"), log.hard_state().commit),
        (10, 9, 9)
    );
}

/// F2 across segments: what was replaced stood in a segment that was deleted since.
#[test]
fn entries_that_replace_some_of_a_deleted_segment_are_read() {
    let disk = Memory::default();
    let (mut wal, _) = open(&disk).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1), entry(3, 1)], None);
    wal.rotate().expect("rotated");
    wal.push(&[entry(2, 2), entry(3, 2), entry(4, 2)], None);
    wal.flush(true).expect("written");
    wal.release(3).expect("released");
    drop(wal);
    let (_, log) = open_at(&disk, (3, 2)).expect("opened");
    assert_eq!(indexes(&log), [(3, 2), (4, 2)]);
}

/// F2: a removed file is gone for sure only once its folder is synced.
#[test]
fn segments_from_before_a_snapshot_that_come_back_are_passed_over() {
    let disk = Memory::default();
    let (mut wal, _) = open(&disk).expect("opened");
    wal.push(&[entry(1, 1), entry(2, 1)], None);
    wal.flush(true).expect("written");
    let older = disk.0.borrow().clone();
    wal.reset(7, 2, &HardState { term: 2, commit: 7, ..HardState::default() }).expect("begun anew");
    wal.push(&[entry(8, 2)], None);
    wal.flush(true).expect("written");
    drop(wal);
    disk.0.borrow_mut().extend(older);
    let (_, log) = open_at(&disk, (7, 2)).expect("opened");
    assert_eq!((indexes(&log), log.first_index().expect("known")), (vec![(8, 2)], 8));
    // A snapshot may be of an index that the older ones have as well.
    let (mut wal, _) = open_at(&disk, (7, 2)).expect("opened");
    wal.push(&[entry(9, 2), entry(10, 2)], None);
    wal.flush(true).expect("written");
    let older = disk.0.borrow().clone();
    wal.reset(9, 3, &HardState { term: 3, commit: 9, ..HardState::default() }).expect("begun anew");
    drop(wal);
    disk.0.borrow_mut().extend(older);
    let (_, log) = open_at(&disk, (9, 3)).expect("opened");
    assert_eq!((indexes(&log), log.term(9).expect("known")), (vec![], 3));
}
