//! Locking, where a panic of another thread is no reason to give up.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. What is behind the locks of this program is whole between any two statements, or only costs time where it is
/// not: a thread that panicked spoils nothing for the others.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
