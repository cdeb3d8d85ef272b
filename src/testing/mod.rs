//! Fakes that tests of several layers share. Never in the shipped binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fake that cannot do its part is a failed test"
)]

mod clock;
pub mod fuzz;
pub mod repository;

pub use clock::HandClock;
