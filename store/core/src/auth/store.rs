//! Users and roles as entries on disk and in snapshots.

use bytes::Bytes;
use prost::Message as _;

use super::{Auth, User};
use crate::wire::{Role, User as WireUser, UserAddOptions};

/// A key and its value; without one the key is to be deleted.
pub type Entry = (Bytes, Option<Bytes>);

/// What is read isn't what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry of users and roles can't be read")]
pub struct Damaged;

const ENABLED: &[u8] = b"enabled";
const REVISION: &[u8] = b"revision";
const USER: &[u8] = b"user/";
const ROLE: &[u8] = b"role/";

fn named(kind: &[u8], name: &str) -> Bytes {
    [kind, name.as_bytes()].concat().into()
}

fn text(bytes: &[u8]) -> Result<String, Damaged> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Damaged)
}

impl Auth {
    /// Everything, as it is to be kept.
    #[must_use]
    pub fn entries(&self) -> Vec<(Bytes, Bytes)> {
        let users = self.users.keys().map(|name| self.user_entry(name));
        let roles = self.roles.keys().map(|name| self.role_entry(name));
        let all = [self.enabled_entry(), self.revision_entry()].into_iter().chain(users).chain(roles);
        all.filter_map(|(key, value)| value.map(|value| (key, value))).collect()
    }

    /// Rebuilding from disk: an entry. [`Auth::restored`] comes after the last.
    ///
    /// # Errors
    /// [`Damaged`] if it is none of ours.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damaged> {
        if key == ENABLED {
            self.enabled = value == [1];
        } else if key == REVISION {
            self.revision = value.try_into().map(u64::from_be_bytes).map_err(|_| Damaged)?;
        } else if let Some(name) = key.strip_prefix(USER) {
            let user = WireUser::decode(value).map_err(|_| Damaged)?;
            let no_password = user.options.is_some_and(|options| options.no_password);
            let user = User { hash: user.password, no_password, roles: user.roles.into_iter().collect() };
            self.users.insert(text(name)?, user);
        } else if let Some(name) = key.strip_prefix(ROLE) {
            let role = Role::decode(value).map_err(|_| Damaged)?;
            self.roles.insert(text(name)?, role.key_permission);
        } else {
            return Err(Damaged);
        }
        Ok(())
    }

    /// Rebuilding from disk: that was all.
    pub fn restored(&mut self) {
        let names: Vec<String> = self.users.keys().cloned().collect();
        names.iter().for_each(|name| self.refresh(name));
    }

    pub(super) fn enabled_entry(&self) -> Entry {
        (Bytes::from_static(ENABLED), Some(vec![u8::from(self.enabled)].into()))
    }

    pub(super) fn revision_entry(&self) -> Entry {
        (Bytes::from_static(REVISION), Some(self.revision.to_be_bytes().to_vec().into()))
    }

    pub(super) fn user_entry(&self, name: &str) -> Entry {
        let value = self.users.get(name).map(|user| WireUser {
            name: name.to_owned().into(),
            password: user.hash.clone(),
            roles: user.roles.iter().cloned().collect(),
            options: Some(UserAddOptions { no_password: user.no_password }),
        });
        (named(USER, name), value.map(|user| user.encode_to_vec().into()))
    }

    pub(super) fn role_entry(&self, name: &str) -> Entry {
        let value = self.roles.get(name).map(|p| Role { name: name.to_owned().into(), key_permission: p.clone() });
        (named(ROLE, name), value.map(|role| role.encode_to_vec().into()))
    }
}
