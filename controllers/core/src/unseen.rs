//! What a controller made or deleted that its informer doesn't show yet.
//!
//! Pure: time comes in as milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// What was made and is never seen (made and deleted in between) is forgotten after this.
const UNSEEN_MAX_MS: u64 = 300_000;

/// Pods a ReplicaSet made or deleted that the informer hasn't shown, by name, with when that was.
#[derive(Debug, Default)]
pub struct Unseen {
    created: BTreeMap<String, u64>,
    deleted: BTreeMap<String, u64>,
}

impl Unseen {
    /// These were created, and these deleted.
    pub fn made(&mut self, created: Vec<String>, deleted: Vec<String>, now: u64) {
        self.created.extend(created.into_iter().map(|name| (name, now)));
        self.deleted.extend(deleted.into_iter().map(|name| (name, now)));
    }

    /// How many creations aren't shown yet by what the informer has, and the names of pods whose deletion isn't.
    pub fn not_seen_yet(&mut self, pods: &[Arc<Pod>], now: u64) -> (usize, Vec<String>) {
        let shown = |name: &str| pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
        self.created.retain(|name, at| *at + UNSEEN_MAX_MS > now && shown(name).is_none());
        self.deleted.retain(|name, at| {
            *at + UNSEEN_MAX_MS > now && shown(name).is_some_and(|pod| pod.metadata.deletion_timestamp.is_none())
        });
        (self.created.len(), self.deleted.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, is_deleting: bool) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
        pod.metadata.deletion_timestamp = is_deleting.then_some(now);
        Arc::new(pod)
    }

    #[test]
    fn what_is_shown_is_not_unseen_any_more() {
        let mut unseen = Unseen::default();
        unseen.made(vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()], 0);
        assert_eq!(unseen.not_seen_yet(&[pod("a", false), pod("c", false)], 1), (1, vec!["c".to_owned()]));
        assert_eq!(unseen.not_seen_yet(&[pod("b", false), pod("c", true)], 2), (0, Vec::new()));
    }

    #[test]
    fn what_is_never_shown_is_forgotten() {
        let mut unseen = Unseen::default();
        unseen.made(vec!["a".to_owned()], Vec::new(), 0);
        assert_eq!(unseen.not_seen_yet(&[], UNSEEN_MAX_MS - 1).0, 1);
        assert_eq!(unseen.not_seen_yet(&[], UNSEEN_MAX_MS).0, 0);
    }
}
