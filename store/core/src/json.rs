//! The store's messages as JSON: by the descriptors of the protos, as etcd's gateway reads and writes them.
//!
//! Invariants
//!   J1  What is read doesn't depend on how it is cut into pieces.
//!   J2  No more than one message is held, of bounded size, and what came with it.
//! Checked by: the tests below, fuzz/fuzz_targets/gateway.rs.

use bytes::BytesMut;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::{Serialize, Serializer};

/// As etcd's gateway writes: names as in the protos, nothing that is zero or empty.
const WRITTEN: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);
/// As it reads: names of either form, and fields that nobody knows are passed over.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);

/// Why there is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// J2.
    #[error("a message of too many bytes")]
    TooLarge,
    /// What can't be read, and where.
    #[error("{0}")]
    Unreadable(String),
}

/// What is known of all messages and services.
#[must_use]
pub fn descriptors() -> DescriptorPool {
    let described = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(described.as_slice()).expect("build.rs wrote it")
}

/// A message from a JSON object.
///
/// # Errors
/// [`JsonFault::Unreadable`].
pub fn read(kind: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, JsonFault> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    DynamicMessage::deserialize_with_options(kind.clone(), &mut reader, &READ)
        .map_err(|error| JsonFault::Unreadable(error.to_string()))
}

/// A message to be written as JSON.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a DynamicMessage);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_with_options(serializer, &WRITTEN)
    }
}

/// Looks for the end of a JSON value, each byte once.
#[derive(Debug, Default)]
struct Scan {
    looked_at: usize,
    depth: usize,
    in_text: bool,
    is_escaped: bool,
}

impl Scan {
    /// Where the first value ends, once it is there as a whole. What is no object or list ends where it begins: it
    /// is no message in any case.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(byte) = bytes.get(self.looked_at) {
            self.looked_at += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_text => self.is_escaped = true,
                b'"' if self.depth > 0 => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                _ => {}
            }
            if self.depth == 0 {
                return Some(self.looked_at);
            }
        }
        None
    }
}

/// Messages out of a body: JSON objects one after the other, as they come.
///
/// Order of calls: [`Messages::poll`] until it has none, [`Messages::feed`] with what came; [`Messages::end`] when
/// nothing more does.
#[derive(Debug)]
pub struct Messages {
    kind: MessageDescriptor,
    /// What came and isn't read yet.
    bytes: BytesMut,
    bytes_max: usize,
    scan: Scan,
}

impl Messages {
    /// Of this kind; `bytes_max` is for one.
    #[must_use]
    pub fn new(kind: MessageDescriptor, bytes_max: usize) -> Self {
        Self { kind, bytes: BytesMut::new(), bytes_max, scan: Scan::default() }
    }

    /// Takes what came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if it is all there.
    ///
    /// # Errors
    /// [`JsonFault`].
    pub fn poll(&mut self) -> Result<Option<DynamicMessage>, JsonFault> {
        let end = self.scan.end(&self.bytes);
        if end.unwrap_or(self.bytes.len()) > self.bytes_max {
            return Err(JsonFault::TooLarge);
        }
        let Some(end) = end else { return Ok(None) };
        let text = self.bytes.split_to(end);
        self.scan = Scan::default();
        read(&self.kind, &text).map(Some)
    }

    /// What is left when nothing more comes: a message that isn't whole, which is told, or nothing.
    ///
    /// # Errors
    /// [`JsonFault::Unreadable`].
    pub fn end(&mut self) -> Result<Option<DynamicMessage>, JsonFault> {
        let text = std::mem::take(&mut self.bytes);
        if text.trim_ascii().is_empty() { Ok(None) } else { read(&self.kind, &text).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = br#" {"create_request":{"key":"e30="}}
        {"cancel_request":{"watch_id":"1"},"x":"}\"{\\"}{"progress_request":{}}  "#;

    fn watches(bytes_max: usize) -> Messages {
        let kind = descriptors().get_message_by_name("etcdserverpb.WatchRequest").expect("a message of etcd's");
        Messages::new(kind, bytes_max)
    }

    /// What is read of bytes that come in pieces of a size.
    fn found(text: &[u8], size: usize, bytes_max: usize) -> Result<Vec<String>, JsonFault> {
        let (mut messages, mut found) = (watches(bytes_max), Vec::new());
        let shown = |message| serde_json::to_string(&Shown(&message)).expect("written");
        for piece in text.chunks(size) {
            messages.feed(piece);
            while let Some(message) = messages.poll()? {
                found.push(shown(message));
            }
        }
        found.extend(messages.end()?.map(shown));
        Ok(found)
    }

    /// J1.
    #[test]
    fn messages_are_found_wherever_pieces_end() {
        for size in [1, 2, 7, 1000] {
            let expected = [
                r#"{"create_request":{"key":"e30="}}"#,
                r#"{"cancel_request":{"watch_id":"1"}}"#,
                r#"{"progress_request":{}}"#,
            ];
            assert_eq!(found(TEXT, size, 80).expect("read"), expected);
        }
    }

    /// J2: in one piece, too.
    #[test]
    fn a_message_is_bounded_however_it_comes() {
        for size in [1, 7, 1000] {
            assert_eq!(found(TEXT, size, 40), Err(JsonFault::TooLarge), "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_cut_off_is_told() {
        assert!(matches!(found(br#"{"create_request":"#, 4, 100), Err(JsonFault::Unreadable(_))));
        assert_eq!(found(b" \n", 1, 100), Ok(vec![]));
    }
}
