//! Somebody who uses apiservers: asks one, and another if it doesn't answer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use api::status::Status;
use apiserver_core::lifecycle::Part;
use apiserver_core::options::DeleteOptions;
use serde_json::Value;

use super::apiserver::{Answer, Answered, Apiserver, Ask, Failure, Place};
use super::hub::{Told, Wanted};
use super::network::{Host, Net, Stream};
use super::objects::{Kind, Object};
use super::tasks::{Sim, Slot};
use crate::queue::{MS, SECOND, Time};

/// How long an answer may take.
const PATIENCE: Time = 20 * SECOND;

/// The places of apiservers, running or not.
pub(crate) type Servers = Rc<RefCell<Vec<Option<Rc<Apiserver>>>>>;

/// A client on a machine.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) sim: Sim,
    net: Net,
    servers: Servers,
    host: Host,
    at: Rc<Cell<usize>>,
}

impl Client {
    pub(crate) fn new(sim: &Sim, net: &Net, servers: &Servers, host: Host) -> Self {
        let client = Self { sim: sim.clone(), net: net.clone(), servers: servers.clone(), host, at: Rc::default() };
        client.go_elsewhere();
        client
    }

    fn go_elsewhere(&self) {
        let places = self.servers.borrow().len() as u64;
        self.at.set(self.sim.below(places) as usize);
    }

    /// Asks for something.
    pub(crate) async fn ask(&self, ask: Ask) -> Answered {
        let (slot, way) = (Slot::<Answered>::default(), (self.host, self.at.get()));
        let (filled, servers, net) = (slot.clone(), self.servers.clone(), self.net.clone());
        self.net.send(way, move || {
            let server = servers.borrow()[way.1].clone();
            let back = net.clone();
            let reply: Box<dyn FnOnce(Answered)> =
                Box::new(move |answered| back.send(way, move || filled.fill(answered)));
            match server {
                Some(server) => server.accept(ask, reply),
                None => reply(Err(Failure::Lost)),
            }
        });
        let answered = self.sim.within(PATIENCE, slot.wait()).await.unwrap_or(Err(Failure::Lost));
        if matches!(answered, Err(Failure::Lost)) {
            self.go_elsewhere();
        }
        answered
    }

    /// Asks for something that is an object then.
    pub(crate) async fn object(&self, ask: Ask) -> Result<Rc<Value>, Failure> {
        match self.ask(ask).await? {
            Answer::Object(object) => Ok(object),
            other => Err(Failure::Status(Status::internal(format!("not an object: {other:?}")))),
        }
    }

    pub(crate) async fn create(&self, kind: Kind, namespace: &str, object: Value) -> Result<Rc<Value>, Failure> {
        self.object(Ask::Create(kind, namespace.to_owned(), object)).await
    }

    pub(crate) async fn patch(&self, place: Place, part: Part, patch: Value) -> Result<Rc<Value>, Failure> {
        self.object(Ask::Patch(place, part, patch)).await
    }

    pub(crate) async fn delete(&self, place: Place, options: DeleteOptions) -> Result<Rc<Value>, Failure> {
        self.object(Ask::Delete(place, options)).await
    }

    /// What somebody deleted is what he meant, not another object of the name.
    pub(crate) fn is_meant(&self, hit: &Value, uid: &str) {
        let found = apiserver_core::meta::uid(hit);
        if found != uid {
            let name = apiserver_core::meta::name(hit);
            self.sim.violate(format_args!("{name} ({found}) is deleted by who meant {uid}"));
        }
    }

    pub(crate) async fn list(&self, wanted: Wanted) -> Result<(Vec<Rc<Object>>, i64), Failure> {
        match self.ask(Ask::List(wanted)).await? {
            Answer::List(objects, revision) => Ok((objects, revision)),
            other => Err(Failure::Status(Status::internal(format!("not a list: {other:?}")))),
        }
    }

    /// Watches changes after a revision.
    pub(crate) fn watch(&self, wanted: Wanted, after: i64) -> Reading {
        let way = (self.host, self.at.get());
        let slow = if self.sim.once_in(8) { self.sim.below(600 * MS) } else { 0 };
        let stream = Stream::new(&self.net, way, slow);
        let (servers, sent) = (self.servers.clone(), stream.clone());
        self.net.send(way, move || {
            let server = servers.borrow()[way.1].clone();
            match server {
                Some(server) => server.watch(wanted, after, sent),
                None => sent.break_off(),
            }
        });
        Reading { client: self.clone(), stream }
    }
}

/// A watch that is read; it ends with this.
pub(crate) struct Reading {
    client: Client,
    stream: Rc<Stream<Told>>,
}

/// How long a watch may be silent before its reader tries another; bookmarks come more often.
const SILENCE: Time = 15 * SECOND;

impl Reading {
    /// What comes next; `None`: the connection is lost.
    pub(crate) async fn next(&self) -> Option<Told> {
        use super::network::Frame;
        match self.client.sim.within(SILENCE, self.stream.next()).await {
            Some(Frame::Item(told)) => Some(told),
            Some(Frame::Broken) | None => {
                self.client.go_elsewhere();
                None
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stream.close();
    }
}
