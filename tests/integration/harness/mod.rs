//! What the end-to-end tests stand on: a Python with pinned installers, repositories written by python-tuf, an upstream
//! that can lie, and the gate as a child process.

pub mod certificate;
pub mod checker;
pub mod dice;
pub mod folder;
pub mod gate;
pub mod h2;
pub mod http;
pub mod installers;
pub mod load;
pub mod page;
#[cfg(feature = "system-tests")]
pub mod peers;
pub mod python;
pub mod readers;
pub mod source;
#[cfg(all(feature = "s3", feature = "system-tests"))]
pub mod storage;
#[cfg(feature = "system-tests")]
pub mod strace;
pub mod upstream;
pub mod wheel;
pub mod world;
pub mod writer;
