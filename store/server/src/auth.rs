//! Who asks: from a token or a certificate to a user, before anything is asked of the state.
//!
//! Invariants
//!   R1  While auth is on, no request reaches a service before its path has been looked
//!       up in [`guard`]; a path that isn't there is refused.
//!   R2  What a request claims about itself counts only if a token or a certificate
//!       proves it.
//!   R3  No password and no token is logged or goes into the log.

pub(crate) mod guard;
mod jwt;
mod passwords;

use std::sync::Arc;

use http::HeaderMap;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use store_core::auth::tokens::Key;
use store_core::auth::{Asker, Auth};
use store_core::errors::RequestError;
use store_core::mvcc::Answer;
use store_core::wire::auth_change::Change;
use store_core::wire::command::Request;
use store_core::wire::{AuthChange, TokenAssign};

use crate::config::{AuthToken, Config, ConfigError};
use crate::engine::Engine;
use jwt::Jwt;
use passwords::Passwords;

/// Times that a password is checked again because users or roles changed meanwhile.
const TOKEN_TRIES_MAX: usize = 10;
/// As in etcd; 52 letters make 91 bits.
const SECRET_LETTERS: usize = 16;
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The common name of a client's certificate, which the connection has verified.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommonName(pub(crate) Option<Arc<str>>);

/// What a request brings along to prove who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    token: Option<String>,
    common_name: Option<Arc<str>>,
}

impl Credentials {
    /// Source: etcd `AuthInfoFromCtx`, `AuthInfoFromTLS`.
    pub(crate) fn of(headers: &HeaderMap, name: Option<&CommonName>) -> Self {
        let token = headers.get("token").or_else(|| headers.get("authorization"));
        // What isn't text is no token of ours, but it is one.
        let token = token.map(|value| value.to_str().unwrap_or_default().to_owned());
        let name = name.and_then(|name| name.0.clone());
        // A gateway shows its own certificate, whoever asks it.
        let common_name = name.filter(|_| !headers.contains_key("grpcgateway-accept"));
        Self { token, common_name }
    }
}

/// Who asks, as handlers get it with the request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    pub(crate) asker: Asker,
    /// The token itself says by which revision he was recognised.
    bound: bool,
    pub(crate) credentials: Credentials,
}

impl Caller {
    /// Who asks, by the users and roles that a read is decided by.
    pub(crate) fn at(&self, auth: &Auth) -> Asker {
        match &self.asker {
            Asker::User { name, .. } if !self.bound => Asker::user(name.clone(), auth.revision()),
            asker => asker.clone(),
        }
    }
}

/// Recognises who asks, and hands out tokens.
pub(crate) struct Recognition {
    pub(crate) passwords: Passwords,
    /// Signed tokens instead of those that members keep.
    jwt: Option<Jwt>,
}

impl Recognition {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let jwt = match &config.auth_token {
            AuthToken::Simple => None,
            AuthToken::Jwt(settings) => Some(Jwt::new(settings)?),
        };
        Ok(Self { passwords: Passwords::new(config.bcrypt_cost), jwt })
    }

    /// Who these credentials prove.
    pub(crate) async fn caller(&self, engine: &Engine, credentials: Credentials) -> Result<Caller, RequestError> {
        if !engine.state.auth().is_enabled() {
            return Ok(Caller { credentials, ..Caller::default() });
        }
        let asker = match (&credentials.token, &self.jwt) {
            (Some(token), Some(jwt)) => {
                let claims = jwt.check(token).ok_or(RequestError::InvalidAuthToken)?;
                Asker::user(claims.0, claims.1)
            }
            (Some(token), None) => {
                let key = key(token).ok_or(RequestError::InvalidAuthToken)?;
                let name = engine.use_token(&key).await.ok_or(RequestError::InvalidAuthToken)?;
                Asker::user(name, engine.state.auth().revision())
            }
            (None, _) => {
                let name = credentials.common_name.as_deref().unwrap_or_default();
                Asker::user(name.to_owned(), engine.state.auth().revision())
            }
        };
        let bound = credentials.token.is_some() && self.jwt.is_some();
        Ok(Caller { asker, bound, credentials })
    }

    /// Checks a password and makes a token.
    ///
    /// The password is checked by one state of the users and the token made by another, later one;
    /// if they differ, it is checked again.
    pub(crate) async fn authenticate(
        &self,
        engine: &Engine,
        name: &str,
        password: &str,
    ) -> Result<(String, i64), RequestError> {
        engine.linearize().await?;
        let mut checked = None;
        for _ in 0..TOKEN_TRIES_MAX {
            let auth = engine.state.auth();
            if !auth.is_enabled() {
                return Err(RequestError::AuthNotEnabled);
            }
            let hash = auth.password_hash(name).cloned();
            // The same hash needn't be computed again.
            if hash.is_none() || hash != checked {
                if !self.passwords.matches(hash.clone(), password).await? {
                    tracing::warn!(user = name, "a wrong name or password");
                    return Err(RequestError::AuthFailed);
                }
                checked = hash;
            }
            match self.assign(engine, name, auth.revision()).await {
                Err(RequestError::AuthOldRevision) => {}
                result => return result,
            }
        }
        Err(RequestError::AuthOldRevision)
    }

    async fn assign(&self, engine: &Engine, name: &str, revision: u64) -> Result<(String, i64), RequestError> {
        // Before the log is troubled with it.
        let signed = self.jwt.as_ref().map(|jwt| jwt.make(name, revision)).transpose()?;
        let secret = secret();
        let digest = if signed.is_some() { bytes::Bytes::new() } else { digest(&secret) };
        let request = TokenAssign { name: name.to_owned(), digest, auth_revision: revision };
        let request = Request::Auth(AuthChange { change: Some(Change::TokenAssign(request)) });
        match engine.propose(&Asker::Nobody, request).await? {
            (Answer::Token(index), at) => Ok((signed.unwrap_or_else(|| format!("{secret}.{index}")), at)),
            _ => Err(RequestError::AuthFailed),
        }
    }
}

fn secret() -> String {
    let mut random = rand::rng();
    (0..SECRET_LETTERS).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

fn digest(secret: &str) -> bytes::Bytes {
    Sha256::digest(secret).to_vec().into()
}

/// What a simple token is known by: it reads SECRET.INDEX.
fn key(token: &str) -> Option<Key> {
    let (secret, index) = token.split_once('.')?;
    Some(Key { index: index.parse().ok()?, digest: digest(secret) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_tokens_are_read_as_they_are_written() {
        let secret = secret();
        assert_eq!(secret.len(), SECRET_LETTERS);
        assert_eq!(key(&format!("{secret}.17")), Some(Key { index: 17, digest: digest(&secret) }));
        for wrong in ["", "x", "x.", "x.y", "x.1.2", "x.-1", "x.99999999999999999999"] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tokens_go_before_certificates_and_gateways_have_none() {
        let name = CommonName(Some("ann".into()));
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers =
                pairs.iter().map(|(k, v)| (k.parse().expect("a name"), v.parse().expect("a value"))).collect();
            let found = Credentials::of(&headers, Some(&name));
            (found.token, found.common_name.as_deref().map(str::to_owned))
        };
        let ann = Some("ann".to_owned());
        assert_eq!(of(&[]), (None, ann.clone()));
        assert_eq!(of(&[("grpcgateway-accept", "x")]), (None, None));
        assert_eq!(of(&[("token", "t.1"), ("authorization", "u.1")]), (Some("t.1".to_owned()), ann.clone()));
        assert_eq!(of(&[("authorization", "u.1")]), (Some("u.1".to_owned()), ann));
    }
}
