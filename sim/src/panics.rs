//! What production code says when something that it asserts doesn't hold.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

thread_local! {
    /// While a run is on: what was said last, and where.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Does something; what panics is told instead of printed.
pub(crate) fn told(work: impl FnOnce()) -> Result<(), String> {
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_ours = SAID.with_borrow_mut(|said| said.as_mut().map(|said| *said = info.to_string()).is_some());
            if !is_ours {
                others(info);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let done = std::panic::catch_unwind(AssertUnwindSafe(work));
    let said = SAID.take().unwrap_or_default();
    done.map_err(|_| said.split_whitespace().collect::<Vec<_>>().join(" "))
}
