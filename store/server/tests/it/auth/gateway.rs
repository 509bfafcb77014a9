//! Users who come by the JSON gateway.

use serde_json::json;
use store_server::Tls;

use super::certificates::client;
use super::doors::peopled;
use crate::cluster::Cluster;
use crate::gateway::{ask, told};

async fn token(url: &str, arguments: &[&str], name: &str) -> String {
    let body = json!({ "name": name, "password": "secret" }).to_string();
    let (status, answer) = told(url, "/v3/auth/authenticate", arguments, &body).await;
    assert_eq!(status, 200, "{answer}");
    format!("Authorization: {}", answer["token"].as_str().expect("a token"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_what_its_user_may_and_no_more() {
    let cluster = Cluster::started(1).await;
    peopled(&cluster).await;
    let url = cluster.url(0);
    let refused = |code: u32, message: &str| json!({ "code": code, "message": message });
    let nobody = refused(3, "etcdserver: user name is empty");
    let denied = refused(7, "etcdserver: permission denied");
    let put = r#"{"key":"cC9h","value":"YQ=="}"#;
    for path in ["kv/put", "kv/txn", "lease/grant", "cluster/member/list", "maintenance/status", "lock/lock"] {
        assert_eq!(told(&url, &format!("/v3/{path}"), &[], put).await, (400, nobody.clone()), "{path}");
    }
    assert_eq!(told(&url, "/v3/maintenance/snapshot", &[], "{}").await, (400, json!({ "error": nobody })));
    assert_eq!(told(&url, "/v3/auth/status", &[], "{}").await.1["enabled"], json!(true));
    let wrong = ["-H", "Authorization: none.1"];
    let invalid = (401, refused(16, "etcdserver: invalid auth token"));
    assert_eq!(told(&url, "/v3/kv/put", &wrong, put).await, invalid);
    let ann = token(&url, &[], "ann").await;
    let ann = ["-H", ann.as_str()];
    assert_eq!(told(&url, "/v3/kv/put", &ann, put).await.0, 200);
    let other = r#"{"request_range":{"key":"b3RoZXI="}}"#;
    let mut txn = format!(r#"{{"success":[{other}]}}"#);
    for depth in 0..5 {
        assert_eq!(told(&url, "/v3/kv/txn", &ann, &txn).await, (403, denied.clone()), "{depth}");
        txn = format!(r#"{{"failure":[{{"request_txn":{txn}}}]}}"#);
    }
    for path in ["maintenance/hash", "auth/user/list", "kv/compaction", "cluster/member/add"] {
        assert_eq!(told(&url, &format!("/v3/{path}"), &ann, "{}").await, (403, denied.clone()), "{path}");
    }
    let watch = r#"{"create_request":{"key":"b3RoZXI="}}"#;
    let (_, text) = ask(&format!("{url}/v3/watch"), &[&ann[..], &["-m", "2"]].concat(), watch).await;
    assert!(text.contains(r#""canceled":true"#) && text.contains("etcdserver: permission denied"), "{text}");
    let root = token(&url, &[], "root").await.replace("Authorization", "Grpc-Metadata-Token");
    assert_eq!(told(&url, "/v3/kv/range", &["-H", &root], r#"{"key":"b3RoZXI="}"#).await.0, 200);
}

/// As in etcd: a name in a certificate is refused rather than passed over, once it might be meant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_nobody_here() {
    let cluster = Cluster::started(1).await;
    let (dir, issuer) = (cluster.dir.path().to_path_buf(), cluster.issuer());
    let arguments = |name: &str| {
        let [ca, cert, key] = client(&dir, &issuer, name).map(|path| path.display().to_string());
        ["--cacert".to_owned(), ca, "--cert".to_owned(), cert, "--key".to_owned(), key]
    };
    let (root, unnamed) = (arguments("root"), arguments(""));
    let (root, unnamed) = (root.each_ref().map(String::as_str), unnamed.each_ref().map(String::as_str));
    let url = cluster.secure_url(0);
    let range = r#"{"key":"cg=="}"#;
    assert_eq!(told(&url, "/v3/kv/range", &root, range).await.0, 200, "auth is off");
    peopled(&cluster).await;
    let text = "CommonName of client sending a request against gateway will be ignored and not used as expected";
    for path in ["/v3/kv/range", "/v3/none", "/v3beta/kv/range"] {
        assert_eq!(told(&url, path, &root, range).await, (400, json!(text)), "{path}");
    }
    let nobody = json!({ "code": 3, "message": "etcdserver: user name is empty" });
    assert_eq!(told(&url, "/v3/kv/range", &unnamed, range).await, (400, nobody.clone()));
    let header = token(&url, &unnamed, "root").await;
    let with_token = [&unnamed[..], &["-H", &header]].concat();
    assert_eq!(told(&url, "/v3/kv/range", &with_token, range).await.0, 200);
}

/// Where certificates aren't users, they are no obstacle either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_no_user_is_passed_over() {
    let mut cluster = Cluster::new(1);
    let tls = cluster.members[0].config.client_tls.clone();
    cluster.members[0].config.client_tls = Tls { client_cert_auth: false, ..tls };
    cluster.start(0);
    cluster.wait_for_leader().await;
    peopled(&cluster).await;
    let root = client(cluster.dir.path(), &cluster.issuer(), "root").map(|path| path.display().to_string());
    let arguments = ["--cacert", &root[0], "--cert", &root[1], "--key", &root[2]];
    let (status, said) = told(&cluster.secure_url(0), "/v3/kv/range", &arguments, r#"{"key":"cg=="}"#).await;
    assert_eq!((status, &said["message"]), (400, &json!("etcdserver: user name is empty")));
}
