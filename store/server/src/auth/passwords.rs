//! Passwords: hashed slowly, on threads of their own, a few at once.
//!
//! Invariants
//!   H1  At most [`AT_ONCE`] passwords are hashed at once and [`WAITING_MAX`] wait;
//!       further ones are refused.
//!   H2  A name that nobody has costs as much time as a wrong password.

use std::sync::Arc;

use bytes::Bytes;
use store_core::errors::RequestError;
use tokio::sync::Semaphore;

/// Passwords hashed at once: the rest of the processors is for requests.
const AT_ONCE: usize = 2;
const WAITING_MAX: usize = 256;
/// What bcrypt takes in.
const BYTES_MAX: usize = 72;

pub(crate) struct Passwords {
    cost: u32,
    /// No password's hash, as slow to compare as the others.
    decoy: Bytes,
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new(cost: u32) -> Self {
        let (working, waiting) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(WAITING_MAX)));
        // Salt and hash are all zeros; the cost is what counts.
        let decoy = format!("$2b${cost:02}${:.<53}", "").into();
        Self { cost, decoy, working, waiting }
    }

    /// Runs slow work when it is its turn (H1).
    async fn slowly<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, RequestError> {
        let _place = self.waiting.clone().try_acquire_owned().map_err(|_| RequestError::Busy)?;
        let turn = self.working.clone().acquire_owned().await.map_err(|_| RequestError::Stopped)?;
        let work = move || {
            // The turn lasts as long as the work, whether or not the client waits for it.
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| RequestError::Stopped)
    }

    /// The hash to keep.
    pub(crate) async fn hash(&self, password: String) -> Result<String, RequestError> {
        if password.len() > BYTES_MAX {
            return Err(RequestError::PasswordTooLong);
        }
        let cost = self.cost;
        // It fails only without randomness or for a cost that was refused at the start.
        self.slowly(move || bcrypt::hash(password, cost)).await?.map_err(|_| RequestError::Stopped)
    }

    /// Whether a password has this hash; without one it hasn't, after the same time (H2).
    pub(crate) async fn matches(&self, hash: Option<Bytes>, password: &str) -> Result<bool, RequestError> {
        let possible = hash.is_some() && password.len() <= BYTES_MAX;
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let mut password = password.as_bytes().to_vec();
        password.truncate(BYTES_MAX);
        let compare =
            move || std::str::from_utf8(&hash).is_ok_and(|hash| bcrypt::verify(&password, hash).unwrap_or(false));
        Ok(self.slowly(compare).await? && possible)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("secret".to_owned()).await.expect("hashed");
        assert!(hash.starts_with("$2b$04$") && !hash.contains("secret"));
        let known = Some(Bytes::from(hash));
        for (password, right) in [("secret", true), ("Secret", false), ("", false)] {
            assert_eq!(passwords.matches(known.clone(), password).await, Ok(right), "{password}");
        }
        assert_eq!(passwords.matches(Some("damaged".into()), "secret").await, Ok(false));
    }

    #[tokio::test]
    async fn what_bcrypt_would_overlook_is_refused() {
        let passwords = Passwords::new(4);
        let (long, longer) = ("x".repeat(72), "x".repeat(73));
        assert_eq!(passwords.hash(longer.clone()).await, Err(RequestError::PasswordTooLong));
        let hash = Some(Bytes::from(passwords.hash(long.clone()).await.expect("hashed")));
        assert_eq!(passwords.matches(hash.clone(), &long).await, Ok(true));
        assert_eq!(passwords.matches(hash, &longer).await, Ok(false));
    }

    /// H2, with a margin that no machine needs: without the decoy it would be a thousand times less.
    #[tokio::test]
    async fn an_unknown_name_takes_as_long_as_a_wrong_password() {
        let passwords = Passwords::new(8);
        let known = Some(Bytes::from(passwords.hash("secret".to_owned()).await.expect("hashed")));
        let mut times = [Duration::MAX; 2];
        for _ in 0..5 {
            for (time, hash) in times.iter_mut().zip([&known, &None]) {
                let begun = Instant::now();
                assert_eq!(passwords.matches(hash.clone(), "wrong").await, Ok(false));
                *time = begun.elapsed().min(*time);
            }
        }
        assert!(times[1] > times[0] / 3, "{times:?}");
    }

    /// H1.
    #[tokio::test]
    async fn too_many_at_once_are_refused() {
        let passwords = Passwords::new(4);
        let _places = passwords.waiting.clone().acquire_many_owned(WAITING_MAX as u32).await.expect("places");
        assert_eq!(passwords.hash("secret".to_owned()).await, Err(RequestError::Busy));
    }
}
