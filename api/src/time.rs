//! RFC 3339 times as Kubernetes writes them: UTC, whole seconds or microseconds.
//!
//! Always holds: what [`parse`] accepts, Go's `time.RFC3339` accepts.

use jiff::Timestamp;

/// Why a text is no time; the message is Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"")]
pub struct TimeError(String);

/// Seconds since 1970 and nanoseconds of an RFC 3339 time.
///
/// # Errors
/// If the text isn't in the form of Go's `time.RFC3339`.
pub fn parse(text: &str) -> Result<(i64, i32), TimeError> {
    let error = || TimeError(text.to_owned());
    let bytes = text.as_bytes();
    // jiff takes more forms than Go does, so the frame is checked first.
    let frame = b"0000-00-00T00:00:00";
    let framed = bytes.len() > frame.len()
        && frame.iter().zip(bytes).all(|(want, have)| if *want == b'0' { have.is_ascii_digit() } else { want == have });
    let zone = bytes.get(frame.len()..).unwrap_or_default();
    let fraction = zone.strip_prefix(b".").map_or(0, |rest| rest.iter().take_while(|b| b.is_ascii_digit()).count() + 1);
    let zone = zone.get(fraction..).unwrap_or_default();
    let zoned = zone == b"Z" || (zone.len() == 6 && matches!(zone[0], b'+' | b'-') && zone[3] == b':');
    if !framed || !zoned || fraction == 1 {
        return Err(error());
    }
    let at: Timestamp = text.parse().map_err(|_| error())?;
    let nanos = at.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| error())?;
    let below = i32::try_from(nanos.rem_euclid(1_000_000_000)).map_err(|_| error())?;
    Ok((seconds, below))
}

/// `2004-01-01T01:01:01Z`; nothing if out of the calendar's range.
#[must_use]
pub fn format_seconds(seconds: i64) -> Option<String> {
    let at = Timestamp::from_second(seconds).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// `2004-01-01T01:01:01.000001Z`; nothing if out of the calendar's range.
#[must_use]
pub fn format_micros(seconds: i64, nanos: i32) -> Option<String> {
    let at = Timestamp::new(seconds, nanos).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_fractions_normalise() {
        let (seconds, nanos) = parse("2024-01-01T02:00:00.5+02:00").unwrap();
        assert_eq!(format_seconds(seconds).unwrap(), "2024-01-01T00:00:00Z");
        assert_eq!(format_micros(seconds, nanos).unwrap(), "2024-01-01T00:00:00.500000Z");
        for bad in ["", "2024-01-01", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00", "2024-13-01T00:00:00Z"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
