//! Metrics, audit records, log set-up.
