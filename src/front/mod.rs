//! Ecosystem dialects, pure.
