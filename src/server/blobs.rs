//! Verified bytes as the body of an answer.

use std::{ops::Range, sync::Arc};

use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;

use super::body::{self, Body};
use crate::{
    cache::{Blob, Cache, send_chunk},
    delivery::DeliveryError,
};

/// The bytes of `target`'s verified blob within `range`. Each chunk is read when the client has taken the one before, so that a
/// slow client costs one chunk of memory, and a small one where many are slow. A read that fails breaks the answer off; it
/// never ends it early and clean. What `cache` has is then looked at again, so that a file on a bad sector does not fail
/// every retry.
pub(super) fn of_blob(target: Arc<str>, blob: Blob, range: Range<u64>, cache: &Cache) -> Body {
    if let Some(bytes) = blob.bytes() {
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        if let (Ok(start), Ok(end)) = (start, end)
            && start <= end
            && end <= bytes.len()
        {
            return body::full(bytes.slice(start..end));
        }
    }
    let cache = cache.clone();
    let chunks = stream::try_unfold((target, blob, range, cache), |(target, blob, range, cache)| async move {
        if range.is_empty() {
            return Ok::<_, DeliveryError>(None);
        }
        let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let bytes = match blob.read(range.start, left.min(send_chunk())).await {
            Ok(bytes) => bytes,
            Err(error) => {
                look_again(&blob, cache);
                return Err(DeliveryError::ReadBack { target, why: error.to_string() });
            }
        };
        if bytes.is_empty() {
            return Err(DeliveryError::ReadBack { target, why: "the file ended before its length".to_owned() });
        }
        let rest = range.start + bytes.len() as u64..range.end;
        Ok(Some((Frame::data(bytes), (target, blob, rest, cache))))
    });
    body::pieces(StreamBody::new(chunks))
}

/// In the background: the client that waits is to try again, not to wait longer.
fn look_again(blob: &Blob, cache: Cache) {
    let id = blob.id().clone();
    tokio::spawn(async move {
        match cache.doubt(&id).await {
            Ok(found) => tracing::warn!(blob = %id, ?found, "a cached file could not be read to its end"),
            Err(error) => tracing::warn!(blob = %id, %error, "a cached file cannot be looked at again"),
        }
    });
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        base::{Digest, Digests, Fault},
        cache::{Cache, Expected, Observer, SEND_CHUNK, Settings},
    };

    /// Tells of files that were taken out of service.
    #[derive(Debug)]
    struct Quarantine(mpsc::UnboundedSender<&'static str>);

    impl Observer for Quarantine {
        fn quarantined(&self, why: &'static str) {
            let _nobody_may_wait = self.0.send(why);
        }
    }

    struct OnDisk {
        folder: tempfile::TempDir,
        cache: Cache,
        blob: Blob,
        quarantined: mpsc::UnboundedReceiver<&'static str>,
    }

    /// A blob that is read from a file.
    async fn on_disk(content: &[u8]) -> OnDisk {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            Settings { dir: folder.path().join("cache"), memory_max: Default::default(), ..Settings::default() };
        let (telling, quarantined) = mpsc::unbounded_channel();
        let cache = Cache::open(&settings, &folder.path().join("state"), Arc::new(Quarantine(telling))).unwrap();
        let digests = Digests::new([Digest::sha256(content)]).unwrap();
        let expected = Expected { length: content.len() as u64, digests };
        let mut ingest = cache.ingest(&expected).await.unwrap();
        ingest.write(vec![content.to_vec().into()]).await.unwrap();
        let blob = ingest.commit().await.unwrap();
        OnDisk { folder, cache, blob, quarantined }
    }

    #[tokio::test]
    async fn a_range_over_several_chunks_is_those_bytes() {
        let content: Vec<u8> = (0..=255).cycle().take(3 * SEND_CHUNK).collect();
        let OnDisk { folder: _folder, cache, blob, .. } = on_disk(&content).await;
        let middle = 7..2 * SEND_CHUNK + 9;
        let body = of_blob("f.whl".into(), blob.clone(), middle.start as u64..middle.end as u64, &cache)
            .collect()
            .await
            .unwrap();
        assert_eq!(body.to_bytes(), content[middle]);
        assert!(of_blob("f.whl".into(), blob, 5..5, &cache).collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn two_thousand_clients_that_take_nothing_of_a_large_file_hold_small_pieces_of_it() {
        let OnDisk { folder: _folder, cache, blob, .. } = on_disk(&vec![7; 2 * SEND_CHUNK]).await;
        let mut untaken = Vec::new();
        for _ in 0..2_000 {
            let mut body = of_blob("f.whl".into(), blob.clone(), 0..blob.len(), &cache);
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            untaken.push((piece, body));
        }
        let held: usize = untaken.iter().map(|(piece, _)| piece.len()).sum();
        assert!(held < 48 << 20, "{held} bytes");
        drop(untaken);
    }

    #[tokio::test]
    async fn a_range_beyond_the_end_breaks_off_and_never_ends_early_and_clean() {
        let OnDisk { folder: _folder, cache, blob, .. } = on_disk(b"abc").await;
        assert!(of_blob("f.whl".into(), blob, 0..9, &cache).collect().await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_breaks_off_one_answer_and_is_out_of_service_for_the_next() {
        let content = vec![7; 3 * SEND_CHUNK];
        let mut on_disk = on_disk(&content).await;
        let hex = on_disk.blob.id().digest().to_hex();
        let path = on_disk.folder.path().join("cache/blobs/sha256").join(&hex[..2]).join(&hex);
        let mut body = of_blob("f.whl".into(), on_disk.blob.clone(), 0..content.len() as u64, &on_disk.cache);
        assert!(body.frame().await.unwrap().is_ok());
        std::fs::File::options().write(true).open(&path).unwrap().set_len(5).unwrap();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!((error.fault(), error.reason()), (Fault::Local, "read_back"));
        on_disk.quarantined.recv().await.unwrap();
        // It is told of before it goes, and nobody gets it meanwhile.
        let expected = Expected::new(content.len() as u64, Digests::new([Digest::sha256(&content)]).unwrap());
        assert!(on_disk.cache.get(&expected).await.unwrap().is_none());
        assert!(!path.exists());
    }
}
