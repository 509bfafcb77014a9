use proptest::prelude::*;

use super::*;
use seeded_bugs::assert_noticed;

fn greeting() -> Greeting {
    let url = "https://a:2380".to_owned();
    Greeting { purpose: Purpose::Talk, cluster_id: 7, from: 1, to: 2, url, from_folder: 3, to_folder: 4 }
}

/// P1.
#[test]
fn what_is_said_is_read() {
    for purpose in [Purpose::Talk, Purpose::Join, Purpose::Snapshot] {
        let greeting = Greeting { purpose, ..greeting() };
        assert_eq!(Greeting::decode(&greeting.encode()).expect("a greeting"), greeting);
    }
    for reception in (0..5).map(|byte| Reception::decode(byte).expect("a reception")) {
        assert_eq!(Reception::decode(reception.encode()).expect("the same"), reception);
    }
    let message = Message { term: 3, from: 1, to: 2, ..Message::default() };
    let question = PeerQuestion { nonce: 5, question: None };
    let answer = PeerAnswer { nonce: 5, answer: None };
    let frames = [
        Frame::Raft(Box::new(message)),
        Frame::Question(question),
        Frame::Answer(answer),
        Frame::Ping(7),
        Frame::Pong(u64::MAX),
    ];
    for frame in frames {
        assert_eq!(Frame::decode(&frame.encode().expect("small").into()).expect("a frame"), frame);
    }
}

#[test]
fn what_is_cut_or_foreign_is_refused() {
    let bytes = greeting().encode();
    for end in 0..bytes.len() - greeting().url.len() {
        assert!(Greeting::decode(&bytes[..end]).is_err(), "{end} bytes of a greeting");
    }
    assert!(matches!(Greeting::decode(b"GET /members HTTP/1.1\r\n"), Err(Unreadable::Foreign)));
    assert!(matches!(Frame::decode(&Bytes::new()), Err(Unreadable::Empty)));
    assert!(matches!(Frame::decode(&Bytes::from_static(&[PONG, 1, 2])), Err(Unreadable::Ping(2))));
    assert!(matches!(Frame::decode(&Bytes::from_static(&[99])), Err(Unreadable::Kind(99))));
    assert!(matches!(Reception::decode(9), Err(Unreadable::Reception(9))));
}

/// P2. A group is what protobuf 2 knew beside messages: a library that skips unknown ones by calling itself would take
/// the stack (RUSTSEC-2024-0437). The one that raft-rs uses refuses groups in groups.
#[test]
fn nested_groups_of_a_raft_message_are_refused() {
    let start_of_group = (1000 << 3) | 3_u32;
    let tag = [start_of_group as u8 | 0x80, (start_of_group >> 7) as u8];
    let mut bytes = vec![RAFT];
    bytes.extend(tag.repeat(4 << 20));
    assert!(matches!(Frame::decode(&bytes.into()), Err(Unreadable::Raft(_))));
}

/// What may be written otherwise than it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    PongIsPing,
    FoldersAreSwapped,
}

fn written(frame: &Frame, bug: Option<Bug>) -> Vec<u8> {
    match (frame, bug) {
        (Frame::Pong(made), Some(Bug::PongIsPing)) => Frame::Ping(*made).encode().expect("small"),
        _ => frame.encode().expect("small"),
    }
}

fn written_greeting(greeting: Greeting, bug: Option<Bug>) -> Vec<u8> {
    let (from_folder, to_folder) = match bug {
        Some(Bug::FoldersAreSwapped) => (greeting.to_folder, greeting.from_folder),
        _ => (greeting.from_folder, greeting.to_folder),
    };
    Greeting { from_folder, to_folder, ..greeting }.encode()
}

/// Any, or as many as a ping has; and what they may be of.
fn bytes_of_a_kind() -> impl Strategy<Value = (Vec<u8>, u8)> {
    (prop_oneof![any::<Vec<u8>>(), prop::collection::vec(any::<u8>(), 8)], 0_u8..6)
}

fn is_read_or_refused((bytes, kind): (Vec<u8>, u8), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let of_kind = [&[kind], bytes.as_slice()].concat();
    for bytes in [bytes.as_slice(), &of_kind] {
        if let Ok(frame) = Frame::decode(&Bytes::copy_from_slice(bytes)) {
            let again = Frame::decode(&written(&frame, bug).into()).expect("what was written");
            // By what is known of it: what isn't known has no order.
            prop_assert_eq!(format!("{again:?}"), format!("{frame:?}"));
        }
    }
    let greeting = [MAGIC.as_slice(), &[kind], &bytes].concat();
    if let Ok(read) = Greeting::decode(&greeting) {
        prop_assert_eq!(written_greeting(read, bug), greeting);
    }
    Ok(())
}

proptest! {
    /// P1, P2.
    #[test]
    fn any_bytes_are_read_or_refused(case in bytes_of_a_kind()) {
        is_read_or_refused(case, None)?;
    }
}

/// What is taken for something else is found.
#[test]
fn a_wrong_encoding_is_noticed() {
    assert_noticed(&[Bug::PongIsPing, Bug::FoldersAreSwapped], &bytes_of_a_kind(), is_read_or_refused);
}
