//! Users and roles outlive members; tokens are known to each.

use etcd_client::{Client, ConnectOptions};
use store_core::wire::{AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse};

use super::doors::peopled;
use crate::cluster::Cluster;

async fn as_user(cluster: &Cluster, at: usize, name: &str, password: &str) -> Result<Client, etcd_client::Error> {
    let options = ConnectOptions::new().with_user(name, password);
    Client::connect([cluster.url(at)], Some(options)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_survive_a_restart() {
    let mut cluster = Cluster::started(1).await;
    let mut root = peopled(&cluster).await;
    root.put("p/a", "1", None).await.expect("a put");
    cluster.stop(0).await;
    cluster.start(0);
    // Whether it leads is for users now, so ask as one.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut ann = loop {
        assert!(tokio::time::Instant::now() < deadline, "no leader in 20 s");
        if let Ok(client) = as_user(&cluster, 0, "ann", "secret").await {
            break client;
        }
    };
    assert_eq!(ann.get("p/a", None).await.expect("a read").count(), 1);
    assert!(ann.get("other", None).await.is_err());
    assert!(as_user(&cluster, 0, "ann", "wrong").await.is_err());
    assert_eq!(ann.user_get("ann").await.expect("herself").roles(), ["ann"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_one_member_is_good_at_all() {
    let cluster = Cluster::started(3).await;
    let mut root = peopled(&cluster).await;
    let request = AuthenticateRequest { name: "ann".to_owned(), password: "secret".to_owned() };
    let answer = raw(&cluster.url(0), "/etcdserverpb.Auth/Authenticate", None, request).await;
    let AuthenticateResponse { token, .. } = answer.expect("a token");
    for at in 0..3 {
        let mut bare = cluster.client(at).await;
        assert!(bare.get("p/a", None).await.is_err(), "{at}");
        let mut ann = as_user(&cluster, at, "ann", "secret").await.expect("a client");
        ann.put("p/a", at.to_string(), None).await.expect("a put");
    }
    for at in 0..3 {
        let url = cluster.url(at);
        assert_eq!(read(&url, &token).await, tonic::Code::Ok, "the token is known at {at}");
        assert_eq!(read(&url, "abcdefghijklmnop.1").await, tonic::Code::Unauthenticated);
    }
    root.user_change_password("ann", "changed").await.expect("changed");
    for at in 0..3 {
        as_user(&cluster, at, "ann", "changed").await.expect("a client").get("p/a", None).await.expect("a read");
        assert_eq!(read(&cluster.url(at), &token).await, tonic::Code::Unauthenticated, "the old token at {at}");
        assert!(as_user(&cluster, at, "ann", "secret").await.is_err());
    }
}

/// Asks without a client that would ask for tokens by itself.
async fn raw<Q, A>(url: &str, path: &'static str, token: Option<&str>, message: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let channel = tonic::transport::Channel::from_shared(url.to_owned()).expect("a URL");
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.expect("connected"));
    grpc.ready().await.expect("ready");
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("text"));
    }
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(request, path, tonic_prost::ProstCodec::<Q, A>::default()).await.map(tonic::Response::into_inner)
}

/// The gRPC code of a read of `p/a` with this token.
async fn read(url: &str, token: &str) -> tonic::Code {
    let request = RangeRequest { key: "p/a".into(), ..RangeRequest::default() };
    let answer = raw::<_, RangeResponse>(url, "/etcdserverpb.KV/Range", Some(token), request).await;
    answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok)
}
