//! An apiserver: production decides what objects become, around it is what `apiserver/server` does (`write`, `subresource`, `read`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use api::decode::{self, Validation};
use api::merge;
use api::status::Status;
use apiserver_core::lifecycle::{self, Deletion, Part};
use apiserver_core::options::DeleteOptions;
use apiserver_core::{fence, kinds, meta, page, stored};
use bytes::Bytes;
use serde_json::Value;

use super::hub::{self, Hub, Start, Told, Wanted};
use super::network::Stream;
use super::objects::{Kind, Object};
use super::store::{Storage, StorageError, Stored, Write};
use super::tasks::{Process, Sim};
use crate::mutant::Mutant;
use crate::queue::{MS, SECOND, Time};

const CONFLICTS_MAX: usize = 8;
/// Between bookmarks, about; a minute in production.
const BOOKMARK_EVERY: Time = 5 * SECOND;

/// Which object.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Place {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn key(&self) -> String {
        self.kind.key(&self.namespace, &self.name)
    }

    fn not_found(&self) -> Status {
        let resource = self.kind.resource();
        Status::not_found(resource.group, resource.name, &self.name)
    }

    fn conflict(&self, why: &str) -> Status {
        let resource = self.kind.resource();
        Status::conflict(resource.group, resource.name, &self.name, why)
    }
}

/// What is asked of an apiserver.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Create(Kind, String, Value),
    Get(Place),
    List(Wanted),
    Update(Place, Part, Value),
    /// Merge patch (RFC 7396).
    Patch(Place, Part, Value),
    /// Strategic merge patch.
    Strategic(Place, Part, Value),
    Delete(Place, DeleteOptions),
    Bind(Place, Value),
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Object(Rc<Value>),
    List(Vec<Rc<Object>>, i64),
    /// Bound at a revision.
    Bound(i64),
}

/// An answer, or why there is none.
pub(crate) type Answered = Result<Answer, Failure>;

/// Why something wasn't done, or may not have been.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The apiserver says so.
    Status(Status),
    /// There was no answer.
    Lost,
}

impl Failure {
    pub(crate) fn is(&self, code: u16) -> bool {
        matches!(self, Self::Status(status) if status.code() == code)
    }
}

type Reply = Box<dyn FnOnce(Answered)>;

/// A running apiserver.
pub(crate) struct Apiserver {
    sim: Sim,
    process: Process,
    storage: Storage,
    hub: RefCell<Option<Rc<Hub>>>,
    open: RefCell<BTreeMap<u64, Reply>>,
}

fn status_of(error: StorageError) -> Status {
    match error {
        StorageError::Conflict(_) | StorageError::Fenced(_) => Status::internal("an unguarded request met a conflict"),
        StorageError::Compacted => page::expired(None),
        StorageError::Unavailable(why) => Status::service_unavailable(format!("the store can't be reached: {why}")),
    }
}

fn encode(kind: Kind, object: &Value) -> Bytes {
    let resource = kind.resource();
    stored::encode(object, &resource.api_version(), resource.kind)
}

/// What a body of this kind is made of.
fn checked(kind: Kind, mut object: Value) -> Result<Value, Status> {
    let resource = kind.resource();
    object["apiVersion"] = resource.kind_api_version().into();
    object["kind"] = resource.kind.into();
    if let Some(ty) = resource.ty {
        let bad = |error: decode::DecodeError| Status::bad_request(format!("{}: {error}", resource.kind));
        decode::check(ty, &mut object, Validation::Warn).map_err(bad)?;
    }
    Ok(object)
}

impl Apiserver {
    pub(crate) fn start(sim: &Sim) -> Rc<Self> {
        let server = Rc::new(Self {
            sim: sim.clone(),
            process: sim.process(),
            storage: Storage::new(sim),
            hub: RefCell::default(),
            open: RefCell::default(),
        });
        let feeding = server.clone();
        sim.spawn(server.process, async move {
            let revision = loop {
                if let Ok(revision) = feeding.storage.revision().await {
                    break revision;
                }
                feeding.sim.sleep(200 * MS).await;
            };
            let hub = Rc::new(Hub::new(&feeding.sim, revision));
            *feeding.hub.borrow_mut() = Some(hub.clone());
            hub.feed(&feeding.storage).await;
        });
        let telling = server.clone();
        sim.spawn(server.process, async move {
            loop {
                telling.sim.sleep(BOOKMARK_EVERY).await;
                let hub = telling.hub.borrow().clone();
                if let Some(hub) = hub {
                    hub.bookmark();
                }
            }
        });
        server
    }

