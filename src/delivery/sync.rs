//! What the flights are synchronised with; the model checker has its own in place of it (`model.rs`).

pub(super) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

pub(super) use tokio::{
    spawn,
    sync::{Notify, watch},
};

/// Locks; a panic elsewhere spoils nothing that is kept here.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
