//! Where bytes come from: the upstream client, or a script in tests.

use std::fmt;

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::upstream::{Client, FileBody, FileRequest, UpstreamError};

/// Opens files. What it yields is unverified.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Opens a file, or the rest of one.
    fn open<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Box<dyn SourceBody>, UpstreamError>>;
}

/// A file as it comes.
pub trait SourceBody: Send {
    /// Length of the whole file, where the response declares it.
    fn total_length(&self) -> Option<u64>;
    /// Position of its first byte in the whole file; 0 where a resume was not obeyed.
    fn starts_at(&self) -> u64;
    /// Its `ETag`, to resume with.
    fn etag(&self) -> Option<&str>;
    /// The next bytes; `None` at a clean end. Dropping the future loses nothing.
    fn chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, UpstreamError>>;
}

impl Source for Client {
    fn open<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Box<dyn SourceBody>, UpstreamError>> {
        async move {
            let body = Self::open(self, &request).await?;
            Ok(Box::new(body) as Box<dyn SourceBody>)
        }
        .boxed()
    }
}

impl SourceBody for FileBody {
    fn total_length(&self) -> Option<u64> {
        self.total_length
    }

    fn starts_at(&self) -> u64 {
        self.starts_at
    }

    fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    fn chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, UpstreamError>> {
        Self::chunk(self).boxed()
    }
}
