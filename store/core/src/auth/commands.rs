//! The commands that change users and roles, with etcd's checks in etcd's order.
//!
//! Source: etcd `server/auth/store.go`.

use bytes::Bytes;

use super::{Auth, Entry, ROOT, TokenChange, User, tokens};
use crate::errors::RequestError;
use crate::mvcc::Answer;
use crate::wire::auth_change::Change;
use crate::wire::{
    AuthChange, AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest, Permission, TokenAssign,
    permission,
};

/// What a change leaves to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Changed {
    /// To be written together with the applied index.
    pub entries: Vec<Entry>,
    /// To be told to who keeps the tokens.
    pub tokens: Option<TokenChange>,
}

impl Auth {
    /// Applies a change at a place of the log. Whether the asker may is another question: see [`super::walk`].
    ///
    /// # Errors
    /// [`RequestError`] if it is refused; then nothing changed (U2).
    pub fn apply(&mut self, change: &AuthChange, index: u64) -> Result<(Answer, Changed), RequestError> {
        // What a member of another version put into the log and this one can't read is nothing.
        let change = change.change.as_ref().ok_or(RequestError::InvalidAuthMgmt)?;
        let changed = match change {
            Change::Enable(_) => self.enable(),
            Change::Disable(_) => Ok(self.disable()),
            Change::UserAdd(request) => self.user_add(request),
            Change::UserDelete(request) => self.user_delete(&request.name),
            Change::UserChangePassword(request) => self.user_change_password(request),
            Change::UserGrantRole(request) => self.user_grant_role(request),
            Change::UserRevokeRole(request) => self.user_revoke_role(request),
            Change::RoleAdd(request) => self.role_add(&request.name),
            Change::RoleDelete(request) => self.role_delete(&request.role),
            Change::RoleGrantPermission(request) => self.role_grant_permission(request),
            Change::RoleRevokePermission(request) => self.role_revoke_permission(request),
            Change::TokenAssign(request) => {
                return self.token_assign(request, index).map(|changed| (Answer::Token(index), changed));
            }
        };
        Ok((Answer::Auth, changed?))
    }

    /// Counts a change (U3) and writes down what is new.
    fn commit(&mut self, mut entries: Vec<Entry>) -> Changed {
        self.revision += 1;
        entries.push(self.revision_entry());
        Changed { entries, tokens: None }
    }

    fn enable(&mut self) -> Result<Changed, RequestError> {
        if self.enabled {
            return Ok(Changed::default());
        }
        let root = self.users.get(ROOT).ok_or(RequestError::RootUserMissing)?;
        if !root.roles.contains(ROOT) {
            return Err(RequestError::RootRoleMissing);
        }
        self.enabled = true;
        Ok(Changed { entries: vec![self.enabled_entry(), self.revision_entry()], tokens: None })
    }

    fn disable(&mut self) -> Changed {
        if !self.enabled {
            return Changed::default();
        }
        self.enabled = false;
        let entries = vec![self.enabled_entry()];
        Changed { tokens: Some(TokenChange::AllGone), ..self.commit(entries) }
    }

