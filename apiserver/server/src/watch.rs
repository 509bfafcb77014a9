//! Watches: a stream of changes, from a revision on.
//!
//! Invariants
//!   W1  Each matching change after the start is sent once, in revision order.
//!   W2  A bookmark's revision is not ahead of what was sent.
//!   W3  A watch that can't go on ends with an ERROR event (410), never with a gap.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::resources::Resource;
use api::status::Status;
use apiserver_core::negotiate::{Encoding, Form, Shape};
use apiserver_core::options::ListOptions;
use apiserver_core::render::{self, View};
use apiserver_core::{fieldset, storage_form, stored};
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use http::{Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval};

use crate::app::App;
use crate::http::{Body, BoxError, Call};
use crate::hub::{self, Change, Next, Start, State, Subscription};
use crate::read::{self, collection_prefix};
use crate::router::{Target, view};
use crate::storage::StorageError;

/// A bookmark a minute, as in Kubernetes.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Watches without a timeout of their own end after 30 to 60 minutes.
const WATCH_SECONDS_MIN: u64 = 1800;

/// Where changes come from.
enum Source {
    Live(Subscription),
    History { stream: Box<etcd_client::WatchStream>, queue: std::collections::VecDeque<Arc<Change>> },
}

/// A watch being served.
struct Watch {
    app: Arc<App>,
    resource: &'static Resource,
    options: ListOptions,
    view: View,
    prefix: String,
    source: Source,
    /// Encoded events that go out before the source is asked.
    initial: std::collections::VecDeque<Bytes>,
    /// Revision up to which everything was sent.
    sent: i64,
    bookmarks: Option<Interval>,
    deadline: Instant,
    ended: bool,
}

/// `GET …?watch=true`.
pub(crate) async fn watch(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let view = view(call)?;
    let options = ListOptions::parse(&call.query, true)?;
    read::check_fields(target.resource, &options)?;
    let watch = open(app.clone(), target, options, view).await?;
    let frames = futures::stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), watch))
    });
    let frames: Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>> = Box::pin(frames);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let content_type = match view.form.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

async fn open(app: Arc<App>, target: &Target, options: ListOptions, view: View) -> Result<Watch, Status> {
    let mut prefix = collection_prefix(target);
    if let Some(name) = &target.name {
        prefix.push_str(name);
    }
    let from_state = options.initial_events || matches!(options.resource_version, None | Some(0));
    let mut initial = std::collections::VecDeque::new();
    let sent = if from_state {
        let list_options = ListOptions { limit: 0, continue_token: None, ..options.clone() };
        let listed = read::collect(&app, target, &list_options).await?;
        for item in &listed.items {
            let object = read::decode(target.resource, item)?;
            initial.push_back(frame(target.resource, view, "ADDED", object)?);
        }
        if options.initial_events && options.bookmarks {
            initial.push_back(bookmark(target.resource, view, listed.revision, true)?);
        }
        listed.revision
    } else {
        options.resource_version.unwrap_or(0)
    };
    let source = source(&app, target.resource, &prefix, sent).await?;
    let seconds =
        options.timeout_seconds.unwrap_or_else(|| WATCH_SECONDS_MIN + rand::random::<u64>() % WATCH_SECONDS_MIN);
    let bookmarks = options.bookmarks.then(|| {
        let mut interval = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval
    });
    app.metrics.watchers.inc();
    Ok(Watch {
        app,
        resource: target.resource,
        options,
        view,
        prefix,
        source,
        initial,
        sent,
        bookmarks,
        deadline: Instant::now() + Duration::from_secs(seconds.min(24 * 3600)),
        ended: false,
    })
}

