//! Bytes by digest: memory, disk, eviction. What it holds is checked against signed metadata.
