//! The JSON gateway as curl meets it, beside that of Debian's etcd 3.4.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::auth::Etcd;
use crate::cluster::{Cluster, eventually};
use crate::differential::server::PATIENCE;
use crate::operating::page;

/// A program that asks; it ends with this.
struct Asking(Child);

impl Drop for Asking {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn curl(arguments: &[&str]) -> (Asking, ChildStdin, BufReader<ChildStdout>) {
    let mut command = Command::new("curl");
    command.args(["-s", "-S", "-N", "-m", "60"]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("curl is installed");
    let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    (Asking(child), input, BufReader::new(output))
}

/// HTTP's status and the body of an answer.
pub(crate) async fn ask(url: &str, arguments: &[&str], body: &str) -> (u16, String) {
    let (url, body) = (url.to_owned(), body.to_owned());
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let asked = tokio::task::spawn_blocking(move || {
        let mut all = vec!["-w", "\n%{http_code}", "--data-binary", "@-", url.as_str()];
        all.extend(arguments.iter().map(String::as_str));
        let (_asking, mut input, mut output) = curl(&all);
        input.write_all(body.as_bytes()).expect("written");
        drop(input);
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut output, &mut answer).expect("text");
        answer
    });
    let answer = asked.await.expect("no panic");
    let (body, status) = answer.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

/// Without what each server has of its own.
fn comparable(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(fields) => {
            for own in ["cluster_id", "member_id", "raft_term"] {
                fields.remove(own);
            }
            // Of an error, etcd 3.4 says the text twice.
            if fields.contains_key("message") {
                fields.remove("error");
            }
            for (_, value) in fields.iter_mut() {
                *value = comparable(value.take());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = comparable(item.take())),
        _ => {}
    }
    answer
}

/// What a request's lines say, and with which status.
pub(crate) async fn told(url: &str, path: &str, arguments: &[&str], body: &str) -> (u16, Value) {
    let (status, text) = ask(&format!("{url}{path}"), arguments, body).await;
    let lines = text.lines().map(|line| comparable(serde_json::from_str(line).unwrap_or_else(|_| json!(line))));
    let mut lines: Vec<Value> = lines.collect();
    (status, if lines.len() == 1 { lines.remove(0) } else { Value::Array(lines) })
}

const SAME: &[(&str, &str)] = &[
    ("kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("kv/put", r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#),
    ("kv/range", r#"{"key":"Zm9v"}"#),
    (
        "kv/range",
        r#"{"key":"AA==","range_end":"AA==","limit":"1","sort_order":"DESCEND","sort_target":3,"keysOnly":true}"#,
    ),
    ("kv/range", r#"{"key":"Zm9v","count_only":true}"#),
    ("kv/range", r#"{"key":"bm9uZQ=="}"#),
    ("kv/range", r#"{"key":"Zm9v","revision":"99"}"#),
    ("kv/range", r#"{}"#),
    ("kv/put", r#"{"key":"Zm9v","lease":"5"}"#),
    (
        "kv/txn",
        r#"{"compare":[{"target":"VALUE","result":"EQUAL","key":"Zm9v","value":"YmF6"}],
            "success":[{"request_put":{"key":"Yg==","value":"/+8="}},{"request_txn":{"success":[
                {"request_range":{"key":"Yg=="}}]}},{"request_delete_range":{"key":"bm9uZQ=="}}],
            "failure":[]}"#,
    ),
    (
        "kv/txn",
        r#"{"compare":[{"target":"CREATE","key":"Yg==","create_revision":0}],"failure":[{"request_range":{"key":"Yg=="}}]}"#,
    ),
    ("kv/deleterange", r#"{"key":"Yg==","prev_kv":true}"#),
    ("kv/compaction", r#"{"revision":"3"}"#),
    ("kv/compaction", r#"{"revision":"3"}"#),
    ("kv/range", r#"{"key":"Zm9v","revision":2}"#),
    ("lease/grant", r#"{"ID":"77","TTL":"600"}"#),
    ("lease/grant", r#"{"ID":77,"TTL":600}"#),
    ("lease/leases", "{}"),
    ("lease/timetolive", r#"{"ID":"78","keys":true}"#),
    ("kv/lease/leases", "{}"),
    ("lease/keepalive", r#"{"ID":"77"}"#),
    ("lease/keepalive", r#"{"ID":"78"}"#),
    ("lock/lock", r#"{"name":"bG9jaw==","lease":"77"}"#),
    ("lock/unlock", r#"{"key":"bG9jay80ZA=="}"#),
    ("election/campaign", r#"{"name":"ZWxlY3Q=","lease":"77","value":"djE="}"#),
    ("election/leader", r#"{"name":"ZWxlY3Q="}"#),
    ("election/leader", r#"{"name":"bm9uZQ=="}"#),
    ("election/proclaim", r#"{"value":"djI="}"#),
    ("election/resign", "{}"),
    ("kv/lease/revoke", r#"{"ID":"77"}"#),
    ("lease/revoke", r#"{"ID":"77"}"#),
    ("cluster/member/remove", r#"{"ID":"5"}"#),
    ("maintenance/transfer-leadership", r#"{"targetID":"5"}"#),
    ("auth/authenticate", r#"{"name":"root","password":"x"}"#),
    ("auth/user/add", r#"{"name":"root","password":"secret"}"#),
    ("auth/user/add", r#"{"name":"root","password":"secret"}"#),
    ("auth/user/list", "{}"),
    ("auth/role/add", r#"{"name":"root"}"#),
    ("auth/role/add", r#"{"name":"some"}"#),
    ("auth/role/grant", r#"{"name":"some","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}"#),
    ("auth/role/get", r#"{"role":"some"}"#),
    ("auth/user/grant", r#"{"user":"root","role":"root"}"#),
    ("auth/user/get", r#"{"name":"root"}"#),
    ("auth/enable", "{}"),
    ("kv/range", r#"{"key":"Zm9v"}"#),
    ("auth/authenticate", r#"{"name":"root","password":"wrong"}"#),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_etcds_gateway() {
    let cluster = Cluster::started(1).await;
    let etcd = tokio::task::spawn_blocking(Etcd::start).await.expect("no panic");
    for (path, body) in SAME {
        let path = format!("/v3/{path}");
        let ours = told(&cluster.url(0), &path, &[], body).await;
        let theirs = told(&etcd.url, &path, &[], body).await;
        // etcd 3.6 has other statuses for some codes, but as 3.4 none of 200 for a refusal.
        assert_eq!(ours.1, theirs.1, "{path} {body}");
        assert_eq!(ours.0 == 200, theirs.0 == 200, "{path} {body}: {} and {}", ours.0, theirs.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_leads_to_its_service() {
    let cluster = Cluster::started(1).await;
    let url = cluster.url(0);
    let (status, answer) = told(&url, "/v3/maintenance/status", &[], "").await;
    assert_eq!((status, &answer["version"]), (200, &json!("3.6.0")), "{answer}");
    let (_, members) = told(&url, "/v3beta/cluster/member/list", &[], "{}").await;
    assert_eq!(members["members"][0]["name"], json!("m0"), "{members}");
    let (_, off) = told(&url, "/v3/auth/status", &[], "{}").await;
    assert_eq!(off, json!({ "header": { "revision": "1" }, "authRevision": "1" }));
    let id = members["members"][0]["ID"].as_str().expect("a number");
    let (status, refused) = told(&url, "/v3/cluster/member/promote", &[], &json!({ "ID": id }).to_string()).await;
    let text = "etcdserver: can only promote a learner member";
    assert_eq!((status, refused), (400, json!({ "code": 9, "message": text })));
    let (status, snapshot) = ask(&format!("{url}/v3/maintenance/snapshot"), &[], "{}").await;
    let last: Value = serde_json::from_str(snapshot.lines().last().expect("a line")).expect("JSON");
    assert!(status == 200 && last["result"]["blob"].is_string() && last["result"].get("remaining_bytes").is_none());
}

fn line(output: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    comparable(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_line_by_line_and_ends_with_its_client() {
    let cluster = Cluster::started(1).await;
    let url = cluster.url(0);
    let watch = format!("{url}/v3/watch");
    let body = r#"{"create_request":{"key":"Zm9v","range_end":"Zm9w","prev_kv":true}}"#;
    let (asking, input, mut output) = curl(&["-d", body, &watch]);
    drop(input);
    let created = line(&mut output);
    assert_eq!(created, json!({ "result": { "header": { "revision": "1" }, "created": true } }));
    told(&url, "/v3/kv/put", &[], r#"{"key":"Zm9v","value":"YmFy"}"#).await;
    let kv = json!({
        "key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "YmFy"
    });
    let put = line(&mut output);
    assert_eq!(put, json!({ "result": { "header": { "revision": "2" }, "events": [{ "kv": kv }] } }));
    told(&url, "/v3/kv/deleterange", &[], r#"{"key":"Zm9v"}"#).await;
    let deleted = line(&mut output);
    let gone = json!({ "type": "DELETE", "kv": { "key": "Zm9v", "mod_revision": "3" }, "prev_kv": kv });
    assert_eq!(deleted["result"]["events"], json!([gone]));
    let watchers = async || {
        let (_, metrics) = page(&url, "/metrics").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "));
        value.expect("a metric").to_owned()
    };
    assert_eq!(watchers().await, "1");
    drop(asking);
    eventually("no watcher", || async {
        let left = watchers().await;
        if left == "0" { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_stream_are_answered_as_they_come() {
    let cluster = Cluster::started(1).await;
    let address = cluster.url(0);
    // curl doesn't read on while it waits for input: the pieces of a body are sent by hand.
    let stream = TcpStream::connect(address.trim_start_matches("http://")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answers = BufReader::new(stream.try_clone().expect("the same"));
    let send = |text: &str| {
        let piece = format!("{:x}\r\n{text}\r\n", text.len());
        (&stream).write_all(piece.as_bytes()).expect("written");
    };
    let head = "POST /v3/watch HTTP/1.1\r\nHost: m0\r\nTransfer-Encoding: chunked\r\n\r\n";
    (&stream).write_all(head.as_bytes()).expect("written");
    // What isn't an object is HTTP's: its head, and the sizes of pieces.
    let mut line = || {
        let mut lines = std::iter::from_fn(|| {
            let mut line = String::new();
            (answers.read_line(&mut line).expect("text") > 0).then_some(line)
        });
        let text = lines.find(|line| line.starts_with('{') || line == "0\r\n")?;
        (text != "0\r\n").then(|| comparable(serde_json::from_str(&text).expect("an object")))
    };
    send(r#"{"create_request":{"key":"YQ==","watch_id":"7"}}{"create_"#);
    assert_eq!(line().expect("an answer")["result"]["watch_id"], json!("7"));
    send("request\":{\"key\":\"Yg==\"}}\n");
    assert_eq!(line().expect("an answer")["result"]["created"], json!(true));
    send(r#"{"progress_request":{}}"#);
    assert_eq!(line().expect("an answer")["result"], json!({ "header": { "revision": "1" }, "watch_id": "-1" }));
    send(r#"{"cancel_request":{"watch_id":7}}"#);
    assert_eq!(line().expect("an answer")["result"]["canceled"], json!(true));
    send(r#"{"create_request":5}"#);
    let failed = line().expect("an error");
    assert_eq!(failed["error"]["code"], json!(3), "{failed}");
    assert_eq!(line(), None, "that was the last line");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_is_wrong() {
    let mut cluster = Cluster::new(1);
    cluster.members[0].config.max_request_bytes = 4096;
    cluster.start(0);
    cluster.wait_for_leader().await;
    let url = cluster.url(0);
    let refused = |code: u32, message: &str| json!({ "code": code, "message": message });
    for path in ["/v3/", "/v3/kv", "/v3/kv/Range", "/v3/kv/range/", "/v3beta/none"] {
        assert_eq!(told(&url, path, &[], "{}").await, (404, refused(5, "Not Found")), "{path}");
    }
    let wrong_method = (501, refused(12, "Method Not Allowed"));
    assert_eq!(told(&url, "/v3/kv/range", &["-X", "PUT"], "{}").await, wrong_method);
    assert_eq!(told(&url, "/v3/kv/range", &["-G"], "").await, wrong_method);
    for body in ["{", "foo", "[]", "value=x", "\u{0}"] {
        for path in ["/v3/kv/range", "/v3/election/observe"] {
            let (status, said) = told(&url, path, &[], body).await;
            assert_eq!((status, &said["code"]), (400, &json!(3)), "{path} {body}: {said}");
        }
        let (status, said) = told(&url, "/v3/watch", &[], body).await;
        assert_eq!((status, &said["error"]["code"]), (400, &json!(3)), "{body}: {said}");
    }
    for body in [r#"{"key":"%%"}"#, r#"{"key":7}"#, r#"{"limit":"many"}"#, r#"{"limit":1.5}"#] {
        let (status, said) = told(&url, "/v3/kv/range", &[], body).await;
        assert_eq!((status, &said["code"]), (400, &json!(3)), "{body}: {said}");
    }
    let no_bytes = told(&url, "/v3/watch", &[], r#"{"create_request":{"key":"%%"}}"#).await;
    let text = "invalid base64: Invalid symbol 37, offset 0. at line 1 column 29";
    assert_eq!(no_bytes, (400, json!({ "error": refused(3, text) })));
    let put = |bytes: usize| json!({ "key": "YQ==", "value": "QUFB".repeat(bytes / 3) }).to_string();
    assert_eq!(told(&url, "/v3/kv/put", &[], &put(3999)).await.0, 200);
    let too_large = (400, refused(3, "etcdserver: request is too large"));
    assert_eq!(told(&url, "/v3/kv/put", &[], &put(4098)).await, too_large);
    assert_eq!(told(&url, "/v3/kv/put", &[], &put(3 << 20)).await, too_large);
    assert_eq!(told(&url, "/v3/watch", &[], &put(3 << 20)).await, (400, json!({ "error": too_large.1 })));
    let (_, metrics) = page(&url, "/metrics").await;
    let puts = |code: &str| format!(r#"grpc_method="Put",grpc_code="{code}"}} 1"#);
    assert!(metrics.contains(&puts("OK")) && metrics.contains(&puts("InvalidArgument")), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_comes_whole() {
    let cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    for key in ["a", "b", "c"] {
        client.put(key, vec![0xff; 1 << 20], None).await.expect("a put");
    }
    let (status, answer) = told(&cluster.url(0), "/v3/kv/range", &[], r#"{"key":"YQ==","range_end":"eg=="}"#).await;
    assert_eq!((status, answer["kvs"].as_array().map(Vec::len)), (200, Some(3)));
    assert_eq!(answer["kvs"][2]["value"].as_str().map(str::len), Some((1_usize << 20).div_ceil(3) * 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_left_out() {
    let mut cluster = Cluster::new(1);
    cluster.members[0].config.grpc_gateway = false;
    cluster.start(0);
    cluster.wait_for_leader().await;
    let (_, text) = ask(&format!("{}/v3/maintenance/status", cluster.url(0)), &[], "{}").await;
    assert_eq!(text, "");
}
