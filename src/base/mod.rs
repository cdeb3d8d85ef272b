//! What every layer may lean on: time, digests, limits, files and the one classification of faults.
//!
//! Nothing here knows of TUF, of HTTP or of an ecosystem.

pub mod batch;
pub mod chunks;
pub mod clients;
pub mod clock;
pub mod descriptors;
pub mod digest;
pub mod fault;
pub mod faults;
pub mod files;
pub mod jitter;
pub mod limits;
pub mod mutex;
pub mod parallel;
pub mod text;

pub use chunks::{ChunkDigests, ChunkHasher, ChunksError};
pub use clients::client_of;
pub use clock::{Clock, SharedClock, SystemClock};
pub use digest::{Algorithm, Digest, Digests, Hasher, Mismatch};
pub use fault::Fault;
pub use faults::Faults;
pub use limits::{ByteSize, Span};
pub use mutex::lock;
