//! Answers on their way to a client: events as they were encoded once, counted until HTTP/2 takes them.
//!
//! Problem. An answer costs as much to hand over, to count and to send as a small event does to find, and one event may
//!          be for many watchers of a stream.
//! Idea.    Answers are framed where they are made, many in one parcel. The parcels are the body of
//!          the response.
//!
//! Invariant
//!   O1  Of what a client doesn't read, at most [`BYTES_MAX`] wait in its stream, or one revision where that is more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::Frame;
use prometheus_client::metrics::gauge::Gauge;
use prost::Message as _;
use store_core::wire::ResponseHeader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use super::super::large::{Made, end};
use crate::metrics::Watching;

/// Events are given to a watcher in slices of about this many bytes.
pub(super) const SLICE_BYTES_MAX: usize = 64 << 10;
/// What waits for a client in one stream.
const BYTES_MAX: usize = 2 * SLICE_BYTES_MAX;
const PARCELS_MAX: usize = 64;
/// A parcel takes no more once it has so many bytes; smaller ones that wait are sent together.
const PARCEL_BYTES: usize = 16 << 10;
/// Before a message: that it isn't compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Numbers of fields. Source: etcd `rpc.proto`.
const WATCH_ID: u32 = 2;
const EVENTS: u32 = 11;

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

/// Answers to several watchers as they are sent, with the room that they take.
pub(super) struct Parcel {
    bytes: Bytes,
    events: usize,
    room: Option<OwnedSemaphorePermit>,
}

impl Parcel {
    /// Room that isn't needed is free again.
    fn new(bytes: Bytes, events: usize, Room(mut room): Room) -> Self {
        let room = room.split(bytes.len().min(SLICE_BYTES_MAX));
        Self { bytes, events, room }
    }
}

/// What a turn made.
pub(super) struct Turn {
    pub(super) parcels: Vec<Parcel>,
    /// There was room for all.
    pub(super) is_all: bool,
}

/// Answers that are gathered for as long as there is room.
pub(super) struct Bundles<'a> {
    outbox: &'a Outbox,
    /// For those that come next; `None` once there is no more.
    room: Option<Room>,
    bytes: BytesMut,
    events: usize,
    turn: Turn,
}

impl<'a> Bundles<'a> {
    /// With room for the first.
    pub(super) fn new(outbox: &'a Outbox, room: Room) -> Self {
        let turn = Turn { parcels: Vec::new(), is_all: true };
        Self { outbox, room: Some(room), bytes: BytesMut::new(), events: 0, turn }
    }

    /// Takes an [`Answer`] with nothing but a header, encoded by itself, and events, if there are any; `false` if there is no
    /// room for it.
    pub(super) fn tell<'b>(&mut self, header: &[u8], watch_id: i64, events: impl Iterator<Item = &'b Bytes>) -> bool {
        let mut events = events.peekable();
        if events.peek().is_none() {
            return true;
        }
        if self.room.is_none() {
            self.turn.is_all = false;
            return false;
        }
        let from = self.bytes.len();
        self.bytes.put_bytes(0, PREFIX_BYTES);
        self.bytes.put_slice(header);
        if watch_id != 0 {
            prost::encoding::int64::encode(WATCH_ID, &watch_id, &mut self.bytes);
        }
        for event in events {
            prost::encoding::bytes::encode(EVENTS, event, &mut self.bytes);
            self.events += 1;
        }
        frame(&mut self.bytes, from);
        if self.bytes.len() >= PARCEL_BYTES {
            self.close();
        }
        true
    }

    /// What was gathered is a parcel.
    fn close(&mut self) {
        if let Some(room) = self.room.take_if(|_| !self.bytes.is_empty()) {
            let (bytes, events) = (std::mem::take(&mut self.bytes).freeze(), std::mem::take(&mut self.events));
            self.turn.parcels.push(Parcel::new(bytes, events, room));
            self.room = self.outbox.room_now();
        }
    }

    /// All of it.
    pub(super) fn end(mut self) -> Turn {
        self.close();
        self.turn
    }
}

/// An answer as it is sent.
fn framed(answer: &Answer) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + answer.encoded_len());
    out.put_bytes(0, PREFIX_BYTES);
    answer.encode_raw(&mut out);
    frame(&mut out, 0);
    out.freeze()
}

