//! Answers made in pieces are the bytes that they have as messages.

use prost::Message as _;

use super::*;
use crate::wire::event::EventType;
use crate::wire::range_request::SortTarget;
use crate::wire::{Event, ResponseHeader};

/// Lengths of values, of which each size of a length's number is one.
const LENGTHS: [usize; 6] = [0, 1, 127, 128, 300, 20_000];

fn written() -> impl Strategy<Value = PutRequest> {
    (0..40u8, 0..LENGTHS.len(), any::<u8>(), any::<bool>()).prop_map(|(key, length, byte, leased)| PutRequest {
        key: name(key).into(),
        value: vec![byte; LENGTHS[length]].into(),
        lease: if leased { 7 } else { 0 },
        ..PutRequest::default()
    })
}

fn read() -> impl Strategy<Value = RangeRequest> {
    let targets = [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod];
    let limit = prop_oneof![Just(0), 1..30i64];
    (limit, any::<bool>(), any::<bool>(), 0..3, prop::sample::select(targets.to_vec()), 0..40i64).prop_map(
        |(limit, keys_only, count_only, sort_order, target, min_mod_revision)| RangeRequest {
            limit,
            keys_only,
            count_only,
            sort_order,
            sort_target: target as i32,
            min_mod_revision: min_mod_revision / 2,
            ..everything(0)
        },
    )
}

fn search(store: &Store, request: &RangeRequest) -> Search {
    let mut search = Search::new(&store.mvcc, request).expect("a read");
    while search.go_on(&store.mvcc, 7) {}
    search
}

proptest! {
    /// E1.
    #[test]
    fn pieces_are_the_message(
        writes in prop::collection::vec(written(), 0..60),
        request in read(),
        piece_bytes in prop_oneof![1..300usize, Just(64_000)],
    ) {
        let mut store = Store::new();
        store.run(Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 5 })).expect("granted");
        for write in writes {
            store.run(Request::Put(write)).expect("a put");
        }
        let header = ResponseHeader { cluster_id: 1, member_id: 2, revision: store.mvcc.revision(), raft_term: 300 };
        let mut message = search(&store, &request).finish(&store.disk, |_| Ok(())).expect("a read");
        message.header = Some(header);
        let mut encoding = search(&store, &request).encode(Some(header), |_| Ok(())).expect("a read");
        prop_assert_eq!(encoding.bytes(), message.encoded_len());
        let mut bytes = Vec::new();
        while let Some(piece) = encoding.piece(piece_bytes, &store.disk).expect("a piece") {
            prop_assert!(piece.len() >= piece_bytes || encoding.bytes() == 0);
            bytes.extend(piece);
            prop_assert_eq!(encoding.bytes(), message.encoded_len() - bytes.len());
        }
        prop_assert_eq!(bytes, message.encode_to_vec());
    }
}

proptest! {
    #[test]
    fn an_event_is_its_message(
        (key, value) in (0..LENGTHS.len(), 0..LENGTHS.len()),
        numbers in prop::array::uniform4(prop_oneof![Just(0), Just(127), Just(128), any::<i64>()]),
    ) {
        let [create_revision, mod_revision, version, lease] = numbers;
        let (key, value) = (vec![b'k'; LENGTHS[key]].into(), vec![b'v'; LENGTHS[value]].into());
        let kv = KeyValue { key, value, create_revision, mod_revision, version, lease };
        let kind = if version == 0 { EventType::Delete } else { EventType::Put } as i32;
        let encoded = encode_event(&kv);
        prop_assert_eq!(encoded, Event { r#type: kind, kv: Some(kv), prev_kv: None }.encode_to_vec());
    }
}

/// What can't be had isn't made up, and who may not have it is told before anything is read.
#[test]
fn nothing_is_made_up() {
    let mut store = Store::new();
    store.run(put("a", "one")).expect("a put");
    let at = Revision { main: 2, sub: 0 };
    let encoded = |store: &Store| search(store, &everything(0)).encode(None, |_| Ok(())).expect("a read");
    let refused = search(&store, &everything(0)).encode(None, |_| Err(RequestError::Busy));
    assert_eq!(refused.map(|_| ()), Err(RequestError::Busy));
    store.disk.0.insert(at, "longer".into());
    assert_eq!(encoded(&store).piece(100, &store.disk), Err(RequestError::Disk));
    store.disk.0.remove(&at);
    assert_eq!(encoded(&store).piece(100, &store.disk), Err(RequestError::Disk));
}
