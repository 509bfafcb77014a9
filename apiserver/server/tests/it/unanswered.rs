//! Writes whose answer is lost between the store and the apiserver.

use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions};
use http::StatusCode;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::relay::Relay;
use crate::wire::{MAPS, post};

/// The store itself, without the relay.
struct Store<'a>(&'a Cluster);

impl Store<'_> {
    /// Key and UID of the configuration map of this name, if it is there.
    fn find(&self, name: &str) -> Option<(String, String)> {
        self.0.runtime.block_on(async {
            let mut client = Client::connect([&self.0.store], None).await.expect("etcd");
            let all = client.get("/registry/", Some(GetOptions::new().with_prefix())).await.expect("a list");
            let key = |kv: &etcd_client::KeyValue| String::from_utf8_lossy(kv.key()).into_owned();
            let found = all.kvs().iter().find(|kv| key(kv).ends_with(&format!("/{name}")))?;
            let object = apiserver_core::stored::decode(found.value(), found.mod_revision()).expect("an object");
            Some((key(found), object["metadata"]["uid"].as_str().expect("a uid").to_owned()))
        })
    }

    fn wait_for(&self, name: &str) -> (String, String) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = self.find(name) {
                return found;
            }
            assert!(Instant::now() < deadline, "{name} never came to the store");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn delete(&self, key: &str) {
        self.0.runtime.block_on(async {
            let mut client = Client::connect([&self.0.store], None).await.expect("etcd");
            assert_eq!(client.delete(key, None).await.expect("an answer").deleted(), 1);
        });
    }
}

/// Creates a map whose first answer is lost; returns its first UID, and what the client is told after `meanwhile`.
fn created(cluster: &Cluster, relay: &Relay, name: &str, meanwhile: impl FnOnce(&Store, &str)) -> (String, Value) {
    relay.lose(name);
    let (uid, (status, made)) = std::thread::scope(|scope| {
        let creation = scope.spawn(|| post(cluster, MAPS, &json!({"metadata": {"name": name}})));
        let store = Store(cluster);
        let (key, uid) = store.wait_for(name);
        meanwhile(&store, &key);
        relay.open();
        (uid, creation.join().expect("an answer"))
    });
    assert_eq!(status, StatusCode::CREATED, "{made}");
    (uid, made)
}

#[test]
fn a_creation_without_an_answer_makes_no_object_twice() {
    let (cluster, relay) = Cluster::behind_a_relay();
    let (uid, made) = created(&cluster, &relay, "answer-is-lost", |_, _| {});
    assert_eq!(made["metadata"]["uid"], uid.as_str(), "what it made is what it is told");

    let (uid, made) = created(&cluster, &relay, "deleted-meanwhile", |store, key| store.delete(key));
    assert_ne!(made["metadata"]["uid"], uid.as_str(), "an object that was deleted doesn't come back");
    let (_, now) = Store(&cluster).find("deleted-meanwhile").expect("there");
    assert_eq!(made["metadata"]["uid"], now.as_str());
}
