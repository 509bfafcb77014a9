//! One of the two servers, called over the wire with messages as they are: invalid ones too.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use store_core::wire::{
    CompactionResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveResponse,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnResponse, WatchRequest,
    WatchResponse,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::operation::Call;

/// How long an answer may take, on a machine that others load too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A positive answer. Headers carry only the revision: numbers of members and terms are each server's own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    Leases(LeaseLeasesResponse),
    KeepAlive(LeaseKeepAliveResponse),
}

/// An answer: code and text if it is negative.
pub(crate) type Outcome = Result<Reply, (Code, String)>;

/// A server's address, ready for calls.
#[derive(Clone)]
pub(crate) struct Server {
    channel: Channel,
}

/// Answers are as large as the store.
type Grpc = tonic::client::Grpc<Channel>;

impl Server {
    pub(crate) async fn connect(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").tcp_nodelay(true);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match endpoint.connect().await {
                Ok(channel) => return Self { channel },
                Err(error) if tokio::time::Instant::now() > deadline => panic!("{url}: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn grpc(&self) -> Grpc {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.expect("the server is there");
        grpc
    }

    pub(crate) async fn unary<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.unary_with(path, Request::new(request)).await
    }

    pub(crate) async fn unary_with<Q, A>(&self, path: &'static str, request: Request<Q>) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc().await;
        let call = grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::default());
        let answer = tokio::time::timeout(PATIENCE, call).await.map_err(|_| Status::cancelled("no answer in time"))?;
        answer.map(tonic::Response::into_inner)
    }

    /// Makes a call.
    pub(crate) async fn call(&self, call: Call) -> Outcome {
        const KV: [&str; 5] = [
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.KV/DeleteRange",
            "/etcdserverpb.KV/Txn",
            "/etcdserverpb.KV/Compact",
        ];
        let result = match call {
            Call::Range(q) => self.unary(KV[0], q).await.map(Reply::Range),
            Call::Put(q) => self.unary(KV[1], q).await.map(Reply::Put),
            Call::DeleteRange(q) => self.unary(KV[2], q).await.map(Reply::DeleteRange),
            Call::Txn(q) => self.unary(KV[3], q).await.map(Reply::Txn),
            Call::Compact(q) => self.unary(KV[4], q).await.map(Reply::Compact),
            Call::LeaseGrant(q) => self.unary("/etcdserverpb.Lease/LeaseGrant", q).await.map(Reply::LeaseGrant),
            Call::LeaseRevoke(id) => {
                let request = LeaseRevokeRequest { id };
                self.unary("/etcdserverpb.Lease/LeaseRevoke", request).await.map(Reply::LeaseRevoke)
            }
            Call::TimeToLive(q) => self.unary("/etcdserverpb.Lease/LeaseTimeToLive", q).await.map(Reply::TimeToLive),
            Call::Leases => {
                self.unary("/etcdserverpb.Lease/LeaseLeases", LeaseLeasesRequest {}).await.map(Reply::Leases)
            }
        };
        result.map(comparable).map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// Renews a lease on a stream of its own.
    pub(crate) async fn keep_alive(&self, id: i64) -> Outcome {
        let mut grpc = self.grpc().await;
        let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let codec = ProstCodec::<LeaseKeepAliveRequest, LeaseKeepAliveResponse>::default();
        let answered = async {
            let mut answers = grpc.streaming(Request::new(requests), path, codec).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::cancelled("the stream ended without an answer"))
        };
        let answer = tokio::time::timeout(PATIENCE, answered).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::cancelled("no answer in time")));
        answer
            .map(|answer| comparable(Reply::KeepAlive(answer)))
            .map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// Opens a stream of watchers.
    pub(crate) async fn watch(&self, requests: mpsc::Receiver<WatchRequest>) -> Streaming<WatchResponse> {
        self.watch_with(Request::new(ReceiverStream::new(requests))).await
    }

    /// Opens a stream of watchers, with metadata.
    pub(crate) async fn watch_with(&self, requests: Request<ReceiverStream<WatchRequest>>) -> Streaming<WatchResponse> {
        let mut grpc = self.grpc().await;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        grpc.streaming(requests, path, ProstCodec::default()).await.expect("a stream").into_inner()
    }

    /// Reads, and leaves the answer with the server until somebody asks for it here.
    pub(crate) async fn range_untaken(&self, request: RangeRequest) -> Streaming<RangeResponse> {
        let mut grpc = self.grpc().await;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
        grpc.server_streaming(Request::new(request), path, codec).await.expect("an answer").into_inner()
    }

    /// The first answer to a call of any kind that one message is enough for.
    pub(crate) async fn first<Q, A>(&self, path: &'static str, request: Request<Q>) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc().await;
        let answered = async {
            let path = PathAndQuery::from_static(path);
            let mut answers = grpc.server_streaming(request, path, ProstCodec::<Q, A>::default()).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::cancelled("the call ended without an answer"))
        };
        let answer = tokio::time::timeout(PATIENCE, answered).await;
        answer.unwrap_or_else(|_| Err(Status::cancelled("no answer in time")))
    }

    /// Begins to read in pieces; they stay with the server until somebody asks for them here.
    pub(crate) async fn pieces_untaken(&self, request: RangeRequest) -> Result<Streaming<RangeStreamResponse>, Status> {
        let mut grpc = self.grpc().await;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/RangeStream");
        let codec = ProstCodec::<RangeRequest, RangeStreamResponse>::default();
        Ok(grpc.server_streaming(Request::new(request), path, codec).await?.into_inner())
    }

    /// Reads in pieces.
    pub(crate) async fn range_stream(&self, request: RangeRequest) -> Result<Vec<RangeResponse>, Status> {
        let mut answers = self.pieces_untaken(request).await?;
        let mut pieces = Vec::new();
        while let Some(answer) = answers.message().await? {
            pieces.push(answer.range_response.expect("a piece"));
        }
        Ok(pieces)
    }

    /// The server's revision.
    pub(crate) async fn revision(&self) -> i64 {
        let request = RangeRequest { key: "revision".into(), count_only: true, ..RangeRequest::default() };
        match self.call(Call::Range(request)).await {
            Ok(Reply::Range(answer)) => answer.header.expect("a header").revision,
            other => panic!("a read: {other:?}"),
        }
    }
}

