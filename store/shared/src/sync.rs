//! Locks and atomics: the usual ones, or loom's.

#[cfg(not(feature = "loom"))]
pub(crate) use parking_lot::{Mutex, RwLock};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};

/// loom's lock, which can't be poisoned in a test that goes on.
#[cfg(feature = "loom")]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(feature = "loom")]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        // A thread that panics ends the whole test.
        self.0.lock().unwrap()
    }
}

/// The same, of many readers.
#[cfg(feature = "loom")]
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

#[cfg(feature = "loom")]
impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
        // As above.
        self.0.read().unwrap()
    }

    pub(crate) fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
        // As above.
        self.0.write().unwrap()
    }
}

/// Runs a test in every order of its threads' steps, or once if loom isn't there.
#[cfg(test)]
pub(crate) fn in_every_order(test: impl Fn() + Sync + Send + 'static) {
    #[cfg(feature = "loom")]
    {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        let orders = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = orders.clone();
        model.check(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            test();
        });
        let orders = orders.load(std::sync::atomic::Ordering::Relaxed);
        println!("{orders} orders");
        assert!(orders > 1, "the threads have no choice");
    }
    #[cfg(not(feature = "loom"))]
    test();
}

#[cfg(all(test, feature = "loom"))]
pub(crate) use loom::{sync::Arc, thread};
#[cfg(all(test, not(feature = "loom")))]
pub(crate) use std::{sync::Arc, thread};
