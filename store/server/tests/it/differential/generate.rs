//! Sequences from a seed: every shape of request, valid and not, over few keys, so that they meet.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use store_core::wire::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
};

use super::operation::{Call, Operation, compacted, now};

/// Keys below the prefix; fewer than 12 in all, up to which Go's sort keeps equals in order as ours does.
const NAMES: [&str; 6] = ["", "a", "ab", "b", "c", "d"];
/// Leases that a sequence may grant.
const LEASES: [i64; 4] = [7, 8, 1 << 40, -5];
/// Not below what etcd takes for a lease that may end while the sequence runs.
const LONG: i64 = 5_000;
/// etcd's default limit of a request is 1.5 MiB; its envelope isn't ours to the byte.
const NEAR_LIMIT: usize = 1_572_864 - 4_096;
const OVER_LIMIT: usize = 1_572_864 + 4_096;

/// What a sequence is mostly about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Keys,
    Leases,
    /// Watchers of what is to come.
    Watches,
    /// Watchers that begin in the past, too: etcd lets them wait up to 100 ms, so they are fewer.
    History,
}

/// A source of operations.
pub(crate) struct Generator {
    pub(crate) random: StdRng,
    pub(crate) prefix: String,
    subject: Subject,
}

/// The sequence of a seed, on keys that no other seed uses.
pub(crate) fn sequence(seed: u64) -> Vec<Operation> {
    let mut random = StdRng::seed_from_u64(seed);
    let subject = match random.random_range(0..100) {
        0..60 => Subject::Keys,
        60..80 => Subject::Leases,
        80..98 => Subject::Watches,
        _ => Subject::History,
    };
    let mut generator = Generator { random, prefix: prefix(seed), subject };
    let length = generator.random.random_range(10..=40);
    (0..length).map(|_| generator.operation()).collect()
}

/// What the keys of a seed begin with.
pub(crate) fn prefix(seed: u64) -> String {
    format!("s{seed:x}/")
}

impl Generator {
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.random).expect("choices")
    }

    fn operation(&mut self) -> Operation {
        let watches = match self.subject {
            Subject::Watches => 25,
            Subject::History => 40,
            _ => 0,
        };
        if self.chance(watches) {
            let history = self.subject == Subject::History;
            return self.watch_operation(history);
        }
        let leases = if self.subject == Subject::Leases { 50 } else { 4 };
        if self.chance(leases) {
            return self.lease_operation();
        }
        Operation::Call(match self.random.random_range(0..100) {
            0..30 => Call::Put(self.put()),
            30..55 => Call::Range(self.range()),
            55..68 => Call::DeleteRange(self.delete()),
            68..96 => Call::Txn(self.survivable_txn()),
            _ => Call::Compact(self.compact()),
        })
    }

    pub(crate) fn key(&mut self) -> Bytes {
        if self.chance(2) {
            return Bytes::new();
        }
        let name = self.one_of(&NAMES);
        format!("{}{name}", self.prefix).into()
    }

    /// The first key behind the prefix.
    fn behind(&self) -> Bytes {
        let mut end = self.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        end.into()
    }

    /// A key and an end: one key, a prefix, everything, ends before their beginning.
    pub(crate) fn span(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        match self.random.random_range(0..100) {
            0..45 => (key, Bytes::new()),
            45..65 => (self.prefix.clone().into(), self.behind()),
            65..80 => {
                let end = self.key();
                (key, end)
            }
            80..86 => (key.clone(), key),
            86..92 => (key, self.behind()),
            92..97 => (key, Bytes::from_static(b"\0")),
            _ => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        }
    }

    /// A revision to read at or compare with.
    pub(crate) fn revision(&mut self) -> i64 {
        let (back, near) = (self.random.random_range(0..12), self.random.random_range(-2..=2));
        match self.random.random_range(0..100) {
            0..55 => now(-back),
            55..75 => now(near),
            75..90 => compacted(near),
            90..93 => -1,
            93..95 => i64::MAX,
            95..97 => 1,
            _ => i64::MIN,
        }
    }

    fn rarely_revision(&mut self, percent: u32) -> i64 {
        if self.chance(percent) { self.revision() } else { 0 }
    }

    pub(crate) fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.span();
        RangeRequest {
            key,
            range_end,
            limit: if self.chance(30) { self.one_of(&[1, 2, 3, -1, i64::MAX, i64::MIN]) } else { 0 },
            revision: self.rarely_revision(40),
            sort_order: if self.chance(40) { self.one_of(&[0, 1, 2]) } else { 0 },
            sort_target: if self.chance(40) { self.one_of(&[0, 1, 2, 3, 4]) } else { 0 },
            serializable: self.chance(20),
            keys_only: self.chance(15),
            count_only: self.chance(15),
            min_mod_revision: self.rarely_revision(7),
            max_mod_revision: self.rarely_revision(7),
            min_create_revision: self.rarely_revision(7),
            max_create_revision: self.rarely_revision(7),
        }
    }

    fn value(&mut self) -> Bytes {
        match self.random.random_range(0..10_000) {
            0..3 => vec![b'v'; NEAR_LIMIT].into(),
            3..6 => vec![b'w'; OVER_LIMIT].into(),
            _ => self.one_of(&["", "", "x", "x", "y", "yy", "z"]).into(),
        }
    }

    pub(crate) fn lease(&mut self) -> i64 {
        self.one_of(&LEASES)
    }

    pub(crate) fn put(&mut self) -> PutRequest {
        let ignore_value = self.chance(12);
        let ignore_lease = self.chance(12);
        let with_lease = if self.subject == Subject::Leases { 50 } else { 5 };
        PutRequest {
            key: self.key(),
            value: if ignore_value && self.chance(85) { Bytes::new() } else { self.value() },
            lease: if (!ignore_lease || self.chance(10)) && self.chance(with_lease) { self.lease() } else { 0 },
            prev_kv: self.chance(35),
            ignore_value,
            ignore_lease,
        }
    }

    pub(crate) fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.span();
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(50) }
    }

    fn compact(&mut self) -> CompactionRequest {
        let back = self.random.random_range(1..8);
        let revision = match self.random.random_range(0..100) {
            0..25 => now(-back),
            25..35 => now(0),
            35..50 => now(back),
            50..80 => compacted(self.random.random_range(-2..=0)),
            80..90 => 0,
            90..95 => i64::MAX,
            _ => -1,
        };
        CompactionRequest { revision, physical: self.chance(20) }
    }

    fn lease_operation(&mut self) -> Operation {
        let id = self.lease();
        match self.random.random_range(0..100) {
            0..35 => {
                let ttl = self.one_of(&[LONG, 9_000, 9_000_000_000, 9_000_000_001, i64::MAX]);
                Operation::Call(Call::LeaseGrant(LeaseGrantRequest { id, ttl }))
            }
            35..40 => Operation::AnonymousGrant { ttl: self.one_of(&[LONG, 0, -1, i64::MIN, 9_000_000_001]) },
            40..45 => Operation::BriefGrant { id, ttl: self.one_of(&[0, 1, 2, 3, -1, -7_000, i64::MIN]) },
            45..65 => Operation::Call(Call::LeaseRevoke(if self.chance(10) { 0 } else { id })),
            65..75 => Operation::KeepAlive { id: if self.chance(10) { 0 } else { id } },
            75..92 => Operation::Call(Call::TimeToLive(LeaseTimeToLiveRequest { id, keys: self.chance(70) })),
            _ => Operation::Call(Call::Leases),
        }
    }
}
