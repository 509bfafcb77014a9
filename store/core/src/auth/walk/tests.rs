//! The walk against a naive twin: every key that a request touches, asked for one by one.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::machine::Machine;
use crate::mvcc::{Answer, Revision, Values, in_range};
use crate::wire::*;
use seeded_bugs::assert_noticed;

const KEYS: u8 = 6;

fn key(number: u8) -> Bytes {
    vec![b'a' + number].into()
}

#[derive(Default)]
struct Disk(BTreeMap<Revision, Bytes>);

impl Values for Disk {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        self.0.get(&at).cloned().ok_or(RequestError::Disk)
    }
}

/// The machine with its disk.
struct Store {
    machine: Machine,
    disk: Disk,
}

impl Store {
    fn new() -> Self {
        Self { machine: Machine::default(), disk: Disk::default() }
    }

    fn run(&mut self, asker: &Asker, request: Request) -> Result<Answer, RequestError> {
        let mut command = Command { request: Some(request), ..Command::default() };
        asker.sign(&mut command);
        let (writes, answer) = self.machine.apply(1, &command, &self.disk);
        for change in writes.changes.iter().filter(|c| c.kv.version > 0) {
            self.disk.0.insert(change.at, change.kv.value.clone());
        }
        answer
    }

    fn change(&mut self, change: Change) {
        let request = Request::Auth(AuthChange { change: Some(change) });
        self.run(&Asker::Member, request).expect("a change of users");
    }

    fn user(&self, name: &str) -> Asker {
        Asker::user(name.to_owned(), self.machine.auth.revision())
    }

    /// `root`, and `ann` with these permissions; auth is on.
    fn with(permissions: &[Permission]) -> Self {
        let mut store = Self::new();
        for name in ["root", "ann"] {
            store.change(Change::UserAdd(AuthUserAddRequest { name: name.to_owned(), ..Default::default() }));
            store.change(Change::RoleAdd(AuthRoleAddRequest { name: name.to_owned() }));
            let (user, role) = (name.to_owned(), name.to_owned());
            store.change(Change::UserGrantRole(AuthUserGrantRoleRequest { user, role }));
        }
        for perm in permissions {
            let (name, perm) = ("ann".to_owned(), Some(perm.clone()));
            store.change(Change::RoleGrantPermission(AuthRoleGrantPermissionRequest { name, perm }));
        }
        store.change(Change::Enable(AuthEnableRequest {}));
        store
    }
}

/// Lease 1 holds the first key, lease 2 the last, lease 3 none; the others don't exist.
fn leased(store: &mut Store) {
    for (id, number) in [(1, Some(0)), (2, Some(KEYS - 1)), (3, None)] {
        store.run(&Asker::Member, Request::LeaseGrant(LeaseGrantRequest { id, ttl: 60 })).expect("granted");
        if let Some(number) = number {
            let put = PutRequest { key: key(number), lease: id, ..Default::default() };
            store.run(&Asker::Member, Request::Put(put)).expect("put");
        }
    }
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        3 => (0..=KEYS).prop_map(key),
        1 => Just(Bytes::from_static(b"\0")),
        1 => (0..KEYS).prop_map(|number| Bytes::from([&key(number)[..], b"\0"].concat())),
    ]
}

fn permission() -> impl Strategy<Value = Permission> {
    let valid = |(perm_type, number, end): (i32, u8, Bytes)| {
        let key = key(number);
        // Ranges of no key can't be granted.
        let range_end = if end == "\0" || end > key { end } else { Bytes::new() };
        Permission { perm_type, key, range_end }
    };
    (0..3i32, 0..KEYS, range_end()).prop_map(valid)
}

