//! Simple tokens as this member knows them: what the log says of them, by this member's clock.

use std::time::Duration;

use store_core::auth::TokenChange;
use store_core::auth::tokens::Key;

use super::Engine;

/// How long a token may take to arrive here, and how far ahead of this member it may be assigned.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(1);
const TOKEN_AHEAD_MAX: u64 = 100_000;

impl Engine {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Carries out what the log says of tokens.
    pub(super) fn change_tokens(&self, change: TokenChange) {
        self.tokens.lock().apply(self.now_ms(), change);
    }

    /// Whose token it is. One that was assigned a moment ago may not have arrived here yet.
    pub(crate) async fn use_token(&self, key: &Key) -> Option<String> {
        let deadline = tokio::time::Instant::now() + TOKEN_WAIT_MAX;
        let ahead = key.index.saturating_sub(self.applied());
        while ahead <= TOKEN_AHEAD_MAX && self.applied() < key.index && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.tokens.lock().use_token(self.now_ms(), key)
    }
}
