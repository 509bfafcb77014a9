//! What a controller made or deleted that its informer doesn't show yet.
//!
//! Pure: time comes in as milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// What was made and is never seen (made and deleted in between) is forgotten after this.
const UNSEEN_MAX_MS: u64 = 300_000;

/// What isn't shown for so long may never be: whoever made it asks the API.
const DOUBTED_AFTER_MS: u64 = 5_000;

/// Pods a ReplicaSet made (by name, as it was told) or deleted (by UID: another of the name may be there by now) that the
/// informer hasn't shown, with when that was.
#[derive(Debug, Default)]
pub struct Unseen {
    created: BTreeMap<String, u64>,
    deleted: BTreeMap<String, u64>,
}

impl Unseen {
    /// These names were created, and these UIDs deleted.
    pub fn made(&mut self, created: Vec<String>, deleted: Vec<String>, now: u64) {
        self.created.extend(created.into_iter().map(|name| (name, now)));
        self.deleted.extend(deleted.into_iter().map(|uid| (uid, now)));
    }

    /// Creations that should have been shown by now: the API is to be asked whether they are there.
    #[must_use]
    pub fn doubted(&self, pods: &[Arc<Pod>], now: u64) -> Vec<String> {
        let is_shown = |name: &str| pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(name));
        let doubted = self.created.iter().filter(|(name, at)| **at + DOUBTED_AFTER_MS <= now && !is_shown(name));
        doubted.map(|(name, _)| name.clone()).collect()
    }

    /// The API doesn't have these: they were made and are gone.
    pub fn gone(&mut self, names: &[String]) {
        self.created.retain(|name, _| !names.contains(name));
    }

    /// When to look again though nothing is shown: what was made may have gone before it ever was, and nobody tells of that.
    #[must_use]
    pub fn next_look(&self) -> Option<u64> {
        let doubts = self.created.values().map(|at| at + DOUBTED_AFTER_MS);
        doubts.chain(self.deleted.values().map(|at| at + UNSEEN_MAX_MS)).min()
    }

    /// How many creations aren't shown yet by what the informer has, and the UIDs of pods whose deletion isn't.
    pub fn not_seen_yet(&mut self, pods: &[Arc<Pod>], now: u64) -> (usize, Vec<String>) {
        let is_shown = |name: &str| pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(name));
        let is_left = |pod: &Pod, uid: &str| {
            pod.metadata.uid.as_deref() == Some(uid) && pod.metadata.deletion_timestamp.is_none()
        };
        self.created.retain(|name, at| *at + UNSEEN_MAX_MS > now && !is_shown(name));
        self.deleted.retain(|uid, at| *at + UNSEEN_MAX_MS > now && pods.iter().any(|pod| is_left(pod, uid)));
        (self.created.len(), self.deleted.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, is_deleting: bool) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(format!("uid of {name}"));
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
        pod.metadata.deletion_timestamp = is_deleting.then_some(now);
        Arc::new(pod)
    }

    #[test]
    fn what_is_shown_is_not_unseen_any_more() {
        let mut unseen = Unseen::default();
        let of_c = "uid of c".to_owned();
        unseen.made(vec!["a".to_owned(), "b".to_owned()], vec![of_c.clone()], 0);
        assert_eq!(unseen.not_seen_yet(&[pod("a", false), pod("c", false)], 1), (1, vec![of_c]));
        assert_eq!(unseen.not_seen_yet(&[pod("b", false), pod("c", true)], 2), (0, Vec::new()));
    }

    /// Somebody puts another pod in its place, and the informer shows that one: the first is gone.
    #[test]
    fn what_is_replaced_under_its_name_is_shown_to_be_gone() {
        let mut unseen = Unseen::default();
        unseen.made(Vec::new(), vec!["uid of the first c".to_owned()], 0);
        assert_eq!(unseen.not_seen_yet(&[pod("c", false)], 1), (0, Vec::new()));
    }

    /// Made and deleted before the informer showed it: as long as it counts, a pod is missing.
    #[test]
    fn what_may_be_gone_is_asked_for() {
        let mut unseen = Unseen::default();
        unseen.made(vec!["a".to_owned(), "b".to_owned()], Vec::new(), 0);
        assert_eq!(unseen.doubted(&[], DOUBTED_AFTER_MS - 1), Vec::<String>::new());
        assert_eq!(unseen.doubted(&[pod("b", false)], DOUBTED_AFTER_MS), ["a"]);
        unseen.gone(&["a".to_owned()]);
        assert_eq!(unseen.not_seen_yet(&[], DOUBTED_AFTER_MS).0, 1);
    }

    /// The last write of a look may be a creation: no change that is shown need ever follow it.
    #[test]
    fn what_was_made_is_looked_at_again_though_nothing_is_shown() {
        let mut unseen = Unseen::default();
        assert_eq!(unseen.next_look(), None);
        unseen.made(Vec::new(), vec!["uid of c".to_owned()], 1);
        assert_eq!(unseen.next_look(), Some(1 + UNSEEN_MAX_MS));
        unseen.made(vec!["a".to_owned()], Vec::new(), 2);
        unseen.made(vec!["b".to_owned()], Vec::new(), 3);
        assert_eq!(unseen.next_look(), Some(2 + DOUBTED_AFTER_MS));
        unseen.gone(&["a".to_owned()]);
        assert_eq!(unseen.next_look(), Some(3 + DOUBTED_AFTER_MS));
        unseen.not_seen_yet(&[pod("b", false)], 4);
        assert_eq!(unseen.next_look(), None);
    }

    #[test]
    fn what_is_never_shown_is_forgotten() {
        let mut unseen = Unseen::default();
        unseen.made(vec!["a".to_owned()], Vec::new(), 0);
        assert_eq!(unseen.not_seen_yet(&[], UNSEEN_MAX_MS - 1).0, 1);
        assert_eq!(unseen.not_seen_yet(&[], UNSEEN_MAX_MS).0, 0);
    }
}
