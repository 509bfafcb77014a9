use flate2::{Decompress, FlushDecompress};
use proptest::prelude::*;

use super::*;
use seeded_bugs::assert_noticed;

/// What receiving in pieces may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// Only the first of what a piece holds is handed on.
    OnePerPiece,
    /// What a piece leaves unfinished is dropped.
    DropsTheRest,
}

/// All that is received of bytes that come in pieces of a size.
fn received(bytes: &[u8], size: usize) -> (Vec<Received>, Result<(), SpdyFault>) {
    received_with(bytes, size, None)
}

fn received_with(bytes: &[u8], size: usize, bug: Option<Bug>) -> (Vec<Received>, Result<(), SpdyFault>) {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(size) {
        if bug == Some(Bug::DropsTheRest) {
            decoder = Decoder::default();
        }
        decoder.feed(piece);
        loop {
            match decoder.poll() {
                Ok(Some(received)) => {
                    all.push(received);
                    if bug == Some(Bug::OnePerPiece) {
                        break;
                    }
                }
                Ok(None) => break,
                Err(fault) => return (all, Err(fault)),
            }
        }
    }
    (all, decoder.end())
}

fn piece(stream: u32, bytes: &[u8], last: bool) -> Received {
    Received::Data { stream, bytes: Bytes::copy_from_slice(bytes), last }
}

#[test]
fn data_is_received_as_it_was_sent() {
    let text = vec![7; 2 * PIECE_BYTES_MAX + 5];
    let frames: Vec<Bytes> = data(3, &text, true).collect();
    let (all, end) = received(&frames.concat(), 1000);
    let (first, rest) = text.split_at(PIECE_BYTES_MAX);
    let (second, third) = rest.split_at(PIECE_BYTES_MAX);
    assert_eq!(all, [piece(3, first, false), piece(3, second, false), piece(3, third, true)]);
    assert_eq!(end, Ok(()));
    assert_eq!(data(3, b"", false).count(), 0);
    assert_eq!(data(3, b"", true).collect::<Vec<_>>(), [[0, 0, 0, 3, 1, 0, 0, 0].as_slice()]);
}

/// Y2: a frame of 16 MiB is handed on as it comes.
#[test]
fn a_long_frame_comes_in_pieces() {
    let mut bytes = vec![0, 0, 0, 5, FIN, 0xff, 0xff, 0xff];
    bytes.resize(HEAD_BYTES + 0x00ff_ffff, b'x');
    let mut decoder = Decoder::default();
    let (mut got, mut closed) = (0, 0);
    for chunk in bytes.chunks(10_000) {
        decoder.feed(chunk);
        while let Some(Received::Data { bytes, last, .. }) = decoder.poll().expect("data") {
            got += bytes.len();
            closed += usize::from(last);
        }
        assert!(decoder.held() < PIECE_BYTES_MAX);
    }
    assert_eq!((got, closed), (0x00ff_ffff, 1));
}

#[test]
fn what_a_runtime_says_beside_data_is_read() {
    let bytes = [
        control(4, 0, &[0; 8]),
        control(RST_STREAM, 0, &[0x80, 0, 0, 3, 0, 0, 0, 5]),
        control(2, 0, &[0, 0, 0, 1]),
        pong(9),
        control(GO_AWAY, 0, &[0; 8]),
    ];
    let (all, end) = received(&bytes.concat(), 3);
    assert_eq!(all, [Received::Reset { stream: 3 }, Received::Ping { id: 9 }, Received::End]);
    assert_eq!(end, Ok(()));
}

#[test]
fn what_cant_be_read_is_refused() {
    let long = [0x80, 3, 0, 4, 0, 1, 0, 1];
    assert_eq!(received(&long, 8).1, Err(SpdyFault::TooLong(0x1_0001)), "before its bytes are waited for");
    assert_eq!(received(&control(PING, 0, &[1, 2]), 8).1, Err(SpdyFault::Nameless(PING)));
    for cut in 1..12 {
        let frame = data(1, b"text", false).next().expect("a frame");
        assert_eq!(received(&frame[..cut], 4).1, Err(SpdyFault::CutOff), "after {cut} bytes");
    }
}

#[test]
fn streams_are_opened_under_odd_numbers() {
    let (mut encoder, mut headers) = (Encoder::default(), Decompress::new(true));
    for (expected, kind) in [(1, "error"), (3, "stdin")] {
        let (id, frame) = encoder.open(kind).expect("packed");
        assert_eq!((id, &frame[..4]), (expected, &[0x80, 3, 0, 1][..]));
        assert_eq!(frame[8..12], expected.to_be_bytes());
        let mut names = Vec::with_capacity(100);
        headers.decompress_vec(&frame[18..], &mut names, FlushDecompress::Sync).expect("one compressed stream");
        let text = [&[0, 0, 0, 1, 0, 0, 0, 10][..], b"streamtype", &[0, 0, 0, 5], kind.as_bytes()].concat();
        assert_eq!(names, text);
    }
}

/// Frames one after the other, and the size of pieces.
fn cut_frames() -> impl Strategy<Value = (Vec<Vec<u8>>, usize)> {
    (prop::collection::vec(frame(), 0..6), 1_usize..20)
}

fn is_the_same((frames, size): (Vec<Vec<u8>>, usize), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let bytes = frames.concat();
    prop_assert_eq!(received_with(&bytes, size, bug), received_with(&bytes, usize::MAX, bug));
    Ok(())
}

proptest! {
    /// Y1.
    #[test]
    fn it_is_the_same_however_it_is_cut(case in cut_frames()) {
        is_the_same(case, None)?;
    }
}

/// Who makes something of where bytes were cut is found.
#[test]
fn a_wrong_cut_is_noticed() {
    assert_noticed(&[Bug::OnePerPiece, Bug::DropsTheRest], &cut_frames(), is_the_same);
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = || prop::collection::vec(any::<u8>(), 0..12);
    prop_oneof![
        (any::<u32>(), any_bytes(), any::<bool>())
            .prop_map(|(stream, bytes, last)| { data(stream & 0x7fff_ffff, &bytes, last).flatten().collect() }),
        (0_u16..9, any_bytes()).prop_map(|(kind, body)| control(kind, 0, &body).to_vec()),
        any_bytes(),
    ]
}