async fn source(app: &App, resource: &'static Resource, prefix: &str, after: i64) -> Result<Source, Status> {
    match app.hub.subscribe(&storage_form::prefix(resource), after) {
        Start::Live(subscription) => Ok(Source::Live(subscription)),
        Start::History => {
            let stream = app.storage.watch(prefix, after + 1).await.map_err(read::storage_status)?;
            Ok(Source::History { stream: Box::new(stream), queue: std::collections::VecDeque::new() })
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.app.metrics.watchers.dec();
    }
}

/// What a step of a watch waits for.
enum Step {
    Change(Arc<Change>),
    Progress(i64),
    Bookmark,
    Expired,
    End,
}

impl Watch {
    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.initial.pop_front() {
            return Some(bytes);
        }
        while !self.ended {
            let sent = match self.step().await {
                Step::Change(change) => self.change(&change),
                Step::Progress(revision) => {
                    self.sent = self.sent.max(revision);
                    None
                }
                Step::Bookmark => {
                    self.catch_up();
                    bookmark(self.resource, self.view, self.sent, false).ok()
                }
                Step::Expired => {
                    self.ended = true;
                    let status = Status::expired("The resourceVersion for the provided watch is too old.");
                    return frame(self.resource, plain_json(self.view), "ERROR", status.to_json()).ok();
                }
                Step::End => return None,
            };
            if sent.is_some() {
                return sent;
            }
        }
        None
    }

    /// W2: progress is read before the queue is found empty: whatever the hub
    /// published up to it has then been sent.
    fn catch_up(&mut self) {
        if let Source::Live(subscription) = &self.source {
            let progress = self.app.hub.progress();
            if subscription.is_idle() {
                self.sent = self.sent.max(progress);
            }
        }
    }

    async fn step(&mut self) -> Step {
        let bookmark = async {
            match &mut self.bookmarks {
                Some(interval) => {
                    interval.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        // Changes first: a bookmark must not overtake them.
        tokio::select! {
            biased;
            () = self.app.shutdown.cancelled() => Step::End,
            step = from_source(&mut self.source) => step,
            () = tokio::time::sleep_until(self.deadline) => Step::End,
            () = bookmark => Step::Bookmark,
        }
    }

    /// Encodes a change as this watcher sees it; `None` if it doesn't.
    fn change(&mut self, change: &Change) -> Option<Bytes> {
        self.sent = self.sent.max(change.revision);
        if !self.covers(&change.key) {
            return None;
        }
        let now = change.now.as_ref().filter(|s| self.matches(s));
        let before = change.before.as_ref().filter(|s| self.matches(s));
        let (kind, state) = match (before, now) {
            (None, None) => return None,
            (None, Some(now)) => ("ADDED", now),
            (Some(_), Some(now)) => ("MODIFIED", now),
            (Some(before), None) => ("DELETED", change.now.as_ref().unwrap_or(before)),
        };
        if self.view.is_plain() && read::is_native(self.resource) {
            // A plain frame is the same for every watcher that sees this kind of change.
            let usual = usual_kind(change);
            if kind == usual {
                return Some(change.frame.get_or_init(|| spliced(kind, &state.bytes, change.revision)).clone());
            }
            return Some(spliced(kind, &state.bytes, change.revision));
        }
        let mut object = stored::decode(&state.bytes, change.revision).ok()?;
        storage_form::convert(storage_form::storage_resource(self.resource), self.resource, &mut object);
        frame(self.resource, self.view, kind, object).ok()
    }

    fn covers(&self, key: &str) -> bool {
        // A prefix without its slash names one object.
        if self.prefix.ends_with('/') { key.starts_with(&self.prefix) } else { key == self.prefix }
    }

    fn matches(&self, state: &State) -> bool {
        if self.options.labels.is_everything() && self.options.fields.is_everything() {
            return true;
        }
        let Some(object) = state.decoded() else { return false };
        let stored_as = storage_form::storage_resource(self.resource);
        if std::ptr::eq(stored_as, self.resource) {
            return fieldset::matches(self.resource, &self.options, object);
        }
        let mut object = Value::clone(object);
        storage_form::convert(stored_as, self.resource, &mut object);
        fieldset::matches(self.resource, &self.options, &object)
    }
}

/// How a change looks to a watcher without selectors.
fn usual_kind(change: &Change) -> &'static str {
    match (&change.before, &change.now) {
        (_, None) => "DELETED",
        (None, Some(_)) => "ADDED",
        (Some(_), Some(_)) => "MODIFIED",
    }
}

async fn from_source(source: &mut Source) -> Step {
    match source {
        Source::Live(subscription) => match subscription.next().await {
            Next::Change(change) => Step::Change(change),
            Next::Lagged => Step::Expired,
            Next::Closed => Step::Expired,
        },
        Source::History { stream, queue } => loop {
            if let Some(change) = queue.pop_front() {
                return Step::Change(change);
            }
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                // The client resumes at the revision it has seen.
                Ok(None) | Err(_) => return Step::End,
            };
            match hub::check(&response) {
                Err(StorageError::Compacted) => return Step::Expired,
                Err(_) => return Step::End,
                Ok(()) => {}
            }
            let Ok(changes) = hub::changes(response.events()) else { return Step::Expired };
            queue.extend(changes.into_iter().map(Arc::new));
            let revision = response.header().map_or(0, |h| h.revision());
            if queue.is_empty() && !response.created() {
                return Step::Progress(revision);
            }
        },
    }
}

/// The JSON frame of a change, spliced from stored bytes.
fn spliced(kind: &str, bytes: &[u8], revision: i64) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len() + 96);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    stored::write_served(bytes, revision, &mut out);
    out.put_slice(b"}\n");
    out.freeze()
}

/// Errors are a Status, whatever shape objects take.
fn plain_json(view: View) -> View {
    View { form: Form { shape: Shape::Object, ..view.form }, ..view }
}

/// An event's frame: JSON lines, or length-prefixed protobuf.
fn frame(resource: &Resource, view: View, kind: &str, object: Value) -> Result<Bytes, Status> {
    let object = render::shaped(resource, view, object);
    if view.form.encoding != Encoding::Protobuf {
        let mut out = json!({"type": kind, "object": object}).to_string();
        out.push('\n');
        return Ok(out.into());
    }
    let raw = render::protobuf(&object)?;
    Ok(api::protobuf::watch_frame(kind, &raw).into())
}

fn bookmark(resource: &Resource, view: View, revision: i64, initial_end: bool) -> Result<Bytes, Status> {
    let mut object = json!({"kind": resource.kind, "apiVersion": resource.api_version(),
        "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null}});
    if initial_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    frame(resource, view, "BOOKMARK", object)
}