/// Says before the message that begins at `from` how long it is.
fn frame(out: &mut [u8], from: usize) {
    // A revision is far smaller than 4 GiB.
    let length = (out.len() - from - PREFIX_BYTES) as u32;
    out[from + 1..from + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

struct InFlight {
    bytes: Result<Bytes, Status>,
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
    /// The way, and the body that comes out at its end.
    pub(super) fn new(watching: &Watching) -> (Self, Made) {
        let (sender, receiver) = mpsc::channel(PARCELS_MAX);
        let outbox = Self { sender, room: Arc::new(Semaphore::new(BYTES_MAX)), watching: watching.clone() };
        (outbox, Made::new(Frames { receiver, end: None, is_ended: false }))
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

    /// Sends events.
    pub(super) async fn send_events(&self, answer: &Answer, room: Room) -> Result<(), Gone> {
        self.send_parcel(Parcel::new(framed(answer), answer.events.len(), room)).await
    }

    /// Sends a parcel.
    pub(super) async fn send_parcel(&self, parcel: Parcel) -> Result<(), Gone> {
        let (Parcel { bytes, events, room }, watching) = (parcel, &self.watching);
        let counted =
            (Counted::new(&watching.pending_events, events), Counted::new(&watching.pending_bytes, bytes.len()));
        let in_flight = InFlight { bytes: Ok(bytes), _room: room, _counted: Some(counted) };
        self.sender.send(in_flight).await.map_err(|_| Gone)
    }

    /// Sends an answer without events, or the end.
    pub(super) async fn send(&self, answer: Result<Answer, Status>) -> Result<(), Gone> {
        let bytes = answer.map(|answer| framed(&answer));
        self.sender.send(InFlight { bytes, _room: None, _counted: None }).await.map_err(|_| Gone)
    }
}

/// The body of a stream's response.
struct Frames {
    receiver: mpsc::Receiver<InFlight>,
    /// It came behind bytes that aren't handed over yet.
    end: Option<Status>,
    is_ended: bool,
}

impl Frames {
    /// Bytes that wait, small ones together; or the end.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(Err(end));
        }
        let first = match ready!(self.receiver.poll_recv(cx)) {
            Some(in_flight) => in_flight.bytes?,
            None => return Poll::Ready(Err(Status::ok(""))),
        };
        if first.len() >= PARCEL_BYTES {
            return Poll::Ready(Ok(first));
        }
        let Some(second) = self.next_ready(cx) else { return Poll::Ready(Ok(first)) };
        let mut together = BytesMut::with_capacity(2 * PARCEL_BYTES);
        together.put(first);
        together.put(second);
        while together.len() < PARCEL_BYTES
            && let Some(next) = self.next_ready(cx)
        {
            together.put(next);
        }
        Poll::Ready(Ok(together.freeze()))
    }

    /// What waits behind other bytes; an end there is kept for later.
    fn next_ready(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        if self.end.is_some() {
            return None;
        }
        let Poll::Ready(next) = self.receiver.poll_recv(cx) else { return None };
        match next.map_or_else(|| Err(Status::ok("")), |in_flight| in_flight.bytes) {
            Ok(bytes) => Some(bytes),
            Err(end) => {
                self.end = Some(end);
                None
            }
        }
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.poll_bytes(cx)) {
            Ok(bytes) => Frame::data(bytes),
            Err(status) => {
                self.is_ended = true;
                end(&status)
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use prometheus_client::registry::Registry;
    use store_core::wire::{Event, KeyValue, WatchResponse};

    use super::*;

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

    fn outbox() -> (Outbox, Made) {
        Outbox::new(&Watching::new(&mut Registry::default()))
    }

    /// What tells several watchers is what would tell each of them.
    #[test]
    fn a_parcel_is_its_answers_one_behind_the_other() {
        let (outbox, _body) = outbox();
        let header = Some(ResponseHeader { revision: 7, member_id: 1, ..ResponseHeader::default() });
        let head = Answer { header, ..Answer::default() }.encode_to_vec();
        let mut bundles = Bundles::new(&outbox, outbox.room_now().expect("room"));
        let mut answers = Vec::new();
        for (watch_id, events) in [(0, vec!["a"]), (3, vec!["b", ""]), (-1, vec!["c"])] {
            let events: Vec<Bytes> = events.into_iter().map(Bytes::from).collect();
            assert!(bundles.tell(&head, watch_id, events.iter()));
            answers.extend(framed(&Answer { header, watch_id, events, ..Answer::default() }));
        }
        assert!(bundles.tell(&head, 4, [].iter()), "who is told nothing needs no room");
        let Turn { parcels, is_all } = bundles.end();
        assert_eq!((&parcels[0].bytes[..], parcels[0].events, parcels.len(), is_all), (&answers[..], 4, 1, true));
    }

    /// O1.
    #[test]
    fn who_finds_no_room_is_not_told() {
        let (outbox, _body) = outbox();
        let event = Bytes::from(vec![0; 10_000]);
        let mut bundles = Bundles::new(&outbox, outbox.room_now().expect("room"));
        let told = (0..100).take_while(|id| bundles.tell(b"", *id, [event.clone()].iter())).count();
        let Turn { parcels, is_all } = bundles.end();
        let bytes: usize = parcels.iter().map(|parcel| parcel.bytes.len()).sum();
        assert!(!is_all && bytes > told * event.len() && bytes <= BYTES_MAX, "{told} were told with {bytes} bytes");
        assert!(outbox.room_now().is_none());
        drop(parcels);
        assert!(outbox.room_now().is_some());
    }

    #[tokio::test]
    async fn small_answers_leave_together_and_the_end_behind_them() {
        let (outbox, body) = outbox();
        let answers = [1, 2].map(|watch_id| Answer { watch_id, ..Answer::default() });
        for answer in answers.clone() {
            assert!(outbox.send(Ok(answer)).await.is_ok());
        }
        assert!(outbox.send(Err(Status::data_loss("a disk"))).await.is_ok());
        let mut body = body.into_body().expect("nobody has taken it");
        let mut next =
            || std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).now_or_never();
        let frame = next().flatten().expect("bytes").expect("a frame");
        let both: Vec<u8> = answers.iter().flat_map(framed).collect();
        assert_eq!(frame.into_data().expect("data"), both);
        let frame = next().flatten().expect("the end").expect("a frame");
        assert_eq!(frame.into_trailers().expect("trailers")["grpc-status"], "15");
        assert!(next().expect("ready").is_none());
    }
}
