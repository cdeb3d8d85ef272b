//! Drives `tuf` with `upstream`: refresh, persisted trusted metadata, delegated roles.
