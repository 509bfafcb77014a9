//! Calls of clients, under the names of Go's gRPC middleware; what their answers hold goes with the last of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use http_body::Frame;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tonic::Code;

use super::Metrics;
use crate::admission::Held;

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Handled {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

/// Counters of calls.
pub(crate) struct Grpc {
    started: Family<Call, Counter>,
    handled: Family<Handled, Counter>,
    seconds: Family<Call, Histogram, fn() -> Histogram>,
    sent: Counter,
    received: Counter,
}

/// etcd's services and their methods.
const SERVICES: [(&str, &[&str]); 9] = [
    ("etcdserverpb.KV", &["Range", "Put", "DeleteRange", "Txn", "Compact", "RangeStream"]),
    ("etcdserverpb.Watch", &["Watch"]),
    ("etcdserverpb.Lease", &["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"]),
    ("etcdserverpb.Cluster", &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote", "MemberList"]),
    (
        "etcdserverpb.Maintenance",
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade"],
    ),
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    ("v3lockpb.Lock", &["Lock", "Unlock"]),
    ("v3electionpb.Election", &["Campaign", "Proclaim", "Leader", "Observe", "Resign"]),
    ("grpc.health.v1.Health", &["Check", "Watch"]),
];

/// Service and method of a path; `None` for what isn't one of etcd's: whoever asks for anything else must not make
/// labels of it.
fn call(path: &str) -> Option<Call> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (grpc_service, methods) = SERVICES.iter().find(|(name, _)| *name == service)?;
    let grpc_method = methods.iter().find(|name| **name == method)?;
    let grpc_type = match method {
        "Watch" if service == "grpc.health.v1.Health" => "server_stream",
        "Watch" | "LeaseKeepAlive" => "bidi_stream",
        "Snapshot" | "Observe" | "RangeStream" => "server_stream",
        _ => "unary",
    };
    Some(Call { grpc_type, grpc_service, grpc_method })
}

/// What a code is called in Go. Source: grpc-go `codes/code_string.go`.
fn in_go(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// The buckets that Go's clients of Prometheus have by themselves.
fn seconds() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl Grpc {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self {
            started: Family::default(),
            handled: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            sent: Counter::default(),
            received: Counter::default(),
        };
        registry.register("grpc_server_started", "Calls begun", new.started.clone());
        registry.register("grpc_server_handled", "Calls ended, by code", new.handled.clone());
        let name = "grpc_server_handling_seconds";
        registry.register(name, "Seconds from a call's begin to its end", new.seconds.clone());
        registry.register("etcd_network_client_grpc_sent_bytes", "Bytes sent to clients", new.sent.clone());
        registry.register("etcd_network_client_grpc_received_bytes", "Bytes received of clients", new.received.clone());
        new
    }

    fn ended(&self, call: Call, code: Code, took: Duration) {
        self.seconds.get_or_create(&call).observe(took.as_secs_f64());
        let Call { grpc_type, grpc_service, grpc_method } = call;
        let grpc_code = in_go(code);
        self.handled.get_or_create(&Handled { grpc_type, grpc_service, grpc_method, grpc_code }).inc();
    }
}

/// A call that is counted, with its end and its bytes.
pub(crate) struct Watched {
    metrics: Arc<Metrics>,
    end: Option<End>,
}

impl Watched {
    /// A call begins.
    pub(crate) fn begin(metrics: &Arc<Metrics>, path: &str) -> Self {
        let call = call(path);
        if let Some(call) = &call {
            metrics.grpc.started.get_or_create(call).inc();
        }
        let end = call.map(|call| End { metrics: metrics.clone(), call, begun: Instant::now(), code: None });
        Self { metrics: metrics.clone(), end }
    }

    /// The request, whose bytes are counted as they come.
    pub(crate) fn counted(&self, request: Request) -> Request {
        let bytes = self.metrics.grpc.received.clone();
        request.map(|body| Body::new(Counted { body, bytes, end: None, _held: None }))
    }

    /// So many bytes of it came.
    pub(crate) fn received(&self, bytes: usize) {
        self.metrics.grpc.received.inc_by(bytes as u64);
    }

    /// It is answered, and ends with the answer's body.
    pub(crate) fn answered(self, mut response: Response) -> Response {
        let Self { metrics, mut end } = self;
        let held = response.extensions_mut().remove::<Held>();
        // An answer without a body carries its code in the headers.
        if let Some(end) = &mut end {
            end.code = code_in(response.headers());
        }
        response.map(|body| Body::new(Counted { body, bytes: metrics.grpc.sent.clone(), end, _held: held }))
    }

    /// It is answered with so many bytes, and has ended.
    pub(crate) fn ended(mut self, code: Code, bytes: usize) {
        self.metrics.grpc.sent.inc_by(bytes as u64);
        if let Some(end) = &mut self.end {
            end.code = Some(code);
        }
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(headers.get("grpc-status")?.as_bytes()))
}

/// A call's end: counted when its answer's body goes, however it goes.
struct End {
    metrics: Arc<Metrics>,
    call: Call,
    begun: Instant,
    code: Option<Code>,
}

impl Drop for End {
    fn drop(&mut self) {
        // Without a code, the client broke off.
        self.metrics.grpc.ended(self.call, self.code.unwrap_or(Code::Cancelled), self.begun.elapsed());
    }
}

/// A body whose bytes are counted, and whose trailers are looked at.
struct Counted {
    body: Body,
    bytes: Counter,
    end: Option<End>,
    _held: Option<Held>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                self.bytes.inc_by(data.len() as u64);
            }
            if let (Some(trailers), Some(end)) = (frame.trailers_ref(), &mut self.end) {
                end.code = code_in(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
