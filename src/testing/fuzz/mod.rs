//! What the fuzz targets run: one function for each, from bytes to a fact that must hold whatever the bytes are.
//!
//! `fuzz/fuzz_targets` wraps each in a target of libFuzzer; `cargo test` replays the committed inputs through the very
//! same functions (`replay.rs`). A body does no I/O beyond what the parser under it does, is the same for the same bytes
//! (but for keys that are drawn once a process), and panics when the fact does not hold. Where a second way to the same
//! answer exists, the body walks both.

mod canonical;
mod configuration;
mod delegations;
mod headers;
mod lockfiles;
mod maps;
mod metadata;
mod names;
mod pages;
#[cfg(test)]
mod replay;
mod sdists;
mod signatures;
mod state;
mod tree;
mod wheels;

use jiff::Timestamp as Time;

/// A body, by the name of its target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The target of libFuzzer, the folder of its corpus.
    pub name: &'static str,
    /// What it runs.
    pub body: fn(&[u8]),
}

macro_rules! targets {
    ($($module:ident::$body:ident),* $(,)?) => {
        $(pub use $module::$body;)*

        /// All bodies.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($body), body: $body }),*];
    };
}

targets! {
    canonical::canonical,
    metadata::metadata,
    signatures::signatures,
    delegations::delegations,
    names::names,
    headers::headers,
    pages::page_json,
    pages::page_html,
    lockfiles::lockfiles,
    configuration::configuration,
    state::state,
    maps::maps,
    wheels::wheels,
    sdists::sdists,
}

/// The present of all bodies.
fn now() -> Time {
    Time::constant(1_780_272_000, 0)
}

/// When metadata of all bodies expires.
fn later() -> Time {
    Time::constant(1_782_864_000, 0)
}
