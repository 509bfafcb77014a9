//! Segments of a member's log, as a disk gives them back.
#![no_main]

use std::collections::BTreeMap;

use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;
use raft::eraftpb::{ConfState, Entry, HardState};
use store_core::wal::{Damage, Segments, Wal};

/// Segments in memory.
#[derive(Clone, Default)]
struct Memory(BTreeMap<u64, Vec<u8>>);

impl Segments for Memory {
    type Error = Damage;

    fn numbers(&mut self) -> Result<Vec<u64>, Damage> {
        Ok(self.0.keys().copied().collect())
    }

    fn read(&mut self, number: u64) -> Result<Vec<u8>, Damage> {
        Ok(self.0.get(&number).cloned().unwrap_or_default())
    }

    fn cut(&mut self, number: u64, bytes: usize) -> Result<(), Damage> {
        self.0.entry(number).or_default().truncate(bytes);
        Ok(())
    }

    fn create(&mut self, number: u64) -> Result<(), Damage> {
        assert!(self.0.insert(number, Vec::new()).is_none(), "a segment that is there is made anew");
        Ok(())
    }

    fn append(&mut self, header: &[u8], content: &[u8]) -> Result<(), Damage> {
        let (_, newest) = self.0.iter_mut().next_back().expect("one is open");
        newest.extend_from_slice(header);
        newest.extend_from_slice(content);
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Result<(), Damage> {
        self.0.remove(&number);
        Ok(())
    }

    fn damaged(&self, damage: Damage) -> Damage {
        damage
    }
}

/// What a log holds, and what its open segments are then.
fn open(memory: Memory) -> Result<(Vec<Entry>, HardState, Memory), Damage> {
    let (wal, log) = Wal::open(memory, 300, (0, 0), ConfState::from((vec![1], vec![])))?;
    Ok((log.entries().cloned().collect(), log.hard_state().clone(), wal.into_segments()))
}

/// Writes a log of entries as the input says: two bytes an entry, its size and what it is made of; some sync, some
/// replace the one before.
fn written(script: &[u8]) -> Memory {
    let (mut wal, _) = Wal::open(Memory::default(), 300, (0, 0), ConfState::default()).expect("an empty log");
    let (mut index, mut term) = (0, 1);
    for step in script.chunks_exact(2).take(40) {
        if step[0] % 8 == 7 && index > 1 {
            (index, term) = (index - 1, term + 1);
        } else {
            index += 1;
        }
        // Zeros are what a sector that was never written has.
        let data = vec![step[1] % 3, usize::from(step[0]) as u8];
        let data = data.repeat(usize::from(step[1]) * usize::from(step[0] % 5));
        let data = if step[1] % 3 == 0 { vec![0; data.len()] } else { data };
        wal.push(&[Entry { index, term, data: data.into(), ..Entry::default() }], None);
        if step[0] % 2 == 0 {
            wal.flush(true).expect("written to memory");
        }
    }
    wal.flush(true).expect("written to memory");
    wal.into_segments()
}

/// Whether a log says less than another, and nothing else.
fn is_prefix(of: &[Entry], log: &[Entry]) -> bool {
    // What was torn off may have replaced entries: those come back.
    let terms = |entries: &[Entry]| entries.iter().map(|e| (e.index, e.term)).collect::<Vec<_>>();
    let (of, log) = (terms(of), terms(log));
    let common = of.iter().zip(&log).take_while(|(a, b)| a == b).count();
    common == log.len() || log[common..].iter().all(|(_, term)| of.get(common).is_none_or(|(_, newer)| term < newer))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    if which % 2 == 0 {
        // Any bytes: one segment, or two.
        let at = rest.len() / (1 + which / 2 % 4);
        let parts = [rest[..at].to_vec(), rest[at..].to_vec()];
        let segments = (1..).zip(parts).filter(|(_, part)| !part.is_empty()).collect();
        if let Ok((entries, hard_state, segments)) = open(Memory(segments)) {
            let again = open(segments).expect("what was opened is opened again");
            same(&(again.0, again.1), &(entries, hard_state), "a log opened again");
        }
        return;
    }
    let Some((place, script)) = rest.split_at_checked(4) else { return };
    let whole = written(script);
    let (entries, ..) = open(whole.clone()).expect("what was written is read");
    let segment = 1 + u64::from(place[0]) % whole.0.len() as u64;
    let is_newest = segment == whole.0.len() as u64;
    let mut harmed = whole.clone();
    let bytes = harmed.0.get_mut(&segment).expect("it is there");
    let mut at = (usize::from(place[1]) << 8 | usize::from(place[2])) % bytes.len();
    let (is_cut, is_prepared) = (which % 4 == 1, which % 8 >= 4);
    if is_prepared {
        // It was made in its length: zeros stand behind what was written.
        let length = bytes.len().next_multiple_of(4096);
        bytes.resize(length, 0);
    }
    match (is_cut, is_prepared) {
        (true, false) => bytes.truncate(at),
        (true, true) => {
            at = at / 512 * 512;
            bytes[at..].fill(0);
        }
        (false, _) => bytes[at] ^= 1 << (place[3] % 8),
    }
    match open(harmed) {
        Ok((less, ..)) if is_newest || (is_cut && at == 0) => {
            assert!(is_prefix(&entries, &less), "{less:?} of {entries:?}");
        }
        Ok((less, ..)) => same(&less, &entries, "a log whose older segment is harmed"),
        // What is cut off at the end of a frame shows in what follows.
        Err(_) if is_cut => {}
        Err(damage) => same(&(damage.segment, damage.offset <= at), &(segment, true), "where the damage is"),
    }
});
