//! What watchers are given: recent changes from the ring, older ones from disk.

use std::sync::Arc;

use store_core::errors::RequestError;
use store_core::mvcc::Change;
use store_core::watch::{Slice, Told};
use store_core::wire::KeyValue;

use super::Engine;

impl Engine {
    /// Wanted changes of the revisions `from..=to` that the ring holds; `None` if it doesn't reach back that far.
    pub(crate) fn recent(
        &self,
        from: i64,
        to: i64,
        bytes_max: usize,
        wanted: impl Fn(&[u8], bool) -> bool,
    ) -> Option<Slice> {
        self.ring.read().slice(from, to, bytes_max, wanted)
    }

    /// Hands over changes of the revisions `from..=to` that the ring holds, until `take` wants no more; `None` if it
    /// doesn't reach back that far. Nothing is published meanwhile.
    pub(crate) fn each_recent(&self, from: i64, to: i64, take: impl FnMut(&Arc<Told>) -> bool) -> Option<()> {
        self.ring.read().each(from, to, take)
    }

    /// The same as [`Engine::recent`] from disk, where all is that compaction left. Reads for one watcher: nobody shares it.
    pub(crate) fn past(
        &self,
        from: i64,
        to: i64,
        bytes_max: usize,
        wanted: impl Fn(&[u8], bool) -> bool,
    ) -> Result<Slice, RequestError> {
        let kept = self.ring.read().kept().clone();
        let mut slice = Slice::new(from);
        let end = self.state.each_change(from, to, |at, kv, value| {
            if slice.ends_before(at.main, bytes_max) {
                return Ok(false);
            }
            let told = if wanted(&kv.key, kv.version == 0) {
                let kv = if kv.version == 0 { kv } else { KeyValue { value: value()?, ..kv } };
                Some(Arc::new(Told::new(Change { at, kv }, &kept)))
            } else {
                None
            };
            slice.take(at.main, told);
            Ok(true)
        })?;
        if end {
            slice.reached = to;
        }
        Ok(slice)
    }
}
