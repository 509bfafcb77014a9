//! Continue tokens: where a paged list goes on, and at which revision.
//!
//! Source: apiserver `storage/continue.go`; tokens are opaque to clients.

use api::status::Status;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continue {
    /// Revision of the first page; -1 to go on at the newest.
    pub revision: i64,
    /// First key not yet given, relative to the list's prefix.
    pub start: String,
}

impl Continue {
    /// Encodes the token.
    pub fn encode(&self) -> String {
        let plain = json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.start});
        URL_SAFE_NO_PAD.encode(plain.to_string())
    }

    /// Decodes a token.
    ///
    /// # Errors
    /// 400 if it is not one of ours.
    pub fn decode(token: &str) -> Result<Self, Status> {
        let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| invalid(&e.to_string()))?;
        let plain: Value = serde_json::from_slice(&bytes).map_err(|e| invalid(&e.to_string()))?;
        if plain["v"] != "meta.k8s.io/v1" {
            return Err(invalid("server does not recognize this encoded version"));
        }
        let revision = plain["rv"].as_i64().ok_or_else(|| invalid("incorrect encoded start resourceVersion"))?;
        let start = plain["start"].as_str().filter(|s| !s.is_empty());
        let start = start.ok_or_else(|| invalid("encoded start key empty"))?.to_owned();
        // The start is joined to the list's prefix: it must not climb out of it.
        if start.starts_with('/') || start.split('/').any(|part| part == "..") {
            return Err(invalid(&format!("invalid start key {start:?}")));
        }
        Ok(Self { revision, start })
    }
}

/// The 410 that a client gets when its token's revision was compacted; it
/// carries a token to go on at the newest revision, inconsistently.
pub fn expired(token: Option<&Continue>) -> Status {
    const MESSAGE: &str = "The provided continue parameter is too old to display a consistent list result. \
        You can start a new list without the continue parameter, or use the continue token in this response \
        to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent \
        list - objects that were created, modified, or deleted between the time the first chunk was returned \
        and now may show up in the list.";
    match token {
        Some(token) => {
            let anew = Continue { revision: -1, start: token.start.clone() };
            Status::expired(MESSAGE).with_continue(anew.encode())
        }
        None => Status::expired("The resourceVersion for the provided list is too old."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_foreign_ones_are_refused() {
        let token = Continue { revision: 7, start: "ns/name\0".into() };
        assert_eq!(Continue::decode(&token.encode()).ok(), Some(token));
        let climbing = Continue { revision: 7, start: "../x".into() };
        assert!(Continue::decode(&climbing.encode()).is_err());
        assert!(Continue::decode("not base64!").is_err());
        assert!(Continue::decode("e30").is_err());
    }
}
