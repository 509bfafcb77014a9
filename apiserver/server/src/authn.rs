//! Who is asking: client certificates and static bearer tokens.
//!
//! A request without either is refused, but for the health and version paths.
//! Source: Kubernetes "Authenticating": a certificate's CN is the user, its
//! O fields are the groups; token file format of `--token-auth-file`.

use std::collections::HashMap;

use apiserver_core::user::User;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Checks credentials.
pub(crate) struct Authenticator {
    tokens: HashMap<String, User>,
}

/// A line of the token file that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: expected token,user,uid[,\"group,…\"]")]
pub(crate) struct TokenFileError {
    line: usize,
}

impl Authenticator {
    /// Reads the static tokens; `text` is the file's content, empty if there is none.
    pub(crate) fn new(text: &str) -> Result<Self, TokenFileError> {
        let mut tokens = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (token, user) = token_line(line).ok_or(TokenFileError { line: index + 1 })?;
            tokens.insert(token, user);
        }
        Ok(Self { tokens })
    }

    /// The user behind an `Authorization` header; `None` if the token is unknown.
    pub(crate) fn bearer(&self, header: &str) -> Option<User> {
        let (scheme, token) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.tokens.get(token.trim()).cloned()
    }
}

fn token_line(line: &str) -> Option<(String, User)> {
    let mut parts = line.splitn(4, ',');
    let (token, name, uid) = (parts.next()?.trim(), parts.next()?.trim(), parts.next()?.trim());
    if token.is_empty() || name.is_empty() {
        return None;
    }
    let groups = parts.next().unwrap_or("").trim().trim_matches('"');
    let groups = groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned);
    let user = User::authenticated(name, groups).with_uid(uid);
    Some((token.to_owned(), user))
}

/// The user a verified client certificate names; `None` if it names nobody.
pub(crate) fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let subject = cert.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
    Some(User::authenticated(name, groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_users() {
        let authenticator = Authenticator::new("# admins\ns3cret,alice,u1,\"ops,dev\"\n\n").expect("valid file");
        let alice = authenticator.bearer("Bearer s3cret").expect("known token");
        assert_eq!(alice.name, "alice");
        assert_eq!(alice.groups, ["ops", "dev", "system:authenticated"]);
        assert!(authenticator.bearer("Bearer other").is_none());
        assert!(authenticator.bearer("Basic s3cret").is_none());
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = Authenticator::new("a,b,c\nonly-a-token\n").err().expect("refused");
        assert_eq!(error.to_string(), "line 2: expected token,user,uid[,\"group,…\"]");
    }
}