fn wrap(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// An operation by itself.
fn leaf() -> BoxedStrategy<RequestOp> {
    let range = (0..KEYS, range_end())
        .prop_map(|(n, range_end)| Op::RequestRange(RangeRequest { key: key(n), range_end, ..Default::default() }));
    let put = (0..KEYS, 0..5i64, any::<bool>()).prop_map(|(n, lease, prev_kv)| {
        Op::RequestPut(PutRequest { key: key(n), lease, prev_kv, ..Default::default() })
    });
    let delete = (0..KEYS, range_end(), any::<bool>()).prop_map(|(n, range_end, prev_kv)| {
        Op::RequestDeleteRange(DeleteRangeRequest { key: key(n), range_end, prev_kv })
    });
    prop_oneof![range, put, delete].prop_map(wrap).boxed()
}

/// One with others in it, most of the time.
fn op() -> BoxedStrategy<RequestOp> {
    let nested = |inner: BoxedStrategy<RequestOp>| txn(inner).prop_map(|txn| wrap(Op::RequestTxn(txn)));
    leaf().prop_recursive(4, 24, 3, nested).boxed()
}

/// Small ones are more: of what touches much, hardly anything is refused for a single reason.
fn request() -> impl Strategy<Value = TxnRequest> {
    prop_oneof![1 => txn(op()), 4 => txn(leaf())]
}

fn txn(inner: BoxedStrategy<RequestOp>) -> impl Strategy<Value = TxnRequest> {
    let compare =
        (0..KEYS, range_end()).prop_map(|(n, range_end)| Compare { key: key(n), range_end, ..Default::default() });
    let ops = || prop::collection::vec(inner.clone(), 0..3);
    (prop::collection::vec(compare, 0..2), ops(), ops()).prop_map(|(compare, success, failure)| TxnRequest {
        compare,
        success,
        failure,
    })
}

/// What a walk may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// Who may write may read.
    WritersRead,
    /// The key before doesn't count as read.
    ForgetsPrevious,
    /// A lease is put to a key without a look at those it has.
    ForgetsLeases,
    /// Who may do both may only read.
    BothIsReading,
    /// What is refused is asked for in the cluster's own name.
    ForgetsAsker,
}

/// What a request touches: each key with what is done to it. Keys that have one more letter stand
/// for all between two of ours.
fn touched(request: &TxnRequest, out: &mut Vec<(Access, Bytes)>) {
    let all = |start: &Bytes, end: &Bytes| -> Vec<Bytes> {
        let ours = (0..=KEYS + 3)
            .flat_map(|n| [key(n), [&key(n)[..], b"\0"].concat().into(), [&key(n)[..], b"x"].concat().into()]);
        ours.chain([Bytes::from_static(b"\xff\xff")]).filter(|k| in_range(k, start, end)).collect()
    };
    for compare in &request.compare {
        out.extend(all(&compare.key, &compare.range_end).into_iter().map(|k| (Access::Read, k)));
    }
    for op in request.success.iter().chain(&request.failure) {
        match op.request.as_ref().expect("something") {
            Op::RequestRange(r) => out.extend(all(&r.key, &r.range_end).into_iter().map(|k| (Access::Read, k))),
            Op::RequestPut(put) => {
                out.push((Access::Write, put.key.clone()));
                out.extend(put.prev_kv.then(|| (Access::Read, put.key.clone())));
                out.extend((put.lease == 1).then(|| (Access::Write, key(0))));
                out.extend((put.lease == 2).then(|| (Access::Write, key(KEYS - 1))));
            }
            Op::RequestDeleteRange(d) => {
                for k in all(&d.key, &d.range_end) {
                    out.push((Access::Write, k.clone()));
                    out.extend(d.prev_kv.then_some((Access::Read, k)));
                }
            }
            Op::RequestTxn(inner) => touched(inner, out),
        }
    }
}

fn is_allowed(permissions: &[Permission], access: Access, key: &[u8], bug: Option<Bug>) -> bool {
    let suits = |kind: i32| match access {
        Access::Read => kind != 1 || bug == Some(Bug::WritersRead),
        Access::Write => kind == 1 || (kind == 2 && bug != Some(Bug::BothIsReading)),
    };
    permissions.iter().any(|p| suits(p.perm_type) && in_range(key, &p.key, &p.range_end))
}

fn touched_by_op(op: RequestOp) -> Vec<(Access, Bytes)> {
    let mut out = Vec::new();
    touched(&TxnRequest { success: vec![op], ..Default::default() }, &mut out);
    out
}

/// Later permissions replace earlier ones for the same range.
fn effective(permissions: &[Permission]) -> Vec<Permission> {
    let mut by_range: BTreeMap<(Bytes, Bytes), Permission> = BTreeMap::new();
    for p in permissions {
        by_range.insert((p.key.clone(), p.range_end.clone()), p.clone());
    }
    by_range.into_values().collect()
}

fn permissions(max: usize) -> impl Strategy<Value = Vec<Permission>> {
    prop::collection::vec(permission(), 0..max)
}

