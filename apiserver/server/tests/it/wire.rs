//! What clients see on the wire: codes, reasons, watches, pages.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A request through the in-process client: the same handlers as over TLS.
fn call(cluster: &Cluster, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (StatusCode, Value) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(kube::client::Body::from(body.to_vec())).expect("a request");
    let client = cluster.client();
    cluster.runtime.block_on(async {
        let response = client.send(request).await.expect("an answer");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
    })
}

pub(crate) fn post(cluster: &Cluster, path: &str, body: &Value) -> (StatusCode, Value) {
    call(cluster, Method::POST, path, &[("content-type", "application/json")], body.to_string().as_bytes())
}

fn get(cluster: &Cluster, path: &str) -> (StatusCode, Value) {
    call(cluster, Method::GET, path, &[], b"")
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn bad_input_is_answered_as_kubernetes_answers_it() {
    let cluster = Cluster::start();
    let expect = |(status, body): (StatusCode, Value), code: u16, reason: &str, text: &str| {
        assert_eq!((status.as_u16(), body["reason"].as_str()), (code, Some(reason)), "{body}");
        assert!(body["message"].as_str().unwrap_or("").contains(text), "{text:?} in {body}");
        assert_eq!(body["code"], code);
    };
    let send = |kind: &str, body: &[u8]| call(&cluster, Method::POST, MAPS, &[("content-type", kind)], body);
    expect(send("application/json", b"{"), 400, "BadRequest", "EOF");
    expect(send("application/json", b"[]"), 400, "BadRequest", "cannot unmarshal");
    expect(send("text/csv", b"a"), 415, "UnsupportedMediaType", "unknown format");
    let large = vec![b' '; 4 * 1024 * 1024];
    expect(send("application/json", &large), 413, "RequestEntityTooLarge", "limit is 3145728");
    expect(
        post(&cluster, MAPS, &json!({"kind": "Pod", "apiVersion": "v1"})),
        400,
        "BadRequest",
        "cannot be handled as a ConfigMap",
    );
    expect(post(&cluster, MAPS, &json!({"metadata": {"name": "A_b"}})), 422, "Invalid", "RFC 1123 subdomain");
    let long = json!({"metadata": {"name": "x"}, "data": {"a": "a".repeat(1_048_577)}});
    expect(post(&cluster, MAPS, &long), 422, "Invalid", "[]: Too long: may not be more than 1048576 bytes");
    expect(
        get(&cluster, &format!("{MAPS}?resourceVersion=999999")),
        504,
        "Timeout",
        "Too large resource version: 999999, current: ",
    );
    expect(post(&cluster, MAPS, &json!({"metadata": {}})), 422, "Invalid", "name or generateName is required");
    let strict = format!("{MAPS}?fieldValidation=Strict");
    expect(
        post(&cluster, &strict, &json!({"metadata": {"name": "x"}, "foo": 1})),
        400,
        "BadRequest",
        "strict decoding error: unknown field \"foo\"",
    );
    let elsewhere = "/api/v1/namespaces/nowhere/configmaps";
    expect(
        post(&cluster, elsewhere, &json!({"metadata": {"name": "x"}})),
        404,
        "NotFound",
        "namespaces \"nowhere\" not found",
    );
    expect(
        get(&cluster, &format!("{MAPS}?fieldSelector=foo%3Dbar")),
        400,
        "BadRequest",
        "field label not supported: foo",
    );
    expect(get(&cluster, &format!("{MAPS}?labelSelector=a%20b")), 400, "BadRequest", "unable to parse requirement");
    expect(get(&cluster, &format!("{MAPS}?continue=xyz")), 400, "BadRequest", "continue key is not valid");
    expect(get(&cluster, &format!("{MAPS}?resourceVersion=abc")), 400, "BadRequest", "Invalid value");
    expect(get(&cluster, "/apis/nothing/v1/things"), 404, "NotFound", "could not find");
    expect(call(&cluster, Method::GET, MAPS, &[("accept", "application/cbor")], b""), 406, "NotAcceptable", "accepted");
    expect(call(&cluster, Method::PUT, MAPS, &[], b"{}"), 405, "MethodNotAllowed", "not supported");
    let patch =
        call(&cluster, Method::PATCH, "/api/v1/namespaces/default", &[("content-type", "application/x")], b"{}");
    expect(patch, 415, "UnsupportedMediaType", "accepted media types");
    let twice = br#"{"metadata": {"name": "x", "name": "y"}}"#;
    let kind = [("content-type", "application/json")];
    expect(call(&cluster, Method::POST, &strict, &kind, twice), 400, "BadRequest", "duplicate field \"metadata.name\"");
    // Nothing of all this left a trace.
    assert_eq!(get(&cluster, MAPS).1["items"], json!([]));
}

#[test]
fn writers_that_saw_another_version_conflict() {
    let cluster = Cluster::start();
    let (_, first) = post(&cluster, MAPS, &json!({"metadata": {"name": "x"}, "data": {"n": "0"}}));
    let path = format!("{MAPS}/x");
    let put = |object: &Value| {
        call(&cluster, Method::PUT, &path, &[("content-type", "application/json")], object.to_string().as_bytes())
    };
    let mut changed = first.clone();
    changed["data"]["n"] = "1".into();
    let (status, second) = put(&changed);
    assert_eq!(status, StatusCode::OK, "{second}");
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    let (status, conflict) = put(&changed);
    assert_eq!((status.as_u16(), &conflict["reason"]), (409, &json!("Conflict")));
    // The same content again is no write.
    let (_, same) = put(&second);
    assert_eq!(same["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
}

#[test]
fn finalizers_hold_and_preconditions_guard() {
    let cluster = Cluster::start();
    let (_, made) = post(&cluster, MAPS, &json!({"metadata": {"name": "x", "finalizers": ["example.com/hold"]}}));
    let path = format!("{MAPS}/x");
    let wrong = json!({"preconditions": {"uid": "other"}}).to_string();
    let delete =
        |body: &str| call(&cluster, Method::DELETE, &path, &[("content-type", "application/json")], body.as_bytes());
    assert_eq!(delete(&wrong).0.as_u16(), 409);
    let (_, marked) = delete("{}");
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    assert_eq!(marked["metadata"]["uid"], made["metadata"]["uid"]);
    let patch = [("content-type", "application/merge-patch+json")];
    let (status, _) = call(&cluster, Method::PATCH, &path, &patch, br#"{"metadata":{"finalizers":null}}"#);
    assert_eq!(status, StatusCode::OK);
    assert_eq!(get(&cluster, &path).0, StatusCode::NOT_FOUND);
}

#[test]
fn lists_page_at_one_revision() {
    let cluster = Cluster::start();
    for index in 0..7 {
        post(
            &cluster,
            MAPS,
            &json!({"metadata": {"name": format!("m{index}"), "labels": {"odd": (index % 2).to_string()}}}),
        );
    }
    let (_, first) = get(&cluster, &format!("{MAPS}?limit=3"));
    assert_eq!(
        (first["items"].as_array().map(Vec::len), &first["metadata"]["remainingItemCount"]),
        (Some(3), &json!(4))
    );
    post(&cluster, MAPS, &json!({"metadata": {"name": "m35"}}));
    let mut names = Vec::new();
    let mut token = first["metadata"]["continue"].as_str().map(str::to_owned);
    while let Some(next) = token {
        let (_, page) = get(&cluster, &format!("{MAPS}?limit=3&continue={next}"));
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        names.extend(page["items"].as_array().into_iter().flatten().map(|i| i["metadata"]["name"].to_string()));
        token = page["metadata"]["continue"].as_str().map(str::to_owned);
    }
    assert_eq!(names, ["\"m3\"", "\"m4\"", "\"m5\"", "\"m6\""]);
    let (_, odd) = get(&cluster, &format!("{MAPS}?labelSelector=odd%3D1&limit=2"));
    assert_eq!(odd["items"].as_array().map(Vec::len), Some(2));
    assert!(odd["metadata"]["continue"].is_string());
}

#[test]
fn a_watch_sees_each_change_once_from_where_it_starts() {
    use futures::TryStreamExt as _;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
    let cluster = Cluster::start();
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let map = |name: &str, labels: Value| {
        serde_json::from_value::<ConfigMap>(json!({"metadata": {"name": name, "labels": labels}})).expect("a map")
    };
    cluster.runtime.block_on(async {
        let start = maps.list(&Default::default()).await.expect("a list").metadata.resource_version.expect("a version");
        let mut stream = Box::pin(maps.watch(&WatchParams::default().labels("a=b"), &start).await.expect("a watch"));
        maps.create(&PostParams::default(), &map("other", json!({}))).await.expect("created");
        let made = maps.create(&PostParams::default(), &map("x", json!({"a": "b"}))).await.expect("created");
        let mut relabelled = made.clone();
        relabelled.metadata.labels = Some([("a".to_owned(), "c".to_owned())].into());
        maps.replace("x", &PostParams::default(), &relabelled).await.expect("replaced");
        maps.delete("x", &DeleteParams::default()).await.expect("deleted");
        let mut seen = Vec::new();
        for _ in 0..2 {
            match stream.try_next().await.expect("no error").expect("an event") {
                WatchEvent::Added(o) => seen.push(format!("added {}", o.metadata.name.unwrap_or_default())),
                WatchEvent::Deleted(o) => seen.push(format!("deleted {}", o.metadata.name.unwrap_or_default())),
                other => panic!("{other:?}"),
            }
        }
        // Leaving the selector is a deletion to this watcher.
        assert_eq!(seen, ["added x", "deleted x"]);
        // From the past, the same again.
        let mut again = Box::pin(maps.watch(&WatchParams::default(), &start).await.expect("a watch"));
        let mut kinds = String::new();
        for _ in 0..4 {
            kinds.push(match again.try_next().await.expect("no error").expect("an event") {
                WatchEvent::Added(_) => 'A',
                WatchEvent::Modified(_) => 'M',
                WatchEvent::Deleted(_) => 'D',
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(kinds, "AAMD");
    });
}

#[test]
fn nobody_comes_in_without_credentials() {
    let cluster = Cluster::start();
    let curl = |arguments: &[&str], path: &str| {
        let output = std::process::Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
            .arg(cluster.dir.path().join("ca.crt"))
            .args(arguments)
            .arg(format!("https://{}{path}", cluster.address))
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(curl(&[], "/api/v1/pods"), "401");
    assert_eq!(curl(&["-H", "Authorization: Bearer wrong"], "/api/v1/pods"), "401");
    assert_eq!(curl(&["-H", "Authorization: Bearer s3cret"], "/api/v1/pods"), "200");
    assert_eq!(curl(&[], "/readyz"), "200");
    assert_eq!(curl(&[], "/version"), "200");
}

#[test]
fn a_cluster_ip_is_held_once_and_released() {
    let cluster = Cluster::start();
    let services = "/api/v1/namespaces/default/services";
    let service =
        |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    assert_eq!(get(&cluster, &format!("{services}/kubernetes")).1["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(post(&cluster, services, &service("a", "10.96.3.3")).0, StatusCode::CREATED);
    let (status, refused) = post(&cluster, services, &service("b", "10.96.3.3"));
    assert_eq!(status.as_u16(), 422);
    assert!(refused["message"].as_str().unwrap_or("").contains("already allocated"), "{refused}");
    assert_eq!(call(&cluster, Method::DELETE, &format!("{services}/a"), &[], b"").0, StatusCode::OK);
    assert_eq!(post(&cluster, services, &service("b", "10.96.3.3")).0, StatusCode::CREATED);
    assert_eq!(post(&cluster, services, &service("c", "10.97.0.1")).0.as_u16(), 422);
}

#[test]
fn a_revision_that_is_gone_is_expired() {
    let cluster = Cluster::start();
    let make = |name: &str| post(&cluster, MAPS, &json!({"metadata": {"name": name}})).1;
    let first = make("a")["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    make("b");
    let page = get(&cluster, &format!("{MAPS}?limit=1")).1;
    let token = page["metadata"]["continue"].as_str().expect("a token").to_owned();
    let last: i64 = make("c")["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).expect("a version");
    cluster.runtime.block_on(async {
        let mut store = etcd_client::Client::connect([&cluster.store], None).await.expect("a store");
        store.compact(last, None).await.expect("compacted");
    });
    let expired = |path: &str| {
        let (status, body) = get(&cluster, path);
        assert_eq!((status.as_u16(), body["reason"].as_str()), (410, Some("Expired")), "{body}");
        body
    };
    expired(&format!("{MAPS}?resourceVersion={first}&resourceVersionMatch=Exact"));
    let stale = expired(&format!("{MAPS}?limit=1&continue={token}"));
    // With the answer's token a client goes on at the newest revision.
    let next = stale["metadata"]["continue"].as_str().expect("a token");
    let (status, rest) = get(&cluster, &format!("{MAPS}?limit=5&continue={next}"));
    assert_eq!((status, rest["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)), "{rest}");
}

/// Of the oldest change that the store has, it doesn't know what was before.
#[test]
fn a_watch_that_cannot_say_what_was_before_is_expired() {
    let cluster = Cluster::start();
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<i64>().ok());
    let mut map = post(&cluster, MAPS, &json!({"metadata": {"name": "a"}})).1;
    map["data"] = json!({"k": "v"});
    let path = format!("{MAPS}/a");
    let (_, changed) =
        call(&cluster, Method::PUT, &path, &[("content-type", "application/json")], map.to_string().as_bytes());
    let last = version(&changed).expect("a version");
    cluster.runtime.block_on(async {
        let mut store = etcd_client::Client::connect([&cluster.store], None).await.expect("a store");
        store.compact(last, None).await.expect("compacted");
    });
    let watch = format!("{MAPS}?watch=true&timeoutSeconds=5&resourceVersion={}", last - 1);
    let told = get(&cluster, &watch).1;
    match told["type"].as_str() {
        Some("ERROR") => assert_eq!(told["object"]["code"], 410, "{told}"),
        // The apiserver's own watch wasn't past the change yet, and was told what was before.
        other => assert_eq!(other, Some("MODIFIED"), "{told}"),
    }
}

#[test]
fn a_collection_goes_by_selector() {
    let cluster = Cluster::start();
    for index in 0..4 {
        let labels = json!({"odd": (index % 2).to_string()});
        post(&cluster, MAPS, &json!({"metadata": {"name": format!("m{index}"), "labels": labels}}));
    }
    let delete = |query: &str| call(&cluster, Method::DELETE, &format!("{MAPS}?{query}"), &[], b"");
    let (status, dry) = delete("labelSelector=odd%3D1&dryRun=All");
    assert_eq!((status, dry["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)), "{dry}");
    assert_eq!(get(&cluster, MAPS).1["items"].as_array().map(Vec::len), Some(4));
    assert_eq!(delete("labelSelector=odd%3D1").0, StatusCode::OK);
    let left = get(&cluster, MAPS).1;
    let names: Vec<&str> =
        left["items"].as_array().into_iter().flatten().map(|i| i["metadata"]["name"].as_str().unwrap_or("")).collect();
    assert_eq!(names, ["m0", "m2"]);
}

#[test]
fn spec_and_status_are_written_apart() {
    let cluster = Cluster::start();
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Running"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (status, made) = post(&cluster, pods, &pod);
    assert_eq!((status, &made["status"]["phase"]), (StatusCode::CREATED, &json!("Pending")), "{made}");
    let patch = |path: &str| {
        let body = br#"{"status": {"phase": "Failed"}, "spec": {"nodeName": "n"}, "metadata": {"labels": {"a": "b"}}}"#;
        call(&cluster, Method::PATCH, path, &[("content-type", "application/merge-patch+json")], body)
    };
    let (code, shown) = patch(&format!("{pods}/p/status"));
    assert_eq!((code, &shown["status"]["phase"]), (StatusCode::OK, &json!("Failed")), "{shown}");
    assert_eq!(shown["spec"]["nodeName"], Value::Null);
}

#[test]
fn a_watch_is_told_how_far_it_is() {
    let cluster = Cluster::start();
    post(&cluster, MAPS, &json!({"metadata": {"name": "x"}}));
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let (status, events) = get(&cluster, &format!("{MAPS}?{query}"));
    assert_eq!(status, StatusCode::OK);
    let text = events.as_str().expect("lines");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!(kinds, ["ADDED", "BOOKMARK"], "{text}");
    let bookmark = &events[1]["object"]["metadata"];
    assert_eq!(bookmark["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["resourceVersion"], get(&cluster, MAPS).1["metadata"]["resourceVersion"]);
}

/// A binding may tell which pods its author knew. One that doesn't is never refused, but those that do notice it.
#[test]
fn a_binding_that_knew_less_of_its_node_conflicts() {
    let cluster = Cluster::start();
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let create = |name: &str, node: Value| {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        let (status, pod) = post(&cluster, PODS, &json!({"metadata": {"name": name}, "spec": spec}));
        assert_eq!(status, StatusCode::CREATED, "{pod}");
        pod["metadata"]["resourceVersion"].clone()
    };
    let bind = |name: &str, known: &Value| {
        let target = json!({"kind": "Node", "name": "a", "resourceVersion": known});
        let (status, answer) =
            post(&cluster, &format!("{PODS}/{name}/binding"), &json!({"metadata": {"name": name}, "target": target}));
        let version = answer["metadata"]["resourceVersion"].clone();
        (status.as_u16(), version, answer["details"]["causes"][0].clone())
    };
    let seen = ["p", "q", "r", "s"].map(|name| create(name, json!(null)))[3].clone();
    let (status, first, _) = bind("p", &seen);
    assert_eq!((status, &first), (201, &get(&cluster, &format!("{PODS}/p")).1["metadata"]["resourceVersion"]));
    let (status, _, cause) = bind("q", &seen);
    assert_eq!((status, &cause["reason"], &cause["message"]), (409, &json!("NodeLoadChanged"), &first));
    let (status, second, _) = bind("q", &json!(null));
    assert_eq!(status, 201);
    assert_eq!(bind("r", &first).0, 409);
    assert_eq!(bind("r", &second).0, 201);
    // Whoever made the pod has chosen its node himself.
    let third = create("t", json!("a"));
    assert_eq!(bind("s", &second).0, 409);
    assert_eq!(bind("s", &json!("x")).0, 400);
    assert_eq!(bind("s", &third).0, 201);
    // Bound is bound, whatever one knows.
    assert_eq!(bind("s", &third).2, json!(null));
}
