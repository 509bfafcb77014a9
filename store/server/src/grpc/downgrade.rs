//! Going back to an older minor version: etcd's answers, up to the point where something would be done.
//!
//! There is no older version of this store whose format one could go back to. So whether a version is
//! the one below is answered as by etcd, nothing is ever under way, and beginning is refused in plain words.
//! Source: etcd `server/etcdserver/v3_server.go`, `server/etcdserver/version/manager.go`.

use store_core::errors::RequestError;
use store_core::wire::downgrade_request::DowngradeAction;
use store_core::wire::{DowngradeRequest, DowngradeResponse};

use super::Service;

/// The cluster's version, and the one below.
const CLUSTER: &str = "3.6";
const BELOW: (u64, u64) = (3, 5);

/// Major and minor of `3.5` or `3.5.1-rc.0+x`, as etcd reads it.
fn version(text: &str) -> Option<(u64, u64)> {
    let numbers = |text: &str| {
        let (text, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (text, stage) = text.split_once('-').map_or((text, None), |(rest, stage)| (rest, Some(stage)));
        let mut parts = text.splitn(3, '.').map(|part| part.parse::<u64>().ok());
        let both = parts.next()?.zip(parts.next()?)?;
        parts.next()??;
        let is_named = |name: &str| {
            let is_good = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            name.split('.').all(is_good)
        };
        let is_whole = [build, stage].into_iter().flatten().all(is_named);
        is_whole.then_some(both)
    };
    numbers(text).or_else(|| numbers(&format!("{text}.0")))
}

/// What can be said without asking anybody; `None` if nothing speaks against the version.
fn refusal(text: &str) -> Option<RequestError> {
    match version(text) {
        None => Some(RequestError::DowngradeVersionFormat),
        Some(target) if target != BELOW => Some(RequestError::DowngradeTarget),
        Some(_) => None,
    }
}

impl Service {
    pub(super) async fn answer_downgrade(&self, request: &DowngradeRequest) -> Result<DowngradeResponse, RequestError> {
        let action = DowngradeAction::try_from(request.action).map_err(|_| RequestError::UnknownMethod)?;
        // There is nothing to cancel; etcd says so in its log alone.
        if action != DowngradeAction::Cancel {
            if let Some(refusal) = refusal(&request.version) {
                return Err(refusal);
            }
            self.engine.linearize().await?;
        }
        if action == DowngradeAction::Enable {
            return Err(RequestError::NoDowngrade);
        }
        Ok(DowngradeResponse { header: self.header_now(), version: CLUSTER.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        for text in ["3.5", "3.5.0", "3.5.21", "3.5.0-rc.1", "3.5.0+build", "3.5.0-rc.1+build"] {
            assert_eq!(refusal(text), None, "{text}");
        }
        for text in ["3.6", "3.4.0", "4.5", "2.5.1", "0.0"] {
            assert_eq!(refusal(text), Some(RequestError::DowngradeTarget), "{text}");
        }
        for text in ["", "3", "v3.5", "3.5.0.1", "three.five", "3.5-rc", "3.5.0-", "3..5", "3.5.0-a..b"] {
            assert_eq!(refusal(text), Some(RequestError::DowngradeVersionFormat), "{text}");
        }
    }
}
