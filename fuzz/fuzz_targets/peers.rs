//! What a peer's connection carries: frames, greetings and their answers.
#![no_main]

use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;
use store_core::peers::{Frame, Greeting, Reception};

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    match which % 3 {
        0 => {
            if let Ok(frame) = Frame::decode(&rest.to_vec().into()) {
                let again = frame.encode().expect("it came in fewer bytes");
                let again = Frame::decode(&again.into()).expect("what was written is read");
                // By what is known of it: what isn't known has no order.
                same(&format!("{again:?}"), &format!("{frame:?}"), "a frame");
            }
        }
        1 => {
            if let Ok(greeting) = Greeting::decode(rest) {
                same(&greeting.encode(), &rest.to_vec(), "a greeting");
            }
        }
        _ => {
            if let Some(Ok(reception)) = rest.first().map(|byte| Reception::decode(*byte)) {
                same(&reception.encode(), &rest[0], "a reception");
            }
        }
    }
});
