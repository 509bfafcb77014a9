//! Answers on their way to a client: events as they were encoded once, counted until HTTP/2 takes them.
//!
//! Invariant
//!   O1  Of what a client doesn't read, at most [`BYTES_MAX`] wait in its stream, or one revision where that is more.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use prometheus_client::metrics::gauge::Gauge;
use prost::Message as _;
use store_core::wire::ResponseHeader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use crate::metrics::Watching;

/// Events are given to a watcher in slices of about this many bytes.
pub(super) const SLICE_BYTES_MAX: usize = 64 << 10;
/// What waits for a client in one stream.
const BYTES_MAX: usize = 2 * SLICE_BYTES_MAX;
const ANSWERS_MAX: usize = 64;

/// etcd's `WatchResponse` with its events encoded: on the wire a message inside another one is bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub(crate) watch_id: i64,
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bool, tag = "4")]
    pub(crate) canceled: bool,
    #[prost(int64, tag = "5")]
    pub(crate) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(crate) cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub(crate) fragment: bool,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub(crate) events: Vec<Bytes>,
}

/// The client has gone.
pub(super) struct Gone;

/// Something that is counted while it is.
pub(super) struct Counted(Gauge, i64);

impl Counted {
    pub(super) fn new(gauge: &Gauge, number: usize) -> Self {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        gauge.inc_by(number);
        Self(gauge.clone(), number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec_by(self.1);
    }
}

/// Room for a slice, before it is read: who waits for a client holds nothing.
pub(super) struct Room(OwnedSemaphorePermit);

struct InFlight {
    answer: Result<Answer, Status>,
    _room: Option<OwnedSemaphorePermit>,
    _counted: Option<(Counted, Counted)>,
}

/// A stream's way to its client.
pub(super) struct Outbox {
    sender: mpsc::Sender<InFlight>,
    room: Arc<Semaphore>,
    watching: Watching,
}

impl Outbox {
    /// The way, and what comes out at its end.
    pub(super) fn new(watching: &Watching) -> (Self, impl Stream<Item = Result<Answer, Status>> + Send + use<>) {
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        let outbox = Self { sender, room: Arc::new(Semaphore::new(BYTES_MAX)), watching: watching.clone() };
        (outbox, tokio_stream::wrappers::ReceiverStream::new(receiver).map(|in_flight: InFlight| in_flight.answer))
    }

    /// Room for a slice, if there is.
    pub(super) fn room_now(&self) -> Option<Room> {
        self.room.clone().try_acquire_many_owned(SLICE_BYTES_MAX as u32).ok().map(Room)
    }

    /// Waits until the client has taken enough for a slice more.
    pub(super) async fn room(&self) -> Result<Room, Gone> {
        tokio::select! {
            room = self.room.clone().acquire_many_owned(SLICE_BYTES_MAX as u32) => room.map(Room).map_err(|_| Gone),
            () = self.sender.closed() => Err(Gone),
        }
    }

    /// Waits until the client has gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Sends events; room that they don't need is free again.
    pub(super) async fn send_events(&self, answer: Answer, Room(mut room): Room) -> Result<(), Gone> {
        let bytes = answer.encoded_len();
        let room = room.split(bytes.min(SLICE_BYTES_MAX));
        let watching = &self.watching;
        let counted =
            (Counted::new(&watching.pending_events, answer.events.len()), Counted::new(&watching.pending_bytes, bytes));
        let in_flight = InFlight { answer: Ok(answer), _room: room, _counted: Some(counted) };
        self.sender.send(in_flight).await.map_err(|_| Gone)
    }

    /// Sends an answer without events, or the end.
    pub(super) async fn send(&self, answer: Result<Answer, Status>) -> Result<(), Gone> {
        self.sender.send(InFlight { answer, _room: None, _counted: None }).await.map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store_core::wire::{Event, KeyValue, WatchResponse};

    #[test]
    fn an_answer_is_a_watch_response_on_the_wire() {
        let header = Some(ResponseHeader { revision: 7, member_id: 1, ..ResponseHeader::default() });
        let kv = KeyValue { key: "k".into(), value: "v".into(), mod_revision: 7, ..KeyValue::default() };
        let events = vec![Event { kv: Some(kv.clone()), ..Event::default() }, Event { r#type: 1, ..Event::default() }];
        let encoded = events.iter().map(|event| event.encode_to_vec().into()).collect();
        let cancel_reason = "because".to_owned();
        let theirs = WatchResponse {
            header,
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 5,
            cancel_reason: cancel_reason.clone(),
            fragment: true,
            events,
        };
        let ours = Answer {
            header,
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 5,
            cancel_reason,
            fragment: true,
            events: encoded,
        };
        assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
        assert_eq!(Answer::decode(&*theirs.encode_to_vec()), Ok(ours));
    }
}
