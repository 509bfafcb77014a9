//! Large answers hold a bounded number of bytes together, until clients take them.

use store_core::wire::request_op::Request as Op;
use store_core::wire::{PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest};
use tonic::Code;

use crate::cluster::Cluster;
use crate::differential::Call;
use crate::differential::server::{Reply, Server};

const VALUES: usize = 16;

fn everything() -> RangeRequest {
    RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() }
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

async fn list(server: &Server) -> RangeResponse {
    match server.call(Call::Range(everything())).await {
        Ok(Reply::Range(answer)) => answer,
        other => panic!("a list: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_take_a_large_answer_holds_up_large_ones_alone() {
    let mut cluster = Cluster::new(1);
    // Any large answer is one alone beyond it.
    cluster.members[0].config.max_answer_bytes = 1 << 20;
    cluster.start(0);
    cluster.wait_for_leader().await;
    let server = Server::connect(&cluster.url(0)).await;
    for n in 0..VALUES {
        let (key, value) = (format!("k{n}").into(), vec![b'v'; 1 << 20].into());
        server.call(Call::Put(PutRequest { key, value, ..PutRequest::default() })).await.expect("a put");
    }
    let reader = Server::connect(&cluster.url(0)).await;
    let mut untaken = reader.range_untaken(everything()).await;
    let refused = server.call(Call::Range(everything())).await.expect_err("others hold it all");
    assert_eq!(refused, (Code::ResourceExhausted, "etcdserver: too many requests".to_owned()));
    // Nor is it to be had by a transaction.
    let in_txn = TxnRequest { success: vec![op(Op::RequestRange(everything()))], ..TxnRequest::default() };
    assert_eq!(server.call(Call::Txn(in_txn.clone())).await.expect_err("others hold it all"), refused);
    // What is small isn't held up.
    server.call(Call::Range(RangeRequest { keys_only: true, ..everything() })).await.expect("keys");
    let taken = untaken.message().await.expect("no error").expect("an answer");
    assert_eq!((taken.kvs.len(), taken.count), (VALUES, VALUES as i64));
    assert_eq!(untaken.message().await.expect("the end"), None);
    assert_eq!(list(&server).await.kvs, taken.kvs);
    let Ok(Reply::Txn(answer)) = server.call(Call::Txn(in_txn)).await else { panic!("a list in a transaction") };
    assert_eq!(answer.responses.len(), 1);
    // Nor does one that goes away hold anything.
    let untaken = reader.range_untaken(everything()).await;
    drop(untaken);
    assert_eq!(list(&server).await.kvs, taken.kvs);
}
