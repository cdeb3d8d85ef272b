//! tufgate: a transparent, verifying, caching proxy.
//!
//! Unmodified installers talk to it as if it were their index. It fetches and verifies TUF metadata itself, caches what
//! is approved, and refuses whatever is unsigned or stale. `docs/ARCHITECTURE.md` is the map: which layer may name
//! which, and how a request travels.

pub mod admin;
pub mod app;
pub mod approve;
pub mod base;
pub mod bucket;
pub mod cache;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod front;
pub mod index;
pub mod lockfile;
pub mod repository;
pub mod server;
pub mod simple;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trust;
pub mod tuf;
pub mod updater;
pub mod upstream;
