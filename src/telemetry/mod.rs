//! What tufgate says of itself: metrics, audit records, logs.

pub mod audit;
pub mod logging;
pub mod metrics;

pub use audit::{Audit, Record, Verdict};
pub use metrics::Metrics;
