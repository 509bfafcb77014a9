//! etcd's JSON gateway: its services over HTTP, for whoever has no gRPC.
//!
//! Problem. A second way in is a second place to forget a check.
//! Idea.    A request's JSON becomes the RPC's message by the descriptors of the protos, goes through the very stack
//!          that gRPC's requests go through (guard, counters, limits), and its answers come back as JSON.
//!
//! Invariants
//!   G1  Nothing is decided here: who may do what is decided by the guard behind, from a token alone.
//!   G2  Of a request's body no more than one message is held, of bounded size; of answers one.
//! Absences: no CORS, no websockets.
//! Source: etcd 3.6 `server/embed/serve.go` (paths, names as in the protos, unknown fields passed over), the
//! `google.api.http` options of `rpc.proto`, `v3lock.proto` and `v3election.proto`; grpc-gateway 2 `runtime`.

mod codec;
mod reader;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde::Serialize;
use store_core::json::{Shown, descriptors};
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use crate::auth::CommonName;
use crate::calls::Calls;
use crate::grpc::Service;
use codec::Codec;
use reader::{Reader, pass_over};

/// A body may be so many times as large as its message: base64 takes a third more, the rest is for names and spaces.
const GROWTH: usize = 2;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// HTTP takes a piece whole, however little the client reads.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Where etcd's clients of old look for `/v3/`.
const OLD_PREFIX: &str = "/v3beta/";
const NOT_FOR_COMMON_NAMES: &str =
    "CommonName of client sending a request against gateway will be ignored and not used as expected\n";