    fn user_add(&mut self, request: &AuthUserAddRequest) -> Result<Changed, RequestError> {
        if request.name.is_empty() {
            return Err(RequestError::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(RequestError::UserExists);
        }
        let no_password = request.options.as_ref().is_some_and(|options| options.no_password);
        let hash = if no_password { Bytes::new() } else { request.hashed_password.clone().into() };
        self.users.insert(request.name.clone(), User { hash, no_password, roles: Default::default() });
        Ok(self.user_changed(&request.name))
    }

    fn user_changed(&mut self, name: &str) -> Changed {
        self.refresh(name);
        let entries = vec![self.user_entry(name)];
        self.commit(entries)
    }

    fn user_delete(&mut self, name: &str) -> Result<Changed, RequestError> {
        if self.enabled && name == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        self.users.remove(name).ok_or(RequestError::UserNotFound)?;
        Ok(Changed { tokens: Some(TokenChange::UserGone(name.to_owned())), ..self.user_changed(name) })
    }

    fn user_change_password(&mut self, request: &AuthUserChangePasswordRequest) -> Result<Changed, RequestError> {
        let user = self.users.get_mut(&request.name).ok_or(RequestError::UserNotFound)?;
        user.hash = if user.no_password { Bytes::new() } else { request.hashed_password.clone().into() };
        Ok(Changed { tokens: Some(TokenChange::UserGone(request.name.clone())), ..self.user_changed(&request.name) })
    }

    fn user_grant_role(&mut self, request: &AuthUserGrantRoleRequest) -> Result<Changed, RequestError> {
        let user = self.users.get_mut(&request.user).ok_or(RequestError::UserNotFound)?;
        // The role `root` means what it means, whether it was made or not.
        if request.role != ROOT && !self.roles.contains_key(&request.role) {
            return Err(RequestError::RoleNotFound);
        }
        // What he has already is no change, so the revision stays.
        let added = user.roles.insert(request.role.clone());
        Ok(if added { self.user_changed(&request.user) } else { Changed::default() })
    }

    fn user_revoke_role(&mut self, request: &AuthUserRevokeRoleRequest) -> Result<Changed, RequestError> {
        if self.enabled && request.name == ROOT && request.role == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        let user = self.users.get_mut(&request.name).ok_or(RequestError::UserNotFound)?;
        if !user.roles.remove(&request.role) {
            return Err(RequestError::RoleNotGranted);
        }
        Ok(self.user_changed(&request.name))
    }

    fn role_add(&mut self, name: &str) -> Result<Changed, RequestError> {
        if name.is_empty() {
            return Err(RequestError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(RequestError::RoleExists);
        }
        self.roles.insert(name.to_owned(), Vec::new());
        Ok(self.role_changed(name))
    }

    fn role_changed(&mut self, name: &str) -> Changed {
        self.refresh_role(name);
        let entries = vec![self.role_entry(name)];
        self.commit(entries)
    }

    fn role_delete(&mut self, name: &str) -> Result<Changed, RequestError> {
        if self.enabled && name == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(RequestError::RoleNotFound)?;
        let mut having = Vec::new();
        for (user, state) in &mut self.users {
            if state.roles.remove(name) {
                having.push(user.clone());
            }
        }
        let mut entries = vec![self.role_entry(name)];
        for user in &having {
            self.refresh(user);
            entries.push(self.user_entry(user));
        }
        Ok(self.commit(entries))
    }

    fn role_grant_permission(&mut self, request: &AuthRoleGrantPermissionRequest) -> Result<Changed, RequestError> {
        let given = request.perm.as_ref().ok_or(RequestError::PermissionNotGiven)?;
        if !is_valid(given) {
            return Err(RequestError::InvalidAuthMgmt);
        }
        let permissions = self.roles.get_mut(&request.name).ok_or(RequestError::RoleNotFound)?;
        match permissions.iter_mut().find(|p| p.key == given.key && p.range_end == given.range_end) {
            // etcd overlooks some of several ranges with one key and keeps both; a permission
            // that was taken back in part must not live on.
            Some(known) => known.perm_type = given.perm_type,
            None => {
                let at = permissions.partition_point(|p| p.key <= given.key);
                permissions.insert(at, given.clone());
            }
        }
        Ok(self.role_changed(&request.name))
    }

    fn role_revoke_permission(&mut self, request: &AuthRoleRevokePermissionRequest) -> Result<Changed, RequestError> {
        let permissions = self.roles.get_mut(&request.role).ok_or(RequestError::RoleNotFound)?;
        let before = permissions.len();
        permissions.retain(|p| p.key != request.key || p.range_end != request.range_end);
        if permissions.len() == before {
            return Err(RequestError::PermissionNotGranted);
        }
        Ok(self.role_changed(&request.role))
    }

    /// The password was checked outside; here it is decided whether that still counts.
    fn token_assign(&self, request: &TokenAssign, index: u64) -> Result<Changed, RequestError> {
        if !self.enabled {
            return Err(RequestError::AuthNotEnabled);
        }
        if self.password_hash(&request.name).is_none() {
            return Err(RequestError::AuthFailed);
        }
        if request.auth_revision != self.revision {
            return Err(RequestError::AuthOldRevision);
        }
        if request.digest.is_empty() {
            return Ok(Changed::default());
        }
        let key = tokens::Key { index, digest: request.digest.clone() };
        Ok(Changed { entries: Vec::new(), tokens: Some(TokenChange::Assigned { user: request.name.clone(), key }) })
    }
}

/// Whether a permission is for any key at all. Source: etcd `isValidPermissionRange`.
fn is_valid(given: &Permission) -> bool {
    let some_keys = match &*given.range_end {
        b"" | b"\0" => true,
        end => &*given.key < end,
    };
    !given.key.is_empty() && some_keys && permission::Type::try_from(given.perm_type).is_ok()
}