    /// Ends at once; what it asked of the store goes on.
    pub(crate) fn crash(&self) {
        self.sim.kill(self.process);
        if let Some(hub) = self.hub.take() {
            hub.drop_all();
        }
        for (_, reply) in self.open.take() {
            self.sim.later(self.sim.hop(), move || reply(Err(Failure::Lost)));
        }
    }

    /// Takes a request.
    pub(crate) fn accept(self: &Rc<Self>, ask: Ask, reply: Reply) {
        let number = self.sim.fresh();
        self.open.borrow_mut().insert(number, reply);
        let server = self.clone();
        self.sim.spawn(self.process, async move {
            let answered = server.answer(ask).await.map_err(Failure::Status);
            let reply = server.open.borrow_mut().remove(&number);
            if let Some(reply) = reply {
                reply(answered);
            }
        });
    }

    /// Takes a watch from a revision on.
    pub(crate) fn watch(&self, wanted: Wanted, after: i64, stream: Rc<Stream<Told>>) {
        let Some(hub) = self.hub.borrow().clone() else { return stream.break_off() };
        if let Start::History(watch) = hub.subscribe(wanted, after, stream) {
            self.sim.spawn(self.process, hub::from_history(watch, self.storage.clone()));
        }
    }

    async fn answer(&self, ask: Ask) -> Result<Answer, Status> {
        let answered = match ask {
            Ask::Create(kind, namespace, object) => self.create(kind, &namespace, object).await?,
            Ask::Get(place) => {
                let found = self.storage.get(&place.key()).await.map_err(status_of)?;
                self.decode(&found.ok_or_else(|| place.not_found())?)?.value.clone()
            }
            Ask::List(wanted) => return self.list(&wanted).await,
            Ask::Update(place, part, object) => {
                let object = checked(place.kind, object)?;
                self.modify(&place, part, |_| Ok(object.clone())).await?
            }
            Ask::Patch(place, part, patch) => {
                let change = |old: &Value| {
                    let mut new = old.clone();
                    merge::merge_patch(&mut new, &patch);
                    checked(place.kind, new)
                };
                self.modify(&place, part, change).await?
            }
            Ask::Strategic(place, part, patch) => {
                let resource = place.kind.resource();
                let change = |old: &Value| {
                    let mut new = old.clone();
                    let ty = resource.ty.ok_or_else(|| Status::internal("no schema"))?;
                    merge::strategic(ty, &mut new, &patch).map_err(|e| e.to_status(resource, &place.name))?;
                    checked(place.kind, new)
                };
                self.modify(&place, part, change).await?
            }
            Ask::Delete(place, options) => self.remove(&place, &options).await?,
            Ask::Bind(place, binding) => {
                let known = fence::known(&binding)?.filter(|_| !self.sim.has(Mutant::NoFence));
                let now = self.sim.seconds();
                let change = |pod: &Value| kinds::bind(pod, &binding, &now);
                let bound = self.modify_with(&place, known, change, |_, _| Ok(())).await?;
                return Ok(Answer::Bound(meta::resource_version(&bound).parse().unwrap_or(0)));
            }
        };
        Ok(Answer::Object(Rc::new(answered)))
    }

    fn decode(&self, found: &Stored) -> Result<Rc<Object>, Status> {
        self.sim.memo.decode(&found.key, found.revision, &found.value)
    }

    async fn list(&self, wanted: &Wanted) -> Result<Answer, Status> {
        let prefix = wanted.kind.prefix();
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let (items, revision) = self.storage.range(prefix, &end).await.map_err(status_of)?;
        let objects: Result<Vec<_>, Status> = items.iter().map(|item| self.decode(item)).collect();
        let objects = objects?.into_iter().filter(|object| wanted.matches(object)).collect();
        Ok(Answer::List(objects, revision))
    }

