use proptest::prelude::*;

use super::*;

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
        assert_eq!(Frame::decode(&frame.encode().expect("small")).expect("a frame"), frame);
    }
}

#[test]
fn what_is_cut_or_foreign_is_refused() {
    let bytes = greeting().encode();
    for end in 0..bytes.len() - greeting().url.len() {
        assert!(Greeting::decode(&bytes[..end]).is_err(), "{end} bytes of a greeting");
    }
    assert!(matches!(Greeting::decode(b"GET /members HTTP/1.1\r\n"), Err(Unreadable::Foreign)));
    assert!(matches!(Frame::decode(&[]), Err(Unreadable::Empty)));
    assert!(matches!(Frame::decode(&[PONG, 1, 2]), Err(Unreadable::Ping(2))));
    assert!(matches!(Frame::decode(&[99]), Err(Unreadable::Kind(99))));
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
    assert!(matches!(Frame::decode(&bytes), Err(Unreadable::Raft(_))));
}

proptest! {
    /// P1, P2.
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, kind in 0_u8..6) {
        let of_kind = [&[kind], bytes.as_slice()].concat();
        for bytes in [bytes.as_slice(), &of_kind] {
            if let Ok(frame) = Frame::decode(bytes) {
                let again = Frame::decode(&frame.encode().expect("small")).expect("what was written");
                // By what is known of it: what isn't known has no order.
                prop_assert_eq!(format!("{again:?}"), format!("{frame:?}"));
            }
        }
        let greeting = [MAGIC.as_slice(), &[kind], &bytes].concat();
        if let Ok(read) = Greeting::decode(&greeting) {
            prop_assert_eq!(read.encode(), greeting);
        }
    }
}
