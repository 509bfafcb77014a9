//! Every RPC, asked by everybody: who gets in is etcd's rule, whatever the store's own door says.
//!
//! Source: etcd 3.5.30 and 3.6 `server/etcdserver/apply_auth.go` (what `authApplierV3` lets pass, `needAdminPermission`),
//! `api/v3rpc/maintenance.go` (`authMaintenanceServer`), `api/v3rpc/key.go` and `v3_server.go` (`requireAuthInfo`,
//! `checkLease…`), `server.go` (`checkMembershipOperationPermission`).

use etcd_client::PutOptions;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, skip_field};
use store_core::wire::alarm_request::AlarmAction;
use store_core::wire::request_op::Request as Op;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::*;
use tonic::{Request, Status};

use super::doors::{DENIED, EMPTY, peopled};
use crate::cluster::Cluster;
use crate::differential::server::Server;

const OK: &str = "Ok";
/// What nobody, a user without roles, one who may use the keys `p/…`, and root are answered.
type Answers = [&'static str; 4];
const ANYBODY: Answers = [OK; 4];
const USERS: Answers = [EMPTY, OK, OK, OK];
const WHO_MAY: Answers = [EMPTY, DENIED, OK, OK];
const ROOT: Answers = [EMPTY, DENIED, DENIED, OK];

/// Root gets in, and is refused for a reason of another kind.
const fn root_is_told(code: &'static str) -> Answers {
    [EMPTY, DENIED, DENIED, code]
}

/// A message as it is on the wire.
#[derive(Debug, Default)]
struct Encoded(Vec<u8>);

impl prost::Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// v3lockpb's `LockRequest` and `UnlockRequest`, v3electionpb's `CampaignRequest` and `LeaderRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Queueing {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "2")]
    lease: i64,
    #[prost(string, tag = "3")]
    value: String,
}

/// v3electionpb's `LeaderKey`.
#[derive(Clone, PartialEq, prost::Message)]
struct Leader {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(int64, tag = "3")]
    revision: i64,
    #[prost(int64, tag = "4")]
    lease: i64,
}

/// v3electionpb's `ProclaimRequest` and `ResignRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Leading {
    #[prost(message, optional, tag = "1")]
    leader: Option<Leader>,
    #[prost(string, tag = "2")]
    value: String,
}

/// A lease with a key that only root may write; one for ann's places, one for root's.
const LEASED: i64 = 777;
const HERS: i64 = 888;
const ROOTS: i64 = 999;

type Row = (&'static str, Encoded, Answers);

fn row(path: &'static str, request: &impl prost::Message, answers: Answers) -> Row {
    (path, Encoded(request.encode_to_vec()), answers)
}

fn range(key: &str, serializable: bool) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), serializable, ..RangeRequest::default() }
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: "v".into(), ..PutRequest::default() }
}

fn txn(op: Op) -> TxnRequest {
    TxnRequest { success: vec![RequestOp { request: Some(op) }], ..TxnRequest::default() }
}

