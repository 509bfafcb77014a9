//! etcd's errors: clients match the texts exactly.
//!
//! Source: etcd `api/v3rpc/rpctypes/error.go`.

/// Why a request is refused. The text is etcd's; the code is mapped in the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A request without a key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that isn't there.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A value beside `ignore_value`.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease beside `ignore_lease`.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// More operations than a transaction may hold.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A transaction that writes a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// A sort order or target that doesn't exist.
    #[error("etcdserver: invalid sort option")]
    InvalidSort,
    /// A streamed read in an order that only the whole answer has.
    #[error("RangeStream does not support custom sort orders")]
    StreamSort,
    /// A streamed read with bounds on revisions.
    #[error("RangeStream does not support revision filters")]
    StreamFilter,
    /// A revision that is gone.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// A revision that isn't reached.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    Future,
    /// No such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease of that number.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// A time to live of centuries.
    #[error("etcdserver: too large lease TTL")]
    LeaseTooLong,
    /// More bytes than a request may have.
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// A member of that number, or one was removed.
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    /// A peer URL of another member.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    /// Peer URLs that aren't URLs.
    #[error("etcdserver: given member URLs are invalid")]
    BadMemberUrls,
    /// No such member.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// A change after which those who have started would be no quorum.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// A change while members don't answer.
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    /// A member that votes already.
    #[error("etcdserver: can only promote a learner member")]
    MemberNotLearner,
    /// A learner that is still catching up.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// One learner more than allowed.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// A request that a learner doesn't serve.
    #[error("etcdserver: rpc not supported for learner")]
    NotForLearner,
    /// A request for the leader alone.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// A member that can't take over.
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    /// Nobody took over in time.
    #[error("etcdserver: request timed out, leader transfer took too long")]
    TransferTimeout,
    /// Nobody leads; the request was certainly not made.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// No answer in time; the request may have been made.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// The leader went; the request may have been made.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    LeaderFailed,
    /// Too many requests wait already; this one was certainly not made.
    #[error("etcdserver: too many requests")]
    Busy,
    /// The state can't be copied for a backup; the member itself goes on.
    #[error("the state can't be copied; the member's log says why")]
    CopyFailed,
    /// The member is ending.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// Turning auth on without its administrator.
    #[error("etcdserver: root user does not exist")]
    RootUserMissing,
    /// Turning auth on with an administrator who may nothing.
    #[error("etcdserver: root user does not have root role")]
    RootRoleMissing,
    /// A user of that name.
    #[error("etcdserver: user name already exists")]
    UserExists,
    /// Nobody asks, or a user without a name is to be made.
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    /// No such user.
    #[error("etcdserver: user name not found")]
    UserNotFound,
    /// A role of that name.
    #[error("etcdserver: role name already exists")]
    RoleExists,
    /// No such role.
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    /// A role without a name.
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    /// Wrong name or password; which of them is nobody's business.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthFailed,
    /// A grant of nothing.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    /// The user may not.
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    /// A role that the user doesn't have.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    /// A permission that the role doesn't have.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    /// A token is asked for and none is needed.
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    /// A token that isn't known, or not any more.
    #[error("etcdserver: invalid auth token")]
    InvalidAuthToken,
    /// A change that would leave nobody in charge, or a permission for no key.
    #[error("etcdserver: invalid auth management")]
    InvalidAuthMgmt,
    /// Users or roles changed since the asker was recognised.
    #[error("etcdserver: revision of auth store is old")]
    AuthOldRevision,
    /// Longer than what the hash takes in.
    #[error("bcrypt: password length exceeds 72 bytes")]
    PasswordTooLong,
    /// The member can check tokens but not make them.
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    /// The quota is used up: until there is room and the alarm is ended, nothing is added.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// Members disagree: until an operator has ended the alarm, nothing is changed.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// A version that is none.
    #[error("etcdserver: wrong downgrade target version format")]
    DowngradeVersionFormat,
    /// Another version than the one below.
    #[error("etcdserver: invalid downgrade target version")]
    DowngradeTarget,
    /// The version below, which there is of etcd and not of this store.
    #[error("the store can't be downgraded: it has no older format; restore a snapshot with the version that took it")]
    NoDowngrade,
    /// An action that doesn't exist.
    #[error("etcdserver: unknown method")]
    UnknownMethod,
    /// The member's disk failed; it must stop.
    #[error("etcdserver: the member's storage failed")]
    Disk,
}

impl RequestError {
    /// Errors that the leader sends to a member that asked it.
    const SENT: [Self; 14] = [
        Self::MemberExists,
        Self::PeerUrlExists,
        Self::BadMemberUrls,
        Self::MemberNotFound,
        Self::NotEnoughStarted,
        Self::Unhealthy,
        Self::MemberNotLearner,
        Self::LearnerNotReady,
        Self::TooManyLearners,
        Self::BadTransferee,
        Self::TransferTimeout,
        Self::NoLeader,
        Self::Timeout,
        Self::LeaderFailed,
    ];

    /// The error of a text that a peer sent; of one that this version doesn't know, the outcome is unknown.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self::SENT.into_iter().find(|error| error.to_string() == text).unwrap_or(Self::LeaderFailed)
    }
}
