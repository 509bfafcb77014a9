//! Quantities and times: their canonical form is read as the same, by the node agent too, and sums don't panic.
#![no_main]

use agent_core::resources::milli;
use api::quantity::Quantity;
use api::time;
use fuzz::same;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(quantity) = text.parse::<Quantity>() {
        let written = quantity.to_string();
        let again = written.parse::<Quantity>().unwrap_or_else(|e| panic!("{written:?} isn't read: {e}"));
        same(&again.to_string(), &written, "a quantity");
        // As resource lists have them.
        let kept = quantity.round_up_milli();
        let read = milli(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(kept.to_string()));
        let read = read.map(|milli| milli.clamp(i64::MIN.into(), i64::MAX.into()));
        same(&read, &Some(kept.milli_value().into()), "a quantity as a node agent reads it");
        let _ = (quantity.value(), quantity.milli_value(), quantity.add(again).sub(quantity).round_up_milli());
    }
    if let Ok((seconds, nanos)) = time::parse(text)
        && let Some(written) = time::format_seconds(seconds)
    {
        assert!((0..1_000_000_000).contains(&nanos), "{nanos} nanoseconds in {text:?}");
        same(&time::parse(&written).map(|(seconds, _)| seconds), &Ok(seconds), "a time");
    }
});
