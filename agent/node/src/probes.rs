//! Running a probe once: exec, HTTP, TCP, gRPC.
//!
//! Source: kubelet `prober/prober.go`, `k8s.io/kubernetes/pkg/probe`.

use std::time::Duration;

use agent_core::probe;
use agent_core::runtime::ProbeKind;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use crate::cri::Cri;

/// Bytes of an answer or an output that are shown in an event.
const SHOWN_BYTES_MAX: usize = 1024;
/// Bytes of an HTTP answer that are read at all.
const BODY_BYTES_MAX: usize = 10 * 1024;

/// Runs the container's probe of this kind; `Err` says why it failed.
pub(crate) async fn run(cri: &Cri, container: &Container, id: &str, kind: ProbeKind, ip: &str) -> Result<(), String> {
    let Some(spec) = probe::spec(container, kind) else { return Ok(()) };
    let most = Duration::from_secs(probe::timeout_seconds(spec).unsigned_abs().into());
    if let Some(exec) = &spec.exec {
        return self::exec(cri, id, exec.command.as_deref().unwrap_or_default(), most).await;
    }
    if let Some(get) = &spec.http_get {
        return http_get(container, get, ip, most).await;
    }
    if let Some(tcp) = &spec.tcp_socket {
        let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
        let port = port(container, &tcp.port)?;
        return connect(host, port, most).await.map(|_| ());
    }
    match &spec.grpc {
        Some(grpc) => {
            let port = u16::try_from(grpc.port).map_err(|_| format!("{} is not a port", grpc.port))?;
            grpc_health(ip, port, grpc.service.as_deref().unwrap_or_default(), most).await
        }
        None => Err("the probe says nothing to do".to_owned()),
    }
}

/// Runs a command in the container; its exit code 0 is success.
pub(crate) async fn exec(cri: &Cri, id: &str, command: &[String], most: Duration) -> Result<(), String> {
    let timeout = i64::try_from(most.as_secs()).unwrap_or(i64::MAX);
    let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout };
    let answer = cri.runtime().exec_sync(request).await.map_err(|status| status.message().to_owned())?.into_inner();
    if answer.exit_code == 0 {
        return Ok(());
    }
    let output = [answer.stdout, answer.stderr].concat();
    Err(shown(&output))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned()
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| format!("couldn't find port: {port:?}"))
}

async fn connect(host: &str, port: u16, most: Duration) -> Result<TcpStream, String> {
    match tokio::time::timeout(most, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {host}:{port}: {error}")),
        Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// An HTTP GET; 200 to 399 is success.
pub(crate) async fn http_get(
    container: &Container,
    get: &HTTPGetAction,
    ip: &str,
    most: Duration,
) -> Result<(), String> {
    let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
    let port = port(container, &get.port)?;
    if get.scheme.as_deref() == Some("HTTPS") {
        let ask = https(host, port, get);
        return tokio::time::timeout(most, ask).await.unwrap_or_else(|_| Err(format!("no answer within {most:?}")));
    }
    let ask = async {
        let stream = connect(host, port, most).await?;
        ask(TokioIo::new(stream), host, port, get).await
    };
    tokio::time::timeout(most, ask).await.unwrap_or_else(|_| Err(format!("no answer within {most:?}")))
}

async fn https(host: &str, port: u16, get: &HTTPGetAction) -> Result<(), String> {
    let stream = TcpStream::connect((host, port)).await.map_err(|e| format!("dial tcp {host}:{port}: {e}"))?;
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(crate::tls::unverified());
    let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    ask(TokioIo::new(stream), host, port, get).await
}

async fn ask<T>(io: T, host: &str, port: u16, get: &HTTPGetAction) -> Result<(), String>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let text = |e: hyper::Error| format!("Get \"http://{host}:{port}\": {e}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(text)?;
    let driver = tokio::spawn(connection);
    let path = get.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = Request::get(path).header(header::USER_AGENT, "kube-probe/1.36").header(header::ACCEPT, "*/*");
    let own_host = get.http_headers.iter().flatten().find(|h| h.name.eq_ignore_ascii_case("host"));
    let host_header = own_host.map_or_else(|| format!("{host}:{port}"), |h| h.value.clone());
    request = request.header(header::HOST, host_header);
    for extra in get.http_headers.iter().flatten().filter(|h| !h.name.eq_ignore_ascii_case("host")) {
        request = request.header(&extra.name, &extra.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(text);
    let answer = match answer {
        Ok(answer) => answer,
        Err(message) => {
            driver.abort();
            return Err(message);
        }
    };
    let status = answer.status();
    // A server may mind that its answer isn't read; what it says is of no interest.
    let _ = http_body_util::Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
    driver.abort();
    if (200..400).contains(&status.as_u16()) {
        return Ok(());
    }
    Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
}

/// `grpc.health.v1.Health/Check`, its two messages written by hand: one field each.
async fn grpc_health(host: &str, port: u16, service: &str, most: Duration) -> Result<(), String> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{host}:{port}"))
        .map_err(|e| e.to_string())?
        .connect_timeout(most)
        .timeout(most);
    let channel = endpoint.connect().await.map_err(|e| format!("failed to connect service at {host}:{port}: {e}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(request, path, codec).await.map_err(|s| format!("rpc error: {}", s.message()))?;
    match answer.into_inner().status {
        1 => Ok(()),
        other => Err(format!("service unhealthy (responded with {other})")),
    }
}

/// Source: `grpc/health/v1/health.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// 1 is SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}