const PATHS: [(&str, &str); 51] = [
    ("/v3/kv/range", "etcdserverpb.KV/Range"),
    ("/v3/kv/put", "etcdserverpb.KV/Put"),
    ("/v3/kv/deleterange", "etcdserverpb.KV/DeleteRange"),
    ("/v3/kv/txn", "etcdserverpb.KV/Txn"),
    ("/v3/kv/compaction", "etcdserverpb.KV/Compact"),
    ("/v3/watch", "etcdserverpb.Watch/Watch"),
    ("/v3/lease/grant", "etcdserverpb.Lease/LeaseGrant"),
    ("/v3/lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("/v3/kv/lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("/v3/lease/keepalive", "etcdserverpb.Lease/LeaseKeepAlive"),
    ("/v3/lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("/v3/kv/lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("/v3/lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("/v3/kv/lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("/v3/cluster/member/add", "etcdserverpb.Cluster/MemberAdd"),
    ("/v3/cluster/member/remove", "etcdserverpb.Cluster/MemberRemove"),
    ("/v3/cluster/member/update", "etcdserverpb.Cluster/MemberUpdate"),
    ("/v3/cluster/member/list", "etcdserverpb.Cluster/MemberList"),
    ("/v3/cluster/member/promote", "etcdserverpb.Cluster/MemberPromote"),
    ("/v3/maintenance/alarm", "etcdserverpb.Maintenance/Alarm"),
    ("/v3/maintenance/status", "etcdserverpb.Maintenance/Status"),
    ("/v3/maintenance/defragment", "etcdserverpb.Maintenance/Defragment"),
    ("/v3/maintenance/hash", "etcdserverpb.Maintenance/Hash"),
    ("/v3/maintenance/hashkv", "etcdserverpb.Maintenance/HashKV"),
    ("/v3/maintenance/snapshot", "etcdserverpb.Maintenance/Snapshot"),
    ("/v3/maintenance/transfer-leadership", "etcdserverpb.Maintenance/MoveLeader"),
    ("/v3/maintenance/downgrade", "etcdserverpb.Maintenance/Downgrade"),
    ("/v3/auth/enable", "etcdserverpb.Auth/AuthEnable"),
    ("/v3/auth/disable", "etcdserverpb.Auth/AuthDisable"),
    ("/v3/auth/status", "etcdserverpb.Auth/AuthStatus"),
    ("/v3/auth/authenticate", "etcdserverpb.Auth/Authenticate"),
    ("/v3/auth/user/add", "etcdserverpb.Auth/UserAdd"),
    ("/v3/auth/user/get", "etcdserverpb.Auth/UserGet"),
    ("/v3/auth/user/list", "etcdserverpb.Auth/UserList"),
    ("/v3/auth/user/delete", "etcdserverpb.Auth/UserDelete"),
    ("/v3/auth/user/changepw", "etcdserverpb.Auth/UserChangePassword"),
    ("/v3/auth/user/grant", "etcdserverpb.Auth/UserGrantRole"),
    ("/v3/auth/user/revoke", "etcdserverpb.Auth/UserRevokeRole"),
    ("/v3/auth/role/add", "etcdserverpb.Auth/RoleAdd"),
    ("/v3/auth/role/get", "etcdserverpb.Auth/RoleGet"),
    ("/v3/auth/role/list", "etcdserverpb.Auth/RoleList"),
    ("/v3/auth/role/delete", "etcdserverpb.Auth/RoleDelete"),
    ("/v3/auth/role/grant", "etcdserverpb.Auth/RoleGrantPermission"),
    ("/v3/auth/role/revoke", "etcdserverpb.Auth/RoleRevokePermission"),
    ("/v3/lock/lock", "v3lockpb.Lock/Lock"),
    ("/v3/lock/unlock", "v3lockpb.Lock/Unlock"),
    ("/v3/election/campaign", "v3electionpb.Election/Campaign"),
    ("/v3/election/proclaim", "v3electionpb.Election/Proclaim"),
    ("/v3/election/leader", "v3electionpb.Election/Leader"),
    ("/v3/election/observe", "v3electionpb.Election/Observe"),
    ("/v3/election/resign", "v3electionpb.Election/Resign"),
];

/// An RPC, and how its messages are read.
#[derive(Clone)]
struct Rpc {
    path: PathAndQuery,
    request: MessageDescriptor,
    answer: MessageDescriptor,
    takes_many: bool,
    gives_many: bool,
}

struct Gateway {
    /// gRPC's services, with all that stands before them.
    services: Calls,
    rpcs: HashMap<&'static str, Rpc>,
    service: Service,
    body_bytes_max: usize,
}

/// The RPCs by their HTTP paths.
fn rpcs() -> HashMap<&'static str, Rpc> {
    let pool = descriptors();
    let find = |name: &str| {
        let (service, method) = name.split_once('/')?;
        let method = pool.get_service_by_name(service)?.methods().find(|known| known.name() == method)?;
        Some(Rpc {
            path: format!("/{name}").parse().ok()?,
            request: method.input(),
            answer: method.output(),
            takes_many: method.is_client_streaming(),
            gives_many: method.is_server_streaming(),
        })
    };
    PATHS.iter().filter_map(|(path, name)| Some((*path, find(name)?))).collect()
}

/// The gateway's paths, in front of gRPC's services.
pub(crate) fn routes(services: Calls, service: &Service) -> Router {
    let body_bytes_max = service.config.max_message_bytes().saturating_mul(GROWTH);
    let gateway = Arc::new(Gateway { services, rpcs: rpcs(), service: service.clone(), body_bytes_max });
    ["/v3/", "/v3/{*path}", OLD_PREFIX, "/v3beta/{*path}"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(answer)))
        .with_state(gateway)
}

async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let path = path.strip_prefix(OLD_PREFIX).map_or_else(|| path.to_owned(), |rest| format!("/v3/{rest}"));
    let result = match gateway.rpcs.get(path.as_str()) {
        _ if gateway.refuses(parts.extensions.get()) => {
            pass_over(&mut body.into_data_stream()).await;
            return (StatusCode::BAD_REQUEST, NOT_FOR_COMMON_NAMES).into_response();
        }
        Some(rpc) if parts.method == http::Method::POST && rpc.gives_many => {
            gateway.many(rpc, &parts.headers, body).await
        }
        Some(rpc) if parts.method == http::Method::POST => gateway.one(rpc, &parts.headers, body).await,
        known => {
            pass_over(&mut body.into_data_stream()).await;
            let unknown = || Status::not_found("Not Found");
            Err(known.map_or_else(unknown, |_| Status::unimplemented("Method Not Allowed")))
        }
    };
    result.unwrap_or_else(|status| refusal(&status, error_text(&status)))
}

