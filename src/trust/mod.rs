//! Which repositories must say yes for a mount.
