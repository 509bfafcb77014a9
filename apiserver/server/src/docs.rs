//! Everything that isn't a resource: health, version, metrics, discovery, OpenAPI.

use std::sync::Arc;

use api::status::Status;
use apiserver_core::negotiate::{self, Discovery};
use apiserver_core::{discovery, openapi};
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::app::App;
use crate::http::{Body, Call, gzip, reply, reply_status};
use crate::router::unknown_path;

/// The Kubernetes version the API is of.
pub(crate) const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.0");

/// Paths that are answered without credentials.
pub(crate) fn is_public(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
    matches!(first, "livez" | "readyz" | "healthz" | "version")
}

/// Answers a public path.
pub(crate) async fn public(app: &Arc<App>, method: &Method, path: &str, query: &str) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return reply_status(&Status::method_not_allowed_generic());
    }
    let path = path.trim_matches('/');
    if path == "version" {
        return json_reply(&version());
    }
    let (endpoint, check) = path.split_once('/').unwrap_or((path, ""));
    let verbose = query.split('&').any(|p| p == "verbose" || p.starts_with("verbose="));
    health(app, endpoint, check, verbose).await
}

fn version() -> Value {
    let (major, minor, git) = VERSION;
    json!({"major": major, "minor": minor, "gitVersion": git, "gitCommit": option_env!("KEELSON_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none (rust)", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" })})
}

fn json_reply(document: &Value) -> Response<Body> {
    reply(StatusCode::OK, "application/json", document.to_string())
}

/// Health checks: `ping` is this process, `etcd` is the store behind it.
async fn health(app: &App, endpoint: &str, check: &str, verbose: bool) -> Response<Body> {
    let mut checks = vec![("ping", true)];
    if endpoint != "livez" || check == "etcd" {
        let store = tokio::time::timeout(std::time::Duration::from_secs(2), app.storage.revision()).await;
        checks.push(("etcd", matches!(store, Ok(Ok(_)))));
    }
    if !check.is_empty() {
        let Some((_, ok)) = checks.iter().find(|(name, _)| *name == check) else {
            return reply_status(&unknown_path());
        };
        let code = if *ok { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
        return reply(code, "text/plain; charset=utf-8", if *ok { "ok" } else { "failed" });
    }
    let healthy = checks.iter().all(|(_, ok)| *ok);
    let mut text = String::new();
    if verbose || !healthy {
        for (name, ok) in &checks {
            text.push_str(&if *ok { format!("[+]{name} ok\n") } else { format!("[-]{name} failed\n") });
        }
        text.push_str(&format!("{endpoint} check {}\n", if healthy { "passed" } else { "failed" }));
    } else {
        text.push_str("ok");
    }
    let code = if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    reply(code, "text/plain; charset=utf-8", text)
}

/// Answers an authenticated path that names no resource.
pub(crate) async fn answer(app: &Arc<App>, call: &Call) -> Result<Response<Body>, Status> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed_generic());
    }
    let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Ok(json_reply(&root())),
        ["metrics"] => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Ok(reply(StatusCode::OK, content_type, app.metrics.render()))
        }
        ["api"] => {
            Ok(aggregated(call, true).unwrap_or_else(|| json_reply(&discovery::core_versions(&app.advertised()))))
        }
        ["apis"] => Ok(aggregated(call, false).unwrap_or_else(|| json_reply(&discovery::group_list()))),
        ["api", version] => discovery::resource_list("", version).map(|d| json_reply(&d)).ok_or_else(unknown_path),
        ["apis", group] => discovery::group(group).map(|d| json_reply(&d)).ok_or_else(unknown_path),
        ["apis", group, version] => {
            discovery::resource_list(group, version).map(|d| json_reply(&d)).ok_or_else(unknown_path)
        }
        ["openapi", "v2"] => openapi_v2(call),
        ["openapi", "v3"] => Ok(json_reply(&openapi::v3_index())),
        ["openapi", "v3", "api", version] => openapi_v3(call, "", version),
        ["openapi", "v3", "apis", group, version] => openapi_v3(call, group, version),
        _ => Err(unknown_path()),
    }
}

fn root() -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in discovery::groups().iter().filter(|(g, _)| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned),
    );
    json!({"paths": paths})
}

/// The aggregated document, for clients that ask for it.
fn aggregated(call: &Call, core: bool) -> Option<Response<Body>> {
    let Discovery::Aggregated(version) = negotiate::discovery(call.header(header::ACCEPT)) else { return None };
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let mut response = reply(StatusCode::OK, &content_type, discovery::aggregated(core, version).to_string());
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Some(response)
}

/// A document that never changes while the process runs: cached by clients, compressed once per request.
fn immutable(call: &Call, content_type: &str, bytes: Vec<u8>, etag: &str, for_ever: bool) -> Response<Body> {
    let quoted = format!("\"{etag}\"");
    if call.header(header::IF_NONE_MATCH) == quoted {
        return reply(StatusCode::NOT_MODIFIED, content_type, Vec::new());
    }
    let zipped = call.header(header::ACCEPT_ENCODING).contains("gzip");
    let body = if zipped { gzip(&bytes) } else { bytes };
    let mut response = reply(StatusCode::OK, content_type, body);
    let headers = response.headers_mut();
    if zipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(etag) = HeaderValue::from_str(&quoted) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    let cache = if for_ever { "public, immutable, max-age=31536000" } else { "no-cache, private" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// Clients ask with an `@` before the version, which Go's own parser of media types
/// refuses in an answer: upstream answers with a dot.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

fn openapi_v2(call: &Call) -> Result<Response<Body>, Status> {
    let etag = openapi::hash("v2");
    // kubectl before 1.29 takes nothing but the protobuf form.
    if call.header(header::ACCEPT).contains("application/com.github.proto-openapi.spec.v2") {
        return Ok(immutable(call, GNOSTIC, openapi::v2_protobuf(), &etag, false));
    }
    Ok(immutable(call, "application/json", openapi::v2().to_string().into_bytes(), &etag, false))
}

fn openapi_v3(call: &Call, group: &str, version: &str) -> Result<Response<Body>, Status> {
    let document = openapi::v3(group, version).ok_or_else(unknown_path)?;
    let etag = openapi::hash(&format!("{group}/{version}"));
    let hashed = call.query.get("hash").is_some_and(|h| h == etag);
    Ok(immutable(call, "application/json", document.to_string().into_bytes(), &etag, hashed))
}
