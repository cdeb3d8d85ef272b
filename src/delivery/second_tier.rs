//! The tier behind the local cache: a bucket that replicas share, asked before the upstream.
//!
//! What it gives is verified like what an upstream gives, by the same [`Ingest`]; what is wrong with it is never told to
//! a client, nor held against the upstream. Whatever it does, a fetch goes on with the upstream, from the first byte.
//! What was fetched there is put into the bucket in the background: nobody waits for that. See docs/adr/0007.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::{
    fill::Fill,
    observer::{Observer, TierLookup, TierPut},
    verdicts::Expiring,
};
use crate::{
    base::ChunkDigests,
    bucket::{Bucket, BucketError, Put, Reading, Tag, TierSettings, When},
    cache::{Blob, BlobId, Cache, Expected, Ingest, IngestError},
};

/// Bytes that are hashed and written in one go.
const BATCH: usize = 256 << 10;

/// A bucket as the tier behind the local cache.
#[derive(Debug)]
pub struct SecondTier {
    bucket: Bucket,
    queue: mpsc::Sender<Expected>,
    /// Objects that were not as signed: not asked for again for a while, and replaced when the right bytes are there.
    spoiled: Expiring<Expected, Option<Tag>>,
    observer: Arc<dyn Observer>,
}

/// What waits to be put into the bucket. Runs beside the gate; where it does not, nothing is put.
#[derive(Debug)]
pub struct Uploads {
    waiting: mpsc::Receiver<Expected>,
    at_once: usize,
    part_size: usize,
}

impl SecondTier {
    /// A tier in that bucket, and what is put into it in the background. An object that was not as signed is not asked
    /// for again for `suspicious_for`.
    pub fn new(
        bucket: Bucket,
        settings: &TierSettings,
        suspicious_for: std::time::Duration,
        observer: Arc<dyn Observer>,
    ) -> (Arc<Self>, Uploads) {
        let (queue, waiting) = mpsc::channel(settings.uploads_max.max(1));
        let tier = Self { bucket, queue, spoiled: Expiring::new(suspicious_for), observer };
        let (at_once, part_size) = (settings.uploads_at_once.max(1), settings.part_size.as_usize());
        (Arc::new(tier), Uploads { waiting, at_once, part_size })
    }

    /// Whether the bucket is asked at all at the moment.
    pub fn is_up(&self) -> bool {
        self.bucket.is_up()
    }

    /// The blob, if the bucket has it as signed; stored in `cache` by then. `report` is told of a fill and how much of
    /// it is written. `None` for every other reason, which is counted here.
    pub(super) async fn fetch(
        &self,
        cache: &Cache,
        expected: &Expected,
        chunks: Option<&ChunkDigests>,
        report: impl FnMut(&Ingest, u64),
    ) -> Option<Blob> {
        let (lookup, blob) = match self.look(cache, expected, chunks, report).await {
            Ok(blob) => (if blob.is_some() { TierLookup::Hit } else { TierLookup::Miss }, blob),
            Err(Failed::Spoiled(tag)) => {
                tracing::warn!(blob = %expected.id(), "the bucket's object is not what is signed; it is replaced when the right bytes are there");
                self.spoiled.insert(expected.clone(), tag);
                (TierLookup::Corrupt, None)
            }
            Err(Failed::Skipped) => (TierLookup::Skipped, None),
            // What is wrong with this machine, the upstream's fill will say.
            Err(error) => {
                tracing::debug!(blob = %expected.id(), %error, "the bucket is passed over");
                (TierLookup::Error, None)
            }
        };
        self.observer.second_tier_looked_up(lookup, blob.as_ref().map_or(0, Blob::len));
        blob
    }

    async fn look(
        &self,
        cache: &Cache,
        expected: &Expected,
        chunks: Option<&ChunkDigests>,
        report: impl FnMut(&Ingest, u64),
    ) -> Result<Option<Blob>, Failed> {
        if self.spoiled.get(expected).is_some() {
            return Err(Failed::Skipped);
        }
        let Some(mut reading) = self.bucket.open(&key_of(&expected.id())).await? else { return Ok(None) };
        let filled = self.fill(cache, expected, chunks, &mut reading, report).await;
        match &filled {
            Ok(_) => reading.was_good(),
            Err(Failed::Spoiled(_)) => reading.was_bad(),
            Err(_) => {}
        }
        filled.map(Some)
    }

    async fn fill(
        &self,
        cache: &Cache,
        expected: &Expected,
        chunks: Option<&ChunkDigests>,
        reading: &mut Reading,
        mut report: impl FnMut(&Ingest, u64),
    ) -> Result<Blob, Failed> {
        let tag = reading.tag().cloned();
        if reading.length() != expected.length {
            return Err(Failed::Spoiled(tag));
        }
        let failed = |error| Failed::of(error, &tag);
        let mut fill = Fill::new(cache.ingest(expected).await.map_err(failed)?);
        report(&fill.ingest, 0);
        let mut ends = false;
        while !ends {
            let (batch, end) = gather(reading).await?;
            ends = end;
            if let Some(written) = fill.write(batch, chunks).await.map_err(failed)? {
                report(&fill.ingest, written);
            }
        }
        fill.ingest.commit().await.map_err(failed)
    }

    /// Bytes that were fetched from the upstream and verified may be put into the bucket. Does not wait; where too many
    /// wait already they are not put.
    pub(super) fn offer(&self, expected: &Expected) {
        if self.queue.try_send(expected.clone()).is_err() {
            self.observer.second_tier_put(TierPut::Dropped, 0);
        }
    }

