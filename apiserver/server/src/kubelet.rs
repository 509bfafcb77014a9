//! Logs, exec and attach: requests passed on to the agent of the pod's node.
//!
//! The apiserver shows its own client certificate; what flows after an upgrade
//! is the client's WebSocket, carried byte for byte.

use std::sync::Arc;
use std::time::Duration;

use api::status::Status;
use apiserver_core::{meta, storage_form, stored};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::app::App;
use crate::http::{Body, Call, full};
use crate::read::{self, storage_status};
use crate::router::Target;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Copied at a time in each direction of an upgraded connection.
const COPY_BYTES: usize = 16 * 1024;

/// Where a pod's containers run.
struct Place {
    host: String,
    port: u16,
    container: String,
}

/// `GET …/pods/NAME/log`.
pub(crate) async fn logs(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let place = place(app, call, target).await?;
    let path = agent_path("containerLogs", target, &place, &call.raw_query);
    let mut sender = connect(app, &place).await?;
    let request = request(Method::GET, &place, &path, HeaderMap::new())?;
    let response = sender.send_request(request).await.map_err(|e| unreachable_agent(&place, &e))?;
    let (parts, body) = response.into_parts();
    let mut passed = Response::new(body.map_err(Into::into).boxed_unsync());
    *passed.status_mut() = parts.status;
    if let Some(content_type) = parts.headers.get(header::CONTENT_TYPE) {
        passed.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    Ok(passed)
}

/// `GET` or `POST …/pods/NAME/{exec,attach}`, as a WebSocket.
pub(crate) async fn stream(
    app: &Arc<App>,
    mut call: Call,
    target: &Target,
    what: &str,
) -> Result<Response<Body>, Status> {
    let upgrade = call.header(header::UPGRADE).to_ascii_lowercase();
    if upgrade != "websocket" {
        let asked = if upgrade.is_empty() { "no upgrade" } else { &upgrade };
        return Err(Status::bad_request(format!(
            "{what} is served over WebSocket, and the request asked for {asked}: use kubectl 1.30 or later"
        )));
    }
    let Some(client) = call.extensions.remove::<OnUpgrade>() else {
        return Err(Status::bad_request("the connection can't be upgraded: use HTTP/1.1"));
    };
    let place = place(app, &call, target).await?;
    let path = agent_path(what, target, &place, &call.raw_query);
    let mut sender = connect(app, &place).await?;
    let request = request(Method::GET, &place, &path, upgrade_headers(&call.headers))?;
    let response = sender.send_request(request).await.map_err(|e| unreachable_agent(&place, &e))?;
    let (parts, _) = (response.status(), ());
    if parts != StatusCode::SWITCHING_PROTOCOLS {
        return refused(response).await;
    }
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = response.headers().clone();
    let agent = hyper::upgrade::on(response);
    let shutdown = app.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            result = join(client, agent) => if let Err(error) = result {
                tracing::debug!(%error, "a stream ended");
            }
        }
    });
    Ok(answer)
}

async fn join(client: OnUpgrade, agent: OnUpgrade) -> Result<(), crate::http::BoxError> {
    let (client, agent) = tokio::try_join!(client, agent)?;
    let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut agent, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}

/// An agent that doesn't upgrade says why: that is the client's answer.
async fn refused(response: Response<hyper::body::Incoming>) -> Result<Response<Body>, Status> {
    let (parts, body) = response.into_parts();
    let bytes = http_body_util::Limited::new(body, 64 * 1024).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let mut passed = Response::new(full(bytes));
    *passed.status_mut() = parts.status;
    if let Some(content_type) = parts.headers.get(header::CONTENT_TYPE) {
        passed.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    Ok(passed)
}

fn upgrade_headers(from: &HeaderMap) -> HeaderMap {
    let passed = [
        header::CONNECTION,
        header::UPGRADE,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_PROTOCOL,
    ];
    let mut headers = HeaderMap::new();
    for name in passed {
        for value in from.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    headers
}

fn agent_path(what: &str, target: &Target, place: &Place, raw_query: &str) -> String {
    let query = if raw_query.is_empty() { String::new() } else { format!("?{raw_query}") };
    format!("/{what}/{}/{}/{}{query}", target.namespace, target.name(), place.container)
}

fn request(method: Method, place: &Place, path: &str, headers: HeaderMap) -> Result<Request<Empty<Bytes>>, Status> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, format!("{}:{}", place.host, place.port))
        .body(Empty::new())
        .map_err(|e| Status::bad_request(e.to_string()))?;
    request.headers_mut().extend(headers);
    Ok(request)
}

fn unreachable_agent(place: &Place, error: &dyn std::fmt::Display) -> Status {
    Status::internal(format!("the node's agent at {}:{} can't be reached: {error}", place.host, place.port))
}

async fn connect(app: &App, place: &Place) -> Result<SendRequest<Empty<Bytes>>, Status> {
    let tls = app
        .kubelet_tls
        .clone()
        .ok_or_else(|| Status::internal("this server has no client certificate for node agents".to_owned()))?;
    let open = async {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(place.host.clone()).map_err(std::io::Error::other)?;
        tokio_rustls::TlsConnector::from(tls).connect(name, stream).await
    };
    let stream = match tokio::time::timeout(CONNECT_MAX, open).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable_agent(place, &error)),
        Err(_) => return Err(unreachable_agent(place, &"no answer")),
    };
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable_agent(place, &e))?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

async fn place(app: &App, call: &Call, target: &Target) -> Result<Place, Status> {
    let found = app.storage.get(&target.key()).await.map_err(storage_status)?.ok_or_else(|| target.not_found())?;
    let pod = read::decode(target.resource, &found)?;
    let container = container(&pod, call.query.filled("container"))?;
    let node_name = meta::text(&pod, "/spec/nodeName");
    if node_name.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", target.name())));
    }
    let nodes = api::resources::find("", "v1", "nodes")
        .ok_or_else(|| Status::internal("the schema has no nodes".to_owned()))?;
    let node = app.storage.get(&storage_form::key(nodes, "", node_name)).await.map_err(storage_status)?;
    let node = node.ok_or_else(|| Status::not_found("", "nodes", node_name))?;
    let node = stored::decode(&node.value, node.revision).map_err(|e| Status::internal(e.to_string()))?;
    let address = |ty: &str| {
        let addresses = meta::items(&node, "/status/addresses");
        addresses.iter().find(|a| meta::text(a, "/type") == ty).map(|a| meta::text(a, "/address").to_owned())
    };
    let host = address("InternalIP").or_else(|| address("Hostname"));
    let host = host.ok_or_else(|| Status::internal(format!("node {node_name} has no address")))?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(10250);
    Ok(Place { host, port, container })
}

/// The container that is meant. Source: `pkg/registry/core/pod/strategy.go` podContainer checks.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, Status> {
    let lists = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];
    let names =
        |pointer: &str| meta::items(pod, pointer).iter().map(|c| meta::text(c, "/name").to_owned()).collect::<Vec<_>>();
    if let Some(asked) = asked {
        if lists.iter().any(|l| names(l).iter().any(|n| n == asked)) {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!("container {asked} is not valid for pod {}", meta::name(pod))));
    }
    let default = meta::text(pod, "/metadata/annotations/kubectl.kubernetes.io~1default-container");
    let main = names(lists[0]);
    match main.as_slice() {
        [only] => Ok(only.clone()),
        many if many.iter().any(|n| n == default) => Ok(default.to_owned()),
        many => Err(Status::bad_request(format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            meta::name(pod),
            many.join(" ")
        ))),
    }
}
