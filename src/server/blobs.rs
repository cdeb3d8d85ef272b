//! Verified bytes as the body of an answer.

use std::ops::Range;

use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::body::{self, Body, BodyError};
use crate::cache::Blob;

/// Bytes read from a file at once.
const CHUNK: usize = 128 << 10;

/// The bytes of a verified blob within `range`. Each chunk is read when the client has taken the one before, so that a
/// slow client costs one chunk of memory. A read that fails breaks the answer off; it never ends it early and clean.
pub(super) fn of_blob(blob: Blob, range: Range<u64>) -> Body {
    if let Some(bytes) = blob.bytes() {
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        if let (Ok(start), Ok(end)) = (start, end)
            && start <= end
            && end <= bytes.len()
        {
            return body::full(bytes.slice(start..end));
        }
    }
    let chunks = stream::try_unfold((blob, range), |(blob, range)| async move {
        if range.is_empty() {
            return Ok::<_, BodyError>(None);
        }
        let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let bytes = blob.read(range.start, left.min(CHUNK)).await?;
        if bytes.is_empty() {
            return Err("the file ended before its length".into());
        }
        let rest = range.start + bytes.len() as u64..range.end;
        Ok(Some((Frame::data(bytes), (blob, rest))))
    });
    StreamBody::new(chunks).boxed_unsync()
}
