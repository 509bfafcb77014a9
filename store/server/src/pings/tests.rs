//! Connections as they come and go, in pieces of every size.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![0, length[0], length[1], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn heads_are_found_in_pieces_of_any_size() {
    let bytes = [frame(DATA, 1, 1, &[6; 300]), frame(PING, 0, 0, &[0; 8]), frame(HEADERS, 4, 3, &[])].concat();
    for size in [1, 5, 9, 10, 1000] {
        let (mut scan, mut found) = (Scan::default(), Vec::new());
        bytes.chunks(size).for_each(|piece| scan.follow(piece, |head| found.push((head.kind, head.stream))));
        assert_eq!(found, [(DATA, 1), (PING, 0), (HEADERS, 3)]);
        assert!(scan.is_between_frames());
        scan.follow(&bytes[..12], |_| {});
        assert!(!scan.is_between_frames());
    }
}

/// What the server reads of a client that sends this, what the client is sent, and whether it was cut off.
async fn through(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, bool) {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    for piece in bytes.chunks(piece) {
        client.write_all(piece).await.expect("room");
    }
    client.shutdown().await.expect("shut");
    let mut policed = Policed::new(server, Duration::from_secs(5));
    let mut read = Vec::new();
    let is_cut = policed.read_to_end(&mut read).await.is_err();
    drop(policed);
    let mut sent = Vec::new();
    client.read_to_end(&mut sent).await.expect("readable");
    (read, sent, is_cut)
}

/// K1.
#[tokio::test]
async fn what_keeps_to_the_rule_passes_untouched() {
    let ping = frame(PING, 0, 0, &[0; 8]);
    let answer = frame(PING, 1, 0, &[0; 8]);
    let few = [PREFACE, &frame(HEADERS, 4, 1, &[1; 20]), &ping.repeat(3), &answer.repeat(9)].concat();
    let plain = [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &ping.repeat(9)].concat();
    for bytes in [few, plain, PREFACE[..9].to_vec()] {
        for piece in [1, 7, 4096] {
            assert_eq!(through(&bytes, piece).await, (bytes.clone(), Vec::new(), false));
        }
    }
}

#[tokio::test]
async fn who_pings_on_and_on_is_told_and_cut_off() {
    let ping = frame(PING, 0, 0, &[0; 8]);
    let many = [PREFACE, &frame(HEADERS, 4, 5, &[1; 20]), &ping.repeat(4)].concat();
    for piece in [1, 7, 4096] {
        let (_, sent, is_cut) = through(&many, piece).await;
        assert_eq!((sent, is_cut), (frame(GOAWAY, 0, 0, b"\0\0\0\x05\0\0\0\x0btoo_many_pings"), true));
    }
}

/// K2.
#[tokio::test]
async fn half_a_frame_is_not_cut_through() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let mut policed = Policed::new(server, Duration::from_secs(5));
    let answer = frame(DATA, 0, 1, &[9; 100]);
    policed.write_all(&answer[..50]).await.expect("room");
    let pings = [PREFACE, &frame(PING, 0, 0, &[0; 8]).repeat(6)].concat();
    client.write_all(&pings).await.expect("room");
    let mut read = vec![0; pings.len()];
    assert!(policed.read_exact(&mut read).await.is_err());
    assert!(policed.write_all(&answer[50..]).await.is_err());
    drop(policed);
    let mut sent = Vec::new();
    client.read_to_end(&mut sent).await.expect("readable");
    assert_eq!(sent, answer[..50]);
}

/// A client that pings and doesn't read must not keep its connection by it.
#[tokio::test]
async fn who_does_not_read_is_cut_off_all_the_same() {
    let (mut client, server) = tokio::io::duplex(64);
    let mut policed = Policed::new(server, Duration::from_secs(5));
    let (bytes, mut read) = ([PREFACE, &frame(PING, 0, 0, &[0; 8]).repeat(4)].concat(), Vec::new());
    let sending = tokio::spawn(async move {
        // It is cut off before it has sent all.
        let _ = client.write_all(&bytes).await;
        client
    });
    policed.write_all(&frame(DATA, 0, 1, &[0; 64 - HEAD_BYTES])).await.expect("room for one frame");
    let ended = tokio::time::timeout(Duration::from_secs(60), policed.read_to_end(&mut read)).await;
    assert!(ended.expect("it doesn't wait for the client").is_err());
    drop(policed);
    drop(sending.await.expect("sent"));
}
