//! Requests on streams of watchers.

use bytes::Bytes;
use rand::Rng as _;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest};

use super::generate::Generator;
use super::operation::{Operation, compacted, now};

/// Streams of a sequence.
pub(crate) const STREAMS: usize = 2;
/// A watcher that begins at a negative revision is refused by etcd 3.6 without taking a number; 3.4 numbers it first.
/// Numbers from here on keep those of the others the same.
pub(crate) const NEGATIVE_IDS: std::ops::Range<i64> = 1_000..1_000_000;

impl Generator {
    pub(crate) fn watch_operation(&mut self, history: bool) -> Operation {
        let stream = self.random.random_range(0..STREAMS);
        let request = match self.random.random_range(0..100) {
            0..70 => Some(RequestUnion::CreateRequest(self.create(history))),
            70..88 => {
                let watch_id = self.one_of(&[0, 1, 2, 3, 5, 9, -3]);
                Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
            }
            88..98 => Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
            _ => None,
        };
        Operation::Watch { stream, request: WatchRequest { request_union: request } }
    }

    fn create(&mut self, history: bool) -> WatchCreateRequest {
        let (mut key, mut range_end) = self.span();
        let (back, ahead) = (self.random.random_range(0..15), self.random.random_range(1..6));
        let start_revision = match self.random.random_range(0..100) {
            0..45 if history => now(-back),
            45..60 if history => compacted(self.random.random_range(-2..=2)),
            60..65 if history => -ahead,
            65..80 => now(ahead),
            _ => 0,
        };
        let mut watch_id = self.one_of(&[0, 0, 0, 0, 2, 5, 9, -3]);
        if start_revision < 0 {
            watch_id = self.random.random_range(NEGATIVE_IDS);
            (key, range_end) = (self.prefix.clone().into(), Bytes::new());
        }
        let filters = if self.chance(25) { self.one_of::<&[i32]>(&[&[0], &[1], &[0, 1], &[1, 1], &[7]]) } else { &[] };
        WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.chance(20),
            filters: filters.to_vec(),
            prev_kv: self.chance(50),
            watch_id,
            fragment: self.chance(20),
        }
    }
}
