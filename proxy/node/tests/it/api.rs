//! An apiserver of two collections, in memory: lists, and watches that go on from a revision.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Service,
    EndpointSlice,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<(&'static str, String), Value>,
    /// Every event by revision: revision n is at n - 1.
    events: Vec<(Kind, String)>,
    watchers: Vec<(Kind, UnboundedSender<Bytes>)>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
}

impl Kind {
    fn of(path: &str) -> Self {
        match path {
            "/api/v1/services" => Self::Service,
            "/apis/discovery.k8s.io/v1/endpointslices" => Self::EndpointSlice,
            other => panic!("the proxy asks for {other}"),
        }
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Service => ("v1", "Service"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice"),
        }
    }
}

impl FakeApi {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, kind: Kind, mut object: Value) {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let mut state = self.lock();
        let key = (kind.names().1, name);
        let change = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        object["metadata"]["resourceVersion"] = (state.events.len() + 1).to_string().into();
        object["apiVersion"] = kind.names().0.into();
        object["kind"] = kind.names().1.into();
        state.objects.insert(key, object.clone());
        state.tell(kind, change, &object);
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, kind: Kind, name: &str) {
        let mut state = self.lock();
        let mut object = state.objects.remove(&(kind.names().1, name.to_owned())).expect("an object to delete");
        object["metadata"]["resourceVersion"] = (state.events.len() + 1).to_string().into();
        state.tell(kind, "DELETED", &object);
    }

    /// A client; to be made on the runtime that uses it.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let response = api.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<BoxBody<Bytes, Infallible>> {
        let kind = Kind::of(request.uri().path());
        let query = request.uri().query().unwrap_or_default();
        let mut state = self.lock();
        if !query.contains("watch=true") {
            let (version, name) = kind.names();
            let items: Vec<&Value> = state.objects.iter().filter(|((k, _), _)| *k == name).map(|(_, o)| o).collect();
            let list = json!({"apiVersion": version, "kind": format!("{name}List"), "items": items,
                "metadata": {"resourceVersion": state.events.len().to_string()}});
            return Response::new(Full::new(Bytes::from(list.to_string())).boxed());
        }
        let after = query.split('&').find_map(|p| p.strip_prefix("resourceVersion="));
        let after: usize = after.and_then(|r| r.parse().ok()).expect("a revision to watch from");
        let (sender, receiver) = unbounded_channel();
        for (_, line) in state.events.iter().skip(after).filter(|(k, _)| *k == kind) {
            // The receiver is held below.
            let _ = sender.send(Bytes::from(line.clone()));
        }
        state.watchers.push((kind, sender));
        let frames = UnboundedReceiverStream::new(receiver).map(|line| Ok(http_body::Frame::data(line)));
        Response::new(BoxBody::new(StreamBody::new(frames)))
    }
}

impl State {
    fn tell(&mut self, kind: Kind, change: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": change, "object": object}));
        self.watchers.retain(|(k, sender)| *k != kind || sender.send(Bytes::from(line.clone())).is_ok());
        self.events.push((kind, line));
    }
}
