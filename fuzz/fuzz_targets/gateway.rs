//! What clients say as JSON to the store's gateway: each message of etcd's requests.
#![no_main]

use std::sync::LazyLock;

use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use store_core::json::{JsonFault, Messages, Shown, descriptors, read};

/// What every RPC is asked with, and answers.
static KINDS: LazyLock<Vec<MessageDescriptor>> = LazyLock::new(|| {
    let methods: Vec<_> = descriptors().services().flat_map(|one| one.methods().collect::<Vec<_>>()).collect();
    methods.iter().flat_map(|method| [method.input(), method.output()]).collect()
});

/// Bytes of a message at most.
const BYTES_MAX: usize = 1000;

/// What is read of bytes that come in pieces of a size, and how it ended.
fn found(kind: &MessageDescriptor, bytes: &[u8], size: usize) -> (Vec<DynamicMessage>, Option<JsonFault>) {
    let (mut messages, mut all) = (Messages::new(kind.clone(), BYTES_MAX), Vec::new());
    for piece in bytes.chunks(size) {
        messages.feed(piece);
        loop {
            match messages.poll() {
                Ok(Some(message)) => all.push(message),
                Ok(None) => break,
                Err(fault) => return (all, Some(fault)),
            }
        }
    }
    match messages.end() {
        Ok(last) => all.extend(last),
        Err(fault) => return (all, Some(fault)),
    }
    (all, None)
}

/// What gRPC gets is the same message, and so is what is shown of it.
fn carried(kind: &MessageDescriptor, message: &DynamicMessage) {
    let bytes = message.encode_to_vec();
    let again = DynamicMessage::decode(kind.clone(), bytes.as_slice());
    // Nested deeper than gRPC's messages may be.
    let Ok(again) = again else { return };
    same(&again.encode_to_vec(), &bytes, "a message as gRPC carries it");
    let text = serde_json::to_vec(&Shown(&again)).expect("a message can be written");
    let shown = read(kind, &text).expect("what was written is read");
    same(&shown.encode_to_vec(), &bytes, "a message that was shown");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    let Some((size, rest)) = choose(rest) else { return };
    let kind = &KINDS[which % KINDS.len()];
    let (all, fault) = found(kind, rest, usize::MAX);
    for message in &all {
        carried(kind, message);
    }
    same(&found(kind, rest, size + 1), &(all, fault), "messages in pieces");
});
