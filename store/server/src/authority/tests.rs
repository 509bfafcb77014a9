//! Connections as clients send them, in pieces of every size.

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn headers_frame(stream: u8, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, u8::try_from(block.len()).expect("short"), HEADERS, flags, 0, 0, 0, stream];
    frame.extend_from_slice(block);
    frame
}

fn request(encoder: &mut loona_hpack::Encoder<'_>, authority: &str) -> Vec<u8> {
    encoder.encode([(&b":method"[..], &b"POST"[..]), (b":path", b"/x"), (b":authority", authority.as_bytes())])
}

/// What comes out of a connection that is sent in pieces of this size.
async fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    for piece in bytes.chunks(piece) {
        client.write_all(piece).await.expect("room");
    }
    drop(client);
    let mut out = Vec::new();
    Lenient::new(server).read_to_end(&mut out).await.expect("readable");
    out
}

/// The authorities of all requests in a connection.
fn authorities(bytes: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::new();
    let mut rest = &bytes[PREFACE.len()..];
    let mut found = Vec::new();
    while let Some(Ok(Frame { kind, flags, payload, end })) = frame(rest) {
        if kind == HEADERS {
            let headers = decoder.decode(block(flags, payload).expect("a block")).expect("headers");
            let authority = headers.into_iter().find(|(name, _)| name == b":authority").expect("an authority");
            found.push(String::from_utf8(authority.1).expect("text"));
        }
        rest = &rest[end..];
    }
    found
}

fn connection(names: [&str; 2]) -> Vec<u8> {
    let mut encoder = loona_hpack::Encoder::new();
    let mut bytes = PREFACE.to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for (index, name) in names.iter().enumerate() {
        let block = request(&mut encoder, name);
        let stream = u8::try_from(1 + 2 * index).expect("small");
        bytes.extend_from_slice(&headers_frame(stream, END_HEADERS, &block));
        bytes.extend_from_slice(&[0, 0, 3, 0, END_STREAM, 0, 0, 0, stream, 1, 2, 3]);
    }
    bytes
}

/// B1.
#[tokio::test]
async fn what_is_valid_passes_untouched() {
    let valid = connection(["127.0.0.1:2379", "127.0.0.1:2379"]);
    let plain = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    for piece in [1, 7, 4096] {
        assert_eq!(through(&valid, piece).await, valid);
        assert_eq!(through(&plain, piece).await, plain);
        assert_eq!(through(&PREFACE[..5], piece).await, &PREFACE[..5]);
    }
}

/// B4: the settings are answered before anything is asked.
#[tokio::test]
async fn settings_pass_before_the_first_request() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let opening = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    client.write_all(&opening).await.expect("room");
    let mut out = vec![0; opening.len()];
    let read = async { Lenient::new(server).read_exact(&mut out).await.map(|_| ()) };
    tokio::time::timeout(std::time::Duration::from_secs(10), read).await.expect("not held back").expect("readable");
    assert_eq!(out, opening);
}

#[tokio::test]
async fn an_authority_that_is_a_url_is_mended_on_every_request() {
    let bytes = connection(["http://127.0.0.1:2379", "http://127.0.0.1:2379"]);
    for piece in [1, 7, 4096] {
        let out = through(&bytes, piece).await;
        assert_eq!(authorities(&out), ["127.0.0.1:2379", "127.0.0.1:2379"]);
        assert!(out.windows(3).filter(|w| *w == [1, 2, 3]).count() == 2, "data passes");
    }
}

#[tokio::test]
async fn a_sockets_path_becomes_a_name() {
    let out = through(&connection(["/run/keelson/client.sock", "/run/keelson/client.sock"]), 4096).await;
    assert_eq!(authorities(&out), ["localhost", "localhost"]);
}

/// A connection whose first request is mended, and then one with this block of headers.
async fn after_the_first(block: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = PREFACE.to_vec();
    let first = request(&mut loona_hpack::Encoder::new(), "http://127.0.0.1:2379");
    bytes.extend_from_slice(&headers_frame(1, END_HEADERS, &first));
    let length = u16::try_from(block.len()).expect("a frame").to_be_bytes();
    bytes.extend_from_slice(&[0, length[0], length[1], HEADERS, END_HEADERS, 0, 0, 0, 3]);
    bytes.extend_from_slice(block);
    let mut out = Vec::new();
    Lenient::new(bytes.as_slice()).read_to_end(&mut out).await?;
    Ok(out)
}

/// B3: a header that decoders remember, and then references to it, a byte each.
#[tokio::test]
async fn few_bytes_that_mean_very_many_are_refused() {
    // Literal with indexing, name and value of 100 and 3,000 bytes (RFC 7541 §6.2.1).
    let mut block = vec![0x40];
    let mut text = BytesMut::new();
    put_text(&mut text, &[b'x'; 100]);
    put_text(&mut text, &[b'y'; 3000]);
    block.extend_from_slice(&text);
    assert!(after_the_first(&block).await.is_ok());
    // It is the newest of the table: index 62.
    block.extend_from_slice(&[0x80 | 62; 10_000]);
    let refused = after_the_first(&block).await.expect_err("31 MB of headers");
    assert!(refused.to_string().contains("longer than allowed"), "{refused}");
}

/// B3: a table is raised to a mebibyte (RFC 7541 §6.3).
#[tokio::test]
async fn a_table_without_bounds_is_refused() {
    assert!(after_the_first(&[0x3f, 0xe1, 0x1f, 0x82]).await.is_ok(), "4096 is allowed");
    let refused = after_the_first(&[0x3f, 0xe1, 0xff, 0x3f, 0x82]).await.expect_err("more isn't");
    assert!(refused.to_string().contains("can't be decoded"), "{refused}");
}
