use std::collections::BTreeSet;

use super::*;
use RequestError as E;

/// etcd's errors, as its clients match them. Source: etcd 3.6 `api/v3rpc/rpctypes/error.go`; those without a variable
/// there: `server/etcdserver/errors`, `server/auth/store.go`, Go's bcrypt, and 3.7's `v3rpc/key.go`.
const ETCDS: [(E, Code, &str); 57] = [
    (E::EmptyKey, Code::InvalidArgument, "etcdserver: key is not provided"),
    (E::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found"),
    (E::ValueProvided, Code::InvalidArgument, "etcdserver: value is provided"),
    (E::LeaseProvided, Code::InvalidArgument, "etcdserver: lease is provided"),
    (E::TooManyOps, Code::InvalidArgument, "etcdserver: too many operations in txn request"),
    (E::DuplicateKey, Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
    (E::InvalidSort, Code::InvalidArgument, "etcdserver: invalid sort option"),
    (E::Compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
    (E::Future, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
    (E::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
    (E::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
    (E::LeaseExists, Code::FailedPrecondition, "etcdserver: lease already exists"),
    (E::LeaseTooLong, Code::OutOfRange, "etcdserver: too large lease TTL"),
    (E::MemberExists, Code::FailedPrecondition, "etcdserver: member ID already exist"),
    (E::PeerUrlExists, Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
    (
        E::NotEnoughStarted,
        Code::FailedPrecondition,
        "etcdserver: re-configuration failed due to not enough started members",
    ),
    (E::BadMemberUrls, Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
    (E::MemberNotFound, Code::NotFound, "etcdserver: member not found"),
    (E::MemberNotLearner, Code::FailedPrecondition, "etcdserver: can only promote a learner member"),
    (
        E::LearnerNotReady,
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    (E::TooManyLearners, Code::FailedPrecondition, "etcdserver: too many learner members in cluster"),
    (E::TooLarge, Code::InvalidArgument, "etcdserver: request is too large"),
    (E::Busy, Code::ResourceExhausted, "etcdserver: too many requests"),
    (E::RootUserMissing, Code::FailedPrecondition, "etcdserver: root user does not exist"),
    (E::RootRoleMissing, Code::FailedPrecondition, "etcdserver: root user does not have root role"),
    (E::UserExists, Code::FailedPrecondition, "etcdserver: user name already exists"),
    (E::UserEmpty, Code::InvalidArgument, "etcdserver: user name is empty"),
    (E::UserNotFound, Code::FailedPrecondition, "etcdserver: user name not found"),
    (E::RoleExists, Code::FailedPrecondition, "etcdserver: role name already exists"),
    (E::RoleNotFound, Code::FailedPrecondition, "etcdserver: role name not found"),
    (E::RoleEmpty, Code::InvalidArgument, "etcdserver: role name is empty"),
    (E::AuthFailed, Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
    (E::PermissionNotGiven, Code::InvalidArgument, "etcdserver: permission not given"),
    (E::PermissionDenied, Code::PermissionDenied, "etcdserver: permission denied"),
    (E::RoleNotGranted, Code::FailedPrecondition, "etcdserver: role is not granted to the user"),
    (E::PermissionNotGranted, Code::FailedPrecondition, "etcdserver: permission is not granted to the role"),
    (E::AuthNotEnabled, Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
    (E::InvalidAuthToken, Code::Unauthenticated, "etcdserver: invalid auth token"),
    (E::InvalidAuthMgmt, Code::InvalidArgument, "etcdserver: invalid auth management"),
    (E::AuthOldRevision, Code::InvalidArgument, "etcdserver: revision of auth store is old"),
    (E::NoLeader, Code::Unavailable, "etcdserver: no leader"),
    (E::NotLeader, Code::FailedPrecondition, "etcdserver: not leader"),
    (E::Stopped, Code::Unavailable, "etcdserver: server stopped"),
    (E::Timeout, Code::Unavailable, "etcdserver: request timed out"),
    (E::LeaderFailed, Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
    (E::Unhealthy, Code::Unavailable, "etcdserver: unhealthy cluster"),
    (E::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
    (E::NotForLearner, Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
    (E::BadTransferee, Code::FailedPrecondition, "etcdserver: bad leader transferee"),
    (E::DowngradeVersionFormat, Code::InvalidArgument, "etcdserver: wrong downgrade target version format"),
    (E::DowngradeTarget, Code::InvalidArgument, "etcdserver: invalid downgrade target version"),
    // etcd gives these no code.
    (E::TransferTimeout, Code::Unknown, "etcdserver: request timed out, leader transfer took too long"),
    (E::VerifyOnly, Code::Unknown, "auth: token signing attempted with verify-only key"),
    (E::UnknownMethod, Code::Unknown, "etcdserver: unknown method"),
    (E::PasswordTooLong, Code::Unknown, "bcrypt: password length exceeds 72 bytes"),
    (E::StreamSort, Code::Unimplemented, "RangeStream does not support custom sort orders"),
    (E::StreamFilter, Code::Unimplemented, "RangeStream does not support revision filters"),
];

/// What etcd has no text for, or no code that clients know.
const OWN: [(E, Code, &str); 3] = [
    (E::CopyFailed, Code::Internal, "the state can't be copied; the member's log says why"),
    (
        E::NoDowngrade,
        Code::Unimplemented,
        "the store can't be downgraded: it has no older format; restore a snapshot with the version that took it",
    ),
    (E::Disk, Code::DataLoss, "etcdserver: the member's storage failed"),
];

#[test]
fn errors_have_the_codes_and_texts_that_clients_match() {
    for (error, code, text) in ETCDS.into_iter().chain(OWN) {
        let status = status(error);
        assert_eq!((status.code(), status.message()), (code, text), "{error:?}");
    }
}

#[test]
fn every_error_stands_in_the_tables() {
    let source = include_str!("../../../core/src/errors.rs");
    let texts = source.lines().filter_map(|line| line.trim().strip_prefix("#[error(\"")?.strip_suffix("\")]"));
    let told: Vec<&str> = ETCDS.into_iter().chain(OWN).map(|(_, _, text)| text).collect();
    assert_eq!(texts.collect::<BTreeSet<_>>(), told.iter().copied().collect());
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "a text is one error's");
}

/// What clients repeat by themselves: of these, none may be said of a write that may have been made.
/// Source: Kubernetes' and etcd's clients, which know them by their ends.
#[test]
fn texts_that_clients_repeat_writes_for_are_certain() {
    let repeated = ["etcdserver: leader changed", "etcdserver: no leader", "raft proposal dropped"];
    let said = ETCDS.into_iter().chain(OWN).filter(|(.., text)| repeated.iter().any(|end| text.ends_with(end)));
    assert_eq!(said.map(|(error, ..)| error).collect::<Vec<_>>(), [E::NoLeader]);
}
