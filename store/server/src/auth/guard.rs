//! The door before all services: which RPC needs what, and who gets in.
//!
//! Problem. One forgotten check is a hole.
//! Idea.    A request passes this door before its service sees it. A path that isn't
//!          listed stays shut while auth is on, so a new RPC must be thought about.
//!          What depends on keys is decided behind the door, by [`store_core::auth::walk`].
//! Checked by: the tests below, over every RPC of the protos.
//! Source: etcd's main branch, which lists what each of its RPCs needs.

use axum::extract::Request;
use store_core::auth::Asker;
use store_core::errors::RequestError;
use tonic::Status;

use super::{Caller, Credentials};
use crate::grpc::{Service, status};

/// Whom a door lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Anybody: he asks for a token, or whether he needs one, or whether anybody is here.
    Open,
    /// Anybody: each message of the stream is decided by itself.
    Stream,
    /// Any user; what he may is decided behind the door.
    User,
    /// Who may do everything.
    Root,
}

fn door(path: &str) -> Option<Door> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    Some(match (service, method) {
        ("etcdserverpb.Auth", "Authenticate" | "AuthStatus") => Door::Open,
        // Balancers have no user.
        ("grpc.health.v1.Health", "Check" | "Watch" | "List") => Door::Open,
        // Users may ask about themselves.
        ("etcdserverpb.Auth", "UserGet" | "RoleGet") => Door::User,
        ("etcdserverpb.Auth", "AuthEnable" | "AuthDisable" | "UserAdd" | "UserList" | "UserDelete") => Door::Root,
        ("etcdserverpb.Auth", "UserChangePassword" | "UserGrantRole" | "UserRevokeRole") => Door::Root,
        ("etcdserverpb.Auth", "RoleAdd" | "RoleList" | "RoleDelete") => Door::Root,
        ("etcdserverpb.Auth", "RoleGrantPermission" | "RoleRevokePermission") => Door::Root,
        ("etcdserverpb.KV", "Range" | "RangeStream" | "Put" | "DeleteRange" | "Txn") => Door::User,
        ("etcdserverpb.KV", "Compact") => Door::Root,
        ("etcdserverpb.Watch", "Watch") => Door::Stream,
        ("etcdserverpb.Lease", "LeaseKeepAlive") => Door::Stream,
        ("etcdserverpb.Lease", "LeaseGrant" | "LeaseRevoke" | "LeaseTimeToLive" | "LeaseLeases") => Door::User,
        ("etcdserverpb.Cluster", "MemberList") => Door::User,
        ("etcdserverpb.Cluster", "MemberAdd" | "MemberRemove" | "MemberUpdate" | "MemberPromote") => Door::Root,
        // They are made of reads and transactions, which are decided one by one.
        ("v3lockpb.Lock", "Lock" | "Unlock") => Door::User,
        ("v3electionpb.Election", "Campaign" | "Proclaim" | "Leader" | "Observe" | "Resign") => Door::User,
        // Of alarms, ordinary users may only know.
        ("etcdserverpb.Maintenance", "Status" | "Alarm") => Door::User,
        ("etcdserverpb.Maintenance", "Defragment" | "Hash" | "HashKV" | "Snapshot") => Door::Root,
        ("etcdserverpb.Maintenance", "MoveLeader" | "Downgrade") => Door::Root,
        _ => return None,
    })
}

impl Service {
    /// Who these credentials prove, by the state as it is now.
    pub(crate) async fn caller(&self, credentials: Credentials) -> Result<Caller, RequestError> {
        self.recognition.caller(&self.engine, credentials).await
    }

    /// Who asks, for the log, by the users and roles as they are now.
    pub(crate) fn asker<T>(&self, request: &tonic::Request<T>) -> Asker {
        caller(request).at(&self.engine.state.auth())
    }

    async fn admit(&self, door: Option<Door>, credentials: Credentials) -> Result<Caller, RequestError> {
        if let Some(Door::Open | Door::Stream) = door {
            return Ok(Caller { credentials, ..Caller::default() });
        }
        let caller = self.caller(credentials).await?;
        let auth = self.engine.state.auth();
        match door {
            Some(Door::Root) => auth.admin(&caller.asker)?,
            Some(_) => auth.named(&caller.asker)?,
            None if auth.is_enabled() => return Err(RequestError::PermissionDenied),
            None => {}
        }
        Ok(caller)
    }
}

/// Lets a call in: who asks.
pub(crate) async fn admit(service: &Service, path: &str, credentials: Credentials) -> Result<Caller, Status> {
    service.admit(door(path), credentials).await.map_err(status)
}

/// Lets a request in, with who asks.
pub(crate) async fn let_in(service: &Service, request: &mut Request) -> Result<(), Status> {
    let credentials = Credentials::of(request.headers(), request.extensions().get());
    let caller = admit(service, request.uri().path(), credentials).await?;
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Who asks; nobody if the request came by another way than through the door.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Caller {
    request.extensions().get().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every RPC of a proto, as a path.
    fn paths(proto: &str) -> Vec<String> {
        let package = proto.lines().find_map(|line| line.strip_prefix("package ")).expect("a package");
        let package = package.trim_end_matches(';');
        let mut service = "";
        let mut paths = Vec::new();
        for line in proto.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.split_whitespace().next().expect("a name");
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                let method = rest.split('(').next().expect("a name").trim();
                paths.push(format!("/{package}.{service}/{method}"));
            }
        }
        paths
    }

    #[test]
    fn every_rpc_has_a_door() {
        let protos = [
            include_str!("../../../core/proto/etcd.proto"),
            include_str!("../../../core/proto/auth.proto"),
            include_str!("../../../core/proto/lock.proto"),
            include_str!("../../../core/proto/election.proto"),
        ];
        let all: Vec<String> = protos.into_iter().flat_map(paths).collect();
        assert!(all.len() > 30 && all.contains(&"/etcdserverpb.Auth/UserAdd".to_owned()), "{all:?}");
        let without: Vec<&String> = all.iter().filter(|path| door(path).is_none()).collect();
        assert!(without.is_empty(), "say what these need: {without:?}");
    }

    #[test]
    fn what_is_not_listed_stays_shut() {
        for path in ["", "/", "/health", "/etcdserverpb.KV", "/etcdserverpb.KV/range", "//etcdserverpb.KV/Range"] {
            assert_eq!(door(path), None, "{path}");
        }
    }
}
