//! Admission: how many bytes answers and requests under way may hold, all together.
//!
//! A small answer is free. A large one takes shares of a common budget as it grows, and gives them back when the last
//! of it is on its way to the client. Where the budget is used up, one answer at a time may go on beyond it: two that
//! wait for each other's bytes would wait for ever, and one that is larger than the budget would never be. Whoever
//! waits too long is refused.
//!
//! Invariants
//!   B1  Large answers hold at most the budget, and one of them what it needs beyond.
//!   B2  As long as clients take what they asked for, somebody who waits goes on.

use std::sync::Arc;
use std::time::Duration;

use store_core::errors::RequestError;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What an answer may hold without asking.
const FREE_BYTES: usize = 256 << 10;
/// Answers take shares of this size.
const SHARE_BYTES: usize = 1 << 20;
/// An answer that is a message first is there twice while it is encoded.
const COPIES: usize = 2;
/// How long an answer waits for its next share.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What may be held.
#[derive(Clone)]
pub(crate) struct Admission {
    budget: Arc<Semaphore>,
    beyond: Arc<Semaphore>,
    wait_max: Duration,
}

/// What one answer holds.
pub(crate) struct Share {
    admission: Admission,
    /// Bytes that it may still grow by.
    left: usize,
    held: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

/// What an answer holds until it is sent: in the response's extensions, until its body takes it over.
#[derive(Clone)]
pub(crate) struct Held {
    _share: Arc<Share>,
}

impl From<Share> for Held {
    fn from(share: Share) -> Self {
        Self { _share: Arc::new(share) }
    }
}

impl Admission {
    /// A budget in bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::patient(bytes, WAIT_MAX)
    }

    fn patient(bytes: usize, wait_max: Duration) -> Self {
        let budget = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Self { budget, beyond: Arc::new(Semaphore::new(1)), wait_max }
    }

    /// An answer that is about to grow.
    pub(crate) fn share(&self) -> Share {
        Share { admission: self.clone(), left: FREE_BYTES, held: None, beyond: None }
    }
}

impl Share {
    /// Lets a message grow, after waiting if need be: only for threads that may block.
    ///
    /// # Errors
    /// [`RequestError::Busy`] if others hold too much for too long.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), RequestError> {
        self.grow_encoded(bytes * COPIES)
    }

    /// The same of an answer that is made as the bytes that are sent.
    ///
    /// # Errors
    /// As [`Share::grow`].
    pub(crate) fn grow_encoded(&mut self, bytes: usize) -> Result<(), RequestError> {
        if self.left < bytes && self.beyond.is_none() {
            let more = (bytes - self.left).next_multiple_of(SHARE_BYTES);
            self.take(more)?;
            self.left += more;
        }
        self.left = self.left.saturating_sub(bytes);
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), RequestError> {
        let Admission { budget, beyond, wait_max } = &self.admission;
        let number = u32::try_from(bytes).map_err(|_| RequestError::TooLarge)?;
        let permit = match budget.clone().try_acquire_many_owned(number) {
            Ok(permit) => permit,
            Err(_) => {
                let waited = Handle::current().block_on(async {
                    tokio::select! {
                        permit = budget.clone().acquire_many_owned(number) => Ok((permit.ok(), None)),
                        permit = beyond.clone().acquire_owned() => Ok((None, permit.ok())),
                        () = tokio::time::sleep(*wait_max) => Err(RequestError::Busy),
                    }
                });
                match waited? {
                    (Some(permit), _) => permit,
                    (None, beyond) => {
                        self.beyond = beyond;
                        return Ok(());
                    }
                }
            }
        };
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn grown(admission: &Admission, bytes: usize) -> Result<Share, RequestError> {
        let mut share = admission.share();
        // As answers do: key by key.
        for _ in 0..bytes / 1024 {
            share.grow(1024 / COPIES)?;
        }
        Ok(share)
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(work).await.expect("no panic")
    }

    #[tokio::test]
    async fn small_answers_hold_nothing_and_large_ones_what_they_are() {
        let admission = Admission::new(8 << 20);
        let small = grown(&admission, FREE_BYTES).expect("admitted");
        assert_eq!(admission.budget.available_permits(), 8 << 20);
        let large = grown(&admission, FREE_BYTES + (3 << 20)).expect("admitted");
        assert_eq!(admission.budget.available_permits(), 5 << 20);
        drop((small, large));
        assert_eq!(admission.budget.available_permits(), 8 << 20);
    }

    /// B1: one may go beyond, a second one may not.
    #[tokio::test]
    async fn who_waits_too_long_is_refused() {
        let admission = Admission::patient(2 << 20, Duration::from_millis(20));
        let clone = admission.clone();
        let first = blocking(move || grown(&clone, 10 << 20)).await.expect("one alone is admitted");
        assert_eq!(admission.budget.available_permits(), 0);
        let clone = admission.clone();
        let second = blocking(move || grown(&clone, 10 << 20)).await;
        assert_eq!(second.err(), Some(RequestError::Busy));
        // Small ones go on.
        assert!(grown(&admission, FREE_BYTES).is_ok());
        drop(first);
        assert_eq!((admission.budget.available_permits(), admission.beyond.available_permits()), (2 << 20, 1));
    }

    /// B2: many that hold parts and want more all come to an end.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn answers_that_wait_for_each_other_go_on() {
        let admission = Admission::patient(4 << 20, LONG);
        let all = (0..8).map(|_| {
            let admission = admission.clone();
            blocking(move || grown(&admission, 5 << 20).map(drop))
        });
        for ended in futures::future::join_all(all).await {
            assert_eq!(ended, Ok(()));
        }
        assert_eq!((admission.budget.available_permits(), admission.beyond.available_permits()), (4 << 20, 1));
    }
}
