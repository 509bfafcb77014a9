//! What is stored: sets, a pod, and the log of what changed; each change as `apiserver_core` decides it.

use std::sync::LazyLock;

use api::resources::Resource;
use apiserver_core::lifecycle::{self, Deletion, Moment, Part};
use apiserver_core::options::{DeleteOptions, Propagation};
use controllers_core::write::Target;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";
const NAMESPACE: &str = "ns";

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Set,
    Pod,
}

/// An owner, as an object names it. Only sets own anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) controls: bool,
    pub(super) blocks: bool,
}

/// An object, as far as anybody looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: usize,
    /// Whether its labels are the ones that sets select.
    pub(super) labelled: bool,
    pub(super) owners: Vec<Owner>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

/// A change: an object as it is from then on, or `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) uid: String,
    pub(super) object: Option<Object>,
}

/// Why something isn't written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It isn't there.
    Missing,
    /// It isn't what it was.
    Conflict,
}

/// What is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) objects: Vec<Object>,
    pub(super) log: Vec<Change>,
}

fn moment() -> Moment {
    Moment { now: "2026-01-01T00:00:00Z".to_owned(), unix: 0, uid: "fresh".to_owned(), random: [0; 5] }
}

impl Kind {
    pub(super) fn resource(self) -> &'static Resource {
        match self {
            Self::Set => api::resources::find("apps", "v1", "replicasets").expect("sets are in the schema"),
            Self::Pod => api::resources::find("", "v1", "pods").expect("pods are in the schema"),
        }
    }

    pub(super) fn of(target: &Target) -> Self {
        if target.kind == "Pod" { Self::Pod } else { Self::Set }
    }

    fn target(self, name: &str) -> Target {
        let (api_version, kind) = match self {
            Self::Set => ("apps/v1", "ReplicaSet"),
            Self::Pod => ("v1", "Pod"),
        };
        let text = str::to_owned;
        Target { api_version: text(api_version), kind: text(kind), namespace: text(NAMESPACE), name: text(name) }
    }

    /// An object of the kind as the API makes it, whatever it is called.
    fn made(self) -> &'static Value {
        static SET: LazyLock<Value> = LazyLock::new(|| Kind::Set.make());
        static POD: LazyLock<Value> = LazyLock::new(|| Kind::Pod.make());
        match self {
            Self::Set => &SET,
            Self::Pod => &POD,
        }
    }

    fn make(self) -> Value {
        let containers = json!({"containers": [{"name": "c", "image": "i"}]});
        let target = self.target("x");
        let spec = match self {
            Self::Pod => containers,
            Self::Set => json!({"replicas": 1, "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": containers}}),
        };
        let mut object =
            json!({"apiVersion": target.api_version, "kind": target.kind, "metadata": {"name": "x"}, "spec": spec});
        lifecycle::prepare_create(self.resource(), NAMESPACE, &moment(), &mut object).expect("it is valid");
        object
    }
}

impl Owner {
    pub(super) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: self.controls.then_some(true),
            block_owner_deletion: self.blocks.then_some(true),
        }
    }

    fn read(reference: &OwnerReference) -> Self {
        Self {
            name: reference.name.clone(),
            uid: reference.uid.clone(),
            controls: reference.controller == Some(true),
            blocks: reference.block_owner_deletion == Some(true),
        }
    }
}

impl Object {
    pub(super) fn new(kind: Kind, name: &str, uid: &str) -> Self {
        let (name, uid) = (name.to_owned(), uid.to_owned());
        let (owners, finalizers) = (Vec::new(), Vec::new());
        Self { kind, name, uid, version: 0, labelled: kind == Kind::Pod, owners, finalizers, deleting: false }
    }

