//! Objects as Kubernetes' protobuf: what is decoded is written and decoded to the same.
#![no_main]

use api::protobuf::{decode_object, encode_object};
use fuzz::same;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = decode_object(bytes) else { return };
    // Go's times and quantities are checked when they are written.
    let Ok(written) = encode_object(&object) else { return };
    let again = decode_object(&written).expect("what was written is read");
    same(&encode_object(&again).expect("and written again"), &written, "a message");
});
