//! Keys in order, packed: one allocation holds all their bytes, and a search looks at eight bytes of each.
//!
//! Keys that lie beside each other begin alike (`/registry/pods/default/`), so what tells them apart is behind that. The
//! eight bytes there, as a number, lie side by side: a search among a hundred keys touches a few lines of cache, where
//! keys of their own would cost a miss each. Only keys whose eight bytes are equal are compared whole.
//!
//! Invariants
//!   P1  Keys ascend.
//!   P2  All keys begin with the `common` first bytes of the first one.
//!   P3  `heads` holds for each key the number of the eight bytes behind those.
//! Checked by: tests.rs against a sorted list.

/// Room for at least so many more keys is made at once, and for an eighth of those that are there.
const GROWTH_MIN: usize = 16;

/// Keys in ascending order.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    /// All of them, one behind the other.
    bytes: Vec<u8>,
    /// Where each of them ends there.
    ends: Vec<usize>,
    /// Bytes with which all of them begin.
    common: usize,
    heads: Vec<u64>,
}

/// Eight bytes of a key as a number that is ordered as they are. What is behind the end counts as zeros, so that equal
/// numbers say nothing, and different ones which key is less.
pub(super) fn head(key: &[u8], from: usize) -> u64 {
    let mut eight = [0; 8];
    let rest = key.get(from..).unwrap_or_default();
    let length = rest.len().min(8);
    eight[..length].copy_from_slice(&rest[..length]);
    u64::from_be_bytes(eight)
}

/// How many bytes two keys begin with alike.
pub(super) fn alike(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How many of ascending keys are less than `key`, or no greater than it if `or_equal`. All begin with `common`; of each there
/// is the [`head`] behind that, and `whole` gives the key itself.
pub(super) fn before<'a>(
    key: &[u8],
    or_equal: bool,
    common: &[u8],
    heads: &[u64],
    whole: impl Fn(usize) -> &'a [u8],
) -> usize {
    if !key.starts_with(common) {
        // Shorter than what all begin with, or different in it: then it is before all or behind all.
        return if key < common { 0 } else { heads.len() };
    }
    let head = head(key, common.len());
    let from = heads.partition_point(|other| *other < head);
    if heads.get(from) != Some(&head) {
        return from;
    }
    let (mut from, mut to) = (from, from + heads[from..].partition_point(|other| *other == head));
    while from < to {
        let middle = usize::midpoint(from, to);
        let other = whole(middle);
        if other < key || (or_equal && other == key) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    from
}

/// Makes room for `more`, and some beyond it: doubling, as `Vec` does, would leave a third of the memory unused.
fn reserve<T>(list: &mut Vec<T>, more: usize, each: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more + (list.len() / 8).max(GROWTH_MIN * each));
    }
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all keys.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.ends[at - 1] }
    }

    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        Some(&self.bytes[self.start(at)..end])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// How many keys are less than `key`, or no greater than it if `or_equal`.
    pub(super) fn before(&self, key: &[u8], or_equal: bool) -> usize {
        let whole = |at| &self.bytes[self.start(at)..self.ends[at]];
        before(key, or_equal, &self.bytes[..self.common], &self.heads, whole)
    }

    /// Adds a key before the one at a place; that it belongs there is the caller's promise (P1).
    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        let common = if self.is_empty() { key.len() } else { alike(&self.bytes[..self.common], key) };
        let start = self.start(at);
        reserve(&mut self.bytes, key.len(), key.len());
        reserve(&mut self.ends, 1, 1);
        reserve(&mut self.heads, 1, 1);
        self.bytes.splice(start..start, key.iter().copied());
        self.ends.insert(at, start);
        self.ends[at..].iter_mut().for_each(|end| *end += key.len());
        self.heads.insert(at, head(key, common));
        if common != self.common {
            self.common = common;
            self.look_behind_common();
        }
    }

    /// Keeps the keys at places for which `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        *self = self.iter().enumerate().filter(|(at, _)| keep(*at)).map(|(_, key)| key).collect();
    }

    /// Takes the keys from a place on.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let upper = self.iter().skip(at).collect();
        *self = self.iter().take(at).collect();
        upper
    }

    /// Adds keys that are greater than all that are there.
    pub(super) fn append(&mut self, other: &Self) {
        *self = self.iter().chain(other.iter()).collect();
    }

    fn look_behind_common(&mut self) {
        for at in 0..self.ends.len() {
            self.heads[at] = head(&self.bytes[self.start(at)..self.ends[at]], self.common);
        }
    }
}

impl<'a> FromIterator<&'a [u8]> for Keys {
    /// Packs keys that ascend.
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(keys: I) -> Self {
        let mut packed = Self::default();
        for key in keys {
            packed.bytes.extend_from_slice(key);
            packed.ends.push(packed.bytes.len());
            packed.heads.push(0);
        }
        packed.bytes.shrink_to_fit();
        packed.ends.shrink_to_fit();
        packed.heads.shrink_to_fit();
        if let (Some(first), Some(last)) = (packed.get(0), packed.len().checked_sub(1).and_then(|at| packed.get(at))) {
            packed.common = alike(first, last);
            packed.look_behind_common();
        }
        packed
    }
}
