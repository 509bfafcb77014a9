//! Connections of the store's clients before anything is known of them: whatever they send, it is the same however it is
//! cut into pieces, and few bytes stay few.
#![no_main]

// The shell needs a database to compile; this part of it doesn't.
#[path = "../../store/server/src/authority.rs"]
#[allow(dead_code, reason = "what of it isn't for bytes from outside is used by the shell alone")]
mod authority;

use std::pin::Pin;
use std::task::{Context, Poll};

use authority::Lenient;
use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// Bytes that come so many at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let size = self.size.min(self.rest.len()).min(into.remaining());
        let (now, later) = self.rest.split_at(size);
        into.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

/// What comes out, and whether it ended well.
fn through(bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut out = Vec::new();
        let ended = Lenient::new(Pieces { rest: bytes, size }).read_to_end(&mut out).await;
        (out, ended.is_ok())
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, rest)) = choose(bytes) else { return };
    let whole = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", rest].concat();
    let (out, ended) = through(&whole, usize::MAX);
    // Each frame's headers are at most as long as a frame.
    assert!(out.len() <= whole.len() * 2000, "{} bytes became {}", whole.len(), out.len());
    let (pieces, ended_in_pieces) = through(&whole, size + 1);
    same(&ended_in_pieces, &ended, "how a connection ends");
    if ended {
        same(&pieces, &out, "a connection");
    }
});
