//! Objects as they are stored and served: decoded once for all who look at them.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use api::resources::{self, Resource};
use api::status::Status;
use apiserver_core::{meta, storage_form, stored};
use bytes::Bytes;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The kinds that the simulated cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Pod,
    Node,
    Lease,
    ReplicaSet,
    Deployment,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Pod, Self::Node, Self::Lease, Self::ReplicaSet, Self::Deployment];

    pub(crate) fn resource(self) -> &'static Resource {
        let found = match self {
            Self::Pod => resources::find("", "v1", "pods"),
            Self::Node => resources::find("", "v1", "nodes"),
            Self::Lease => resources::find("coordination.k8s.io", "v1", "leases"),
            Self::ReplicaSet => resources::find("apps", "v1", "replicasets"),
            Self::Deployment => resources::find("apps", "v1", "deployments"),
        };
        found.expect("the schema has them all")
    }

    /// The kind of an object's `kind`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.resource().kind == name)
    }

    /// Where its objects are stored.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Pod => "/registry/core/pods/",
            Self::Node => "/registry/core/nodes/",
            Self::Lease => "/registry/coordination.k8s.io/leases/",
            Self::ReplicaSet => "/registry/apps/replicasets/",
            Self::Deployment => "/registry/apps/deployments/",
        }
    }

    pub(crate) fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| key.starts_with(kind.prefix()))
    }

    pub(crate) fn key(self, namespace: &str, name: &str) -> String {
        storage_form::key(self.resource(), namespace, name)
    }
}

/// An object at a revision.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) revision: i64,
    pub(crate) bytes: Bytes,
    pub(crate) value: Value,
    pod: OnceCell<Arc<Pod>>,
    node: OnceCell<Arc<Node>>,
    lease: OnceCell<Arc<Lease>>,
    replica_set: OnceCell<Arc<ReplicaSet>>,
    deployment: OnceCell<Arc<Deployment>>,
}

fn typed<K: DeserializeOwned>(cell: &OnceCell<Arc<K>>, value: &Value) -> Arc<K> {
    // The API served it, so it is one.
    cell.get_or_init(|| Arc::new(K::deserialize(value).unwrap_or_else(|error| panic!("{error}: {value}")))).clone()
}

impl Object {
    pub(crate) fn uid(&self) -> &str {
        meta::uid(&self.value)
    }

    pub(crate) fn name(&self) -> &str {
        meta::name(&self.value)
    }

    pub(crate) fn namespace(&self) -> &str {
        meta::namespace(&self.value)
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        typed(&self.pod, &self.value)
    }

    pub(crate) fn node(&self) -> Arc<Node> {
        typed(&self.node, &self.value)
    }

    pub(crate) fn lease(&self) -> Arc<Lease> {
        typed(&self.lease, &self.value)
    }

    pub(crate) fn replica_set(&self) -> Arc<ReplicaSet> {
        typed(&self.replica_set, &self.value)
    }

    pub(crate) fn deployment(&self) -> Arc<Deployment> {
        typed(&self.deployment, &self.value)
    }
}

/// What was decoded already.
#[derive(Default)]
pub(crate) struct Memo(RefCell<HashMap<(String, i64), Rc<Object>>>);

impl Memo {
    /// What is stored under a key, as it is served at a revision: its own, or that of its deletion.
    ///
    /// # Errors
    /// If it isn't an object.
    pub(crate) fn decode(&self, key: &str, revision: i64, bytes: &Bytes) -> Result<Rc<Object>, Status> {
        let place = (key.to_owned(), revision);
        if let Some(known) = self.0.borrow().get(&place).filter(|known| known.bytes == *bytes) {
            return Ok(known.clone());
        }
        let value = stored::decode(bytes, revision)
            .map_err(|e| Status::internal(format!("stored object {key} is not JSON: {e}")))?;
        let object = Rc::new(Object {
            key: key.to_owned(),
            revision,
            bytes: bytes.clone(),
            value,
            pod: OnceCell::new(),
            node: OnceCell::new(),
            lease: OnceCell::new(),
            replica_set: OnceCell::new(),
            deployment: OnceCell::new(),
        });
        self.0.borrow_mut().insert(place, object.clone());
        Ok(object)
    }
}
