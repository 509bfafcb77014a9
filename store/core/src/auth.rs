//! Users, roles and what they may: the state behind etcd's Auth.
//!
//! Problem. Whether a request is allowed must be the same on every member, and no
//!          way around the question may exist.
//! Idea.    Users and roles change by commands in the log, like keys. [`walk`] goes
//!          over a whole request, however deep; [`crate::machine`] asks it before
//!          anything is applied, and readers ask it under the state that they read.
//!
//! Invariants
//!   U1  The same commands in the same order give the same users, roles and writes.
//!   U2  A command that is refused changes nothing.
//!   U3  The revision rises with every change, so that whoever was recognised by an
//!       earlier state is noticed. Turning auth on is no change of users and roles.
//!   U4  While auth is on, `root` exists and has the role `root`.
//!   U5  No password is kept, only its hash.
//! Checked by: auth/tests.rs, auth/walk/tests.rs.
//! Source: etcd `server/auth/store.go`.

mod commands;
mod ranges;
mod store;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod walk;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::errors::RequestError;
use crate::wire::{Command, Permission, permission};
use ranges::{Range, Ranges};

pub use commands::Changed;
pub use store::{Damaged, Entry};

/// The user who may do everything, and the role that lets him.
pub const ROOT: &str = "root";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Asker {
    /// Somebody who didn't say who he is.
    #[default]
    Nobody,
    /// A user, recognised by the users and roles of a revision.
    User {
        /// His name.
        name: String,
        /// By which revision.
        revision: u64,
    },
    /// A member itself: it ends leases that have expired.
    Member,
}

impl Asker {
    /// A user; nobody without a name, or by no revision at all.
    #[must_use]
    pub fn user(name: String, revision: u64) -> Self {
        if name.is_empty() || revision == 0 { Self::Nobody } else { Self::User { name, revision } }
    }

    /// Who asks for a command of the log.
    #[must_use]
    pub fn of(command: &Command) -> Self {
        if command.by_member { Self::Member } else { Self::user(command.username.clone(), command.auth_revision) }
    }

    /// Writes down who asks for a command.
    pub fn sign(&self, command: &mut Command) {
        command.by_member = *self == Self::Member;
        if let Self::User { name, revision } = self {
            command.username.clone_from(name);
            command.auth_revision = *revision;
        }
    }
}

/// What is to be done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its value is shown, or something is concluded from it.
    Read,
    /// It is changed.
    Write,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    /// As bcrypt writes it; empty if no password is right.
    hash: Bytes,
    /// Recognised by certificate only.
    no_password: bool,
    roles: BTreeSet<String>,
}

/// What a user may, of all his roles together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Allowed {
    all: bool,
    read: Ranges,
    write: Ranges,
}

/// A change of the tokens that members know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenChange {
    /// A user has a new one.
    Assigned {
        /// Whose.
        user: String,
        /// Which.
        key: tokens::Key,
    },
    /// A user's tokens are void.
    UserGone(String),
    /// All tokens are void.
    AllGone,
}

/// Users and roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, User>,
    /// Permissions in order of their keys.
    roles: BTreeMap<String, Vec<Permission>>,
    /// Follows from users and roles.
    allowed: BTreeMap<String, Allowed>,
}

impl Default for Auth {
    fn default() -> Self {
        Self::new()
    }
}

