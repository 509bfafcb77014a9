//! The keys and values of a load, cheap to make: what the client spends, the store lacks.

use std::sync::atomic::{AtomicI64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Args, KEY_BYTES, KEYS_MAX, Workload};

/// What all keys begin with.
pub(super) const PREFIX: &str = "keelson-bench/";
/// Bytes at random that values are cut from: so many that two values near each other hardly share any.
const STOCK: usize = 4 << 20;

/// Keys by numbers, values, and the revision at which each key was acknowledged last.
pub(super) struct Keys {
    prefix: Vec<u8>,
    seed: u64,
    value_size: usize,
    stock: Vec<u8>,
    acknowledged: Vec<AtomicI64>,
}

impl Keys {
    pub(super) fn new(args: &Args) -> Self {
        // Loads of different seeds don't meet.
        let prefix = format!("{PREFIX}{:x}/", args.keys_seed).into_bytes();
        let count = match args.workload {
            Workload::Create => u32::try_from(args.total).unwrap_or(KEYS_MAX).min(KEYS_MAX),
            _ => args.key_space,
        };
        let value_size = args.value_size as usize;
        let mut stock = vec![0; STOCK + value_size];
        StdRng::seed_from_u64(args.keys_seed).fill(&mut stock[..]);
        let acknowledged = (0..count).map(|_| AtomicI64::new(0)).collect();
        Self { prefix, seed: args.keys_seed, value_size, stock, acknowledged }
    }

    /// What the keys of this load begin with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        // As many as were counted by a u32.
        self.acknowledged.len() as u32
    }

    /// Bytes of each value.
    pub(super) fn value_size(&self) -> usize {
        self.value_size
    }

    pub(super) fn key(&self, number: u32) -> Vec<u8> {
        let mut key = vec![b'0'; KEY_BYTES.max(self.prefix.len() + 10)];
        key[..self.prefix.len()].copy_from_slice(&self.prefix);
        let (mut rest, mut at) = (number, key.len());
        while rest > 0 {
            at -= 1;
            key[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        key
    }

    /// The number of a key of this load.
    pub(super) fn number(&self, key: &[u8]) -> Option<u32> {
        let digits = key.strip_prefix(self.prefix())?;
        digits.iter().try_fold(0u32, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        })
    }

    /// A value that doesn't compress.
    pub(super) fn value(&self, rng: &mut StdRng) -> Vec<u8> {
        let from = rng.random_range(0..STOCK);
        self.stock[from..from + self.value_size].to_vec()
    }

    pub(super) fn rng(&self, client: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(client))
    }

    pub(super) fn random(&self, rng: &mut StdRng) -> u32 {
        rng.random_range(0..self.count())
    }

    /// The store acknowledged a write of the key at a revision.
    pub(super) fn acknowledge(&self, number: u32, revision: i64) {
        if let Some(newest) = self.acknowledged.get(number as usize) {
            newest.fetch_max(revision, Ordering::Relaxed);
        }
    }

    /// The revision at which the key was written last as far as is known; 0 if it wasn't.
    pub(super) fn acknowledged(&self, number: u32) -> i64 {
        self.acknowledged.get(number as usize).map_or(0, |newest| newest.load(Ordering::Relaxed))
    }
}
