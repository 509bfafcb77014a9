//! Simple tokens: whose they are and until when, by this member's clock.
//!
//! A token is assigned by a command in the log, so every member knows it. How long it
//! lives is each member's own affair: it is renewed where it is used.
//!
//! Invariants
//!   T1  A token is good until its time to live has passed without its use.
//!   T2  There are at most [`TOKENS_MAX`] tokens. Who has most loses his oldest.
//!   T3  The secret of a token isn't kept, only its digest.
//! Source: etcd `server/auth/simple_token.go`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::TokenChange;

/// Tokens known at once.
pub const TOKENS_MAX: usize = 100_000;

/// What a token is known by: where the log assigned it, and SHA-256 of its secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The place in the log.
    pub index: u64,
    /// Of the secret.
    pub digest: Bytes,
}

#[derive(Debug)]
struct Token {
    user: String,
    deadline_ms: u64,
}

/// The tokens that a member knows.
#[derive(Debug)]
pub struct Tokens {
    ttl_ms: u64,
    max: usize,
    tokens: BTreeMap<Key, Token>,
    /// Each user's tokens, the one that ends first at the front.
    users: BTreeMap<String, BTreeSet<(u64, Key)>>,
}

impl Tokens {
    /// No tokens yet.
    #[must_use]
    pub fn new(ttl_ms: u64) -> Self {
        Self { ttl_ms, max: TOKENS_MAX, tokens: BTreeMap::new(), users: BTreeMap::new() }
    }

    /// Carries out what the log says.
    pub fn apply(&mut self, now_ms: u64, change: TokenChange) {
        match change {
            TokenChange::Assigned { user, key } => self.assign(now_ms, user, key),
            TokenChange::UserGone(user) => {
                for (_, key) in self.users.remove(&user).unwrap_or_default() {
                    self.tokens.remove(&key);
                }
            }
            TokenChange::AllGone => {
                self.tokens.clear();
                self.users.clear();
            }
        }
    }

    /// Whose token it is; its time begins anew (T1).
    pub fn use_token(&mut self, now_ms: u64, key: &Key) -> Option<String> {
        let token = self.tokens.get(key)?;
        let (user, live) = (token.user.clone(), now_ms < token.deadline_ms);
        self.remove(key);
        if live {
            self.insert(now_ms, user.clone(), key.clone());
        }
        live.then_some(user)
    }

    fn assign(&mut self, now_ms: u64, user: String, key: Key) {
        self.expire(now_ms);
        self.insert(now_ms, user, key);
        if self.tokens.len() > self.max {
            // T2.
            let most = self.users.values().max_by_key(|tokens| tokens.len());
            if let Some((_, oldest)) = most.and_then(|tokens| tokens.first().cloned()) {
                self.remove(&oldest);
            }
        }
    }

    fn expire(&mut self, now_ms: u64) {
        let ended = |tokens: &BTreeSet<(u64, Key)>| -> Vec<Key> {
            tokens.iter().take_while(|(deadline, _)| *deadline <= now_ms).map(|(_, key)| key.clone()).collect()
        };
        let ended: Vec<Key> = self.users.values().flat_map(ended).collect();
        ended.iter().for_each(|key| self.remove(key));
    }

    fn insert(&mut self, now_ms: u64, user: String, key: Key) {
        let deadline_ms = now_ms.saturating_add(self.ttl_ms);
        self.users.entry(user.clone()).or_default().insert((deadline_ms, key.clone()));
        self.tokens.insert(key, Token { user, deadline_ms });
    }

    fn remove(&mut self, key: &Key) {
        let Some(token) = self.tokens.remove(key) else { return };
        if let Some(tokens) = self.users.get_mut(&token.user) {
            tokens.remove(&(token.deadline_ms, key.clone()));
            if tokens.is_empty() {
                self.users.remove(&token.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u64) -> Key {
        Key { index, digest: Bytes::from(vec![7; 32]) }
    }

    fn assigned(user: &str, index: u64) -> TokenChange {
        TokenChange::Assigned { user: user.to_owned(), key: key(index) }
    }

    /// T1.
    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let mut tokens = Tokens::new(300);
        tokens.apply(0, assigned("ann", 1));
        assert_eq!(tokens.use_token(299, &key(1)).as_deref(), Some("ann"));
        assert_eq!(tokens.use_token(598, &key(1)).as_deref(), Some("ann"));
        assert_eq!(tokens.use_token(898, &key(1)), None);
        assert_eq!(tokens.use_token(0, &key(2)), None);
        assert!(tokens.tokens.is_empty() && tokens.users.is_empty());
    }

    #[test]
    fn another_secret_at_the_same_place_is_another_token() {
        let mut tokens = Tokens::new(300);
        tokens.apply(0, assigned("ann", 1));
        assert_eq!(tokens.use_token(1, &Key { index: 1, digest: Bytes::from(vec![8; 32]) }), None);
    }

    /// T2: who asks for ever more tokens takes them from himself.
    #[test]
    fn too_many_tokens_cost_who_has_most() {
        let mut tokens = Tokens::new(300);
        tokens.max = 3;
        tokens.apply(0, assigned("ann", 1));
        for index in 2..10 {
            tokens.apply(index, assigned("bob", index));
        }
        assert_eq!(tokens.tokens.len(), 3);
        assert_eq!(tokens.use_token(10, &key(1)).as_deref(), Some("ann"));
        assert_eq!(tokens.use_token(10, &key(9)).as_deref(), Some("bob"));
        assert_eq!(tokens.use_token(10, &key(2)), None);
    }

    #[test]
    fn tokens_go_with_their_user_and_with_auth() {
        let mut tokens = Tokens::new(300);
        tokens.apply(0, assigned("ann", 1));
        tokens.apply(0, assigned("bob", 2));
        tokens.apply(0, assigned("bob", 3));
        tokens.apply(0, TokenChange::UserGone("ann".to_owned()));
        assert_eq!((tokens.use_token(1, &key(1)), tokens.use_token(1, &key(2)).is_some()), (None, true));
        tokens.apply(0, TokenChange::AllGone);
        assert_eq!((tokens.use_token(1, &key(2)), tokens.use_token(1, &key(3))), (None, None));
    }

    #[test]
    fn what_has_expired_leaves_no_trace() {
        let mut tokens = Tokens::new(300);
        tokens.apply(0, assigned("ann", 1));
        tokens.apply(400, assigned("bob", 2));
        assert_eq!((tokens.tokens.len(), tokens.users.len()), (1, 1));
    }
}
