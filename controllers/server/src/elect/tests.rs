//! Candidates over an API that holds one lease.

use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// A tenth of a second where others wait for seconds.
const TIMING: Timing = Timing { lease_duration_ms: 1000, renew_deadline_ms: 600, retry_period_ms: 100 };

/// What the API holds, and whether it answers.
#[derive(Default)]
struct Store {
    lease: Option<Value>,
    revision: u64,
    is_down: bool,
}

type Shared = Arc<Mutex<Store>>;

fn status(code: StatusCode) -> (StatusCode, Value) {
    let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
    (code, json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code.as_u16()}))
}

impl Store {
    fn answer(&mut self, method: &Method, body: Option<Value>) -> (StatusCode, Value) {
        let version = |lease: &Value| lease.pointer("/metadata/resourceVersion").cloned();
        match (method, body, &self.lease) {
            _ if self.is_down => status(StatusCode::SERVICE_UNAVAILABLE),
            (&Method::GET, _, Some(lease)) => (StatusCode::OK, lease.clone()),
            (&Method::POST, Some(_), Some(_)) => status(StatusCode::CONFLICT),
            (&Method::PUT, Some(new), Some(lease)) if version(&new) != version(lease) => status(StatusCode::CONFLICT),
            (&Method::POST, Some(new), None) | (&Method::PUT, Some(new), Some(_)) => (StatusCode::OK, self.put(new)),
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    fn put(&mut self, mut lease: Value) -> Value {
        self.revision += 1;
        lease["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.lease = Some(lease.clone());
        lease
    }
}

fn client(store: &Shared) -> Client {
    let store = store.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let store = store.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.expect("a body");
            let (code, value) =
                store.lock().expect("a lock").answer(&parts.method, serde_json::from_slice(&bytes).ok());
            let answer = Response::builder().status(code).body(Body::from(value.to_string().into_bytes()));
            Ok::<_, std::convert::Infallible>(answer.expect("an answer"))
        }
    });
    Client::new(service, "default")
}

/// A candidate; whoever acts is in the list for as long.
struct One {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

type Acts = Arc<Mutex<Vec<(&'static str, Reign)>>>;

fn start(name: &'static str, store: &Shared, acting: &Acts) -> One {
    let (shutdown, acting) = (CancellationToken::new(), acting.clone());
    let act = move |reign: Reign, stop: CancellationToken| {
        let acting = acting.clone();
        async move {
            acting.lock().expect("a lock").push((name, reign));
            stop.cancelled().await;
            acting.lock().expect("a lock").retain(|(other, _)| *other != name);
        }
    };
    let (client, token) = (client(store), shutdown.clone());
    One { shutdown, task: tokio::spawn(async move { run(client, TIMING, token, act).await }) }
}

/// Waits until exactly this one acts, and may.
async fn acts(name: &str, acting: &Acts) -> Reign {
    for _ in 0..500 {
        let now = acting.lock().expect("a lock").clone();
        if let [(only, reign)] = &now[..]
            && *only == name
            && reign.may_act()
        {
            return reign.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} doesn't act");
}

fn lease(store: &Shared) -> Value {
    store.lock().expect("a lock").lease.clone().expect("a lease")["spec"].clone()
}

/// Who ends hands over at once; what else is written on the lease stays.
#[tokio::test]
async fn one_acts_and_hands_over_when_it_ends() {
    let (store, acting) = (Shared::default(), Acts::default());
    let one = start("one", &store, &acting);
    let reign = acts("one", &acting).await;
    assert_eq!(lease(&store)["leaseTransitions"], 0);
    assert!(lease(&store)["renewTime"].as_str().is_some_and(|t| t.ends_with('Z') && t.len() == 27), "microseconds");
    {
        let mut store = store.lock().expect("a lock");
        let mut labelled = store.lease.clone().expect("a lease");
        labelled["metadata"]["labels"] = json!({"a": "b"});
        store.put(labelled);
    }
    let two = start("two", &store, &acting);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    acts("one", &acting).await;
    one.shutdown.cancel();
    one.task.await.expect("it ends");
    assert!(!reign.may_act());
    assert_eq!((&lease(&store)["holderIdentity"], &lease(&store)["leaseDurationSeconds"]), (&json!(""), &json!(1)));
    acts("two", &acting).await;
    assert_eq!(lease(&store)["leaseTransitions"], 1);
    let labels = store.lock().expect("a lock").lease.as_ref().expect("a lease")["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"a": "b"}));
    two.shutdown.cancel();
    two.task.await.expect("it ends");
}

/// Who can't renew stops, and leads again when it can.
#[tokio::test]
async fn who_cannot_renew_stops_and_is_a_candidate_again() {
    let (store, acting) = (Shared::default(), Acts::default());
    let one = start("one", &store, &acting);
    let reign = acts("one", &acting).await;
    store.lock().expect("a lock").is_down = true;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!reign.may_act() && acting.lock().expect("a lock").is_empty());
    store.lock().expect("a lock").is_down = false;
    acts("one", &acting).await;
    assert!(!reign.may_act(), "an old reign is over for good");
    one.shutdown.cancel();
    one.task.await.expect("it ends");
}

/// Somebody took the lease: the next renewal shows it.
#[tokio::test]
async fn who_is_overtaken_stops() {
    let (store, acting) = (Shared::default(), Acts::default());
    let one = start("one", &store, &acting);
    let reign = acts("one", &acting).await;
    {
        let mut store = store.lock().expect("a lock");
        let mut taken = store.lease.clone().expect("a lease");
        taken["spec"]["holderIdentity"] = "another".into();
        store.put(taken);
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!reign.may_act() && acting.lock().expect("a lock").is_empty());
    one.shutdown.cancel();
    one.task.await.expect("it ends");
    assert_eq!(lease(&store)["holderIdentity"], "another", "what it doesn't hold it doesn't release");
}
