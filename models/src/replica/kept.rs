//! What many states hold.

use std::ops::Deref;
use std::sync::Arc;

/// A value that many states hold: an exploration comes back to it and keeps it for ever, a walk passes by.
#[derive(Debug)]
pub(super) enum Kept<T: 'static> {
    Forever(&'static T),
    WhileHeld(Arc<T>),
}

impl<T> Kept<T> {
    /// The value, if it is kept for ever.
    pub(super) fn forever(&self) -> Option<&'static T> {
        match self {
            Self::Forever(value) => Some(value),
            Self::WhileHeld(_) => None,
        }
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Forever(value) => Self::Forever(value),
            Self::WhileHeld(value) => Self::WhileHeld(Arc::clone(value)),
        }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Forever(value) => value,
            Self::WhileHeld(value) => value,
        }
    }
}

/// Each value is kept once, so that it is equal to itself alone.
impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq::<T>(&**self, &**other)
    }
}