    async fn create(&self, kind: Kind, namespace: &str, object: Value) -> Result<Value, Status> {
        let (resource, received) = (kind.resource(), checked(kind, object)?);
        let generated = !meta::field(&received, "generateName").is_empty() && meta::name(&received).is_empty();
        let (mut attempts, mut uids) = (0, Vec::new());
        loop {
            let mut object = received.clone();
            lifecycle::prepare_create(resource, namespace, &self.sim.moment(), &mut object)?;
            let name = meta::name(&object).to_owned();
            let fence = fence::of_write(resource, None, &object, None);
            let (key, value) = (kind.key(meta::namespace(&object), &name), Some(encode(kind, &object)));
            attempts += 1;
            uids.push(meta::uid(&object).to_owned());
            let created = self.storage.create(Write { key, expected: 0, value, fence }, |value| {
                if self.sim.has(Mutant::SameUid) {
                    return;
                }
                meta::set(&mut object, "uid", self.sim.moment().uid);
                uids.push(meta::uid(&object).to_owned());
                *value = Some(encode(kind, &object));
            });
            match created.await {
                Ok(revision) => {
                    meta::set(&mut object, "resourceVersion", revision.to_string());
                    return Ok(object);
                }
                Err(StorageError::Conflict(found)) => {
                    let found = found.map(|found| self.decode(&found)).transpose()?;
                    if let Some(ours) = found.filter(|found| uids.iter().any(|uid| uid == found.uid())) {
                        return Ok(ours.value.clone());
                    }
                    if generated && attempts < CONFLICTS_MAX {
                        continue;
                    }
                    return Err(Status::already_exists(resource.group, resource.name, &name));
                }
                Err(other) => return Err(status_of(other)),
            }
        }
    }

    async fn modify(
        &self,
        place: &Place,
        part: Part,
        change: impl FnMut(&Value) -> Result<Value, Status>,
    ) -> Result<Value, Status> {
        let resource = place.kind.resource();
        self.modify_with(place, None, change, |old, new| lifecycle::prepare_update(resource, part, old, new)).await
    }

    /// Reads an object, changes it and commits; again if another writer came between.
    async fn modify_with(
        &self,
        place: &Place,
        known: Option<i64>,
        mut change: impl FnMut(&Value) -> Result<Value, Status>,
        prepare: impl Fn(&Value, &mut Value) -> Result<(), Status>,
    ) -> Result<Value, Status> {
        let (resource, key) = (place.kind.resource(), place.key());
        let mut found = self.storage.get(&key).await.map_err(status_of)?;
        let mut decided: Option<Value> = None;
        for _ in 0..CONFLICTS_MAX {
            let current = found.take().ok_or_else(|| place.not_found())?;
            let object = self.decode(&current)?;
            let old = &object.value;
            let new = match decided.take() {
                Some(new) => new,
                None => {
                    let mut new = change(old)?;
                    prepare(old, &mut new)?;
                    new
                }
            };
            if !lifecycle::differs(old, &new) {
                return Ok(old.clone());
            }
            let fence = fence::of_write(resource, Some(old), &new, known);
            let finished = lifecycle::is_finished(resource, &new);
            let write = Write {
                key: key.clone(),
                expected: current.revision,
                value: (!finished).then(|| encode(place.kind, &new)),
                fence: fence.clone().filter(|_| !finished),
            };
            match self.storage.write(write).await {
                Ok(revision) => {
                    let mut new = new;
                    meta::set(&mut new, "resourceVersion", revision.to_string());
                    return Ok(new);
                }
                Err(StorageError::Conflict(now)) => {
                    decided = Some(new).filter(|_| self.sim.has(Mutant::KeepDecision));
                    found = now;
                }
                Err(StorageError::Fenced(revision)) => {
                    let refusal = |fence: fence::Fence| fence.refusal(&place.name, revision);
                    return Err(fence.map_or_else(|| status_of(StorageError::Fenced(revision)), refusal));
                }
                Err(other) => return Err(status_of(other)),
            }
        }
        Err(place
            .conflict("the object has been modified; please apply your changes to the latest version and try again"))
    }

    /// Deletes an object or marks it.
    async fn remove(&self, place: &Place, options: &DeleteOptions) -> Result<Value, Status> {
        let (resource, key) = (place.kind.resource(), place.key());
        let mut found = self.storage.get(&key).await.map_err(status_of)?;
        for _ in 0..CONFLICTS_MAX {
            let current = found.take().ok_or_else(|| place.not_found())?;
            let old = self.decode(&current)?;
            if options.grace_period_seconds == Some(0) && options.uid.is_none() {
                // An agent names the UID of what it has ended.
                self.sim.forced.borrow_mut().insert(old.uid().to_owned());
            }
            let (value, result) = match lifecycle::decide_delete(resource, options, &self.sim.moment(), &old.value)? {
                Deletion::Nothing => return Ok(old.value.clone()),
                Deletion::Remove => (None, old.value.clone()),
                Deletion::Mark(marked) => (Some(encode(place.kind, &marked)), *marked),
            };
            let write = Write { key: key.clone(), expected: current.revision, value, fence: None };
            match self.storage.write(write).await {
                Ok(_) => return Ok(result),
                Err(StorageError::Conflict(now)) => found = now,
                Err(other) => return Err(status_of(other)),
            }
        }
        Err(place.conflict("the object is being changed too often; try again"))
    }
}
