//! Patches of three kinds: none panics, and a merge patch applied twice changes nothing more.
#![no_main]

use api::merge::{json_patch, merge_patch, strategic};
use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    let Some(at) = rest.iter().position(|byte| *byte == 0) else { return };
    let (object, patch) = (&rest[..at], &rest[at + 1..]);
    let Ok(mut object) = serde_json::from_slice::<Value>(object) else { return };
    if which % 3 == 0 {
        let _ = json_patch(&mut object, patch);
        return;
    }
    let Ok(patch) = serde_json::from_slice::<Value>(patch) else { return };
    if which % 3 == 1 {
        let ty = api::schema::kind_type("", "v1", "Pod").expect("pods are known");
        let _ = strategic(ty, &mut object, &patch);
        return;
    }
    merge_patch(&mut object, &patch);
    let once = object.clone();
    merge_patch(&mut object, &patch);
    same(&object, &once, "a merge patch applied twice");
});
