//! The integration tests: the shipped binary, a lying upstream, repositories written by python-tuf, the real pip and uv.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod harness;
mod harness_checks;
