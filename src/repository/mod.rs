//! The repository we write: keys, roles, layout, publication.
