//! Signed tokens: who they are for, by which revision, until when.
//!
//! Members keep nothing of them. A change of users or roles makes them old for keys.
//! Source: etcd `server/auth/jwt.go`, `options.go`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use store_core::errors::RequestError;

use crate::config::{ConfigError, JwtSettings};

#[derive(Serialize)]
struct Claims<'a> {
    username: &'a str,
    revision: u64,
    exp: u64,
}

/// What counts of a token. Its end is checked by the library.
#[derive(Deserialize)]
struct Claimed {
    username: String,
    /// Numbers of JSON may come with a fraction.
    revision: f64,
}

/// Makes and checks tokens.
pub(super) struct Jwt {
    algorithm: Algorithm,
    ttl_seconds: u64,
    /// `None` if tokens are made elsewhere.
    private: Option<EncodingKey>,
    public: DecodingKey,
    validation: Validation,
}

fn wrong(what: &str, why: impl std::fmt::Display) -> ConfigError {
    ConfigError::of(format!("--auth-token: {what}: {why}"))
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| wrong(&path.display().to_string(), error))
}

impl Jwt {
    pub(super) fn new(settings: &JwtSettings) -> Result<Self, ConfigError> {
        let algorithm = settings.sign_method.parse().map_err(|error| wrong(&settings.sign_method, error))?;
        let private = settings.private_key.as_deref().map(read).transpose()?;
        let public = settings.public_key.as_deref().map(read).transpose()?;
        let (private, public) = keys(algorithm, private.as_deref(), public.as_deref())?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        // As in etcd: a token without an end has none, and nobody says for whom else it may be.
        validation.required_spec_claims.clear();
        validation.validate_aud = false;
        let jwt = Self { algorithm, ttl_seconds: settings.ttl.as_secs(), private, public, validation };
        jwt.check_pair()?;
        Ok(jwt)
    }

    /// Two keys that don't belong together would make tokens that nobody takes.
    fn check_pair(&self) -> Result<(), ConfigError> {
        if self.private.is_none() {
            return Ok(());
        }
        let probe = self.make("probe", 1).map_err(|error| wrong("priv-key", error))?;
        let own = jsonwebtoken::decode::<Claimed>(&probe, &self.public, &{
            let mut validation = self.validation.clone();
            validation.validate_exp = false;
            validation
        });
        own.map(|_| ()).map_err(|_| wrong("pub-key", "public and private keys don't match"))
    }

    pub(super) fn make(&self, name: &str, revision: u64) -> Result<String, RequestError> {
        let key = self.private.as_ref().ok_or(RequestError::VerifyOnly)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = Claims { username: name, revision, exp: now.saturating_add(self.ttl_seconds) };
        // The key was tried at the start.
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, key).map_err(|_| RequestError::VerifyOnly)
    }

    /// Name and revision; `None` unless the signature is right, by the configured method alone, and
    /// its time hasn't passed.
    pub(super) fn check(&self, token: &str) -> Option<(String, u64)> {
        let claimed = jsonwebtoken::decode::<Claimed>(token, &self.public, &self.validation).ok()?.claims;
        // A revision is never negative; what is no number of ours becomes 0, by which nobody is known.
        Some((claimed.username, claimed.revision as u64))
    }
}

/// The keys for an algorithm from the files' contents.
fn keys(
    algorithm: Algorithm,
    private: Option<&[u8]>,
    public: Option<&[u8]>,
) -> Result<(Option<EncodingKey>, DecodingKey), ConfigError> {
    type Keys = jsonwebtoken::errors::Result<(Option<EncodingKey>, DecodingKey)>;
    if let Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 = algorithm {
        let secret =
            private.filter(|secret| !secret.is_empty()).ok_or_else(|| wrong("priv-key", "missing key data"))?;
        return Ok((Some(EncodingKey::from_secret(secret)), DecodingKey::from_secret(secret)));
    }
    let public = public.ok_or_else(|| wrong("pub-key", "missing key data"))?;
    let pair: Keys = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => private
            .map(EncodingKey::from_ec_pem)
            .transpose()
            .and_then(|private| Ok((private, DecodingKey::from_ec_pem(public)?))),
        Algorithm::EdDSA => private
            .map(EncodingKey::from_ed_pem)
            .transpose()
            .and_then(|private| Ok((private, DecodingKey::from_ed_pem(public)?))),
        _ => private
            .map(EncodingKey::from_rsa_pem)
            .transpose()
            .and_then(|private| Ok((private, DecodingKey::from_rsa_pem(public)?))),
    };
    pair.map_err(|error| wrong(&format!("{algorithm:?}"), error))
}

#[cfg(test)]
mod tests;
