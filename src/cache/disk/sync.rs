//! The locks of the books. `model.rs` compiles the books a second time with the locks of a model checker in their place.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
use std::{
    sync::{PoisonError, TryLockError},
    time::Duration,
};

pub(super) use crate::base::lock;

/// Locks, if that needs no waiting.
pub(super) fn try_lock<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Gives the lock away until somebody notifies, or for so long.
pub(super) fn wait<'g, T>(condvar: &Condvar, guard: MutexGuard<'g, T>, most: Duration) -> MutexGuard<'g, T> {
    condvar.wait_timeout(guard, most).unwrap_or_else(PoisonError::into_inner).0
}
