//! From pins to a signed repository: look up in the index, download, hash, stage.