impl Auth {
    /// Nobody and nothing, and auth is off.
    #[must_use]
    pub fn new() -> Self {
        let (users, roles, allowed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { enabled: false, revision: 1, users, roles, allowed }
    }

    /// Whether anybody is asked who he is.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// How often users and roles have changed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The hash to check a user's password against; `None` if no password can be right.
    #[must_use]
    pub fn password_hash(&self, user: &str) -> Option<&Bytes> {
        self.users.get(user).filter(|u| !u.no_password && !u.hash.is_empty()).map(|u| &u.hash)
    }

    /// The users' names.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The roles' names.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// A user's roles, shown to an administrator and to the user.
    ///
    /// # Errors
    /// For anybody else, and if there is no such user.
    pub fn user_roles(&self, asker: &Asker, user: &str) -> Result<Vec<String>, RequestError> {
        let own = matches!(asker, Asker::User { name, .. } if name == user);
        self.admin(asker).or_else(|error| if own { Ok(()) } else { Err(error) })?;
        let user = self.users.get(user).ok_or(RequestError::UserNotFound)?;
        Ok(user.roles.iter().cloned().collect())
    }

    /// A role's permissions, shown to an administrator and to who has the role.
    ///
    /// # Errors
    /// For anybody else, and if there is no such role.
    pub fn role_permissions(&self, asker: &Asker, role: &str) -> Result<Vec<Permission>, RequestError> {
        let own = matches!(asker, Asker::User { name, .. } if self.has_role(name, role));
        self.admin(asker).or_else(|error| if own { Ok(()) } else { Err(error) })?;
        let permissions = self.roles.get(role).ok_or(RequestError::RoleNotFound)?;
        if role == ROOT {
            let (key, range_end) = (Bytes::new(), Bytes::from_static(b"\0"));
            return Ok(vec![Permission { perm_type: permission::Type::Readwrite as i32, key, range_end }]);
        }
        Ok(permissions.clone())
    }

    fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.roles.contains(role))
    }

    /// Whether the asker is somebody.
    ///
    /// # Errors
    /// [`RequestError::UserEmpty`] while auth is on and nobody asks.
    pub fn named(&self, asker: &Asker) -> Result<(), RequestError> {
        if self.enabled && *asker == Asker::Nobody { Err(RequestError::UserEmpty) } else { Ok(()) }
    }

    /// Whether the asker may do everything. Source: etcd `IsAdminPermitted`.
    ///
    /// # Errors
    /// Why not. An asker by an old revision is no reason, as in etcd: who changes users one after
    /// the other changes the revision himself.
    pub fn admin(&self, asker: &Asker) -> Result<(), RequestError> {
        if !self.enabled {
            return Ok(());
        }
        match asker {
            Asker::Member => Ok(()),
            Asker::Nobody => Err(RequestError::UserEmpty),
            Asker::User { name, .. } => match self.users.get(name) {
                None => Err(RequestError::UserNotFound),
                Some(user) if user.roles.contains(ROOT) => Ok(()),
                Some(_) => Err(RequestError::PermissionDenied),
            },
        }
    }

    /// Whether the asker may do this with all keys of etcd's range of `key` and `range_end`.
    /// Source: etcd `isOpPermitted`.
    ///
    /// # Errors
    /// Why not.
    pub fn keys(&self, asker: &Asker, access: Access, key: &[u8], range_end: &[u8]) -> Result<(), RequestError> {
        if !self.enabled {
            return Ok(());
        }
        let (name, revision) = match asker {
            Asker::Member => return Ok(()),
            Asker::Nobody => return Err(RequestError::UserEmpty),
            Asker::User { name, revision } => (name, *revision),
        };
        if revision < self.revision {
            return Err(RequestError::AuthOldRevision);
        }
        let allowed = self.allowed.get(name).ok_or(RequestError::PermissionDenied)?;
        let ranges = match access {
            Access::Read => &allowed.read,
            Access::Write => &allowed.write,
        };
        if allowed.all || ranges.cover(&Range::of(key, range_end)) {
            Ok(())
        } else {
            Err(RequestError::PermissionDenied)
        }
    }

    /// Computes anew what a user may.
    fn refresh(&mut self, name: &str) {
        let Some(user) = self.users.get(name) else {
            self.allowed.remove(name);
            return;
        };
        let permissions = || user.roles.iter().filter_map(|role| self.roles.get(role)).flatten();
        let of = |kinds: [permission::Type; 2]| {
            let wanted = move |p: &&Permission| kinds.iter().any(|kind| *kind as i32 == p.perm_type);
            Ranges::merged(permissions().filter(wanted).map(|p| Range::of(&p.key, &p.range_end)))
        };
        let allowed = Allowed {
            all: user.roles.contains(ROOT),
            read: of([permission::Type::Read, permission::Type::Readwrite]),
            write: of([permission::Type::Write, permission::Type::Readwrite]),
        };
        self.allowed.insert(name.to_owned(), allowed);
    }

    /// Computes anew what the users with a role may.
    fn refresh_role(&mut self, role: &str) {
        let having: Vec<String> =
            self.users.iter().filter(|(_, user)| user.roles.contains(role)).map(|(name, _)| name.clone()).collect();
        having.iter().for_each(|name| self.refresh(name));
    }
}