    pub(super) fn waits(&self, finalizer: &str) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == finalizer)
    }

    pub(super) fn is_owned_by(&self, uid: &str) -> bool {
        self.owners.iter().any(|owner| owner.uid == uid)
    }

    /// As the collector sees it.
    pub(super) fn node(&self) -> controllers_core::graph::Object {
        controllers_core::graph::Object {
            target: self.kind.target(&self.name),
            uid: self.uid.clone(),
            version: self.version.to_string(),
            owners: self.owners.iter().map(Owner::reference).collect(),
            finalizers: self.finalizers.clone(),
            deleting: self.deleting,
        }
    }

    /// As the API shows it.
    pub(super) fn value(&self) -> Value {
        let mut value = self.kind.made().clone();
        let metadata = value["metadata"].as_object_mut().expect("what was made has metadata");
        let mut set = |field: &str, to: Value| metadata.insert(field.to_owned(), to);
        set("name", self.name.clone().into());
        set("uid", self.uid.clone().into());
        set("resourceVersion", self.version.to_string().into());
        if self.labelled {
            set("labels", json!({"app": "a"}));
        }
        if !self.owners.is_empty() {
            set("ownerReferences", json!(self.owners.iter().map(Owner::reference).collect::<Vec<_>>()));
        }
        if !self.finalizers.is_empty() {
            set("finalizers", json!(self.finalizers));
        }
        if self.deleting {
            set("deletionTimestamp", moment().now.into());
            set("deletionGracePeriodSeconds", 0.into());
        }
        value
    }

    fn read(&self, value: &Value) -> Self {
        let list = |field: &str| value["metadata"][field].clone();
        let owners: Vec<OwnerReference> = serde_json::from_value(list("ownerReferences")).unwrap_or_default();
        Self {
            labelled: value["metadata"]["labels"]["app"] == "a",
            owners: owners.iter().map(Owner::read).collect(),
            finalizers: serde_json::from_value(list("finalizers")).unwrap_or_default(),
            deleting: value["metadata"]["deletionTimestamp"].is_string(),
            ..self.clone()
        }
    }
}

impl Store {
    pub(super) fn by_name(&self, kind: Kind, name: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.kind == kind && object.name == name)
    }

    pub(super) fn by_uid(&self, uid: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.uid == uid)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.kind == Kind::Pod)
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.kind == Kind::Set)
    }

    /// Stores an object, new or changed.
    pub(super) fn put(&mut self, object: Object) {
        let object = Object { version: self.log.len() + 1, ..object };
        self.objects.retain(|other| other.uid != object.uid);
        self.log.push(Change { kind: object.kind, uid: object.uid.clone(), object: Some(object.clone()) });
        self.objects.push(object);
        self.objects.sort_by(|a, b| a.uid.cmp(&b.uid));
    }

    fn take_out(&mut self, object: &Object) {
        self.objects.retain(|other| other.uid != object.uid);
        self.log.push(Change { kind: object.kind, uid: object.uid.clone(), object: None });
    }

    /// A merge patch, as `apiserver/server/src/write.rs` makes it.
    pub(super) fn patch(&mut self, kind: Kind, name: &str, patch: &Value) -> Result<(), Refusal> {
        let object = self.by_name(kind, name).ok_or(Refusal::Missing)?.clone();
        let old = object.value();
        let mut new = old.clone();
        api::merge::merge_patch(&mut new, patch);
        lifecycle::prepare_update(kind.resource(), Part::Main, &old, &mut new).map_err(|_| Refusal::Conflict)?;
        if lifecycle::is_finished(kind.resource(), &new) {
            self.take_out(&object);
        } else if lifecycle::differs(&old, &new) {
            self.put(object.read(&new));
        }
        Ok(())
    }

    /// A deletion.
    pub(super) fn delete(
        &mut self,
        kind: Kind,
        name: &str,
        conditions: (Option<String>, Option<String>),
        propagation: Propagation,
    ) -> Result<(), Refusal> {
        let object = self.by_name(kind, name).ok_or(Refusal::Missing)?.clone();
        let options = DeleteOptions {
            grace_period_seconds: None,
            propagation: Some(propagation),
            uid: conditions.0,
            resource_version: conditions.1,
            dry_run: false,
        };
        match lifecycle::decide_delete(kind.resource(), &options, &moment(), &object.value()) {
            Err(_) => return Err(Refusal::Conflict),
            Ok(Deletion::Nothing) => {}
            Ok(Deletion::Remove) => self.take_out(&object),
            Ok(Deletion::Mark(marked)) => self.put(object.read(&marked)),
        }
        Ok(())
    }
}