    async fn upload(&self, cache: &Cache, expected: &Expected, part_size: usize) {
        // From the cache, not from the fetch: what waits costs neither memory nor open files.
        let Ok(Some(blob)) = cache.get(expected).await else {
            return self.observer.second_tier_put(TierPut::Dropped, 0);
        };
        let put = match self.put(&blob, expected, part_size).await {
            Ok(put) => put,
            Err(Failed::Bucket(BucketError::Resting)) => TierPut::Dropped,
            Err(error) => {
                tracing::warn!(blob = %expected.id(), %error, "a file could not be put into the bucket");
                TierPut::Error
            }
        };
        self.observer.second_tier_put(put, if put == TierPut::Stored { blob.len() } else { 0 });
    }

    async fn put(&self, blob: &Blob, expected: &Expected, part_size: usize) -> Result<TierPut, Failed> {
        let (key, spoiled) = (key_of(blob.id()), self.spoiled.get(expected));
        if blob.len() > part_size as u64 {
            if spoiled.is_none() && self.bucket.exists(&key).await? {
                return Ok(TierPut::Exists);
            }
            return self.put_in_parts(blob, expected, part_size, &key).await;
        }
        let when = match spoiled {
            None => When::Absent,
            Some(Some(tag)) => When::Still(tag),
            Some(None) => When::Always,
        };
        let bytes = blob.read_all().await.map_err(|error| Failed::Unread(error.to_string()))?;
        expected.digests.check(&bytes).map_err(|error| Failed::Unread(error.to_string()))?;
        match self.bucket.put(&key, bytes, &when).await? {
            Put::Done(_) => {
                self.spoiled.remove(expected);
                Ok(TierPut::Stored)
            }
            Put::Lost => Ok(TierPut::Exists),
        }
    }

    /// Parts cannot be put under a condition. Whoever else puts the same object puts the same bytes.
    async fn put_in_parts(
        &self,
        blob: &Blob,
        expected: &Expected,
        part_size: usize,
        key: &str,
    ) -> Result<TierPut, Failed> {
        let mut writing = self.bucket.begin(key).await?;
        let mut hasher = expected.digests.hasher();
        let mut offset = 0;
        let sent = loop {
            if offset >= blob.len() {
                break hasher.finish_matching(&expected.digests).map_err(|error| Failed::Unread(error.to_string()));
            }
            let part = match read_part(blob, offset, part_size).await {
                Ok(part) => part,
                Err(error) => break Err(error),
            };
            hasher.update(&part);
            offset += part.len() as u64;
            if let Err(error) = writing.part(part).await {
                break Err(error.into());
            }
        };
        match sent {
            Ok(()) => {
                writing.finish().await?;
                self.spoiled.remove(expected);
                Ok(TierPut::Stored)
            }
            Err(error) => {
                writing.abort().await;
                Err(error)
            }
        }
    }
}

impl Uploads {
    /// Puts what is offered, so many at once, until it is dropped or the tier is gone.
    pub async fn run(self, tier: Arc<SecondTier>, cache: Cache) {
        let Self { waiting, at_once, part_size } = self;
        let tier = &tier;
        stream::unfold(waiting, |mut waiting| async move { Some((waiting.recv().await?, waiting)) })
            .for_each_concurrent(at_once, |expected| {
                let cache = cache.clone();
                async move { tier.upload(&cache, &expected, part_size).await }
            })
            .await;
    }
}

/// Why the bucket's object is not used, or nothing was put.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the object is not what is signed")]
    Spoiled(Option<Tag>),
    #[error("the object was not what is signed a short while ago")]
    Skipped,
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Here(IngestError),
    #[error("the cached file cannot be read as it was: {0}")]
    Unread(String),
}

impl Failed {
    fn of(error: IngestError, tag: &Option<Tag>) -> Self {
        match error {
            IngestError::TooLong { .. }
            | IngestError::TooShort { .. }
            | IngestError::Mismatch(_)
            | IngestError::Chunk(_) => Self::Spoiled(tag.clone()),
            error @ IngestError::Io(_) => Self::Here(error),
        }
    }
}

/// Content-addressed: `blobs/sha256/ab/abcd…`.
fn key_of(id: &BlobId) -> String {
    let hex = id.digest().to_hex();
    format!("blobs/{}/{}/{hex}", id.digest().algorithm().as_str(), hex.get(..2).unwrap_or_default())
}

/// What comes next, up to one batch, and whether that is the end.
async fn gather(reading: &mut Reading) -> Result<(Vec<Bytes>, bool), BucketError> {
    let (mut batch, mut length) = (Vec::new(), 0);
    while length < BATCH {
        match reading.chunk().await? {
            Some(bytes) => {
                length += bytes.len();
                batch.push(bytes);
            }
            None => return Ok((batch, true)),
        }
    }
    Ok((batch, false))
}

async fn read_part(blob: &Blob, offset: u64, most: usize) -> Result<Bytes, Failed> {
    let mut part = BytesMut::new();
    while part.len() < most && offset + (part.len() as u64) < blob.len() {
        let read = blob.read(offset + part.len() as u64, most - part.len()).await;
        part.extend_from_slice(&read.map_err(|error| Failed::Unread(error.to_string()))?);
    }
    Ok(part.freeze())
}
