//! Alarms and the quota: what is refused while they are raised, and the way out that etcd's manual tells.

use std::process::Command;

use etcd_client::Client;
use store_core::wire::alarm_request::AlarmAction;
use store_core::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use store_core::wire::request_op::Request as Op;
use store_core::wire::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, Compare, DeleteRangeRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, StatusResponse,
    TxnRequest,
};
use tonic::Code;

use crate::cluster::{Cluster, eventually};
use crate::differential::server::{Etcd, Server};
use crate::etcdctl::Member;

const TXN: &str = "/etcdserverpb.KV/Txn";
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const VALUE_BYTES: usize = 8 << 10;
const QUOTA_BYTES: i64 = 256 << 10;

/// Puts values until one is refused; returns how many were taken.
async fn fill(client: &mut Client) -> usize {
    for n in 0.. {
        if let Err(error) = client.put(format!("k{n:03}"), vec![b'x'; VALUE_BYTES], None).await {
            assert!(error.to_string().contains(NO_SPACE), "{error}");
            return n;
        }
    }
    unreachable!("the loop is endless")
}

fn curl(url: &str) -> String {
    let output = Command::new("curl").args(["-s", url]).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Until a member that was behind knows of the alarm, too.
async fn alarm_at(url: &str, is_raised: bool) {
    eventually("the alarm", async || {
        let health = curl(&format!("{url}/health"));
        let expected = if is_raised { r#"{"health":"false","reason":"ALARM NOSPACE"}"# } else { r#"{"health":"true""# };
        if health.starts_with(expected) { Ok(()) } else { Err(health) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_takes_puts_again_after_room_was_made_and_the_alarm_ended() {
    let mut cluster = Cluster::new(3);
    cluster.members.iter_mut().for_each(|member| member.config.quota_backend_bytes = QUOTA_BYTES);
    (0..3).for_each(|at| cluster.start(at));
    cluster.wait_for_leader().await;
    let taken = fill(&mut cluster.client(0).await).await;
    let fit = usize::try_from(QUOTA_BYTES).expect("positive") / VALUE_BYTES;
    assert!((fit - 2..=fit).contains(&taken), "{taken} of {fit}");
    // The alarm outlives its member's end.
    cluster.stop(0).await;
    cluster.start(0);
    cluster.wait_for_leader().await;
    for at in 0..3 {
        alarm_at(&cluster.url(at), true).await;
    }
    let (first, other) = (cluster.url(0), cluster.url(1));
    let walk = move || {
        let certificates = std::path::PathBuf::new();
        let member = |url| Member { url, certificates: &certificates };
        let (first, other) = (member(first.as_str()), member(other.as_str()));
        let fails = |ctl: &Member<'_>, arguments: &[&str]| {
            let (done, text) = ctl.says(arguments);
            assert!(!done && text.contains(NO_SPACE), "{arguments:?}: {text}");
        };
        let works = |ctl: &Member<'_>, arguments: &[&str]| {
            let (done, text) = ctl.says(arguments);
            assert!(done, "{arguments:?}: {text}");
            text
        };
        let alarms = works(&other, &["alarm", "list"]);
        assert!(alarms.starts_with("memberID:") && alarms.contains(" alarm:NOSPACE "), "{alarms:?}");
        for ctl in [&first, &other] {
            fails(ctl, &["put", "small", "x"]);
            fails(ctl, &["lease", "grant", "60"]);
            assert!(works(ctl, &["get", "k000", "--keys-only"]).contains("k000"));
        }
        // Ended while there is still no room: the next put raises it again.
        works(&other, &["alarm", "disarm"]);
        fails(&first, &["put", "large", &"x".repeat(2 * VALUE_BYTES)]);
        assert!(works(&other, &["alarm", "list"]).contains("NOSPACE"));
        works(&first, &["del", "--prefix", "k"]);
        let status: serde_json::Value =
            serde_json::from_str(&works(&first, &["endpoint", "status", "-w", "json"])).expect("JSON");
        let status = &status[0]["Status"];
        let error = status["errors"][0].as_str().expect("an error");
        assert!(error.ends_with(" alarm:NOSPACE "), "{error:?}");
        let in_use = |status: &serde_json::Value| status["dbSizeInUse"].as_i64().expect("a number");
        assert!(in_use(status) > QUOTA_BYTES / 2, "history still counts: {status}");
        let revision = status["header"]["revision"].to_string();
        works(&first, &["compact", &revision]);
        works(&first, &["defrag"]);
        fails(&other, &["put", "small", "x"]);
        assert!(works(&first, &["alarm", "disarm"]).contains("alarm:NOSPACE"));
        assert_eq!(works(&other, &["alarm", "list"]), "");
        works(&first, &["put", "small", "x"]);
        works(&other, &["lease", "grant", "60"]);
    };
    tokio::task::spawn_blocking(walk).await.expect("no panic");
    for at in 0..3 {
        alarm_at(&cluster.url(at), false).await;
    }
    let url = cluster.url(0);
    let metrics = tokio::task::spawn_blocking(move || curl(&format!("{url}/metrics"))).await.expect("no panic");
    let gauge = |name: &str| -> i64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("a metric");
        line.trim().parse().expect("a number")
    };
    assert_eq!(gauge("etcd_server_quota_backend_bytes "), QUOTA_BYTES);
    // The deletions are at the compacted revision, which watchers may still ask for.
    assert!(gauge("etcd_mvcc_db_total_size_in_use_in_bytes ") < QUOTA_BYTES / 16, "compaction frees it at once");
}

/// A member with a smaller quota than the others ends puts through any of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_above_its_quota_says_so_whoever_let_it_in() {
    let mut cluster = Cluster::new(3);
    cluster.members[2].config.quota_backend_bytes = QUOTA_BYTES;
    (0..3).for_each(|at| cluster.start(at));
    cluster.wait_for_leader().await;
    let mut client = cluster.client(0).await;
    fill(&mut client).await;
    let alarms = client.alarm(etcd_client::AlarmAction::Get, etcd_client::AlarmType::None, None).await.expect("alarms");
    let mut small = cluster.client(2).await;
    let id = small.status().await.expect("a status").header().map_or(0, etcd_client::ResponseHeader::member_id);
    assert_eq!(alarms.alarms().iter().map(etcd_client::AlarmMember::member_id).collect::<Vec<_>>(), [id]);
}

/// Code and text, if the answer is negative.
async fn ask<Q>(server: &Server, path: &'static str, request: Q) -> Result<(), (Code, String)>
where
    Q: prost::Message + Send + Sync + 'static,
{
    // Whatever is in a positive answer, this reads it and forgets it.
    let answer: Result<StatusRequest, tonic::Status> = server.unary(path, request).await;
    answer.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
}

/// What a server says to each kind of request.
async fn answers(server: &Server) -> Vec<Result<(), (Code, String)>> {
    let put = || PutRequest { key: "k".into(), ..PutRequest::default() };
    let read = || RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let op = |request| RequestOp { request: Some(request) };
    let never = Compare {
        result: CompareResult::Less as i32,
        target: CompareTarget::Version as i32,
        key: "k".into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Compare::default()
    };
    let txn = |success, failure| TxnRequest { compare: vec![never.clone()], success, failure };
    let delete = || DeleteRangeRequest { key: "nothing".into(), ..DeleteRangeRequest::default() };
    vec![
        ask(server, "/etcdserverpb.KV/Put", put()).await,
        ask(server, "/etcdserverpb.KV/Put", PutRequest::default()).await,
        ask(server, "/etcdserverpb.KV/Range", read()).await,
        ask(server, "/etcdserverpb.KV/DeleteRange", delete()).await,
        ask(server, TXN, txn(vec![op(Op::RequestPut(put()))], vec![])).await,
        ask(server, TXN, txn(vec![op(Op::RequestRange(read()))], vec![op(Op::RequestRange(read()))])).await,
        ask(server, TXN, txn(vec![], vec![op(Op::RequestDeleteRange(delete()))])).await,
        ask(server, "/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl: 60, id: 99 }).await,
        ask(server, "/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeRequest { id: 98 }).await,
        ask(server, "/etcdserverpb.KV/Compact", CompactionRequest { revision: 1, physical: false }).await,
    ]
}

async fn alarm(server: &Server, action: AlarmAction, kind: AlarmType) -> Vec<AlarmMember> {
    let request = AlarmRequest { action: action as i32, member_id: 5, alarm: kind as i32 };
    let answer: AlarmResponse = server.unary("/etcdserverpb.Maintenance/Alarm", request).await.expect("an answer");
    answer.alarms
}

/// The same alarm on Debian's etcd and on ours: the same answers, word for word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_refuse_in_etcds_words() {
    let etcd = Etcd::start(tempfile::tempdir().expect("a folder"));
    let ours = Cluster::started(1).await;
    let servers = [Server::connect(&etcd.url).await, Server::connect(&ours.url(0)).await];
    for kind in [AlarmType::Nospace, AlarmType::Corrupt] {
        let mut told = Vec::new();
        for server in &servers {
            let raised = alarm(server, AlarmAction::Activate, kind).await;
            let listed = alarm(server, AlarmAction::Get, AlarmType::None).await;
            let status: StatusResponse =
                server.unary("/etcdserverpb.Maintenance/Status", StatusRequest {}).await.expect("a status");
            let during = answers(server).await;
            let ended = alarm(server, AlarmAction::Deactivate, kind).await;
            let left = alarm(server, AlarmAction::Get, AlarmType::None).await;
            told.push((raised, listed, status.errors, during, ended, left, answers(server).await));
        }
        assert!(told[1].3.iter().any(Result::is_err) && !told[1].2.is_empty(), "{:?}", told[1]);
        assert_eq!(told[0], told[1], "{kind:?}");
    }
}
