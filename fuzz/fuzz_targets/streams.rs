//! Exec, attach and logs: what a runtime's streams and files carry, and what clients say to a running container.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use agent_core::logs::{Tail, parse};
use agent_core::spdy::{CONTROL_BYTES_MAX, Decoder, PIECE_BYTES_MAX, Received, SpdyFault, data};
use agent_core::streams::{Options, Streams};
use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;

const STREAMS: Streams = Streams { result: 1, stdin: 3, stdout: 5, stderr: 7, resize: 9 };

/// All that is received of bytes that come in pieces of a size, and how it ended.
fn received(bytes: &[u8], size: usize) -> (Vec<Received>, Result<(), SpdyFault>) {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(size) {
        decoder.feed(piece);
        loop {
            match decoder.poll() {
                Ok(Some(received)) => all.push(received),
                Ok(None) => break,
                Err(fault) => return (all, Err(fault)),
            }
        }
        assert!(decoder.held() < PIECE_BYTES_MAX.max(CONTROL_BYTES_MAX + 8), "{} bytes are held", decoder.held());
    }
    (all, decoder.end())
}

/// What a runtime says: the same however it is cut, and data as it is sent again.
fn runtime(size: usize, bytes: &[u8]) {
    let (all, end) = received(bytes, usize::MAX);
    same(&received(bytes, size + 1), &(all.clone(), end), "what a runtime says");
    for one in all {
        if let Received::Data { stream, bytes, last } = &one {
            let frames: Vec<u8> = data(*stream, bytes, *last).flatten().collect();
            // A frame of nothing that doesn't close says nothing.
            let expected = if bytes.is_empty() && !last { vec![] } else { vec![one] };
            same(&received(&frames, size + 1), &(expected, Ok(())), "data sent on");
        }
    }
}

/// A client's messages, each behind its length: what they write reaches the runtime as it was.
fn client(size: usize, mut rest: &[u8]) {
    let (mut written, mut expected) = (Vec::new(), BTreeMap::<u32, (Vec<u8>, usize)>::new());
    while let Some((length, after)) = choose(rest) {
        let (message, after) = after.split_at(length.min(after.len()));
        rest = after;
        if let Some((stream, bytes, last)) = STREAMS.input(message) {
            written.extend(data(stream, bytes, last).flatten());
        }
        let (channel, bytes) = message.split_first().map_or((1, message), |(first, bytes)| (*first, bytes));
        match channel {
            0 if !bytes.is_empty() => expected.entry(3).or_default().0.extend(bytes),
            4 if !bytes.is_empty() => expected.entry(9).or_default().0.extend(bytes),
            255 if bytes == [0] => expected.entry(3).or_default().1 += 1,
            _ => {}
        }
    }
    let mut got = BTreeMap::<u32, (Vec<u8>, usize)>::new();
    let (all, end) = received(&written, size + 1);
    for one in all {
        let Received::Data { stream, bytes, last } = one else { panic!("{one:?} was never written") };
        let got = got.entry(stream).or_default();
        got.0.extend(bytes);
        got.1 += usize::from(last);
    }
    same(&(got, end), &(expected, Ok(())), "what a client writes");
}

/// A query: what was read of it is written in full and read as the same.
fn query(text: &str) {
    let options = Options::parse(text);
    let mut again = String::new();
    for argument in &options.command {
        again.push_str("&command=");
        for byte in argument.bytes() {
            // Writing to a String doesn't fail.
            let _ = write!(again, "%{byte:02X}");
        }
    }
    let Options { stdin, stdout, stderr, tty, .. } = options;
    for (name, is_on) in [("stdin", stdin), ("stdout", stdout), ("stderr", stderr), ("tty", tty)] {
        let _ = write!(again, "&{name}={is_on}");
    }
    same(&Options::parse(&again), &options, "a query");
}

/// A log: its last lines are those of all lines, put together from the beginning.
fn log(wanted: usize, bytes: &[u8]) {
    let (mut tail, mut all, mut goes_on) = (Tail::new(wanted), Vec::<Vec<Vec<u8>>>::new(), false);
    for line in bytes.split(|byte| *byte == b'\n') {
        tail.push(line.to_vec());
        let Some(read) = parse(line) else { continue };
        if !goes_on {
            all.push(Vec::new());
        }
        goes_on = read.partial;
        all.last_mut().expect("one is begun").push(line.to_vec());
    }
    let expected = all.split_off(all.len().saturating_sub(wanted)).concat();
    same(&tail.into_lines().collect::<Vec<_>>(), &expected, "the last lines of a log");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    match which % 4 {
        0 => runtime(which / 4, rest),
        1 => client(which / 4, rest),
        2 => {
            if let Ok(text) = std::str::from_utf8(rest) {
                query(text);
            }
        }
        _ => log(which / 4, rest),
    }
});
