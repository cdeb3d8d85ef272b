//! Facts and attacks at the level of whole documents, one test each. What each file of this module is about is in its
//! first line; units are tested at the bottom of their own files.

mod delegations;
mod evidence;
mod floors;
mod members;
mod shapes;
mod signatures;
mod workflow;

use jiff::Timestamp as Time;

use super::TufError;
use crate::testing::repository::TestRepository;

/// The present of these tests.
fn now() -> Time {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

/// When metadata of these tests expires.
fn later() -> Time {
    "2026-07-01T00:00:00Z".parse().unwrap()
}

/// Before [`now`].
fn earlier() -> Time {
    "2026-05-01T00:00:00Z".parse().unwrap()
}

fn repository() -> TestRepository {
    TestRepository::new(later())
}

/// The reason label of a refusal.
fn reason<T: std::fmt::Debug>(result: Result<T, TufError>) -> &'static str {
    let error = result.unwrap_err();
    assert_eq!(error.fault(), crate::base::Fault::Refused);
    assert!(error.to_string().is_ascii(), "{error}");
    error.reason()
}
