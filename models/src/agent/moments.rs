//! The model's moments, and how it calls pods.

use jiff::{SignedDuration, Timestamp};

/// A moment of the model: seconds since its beginning.
pub(super) fn at(second: u32) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + i64::from(second))
}

/// The second of a moment.
pub(super) fn second(at: Timestamp) -> u32 {
    // Moments are the model's own or up to minutes later.
    u32::try_from(at.as_second().saturating_sub(1_000_000)).unwrap_or(0)
}

/// How a pod's UID is called.
pub(super) fn uid_name(uid: u8) -> String {
    char::from(b'A' + uid).to_string()
}