impl Gateway {
    /// Whether somebody might think that his certificate counts here, as in etcd.
    fn refuses(&self, name: Option<&CommonName>) -> bool {
        let has_name = name.and_then(|name| name.0.as_deref()).is_some_and(|name| !name.is_empty());
        has_name && self.service.engine.state.auth().is_enabled()
    }

    fn reader(&self, rpc: &Rpc, body: Body) -> Reader {
        Reader::new(body, rpc.request.clone(), self.body_bytes_max)
    }

    /// The only message of a body; as in etcd, an empty one if there is none.
    async fn message(&self, rpc: &Rpc, body: Body) -> Result<DynamicMessage, Status> {
        let mut reader = self.reader(rpc, body);
        let message = reader.next().await;
        if message.is_err() {
            pass_over(&mut reader.body).await;
        }
        Ok(message?.unwrap_or_else(|| DynamicMessage::new(rpc.request.clone())))
    }

    async fn call(
        &self,
        rpc: &Rpc,
        headers: &HeaderMap,
        requests: impl Stream<Item = DynamicMessage> + Send + 'static,
    ) -> Result<Streaming<DynamicMessage>, Status> {
        let mut request = tonic::Request::new(requests);
        *request.metadata_mut() = metadata(headers);
        let mut client = Grpc::new(self.services.clone()).max_decoding_message_size(usize::MAX);
        let Ok(()) = client.ready().await;
        let answers = client.streaming(request, rpc.path.clone(), Codec(rpc.answer.clone())).await?;
        Ok(answers.into_inner())
    }

    /// One answer.
    async fn one(&self, rpc: &Rpc, headers: &HeaderMap, body: Body) -> Result<Response, Status> {
        let request = self.message(rpc, body).await?;
        let mut answers = self.call(rpc, headers, stream::iter([request])).await?;
        let answer = answers.message().await?.ok_or_else(|| Status::internal("no answer came"))?;
        // To its end, where its code is counted.
        answers.trailers().await?;
        let text = Bytes::from(text(&Shown(&answer))?);
        let headers = [(header::CONTENT_TYPE, JSON), (header::CONTENT_LENGTH, HeaderValue::from(text.len()))];
        // What the answer holds of the budget is held until it is sent.
        let pieces = stream::unfold((text, answers), |(mut rest, answers)| async move {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
            (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, answers)))
        });
        Ok((headers, Body::from_stream(pieces)).into_response())
    }

    /// Answers line by line; the first is waited for, because HTTP's status says how it went.
    async fn many(&self, rpc: &Rpc, headers: &HeaderMap, body: Body) -> Result<Response, Status> {
        let (tell, told) = oneshot::channel();
        let requests = if rpc.takes_many {
            requests(self.reader(rpc, body), tell).boxed()
        } else {
            stream::iter([self.message(rpc, body).await?]).boxed()
        };
        let begun = async {
            let mut lines = Lines::new(self.call(rpc, headers, requests).await?, told);
            Ok((lines.next().await?, Some(lines)))
        };
        let begun = match begun.await {
            Ok(begun) => begun,
            Err(status) => return Ok(refusal(&status, error_line(&status))),
        };
        let lines = stream::unfold(begun, |(ready, lines)| async move {
            if let Some(line) = ready {
                return Some((Ok::<_, Infallible>(line), (None, lines)));
            }
            let mut lines = lines?;
            match lines.next().await {
                Ok(line) => line.map(|line| (Ok(line), (None, Some(lines)))),
                Err(status) => Some((Ok(error_line(&status)), (None, None))),
            }
        });
        Ok(([(header::CONTENT_TYPE, JSON)], Body::from_stream(lines)).into_response())
    }
}

