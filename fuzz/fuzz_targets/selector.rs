//! Selectors of labels and fields: what is read, written and read again says the same.
#![no_main]

use api::selector::{fields, labels};
use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if which % 2 == 0 {
        if let Ok(selector) = labels::parse(text) {
            let written = selector.to_string();
            let again = labels::parse(&written).unwrap_or_else(|e| panic!("{written:?} isn't read: {e}"));
            same(&again.to_string(), &written, "a label selector");
        }
    } else if let Ok(selector) = fields::parse(text) {
        let written = selector.to_string();
        let again = fields::parse(&written).unwrap_or_else(|e| panic!("{written:?} isn't read: {e}"));
        same(&again, &selector, "a field selector");
    }
});
