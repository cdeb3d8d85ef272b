//! What the flights are synchronised with; the model checker has its own in place of it (`model.rs`).

pub(super) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

pub(super) use tokio::{
    spawn,
    sync::{Notify, watch},
};

pub(super) use crate::base::lock;