fn keys() -> Vec<Row> {
    const RANGE: &str = "/etcdserverpb.KV/Range";
    const STREAM: &str = "/etcdserverpb.KV/RangeStream";
    const PUT: &str = "/etcdserverpb.KV/Put";
    const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
    const TXN: &str = "/etcdserverpb.KV/Txn";
    const WATCH: &str = "/etcdserverpb.Watch/Watch";
    let delete = |key: &str| DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
    let watch = |key: &str| {
        let create = WatchCreateRequest { key: key.to_owned().into(), ..WatchCreateRequest::default() };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    let mut rows = Vec::new();
    // Reads that don't ask the leader are no way around it.
    for serializable in [false, true] {
        for (key, answers) in [("p/a", WHO_MAY), ("other", ROOT)] {
            rows.push(row(RANGE, &range(key, serializable), answers));
            rows.push(row(STREAM, &range(key, serializable), answers));
            rows.push(row(TXN, &txn(Op::RequestRange(range(key, serializable))), answers));
        }
    }
    for (key, answers) in [("p/a", WHO_MAY), ("other", ROOT)] {
        rows.push(row(PUT, &put(key), answers));
        rows.push(row(TXN, &txn(Op::RequestPut(put(key))), answers));
        rows.push(row(WATCH, &watch(key), answers));
        rows.push(row(DELETE, &delete(key), answers));
    }
    rows.push(row("/etcdserverpb.KV/Compact", &CompactionRequest { revision: 1, physical: false }, ROOT));
    rows
}

fn leases() -> Vec<Row> {
    const LEFT: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
    vec![
        row("/etcdserverpb.Lease/LeaseGrant", &LeaseGrantRequest { ttl: 600, id: 0 }, USERS),
        row(LEFT, &LeaseTimeToLiveRequest { id: LEASED, keys: false }, USERS),
        row(LEFT, &LeaseTimeToLiveRequest { id: LEASED, keys: true }, ROOT),
        row("/etcdserverpb.Lease/LeaseLeases", &LeaseLeasesRequest {}, ROOT),
        row("/etcdserverpb.Lease/LeaseKeepAlive", &LeaseKeepAliveRequest { id: LEASED }, ROOT),
        row("/etcdserverpb.Lease/LeaseRevoke", &LeaseRevokeRequest { id: LEASED }, ROOT),
    ]
}

fn members() -> Vec<Row> {
    const LIST: &str = "/etcdserverpb.Cluster/MemberList";
    let urls = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    let update = MemberUpdateRequest { id: 1, peer_ur_ls: urls(2) };
    vec![
        row(LIST, &MemberListRequest { linearizable: false }, USERS),
        row(LIST, &MemberListRequest { linearizable: true }, USERS),
        row("/etcdserverpb.Cluster/MemberAdd", &MemberAddRequest { peer_ur_ls: urls(1), is_learner: true }, ROOT),
        row("/etcdserverpb.Cluster/MemberRemove", &MemberRemoveRequest { id: 1 }, root_is_told("NotFound")),
        row("/etcdserverpb.Cluster/MemberUpdate", &update, root_is_told("NotFound")),
        row("/etcdserverpb.Cluster/MemberPromote", &MemberPromoteRequest { id: 1 }, root_is_told("NotFound")),
    ]
}

fn maintenance() -> Vec<Row> {
    const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
    let alarm = |action: AlarmAction, alarm: AlarmType| AlarmRequest {
        action: action as i32,
        member_id: 1,
        alarm: alarm as i32,
    };
    let downgrade = DowngradeRequest { version: "3.5".to_owned(), ..DowngradeRequest::default() };
    let move_leader = MoveLeaderRequest { target_id: 1 };
    vec![
        // etcd 3.6 tells root alone, and so shuts out the user of a kube-apiserver (etcd #21466).
        row("/etcdserverpb.Maintenance/Status", &StatusRequest {}, USERS),
        row(ALARM, &alarm(AlarmAction::Get, AlarmType::None), USERS),
        row(ALARM, &alarm(AlarmAction::Activate, AlarmType::Nospace), ROOT),
        row(ALARM, &alarm(AlarmAction::Deactivate, AlarmType::Nospace), ROOT),
        row("/etcdserverpb.Maintenance/Defragment", &DefragmentRequest {}, ROOT),
        row("/etcdserverpb.Maintenance/Hash", &HashRequest {}, ROOT),
        row("/etcdserverpb.Maintenance/HashKV", &HashKvRequest::default(), ROOT),
        row("/etcdserverpb.Maintenance/Snapshot", &SnapshotRequest {}, ROOT),
        row("/etcdserverpb.Maintenance/MoveLeader", &move_leader, root_is_told("FailedPrecondition")),
        row("/etcdserverpb.Maintenance/Downgrade", &downgrade, ROOT),
    ]
}

/// v3lock and v3election are made of reads and transactions; a lease that holds a place already holds it again.
fn places() -> Vec<Row> {
    let place = |name: &str, lease: i64| Queueing { name: name.to_owned(), lease, value: String::new() };
    let leading = |name: &str, lease: i64| {
        let leader = Leader { name: name.to_owned(), key: format!("{name}/{lease:x}"), revision: 1, lease };
        Leading { leader: Some(leader), value: "v".to_owned() }
    };
    let mut rows = Vec::new();
    for (name, lease, answers) in [("p/place", HERS, WHO_MAY), ("other", ROOTS, ROOT)] {
        rows.push(row("/v3lockpb.Lock/Lock", &place(name, lease), answers));
        rows.push(row("/v3lockpb.Lock/Unlock", &place(&format!("{name}/{lease:x}"), 0), answers));
        rows.push(row("/v3electionpb.Election/Campaign", &place(name, lease), answers));
        // It began at another revision: whoever may ask is told that he doesn't lead.
        let told = answers.map(|answer| if answer == OK { "Unknown" } else { answer });
        rows.push(row("/v3electionpb.Election/Proclaim", &leading(name, lease), told));
        rows.push(row("/v3electionpb.Election/Leader", &place(name, 0), answers));
        rows.push(row("/v3electionpb.Election/Observe", &place(name, 0), answers));
        rows.push(row("/v3electionpb.Election/Resign", &leading(name, lease), answers));
    }
    rows
}

fn users() -> Vec<Row> {
    const GET: &str = "/etcdserverpb.Auth/UserGet";
    const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
    let (eve, secret) = (|| "eve".to_owned(), || "secret".to_owned());
    let user = |name: &str| AuthUserGetRequest { name: name.to_owned() };
    let proof = |password: &str| AuthenticateRequest { name: "ann".to_owned(), password: password.to_owned() };
    let add = AuthUserAddRequest { name: eve(), password: secret(), ..AuthUserAddRequest::default() };
    let change = AuthUserChangePasswordRequest { name: eve(), password: secret(), ..Default::default() };
    vec![
        row(AUTHENTICATE, &proof("secret"), ANYBODY),
        row(AUTHENTICATE, &proof("wrong"), ["InvalidArgument"; 4]),
        // etcd tells root alone; whether a token is needed is no secret.
        row("/etcdserverpb.Auth/AuthStatus", &AuthStatusRequest {}, ANYBODY),
        row("/etcdserverpb.Auth/AuthEnable", &AuthEnableRequest {}, ROOT),
        row("/etcdserverpb.Auth/UserAdd", &add, ROOT),
        row(GET, &user("ann"), WHO_MAY),
        row(GET, &user("none"), [EMPTY, OK, DENIED, OK]),
        row(GET, &user("eve"), ROOT),
        row("/etcdserverpb.Auth/UserList", &AuthUserListRequest {}, ROOT),
        row("/etcdserverpb.Auth/UserChangePassword", &change, ROOT),
    ]
}

fn roles() -> Vec<Row> {
    const GET: &str = "/etcdserverpb.Auth/RoleGet";
    let eve = || "eve".to_owned();
    let role = |name: &str| AuthRoleGetRequest { role: name.to_owned() };
    let perm = Some(Permission { perm_type: 0, key: "k".into(), range_end: "".into() });
    let grant = AuthRoleGrantPermissionRequest { name: eve(), perm };
    let revoke = AuthRoleRevokePermissionRequest { role: eve(), key: "k".into(), range_end: "".into() };
    vec![
        row("/etcdserverpb.Auth/RoleAdd", &AuthRoleAddRequest { name: eve() }, ROOT),
        row("/etcdserverpb.Auth/RoleGrantPermission", &grant, ROOT),
        row("/etcdserverpb.Auth/UserGrantRole", &AuthUserGrantRoleRequest { user: eve(), role: eve() }, ROOT),
        row(GET, &role("ann"), WHO_MAY),
        row(GET, &role("eve"), ROOT),
        row("/etcdserverpb.Auth/RoleList", &AuthRoleListRequest {}, ROOT),
        row("/etcdserverpb.Auth/RoleRevokePermission", &revoke, ROOT),
        row("/etcdserverpb.Auth/UserRevokeRole", &AuthUserRevokeRoleRequest { name: eve(), role: eve() }, ROOT),
        row("/etcdserverpb.Auth/RoleDelete", &AuthRoleDeleteRequest { role: eve() }, ROOT),
        row("/etcdserverpb.Auth/UserDelete", &AuthUserDeleteRequest { name: eve() }, ROOT),
        row("/etcdserverpb.Auth/AuthDisable", &AuthDisableRequest {}, ROOT),
    ]
}

/// What somebody with a token is answered: the code, and the text of what the door says.
async fn asked(server: &Server, path: &'static str, request: &Encoded, token: Option<&str>) -> String {
    let mut request = Request::new(Encoded(request.0.clone()));
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("letters"));
    }
    let told = |status: Status| format!("{:?}: {}", status.code(), status.message());
    let said = if path.ends_with(".Watch/Watch") {
        // It is refused in the stream.
        let first = server.first::<_, WatchResponse>(path, request).await;
        first.map_err(told).and_then(|answer| {
            let refusal = answer.cancel_reason.replace("rpc error: code = ", "").replace(" desc = ", ": ");
            if answer.canceled { Err(refusal) } else { Ok(()) }
        })
    } else {
        server.first::<_, ()>(path, request).await.map_err(told)
    };
    match said {
        Ok(()) => OK.to_owned(),
        Err(refusal) if [EMPTY, DENIED, FORGED].contains(&refusal.as_str()) => refusal,
        Err(refusal) => refusal.split(':').next().unwrap_or_default().to_owned(),
    }
}

