//! What the tester's log tells: it writes one object a line.

use serde_json::Value;

/// A line that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Started(String),
    /// The case that was started last; its checks too.
    Passed,
    /// Why the case under way, or what comes before and after all, failed.
    Failed(String),
}

/// What a line of the log tells, if anything.
pub(super) fn event(line: &str) -> Option<Event> {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        // Go's own, of a program that dies.
        return line.starts_with("panic: ").then(|| Event::Failed(line.to_owned()));
    };
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    match value["msg"].as_str()? {
        "case START" => Some(Event::Started(text("desc"))),
        "consistency check PASS" => Some(Event::Passed),
        message @ ("round FAIL" | "compact FAIL") => Some(Event::Failed(format!("{message}: {}", text("error")))),
        message if matches!(value["level"].as_str(), Some("fatal" | "panic")) => {
            Some(Event::Failed(format!("{message}: {}", text("error"))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_how_cases_end() {
        let of = |level: &str, msg: &str, rest: &str| event(&format!(r#"{{"level":"{level}","msg":"{msg}"{rest}}}"#));
        assert_eq!(
            of("info", "case START", r#","desc":"SIGTERM_ALL""#),
            Some(Event::Started("SIGTERM_ALL".to_owned()))
        );
        assert_eq!(of("info", "consistency check PASS", ""), Some(Event::Passed));
        assert_eq!(of("warn", "consistency check END", r#","checker":"KV_HASH""#), None);
        assert_eq!(of("warn", "round FAIL", r#","error":"why""#), Some(Event::Failed("round FAIL: why".to_owned())));
        assert_eq!(
            of("fatal", "Bootstrap failed", r#","error":"why""#),
            Some(Event::Failed("Bootstrap failed: why".to_owned()))
        );
        assert_eq!(event("panic: runtime error"), Some(Event::Failed("panic: runtime error".to_owned())));
        assert_eq!(event("goroutine 1 [running]:"), None);
    }
}
