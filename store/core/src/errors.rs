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
    /// The member is ending.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// The member's disk failed; it must stop.
    #[error("etcdserver: the member's storage failed")]
    Disk,
}