/// The request with what makes it touch something left out.
fn shortened(mut request: TxnRequest, bug: Option<Bug>) -> TxnRequest {
    for op in request.success.iter_mut().chain(&mut request.failure) {
        match (op.request.as_mut().expect("something"), bug) {
            (Op::RequestPut(put), Some(Bug::ForgetsPrevious)) => put.prev_kv = false,
            (Op::RequestDeleteRange(delete), Some(Bug::ForgetsPrevious)) => delete.prev_kv = false,
            (Op::RequestPut(put), Some(Bug::ForgetsLeases)) => put.lease = 0,
            (Op::RequestTxn(inner), _) => *inner = shortened(std::mem::take(inner), bug),
            _ => {}
        }
    }
    request
}

fn walks_key_by_key(
    (permissions, request): (Vec<Permission>, TxnRequest),
    bug: Option<Bug>,
) -> Result<(), TestCaseError> {
    let mut store = Store::with(&permissions);
    leased(&mut store);
    let permissions = effective(&permissions);
    let by = |asker: &Asker| store.machine.auth.permit(&store.machine.mvcc, asker, &Request::Txn(request.clone()));
    let mut keys = Vec::new();
    touched(&shortened(request.clone(), bug), &mut keys);
    let forbidden = keys.iter().find(|(access, key)| !is_allowed(&permissions, *access, key, bug));
    if by(&store.user("ann")).is_ok() {
        prop_assert_eq!(forbidden, None);
    } else if !has_empty_range(&request) {
        prop_assert!(forbidden.is_some(), "refused without a reason: {:?}", request);
    }
    // Nobody and strangers may nothing; root may everything.
    prop_assert_eq!(by(&Asker::Nobody), Err(RequestError::UserEmpty));
    prop_assert_eq!(by(&store.user("root")), Ok(()));
    Ok(())
}

fn touches_nothing_forbidden_alone(
    (permissions, op): (Vec<Permission>, RequestOp),
    bug: Option<Bug>,
) -> Result<(), TestCaseError> {
    let mut store = Store::with(&permissions);
    leased(&mut store);
    let permissions = effective(&permissions);
    let request = match op.request.clone().expect("something") {
        Op::RequestPut(put) => Request::Put(put),
        Op::RequestDeleteRange(delete) => Request::DeleteRange(delete),
        Op::RequestTxn(txn) => Request::Txn(txn),
        Op::RequestRange(_) => return Ok(()),
    };
    let walked = store.machine.auth.permit(&store.machine.mvcc, &store.user("ann"), &request);
    let forbidden = touched_by_op(op).into_iter().find(|(access, key)| !is_allowed(&permissions, *access, key, bug));
    prop_assert!(walked.is_err() || forbidden.is_none(), "{:?}", forbidden);
    Ok(())
}

