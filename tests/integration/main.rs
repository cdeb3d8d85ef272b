//! The integration tests: the shipped binary, a lying upstream, repositories written by python-tuf, the real pip and uv.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod harness;

mod approve;
mod attacks;
mod bodies;
mod ceremony;
mod chain;
mod chunks;
mod clients;
mod closure;
mod command_line;
mod completeness;
mod compromise;
mod concurrency;
mod deletion;
mod evidence;
mod faults;
mod freshness;
mod guide;
mod harness_checks;
mod herd;
mod hostile;
mod house;
mod install;
mod interop;
mod keys;
mod kills;
mod large;
mod layers;
mod listings;
mod maps;
mod mirrors;
mod names;
mod outage;
mod promises;
mod publishing;
mod quickstart;
#[cfg(all(feature = "s3", feature = "system-tests"))]
mod replicas;
mod responses;
mod retrieval;
mod rot;
mod secure;
mod specification;
mod state;
mod troubles;
mod unsigned;
