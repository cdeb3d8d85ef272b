//! From an authorised target to verified bytes: joins cache and upstream.