/// The messages of a body as they come. They end with one that can't be read, which is told.
fn requests(reader: Reader, tell: oneshot::Sender<Status>) -> impl Stream<Item = DynamicMessage> + Send {
    stream::unfold((reader, tell), |(mut reader, tell)| async move {
        match reader.next().await {
            Ok(message) => message.map(|message| (message, (reader, tell))),
            Err(status) => {
                // Nobody listens who has gone.
                let _ = tell.send(status);
                None
            }
        }
    })
}

/// Answers as lines, until the RPC ends or a request can't be read.
struct Lines {
    answers: Streaming<DynamicMessage>,
    unread: BoxFuture<'static, Status>,
}

impl Lines {
    fn new(answers: Streaming<DynamicMessage>, told: oneshot::Receiver<Status>) -> Self {
        let unread = told.then(|told| async {
            match told {
                Ok(status) => status,
                Err(_) => future::pending().await,
            }
        });
        Self { answers, unread: unread.boxed() }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let answer = tokio::select! {
            biased;
            answer = self.answers.message() => answer?,
            status = &mut self.unread => return Err(status),
        };
        match answer {
            Some(answer) => line(&Given { result: Shown(&answer) }).map(Some),
            None => (&mut self.unread).now_or_never().map_or(Ok(None), Err),
        }
    }
}

/// A line of a stream.
#[derive(Serialize)]
struct Given<'a> {
    result: Shown<'a>,
}

/// A line of a stream, its last.
#[derive(Serialize)]
struct Failed<'a> {
    error: Told<'a>,
}

/// `google.rpc.Status`, which has been all of an error since etcd 3.6.
#[derive(Serialize)]
struct Told<'a> {
    code: i32,
    message: &'a str,
}

impl<'a> Told<'a> {
    fn of(status: &'a Status) -> Self {
        Self { code: status.code().into(), message: status.message() }
    }
}

fn text(value: &impl Serialize) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value).map_err(|error| Status::internal(error.to_string()))
}

fn line(value: &impl Serialize) -> Result<Bytes, Status> {
    let mut line = text(value)?;
    line.push(b'\n');
    Ok(line.into())
}

fn error_text(status: &Status) -> Bytes {
    // A number and a text can always be written.
    text(&Told::of(status)).unwrap_or_default().into()
}

fn error_line(status: &Status) -> Bytes {
    line(&Failed { error: Told::of(status) }).unwrap_or_default()
}

fn refusal(status: &Status, text: Bytes) -> Response {
    let mut response = (http_status(status.code()), [(header::CONTENT_TYPE, JSON)], text).into_response();
    if status.code() == Code::Unauthenticated
        && let Ok(message) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, message);
    }
    response
}

/// The one place where gRPC codes become HTTP's. Source: grpc-gateway 2 `HTTPStatusFromCode`.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        // nginx's number for a client that has gone.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// What goes along with a request: its token, and what says that it is for gRPC.
fn metadata(headers: &HeaderMap) -> MetadataMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let named = name.as_str().strip_prefix("grpc-metadata-").map(HeaderName::try_from);
        match named {
            Some(Ok(name)) => kept.append(name, value.clone()),
            None if name == header::AUTHORIZATION => kept.append(name, value.clone()),
            _ => false,
        };
    }
    // Whatever stands behind: no certificate speaks for who comes this way.
    kept.insert("grpcgateway-accept", JSON);
    MetadataMap::from_headers(kept)
}

#[cfg(test)]
mod tests;