const FORGED: &str = "Unauthenticated: etcdserver: invalid auth token";

async fn token_of(server: &Server, name: &str) -> String {
    let request = AuthenticateRequest { name: name.to_owned(), password: "secret".to_owned() };
    let path = "/etcdserverpb.Auth/Authenticate";
    server.unary::<_, AuthenticateResponse>(path, request).await.expect("a token").token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_let_in_where_etcd_lets_him_in() {
    let cluster = Cluster::started(1).await;
    let mut root = peopled(&cluster).await;
    root.user_add("none", "secret", None).await.expect("a user");
    for id in [LEASED, HERS, ROOTS] {
        let options = etcd_client::LeaseGrantOptions::new().with_id(id);
        root.lease_grant(600, Some(options)).await.expect("granted");
    }
    root.put("leased", "v", Some(PutOptions::new().with_lease(LEASED))).await.expect("a put");
    let server = Server::connect(&cluster.url(0)).await;
    let mut tokens = vec![None];
    for name in ["none", "ann", "root"] {
        tokens.push(Some(token_of(&server, name).await));
    }
    let health = "/grpc.health.v1.Health/Check";
    let mut rows = vec![row(health, &range("", false), ANYBODY)];
    rows.extend([keys(), leases(), members(), maintenance(), places(), users(), roles()].into_iter().flatten());
    let mut wrong = Vec::new();
    for (path, request, answers) in &rows {
        let forged = asked(&server, path, request, Some("forged.1")).await;
        // Whom anybody may ask looks at no token.
        let expected = if answers[0] == EMPTY { FORGED } else { answers[0] };
        if forged != expected {
            wrong.push(format!("{path}: {forged} with a forged token, not {expected}"));
        }
        for (token, expected) in tokens.iter().zip(answers) {
            let answer = asked(&server, path, request, token.as_deref()).await;
            if answer != *expected {
                wrong.push(format!("{path} {:x?}: {answer} for {token:?}, not {expected}", request.0));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let protos = [
        include_str!("../../../../core/proto/etcd.proto"),
        include_str!("../../../../core/proto/auth.proto"),
        include_str!("../../../../core/proto/lock.proto"),
        include_str!("../../../../core/proto/election.proto"),
    ];
    let rpcs = protos.iter().flat_map(|proto| proto.lines()).filter_map(|line| {
        let rest = line.trim().strip_prefix("rpc ")?;
        rest.split('(').next().map(str::trim)
    });
    let not_asked: Vec<&str> =
        rpcs.filter(|rpc| !rows.iter().any(|(path, ..)| path.ends_with(&format!("/{rpc}")))).collect();
    assert!(not_asked.is_empty(), "nobody asked for {not_asked:?}");
}
