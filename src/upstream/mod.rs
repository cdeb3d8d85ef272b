//! The HTTP client. Everything it returns is unverified.
