//! Exec and attach: what a client's WebSocket says and what the runtime's streams carry.
//!
//! A WebSocket message's first byte is its channel: 0 stdin, 1 stdout, 2 stderr, 3 the
//! result, 4 the terminal's size; in v5 also 255, which closes the channel named next.
//!
//! Invariants
//!   T1  What a client writes reaches the stream that its channel names, as it was, or none.
//! Checked by: the tests below, fuzz/fuzz_targets/streams.rs.
//! Source: Kubernetes `remotecommand`; KEP-4006 (v5).

use bytes::{BufMut as _, Bytes, BytesMut};
use percent_encoding::percent_decode_str;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// The channel that says how it went.
pub const RESULT: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What is asked. Source: `PodExecOptions`, `PodAttachOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether the client writes.
    pub stdin: bool,
    /// Whether it reads.
    pub stdout: bool,
    /// Whether it reads errors apart; never of a terminal.
    pub stderr: bool,
    /// Whether there is to be a terminal.
    pub tty: bool,
}

impl Options {
    /// Reads a request's query.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let mut options = Self::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = value.replace('+', " ");
            let value = percent_decode_str(&plain).decode_utf8_lossy().into_owned();
            let on = matches!(value.as_str(), "true" | "1" | "");
            match key {
                "command" => options.command.push(value),
                "stdin" => options.stdin = on,
                "stdout" => options.stdout = on,
                "stderr" => options.stderr = on,
                "tty" => options.tty = on,
                _ => {}
            }
        }
        // A terminal has one output.
        options.stderr &= !options.tty;
        options
    }
}

/// Numbers of the runtime's streams; 0 is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streams {
    /// How it went.
    pub result: u32,
    /// To the program.
    pub stdin: u32,
    /// From it.
    pub stdout: u32,
    /// From it.
    pub stderr: u32,
    /// The terminal's sizes.
    pub resize: u32,
}

impl Streams {
    /// Those that the runtime writes on.
    #[must_use]
    pub fn outputs(&self) -> Vec<u32> {
        [self.result, self.stdout, self.stderr].into_iter().filter(|id| *id != 0).collect()
    }

    /// The client's channel for what comes on a stream.
    #[must_use]
    pub fn channel(&self, stream: u32) -> Option<u8> {
        let known = [(self.stdout, STDOUT), (self.stderr, STDERR), (self.result, RESULT)];
        known.into_iter().find(|(id, _)| *id == stream && stream != 0).map(|(_, channel)| channel)
    }

    /// What a client's message is to the runtime: a stream, bytes for it, and whether they are the last. What
    /// concerns no open stream is passed over.
    #[must_use]
    pub fn input<'a>(&self, message: &'a [u8]) -> Option<(u32, &'a [u8], bool)> {
        let (channel, bytes) = message.split_first()?;
        let (stream, bytes, last) = match (*channel, bytes) {
            (CLOSE, [STDIN]) => (self.stdin, &[][..], true),
            (_, []) => return None,
            (STDIN, bytes) => (self.stdin, bytes, false),
            (RESIZE, bytes) => (self.resize, bytes, false),
            _ => return None,
        };
        (stream != 0).then_some((stream, bytes, last))
    }
}

/// A message to the client.
#[must_use]
pub fn message(channel: u8, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_the_query() {
        let options =
            Options::parse("command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=true&stderr=true&tty=1");
        assert_eq!(options.command, ["sh", "-c", "echo a&b"]);
        assert!(options.stdin && options.stdout && options.tty && !options.stderr);
    }

    const ALL: Streams = Streams { result: 1, stdin: 3, stdout: 5, stderr: 7, resize: 9 };

    /// T1.
    #[test]
    fn a_message_reaches_the_stream_of_its_channel() {
        assert_eq!(ALL.input(b"\0ls\n"), Some((3, &b"ls\n"[..], false)));
        assert_eq!(ALL.input(b"\x04{}"), Some((9, &b"{}"[..], false)));
        assert_eq!(ALL.input(b"\xff\0"), Some((3, &b""[..], true)));
        let ignored: [&[u8]; 8] = [b"", b"\0", b"\x01no", b"\x03no", b"\xff", b"\xff\x01", b"\xff\0\0", b"\x05?"];
        for message in ignored {
            assert_eq!(ALL.input(message), None, "{message:?}");
        }
        let no_input = Streams { stdin: 0, ..ALL };
        assert_eq!((no_input.input(b"\0ls"), no_input.input(b"\xff\0")), (None, None));
    }

    #[test]
    fn outputs_have_channels() {
        assert_eq!(
            ALL.outputs().into_iter().map(|id| ALL.channel(id)).collect::<Vec<_>>(),
            [Some(RESULT), Some(STDOUT), Some(STDERR)]
        );
        assert_eq!(ALL.channel(3), None);
        assert_eq!(Streams::default().channel(0), None, "0 is none");
        assert_eq!(message(RESULT, b"{}"), b"\x03{}"[..]);
    }
}
