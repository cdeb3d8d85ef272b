//! Verified bytes as the body of an answer.

use std::ops::Range;

use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;

use super::body::{self, Body, BodyError};
use crate::cache::{Blob, SEND_CHUNK};

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
        let bytes = blob.read(range.start, left.min(SEND_CHUNK)).await?;
        if bytes.is_empty() {
            return Err("the file ended before its length".into());
        }
        let rest = range.start + bytes.len() as u64..range.end;
        Ok(Some((Frame::data(bytes), (blob, rest))))
    });
    body::pieces(StreamBody::new(chunks))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{
        base::{Digest, Digests},
        cache::{Cache, Expected, Settings, Unobserved},
    };

    /// A blob that is read from a file.
    async fn on_disk(content: &[u8]) -> (tempfile::TempDir, Blob) {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            Settings { dir: folder.path().join("cache"), memory_max: Default::default(), ..Settings::default() };
        let cache = Cache::open(&settings, &folder.path().join("state"), Arc::new(Unobserved)).unwrap();
        let digests = Digests::new([Digest::sha256(content)]).unwrap();
        let expected = Expected { length: content.len() as u64, digests };
        let mut ingest = cache.ingest(&expected).await.unwrap();
        ingest.write(vec![content.to_vec().into()]).await.unwrap();
        let blob = ingest.commit().await.unwrap();
        (folder, blob)
    }

    #[tokio::test]
    async fn a_range_over_several_chunks_is_those_bytes() {
        let content: Vec<u8> = (0..=255).cycle().take(3 * SEND_CHUNK).collect();
        let (_folder, blob) = on_disk(&content).await;
        let middle = 7..2 * SEND_CHUNK + 9;
        let body = of_blob(blob.clone(), middle.start as u64..middle.end as u64).collect().await.unwrap();
        assert_eq!(body.to_bytes(), content[middle]);
        assert!(of_blob(blob, 5..5).collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn a_range_beyond_the_end_breaks_off_and_never_ends_early_and_clean() {
        let (_folder, blob) = on_disk(b"abc").await;
        assert!(of_blob(blob, 0..9).collect().await.is_err());
    }
}