fn leaves_the_state(
    (permissions, request): (Vec<Permission>, TxnRequest),
    bug: Option<Bug>,
) -> Result<(), TestCaseError> {
    let mut store = Store::with(&permissions);
    leased(&mut store);
    let before = store.machine.mvcc.clone();
    let ann = store.user("ann");
    let refused = store.machine.auth.permit(&store.machine.mvcc, &ann, &Request::Txn(request.clone())).err();
    let asker = if bug == Some(Bug::ForgetsAsker) { Asker::Member } else { ann };
    let answer = store.run(&asker, Request::Txn(request));
    if let Some(error) = refused {
        prop_assert_eq!(answer, Err(error));
        prop_assert_eq!(&before, &store.machine.mvcc);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// P1: what the walk allows touches no key that is forbidden by itself, and what it refuses does,
    /// but for ranges that hold no key, which count as their first one.
    #[test]
    fn nothing_forbidden_is_touched(case in (permissions(6), request())) {
        walks_key_by_key(case, None)?;
    }

    /// The same for single requests outside of transactions.
    #[test]
    fn nothing_forbidden_is_touched_alone(case in (permissions(4), prop_oneof![op(), leaf()])) {
        touches_nothing_forbidden_alone(case, None)?;
    }

    /// Z1: what is refused leaves the state as it was.
    #[test]
    fn what_is_refused_is_not_done(case in (permissions(3), request())) {
        leaves_the_state(case, None)?;
    }
}

/// A key too many or too few, a permission that is taken for another, and a request that nobody asked about are found.
#[test]
fn a_wrong_walk_is_noticed() {
    let bugs = [Bug::WritersRead, Bug::ForgetsPrevious, Bug::ForgetsLeases, Bug::BothIsReading];
    assert_noticed(&bugs, &(permissions(6), request()), walks_key_by_key);
    assert_noticed(
        &[Bug::BothIsReading],
        &(permissions(4), prop_oneof![op(), leaf()]),
        touches_nothing_forbidden_alone,
    );
    assert_noticed(&[Bug::ForgetsAsker], &(permissions(3), request()), leaves_the_state);
}

fn has_empty_range(request: &TxnRequest) -> bool {
    let empty = |key: &Bytes, end: &Bytes| !end.is_empty() && end != "\0" && end <= key;
    let op = |op: &RequestOp| match op.request.as_ref().expect("something") {
        Op::RequestRange(r) => empty(&r.key, &r.range_end),
        Op::RequestDeleteRange(d) => empty(&d.key, &d.range_end),
        Op::RequestTxn(inner) => has_empty_range(inner),
        Op::RequestPut(_) => false,
    };
    request.compare.iter().any(|c| empty(&c.key, &c.range_end))
        || request.success.iter().chain(&request.failure).any(op)
}

fn readwrite(key: &str) -> Permission {
    Permission { perm_type: 2, key: key.to_owned().into(), range_end: Bytes::new() }
}

/// P3.
#[test]
fn leases_go_with_their_keys() {
    let mut store = Store::with(&[readwrite("a")]);
    leased(&mut store);
    let (ann, root) = (store.user("ann"), store.user("root"));
    let revoke = |id| Request::LeaseRevoke(LeaseRevokeMany { ids: vec![id] });
    let lease = |id, access| store.machine.auth.lease(&store.machine.mvcc, &ann, id, access);
    assert_eq!((lease(1, Access::Read), lease(1, Access::Write), lease(3, Access::Write)), (Ok(()), Ok(()), Ok(())));
    assert_eq!(lease(2, Access::Read), Err(RequestError::PermissionDenied));
    assert_eq!(store.machine.auth.leases(&store.machine.mvcc, &ann), Err(RequestError::PermissionDenied));
    assert_eq!(store.machine.auth.leases(&store.machine.mvcc, &root), Ok(()));
    assert_eq!(store.run(&ann, revoke(2)), Err(RequestError::PermissionDenied));
    assert_eq!(store.run(&Asker::Nobody, revoke(3)), Err(RequestError::UserEmpty));
    assert_eq!(store.run(&ann, revoke(9)), Err(RequestError::LeaseNotFound));
    assert_eq!(store.run(&ann, revoke(1)), Ok(Answer::LeaseRevoke));
    assert_eq!(store.run(&Asker::Member, revoke(2)), Ok(Answer::LeaseRevoke), "a lease that expired");
}

#[test]
fn administration_is_for_administrators() {
    let mut store = Store::with(&[readwrite("a")]);
    let (ann, stranger) = (store.user("ann"), store.user("eve"));
    let add = || {
        let request = AuthUserAddRequest { name: "eve".to_owned(), ..Default::default() };
        Request::Auth(AuthChange { change: Some(Change::UserAdd(request)) })
    };
    let compact = || Request::Compact(CompactionRequest { revision: 1, physical: false });
    for request in [add(), compact(), Request::Auth(AuthChange { change: None })] {
        let mut by = |asker: &Asker| store.run(asker, request.clone());
        assert_eq!(by(&ann), Err(RequestError::PermissionDenied));
        assert_eq!(by(&stranger), Err(RequestError::UserNotFound));
        assert_eq!(by(&Asker::Nobody), Err(RequestError::UserEmpty));
    }
    let member = Some(MemberChange { change: Some(member_change::Change::Remove(7)) });
    let mut by = |asker: &Asker| {
        let mut command = Command { member: member.clone(), ..Command::default() };
        asker.sign(&mut command);
        store.machine.apply(1, &command, &store.disk).1
    };
    assert_eq!(by(&ann), Err(RequestError::PermissionDenied));
    assert_eq!(by(&Asker::Nobody), Err(RequestError::UserEmpty));
    assert_eq!(by(&Asker::Member), Err(RequestError::MemberNotFound), "allowed, but there is none");
    let root = store.user("root");
    assert_eq!(store.run(&root, add()), Ok(Answer::Auth));
    // That was a change, so for keys he must be recognised anew.
    let delete = || Request::DeleteRange(DeleteRangeRequest { key: key(0), ..Default::default() });
    assert_eq!(store.run(&root, delete()), Err(RequestError::AuthOldRevision));
    assert!(store.run(&store.user("root"), delete()).is_ok());
}