/// Takes what is the server's own out of a header.
pub(crate) fn strip(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
    }
}

/// The answer without what may differ: who answered, and the order of what has none.
fn comparable(mut reply: Reply) -> Reply {
    let header = match &mut reply {
        Reply::Range(a) => &mut a.header,
        Reply::Put(a) => &mut a.header,
        Reply::DeleteRange(a) => &mut a.header,
        Reply::Txn(a) => &mut a.header,
        Reply::Compact(a) => &mut a.header,
        Reply::LeaseGrant(a) => &mut a.header,
        Reply::LeaseRevoke(a) => &mut a.header,
        Reply::TimeToLive(a) => {
            // etcd keeps a lease's keys in a hash map.
            a.keys.sort();
            &mut a.header
        }
        Reply::Leases(a) => {
            // etcd lists leases by their time left.
            a.leases.sort_by_key(|lease| lease.id);
            &mut a.header
        }
        Reply::KeepAlive(a) => &mut a.header,
    };
    if let Some(header) = header {
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0, "who answers? {header:?}");
    }
    strip(header);
    reply
}

/// Debian's etcd in a folder of memory; it ends with the value.
pub(crate) struct Etcd {
    process: Child,
    pub(crate) url: String,
    _dir: TempDir,
}

impl Etcd {
    pub(crate) fn start(dir: TempDir) -> Self {
        let [client, peer] = [(); 2].map(|()| format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000)));
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path().join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--unsafe-no-fsync", "--log-level", "error", "--logger", "zap"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("etcd is installed (Debian's package etcd-server)");
        Self { process, url: client, _dir: dir }
    }

    /// Whether it ended by itself.
    pub(crate) fn died(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
