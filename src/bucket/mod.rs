//! Object storage that replicas share: a bucket, bounded in time, and believed nothing.
//!
//! Whoever may write to a bucket may write anything to it. What is read here is unverified: its readers hold it against
//! signed metadata, as they do with what an upstream sends. A bucket that is away, slow or full costs no more than
//! [`Settings::answer_max`] a few times, then it rests.
//!
//! [`Objects`] is what a bucket can do; S3 does it in builds with the feature `s3`.

mod breaker;
mod error;
mod settings;

#[cfg(test)]
mod behaviour;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(feature = "s3")]
mod s3;

use std::{fmt, sync::Arc, time::Duration};

use breaker::Breaker;
use bytes::Bytes;
pub use error::BucketError;
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
#[cfg(feature = "s3")]
pub use s3::{S3, Variables};
pub use settings::{Location, Settings, SettingsError, TierSettings, split_off};
use tokio::time::{Instant, timeout, timeout_at};

use crate::base::ByteSize;

/// What an object storage can do. It waits as long as it likes; [`Bucket`] bounds that.
pub trait Objects: fmt::Debug + Send + Sync + 'static {
    /// Opens an object, unless it is still the one of that tag.
    fn open<'a>(&'a self, key: &'a str, unless: Option<&'a Tag>) -> BoxFuture<'a, Result<Opened, BucketError>>;
    /// Whether there is such an object.
    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, BucketError>>;
    /// Puts an object in one piece, if the condition holds; atomically.
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, when: &'a When) -> BoxFuture<'a, Result<Put, BucketError>>;
    /// Begins to put an object in parts. It comes into being when they are finished, whatever lies there.
    fn begin<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Parts>, BucketError>>;
}

/// An object that is put in parts, and is none before [`Parts::finish`].
pub trait Parts: Send {
    /// Adds a part: all but the last of one size, at least 5 MiB.
    fn part(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BucketError>>;
    /// Makes the parts an object.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), BucketError>>;
    /// Removes the parts.
    fn abort(&mut self) -> BoxFuture<'_, Result<(), BucketError>>;
}

/// One state of an object, as the storage names it (an ETag).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub String);

/// The condition of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// There is no such object (`If-None-Match: *`).
    Absent,
    /// It is still the one of that tag (`If-Match`).
    Still(Tag),
    /// None.
    Always,
}

/// How a put ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there, under this tag.
    Done(Option<Tag>),
    /// The condition did not hold: somebody else was there before.
    Lost,
}

/// What came of opening an object.
pub enum Opened {
    /// It, unverified.
    Object(Object),
    /// There is none.
    Absent,
    /// It is still the one of the tag that was given.
    Unchanged,
}

/// An object as it comes. Unverified.
pub struct Object {
    /// Which state of it this is.
    pub tag: Option<Tag>,
    /// Its length in bytes, as the storage says.
    pub length: u64,
    /// Its bytes.
    pub body: BoxStream<'static, Result<Bytes, BucketError>>,
}

/// A bucket whose every operation ends in time, and that is left alone while it fails. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: Arc<dyn Objects>,
    /// Apart: that puts do well says nothing of reads, and the other way round.
    reads: Breaker,
    puts: Breaker,
    answer_max: Duration,
    rate_min: u64,
}

impl Bucket {
    /// Bounds a storage by the settings.
    pub fn new(objects: Arc<dyn Objects>, settings: &Settings) -> Self {
        let breaker = || Breaker::new(settings.failures_max, settings.rest.duration(), settings.rest_max.duration());
        let (reads, puts) = (breaker(), breaker());
        let (answer_max, rate_min) = (settings.answer_max.duration(), settings.rate_min.bytes().max(1));
        Self(Arc::new(Inner { objects, reads, puts, answer_max, rate_min }))
    }

    /// Whether it is asked for objects at all at the moment.
    pub fn is_up(&self) -> bool {
        self.0.reads.is_closed()
    }

    /// Opens an object: `None` where there is none.
    ///
    /// # Errors
    /// Those of the storage, [`BucketError::Timeout`] after `answer_max`, [`BucketError::Resting`] at once.
    pub async fn open(&self, key: &str) -> Result<Option<Reading>, BucketError> {
        match self.open_unless(key, None).await? {
            Opened::Object(object) => Ok(Some(self.reading(object))),
            Opened::Absent | Opened::Unchanged => Ok(None),
        }
    }

    /// Reads a small object whole, unless it is still the one of that tag.
    ///
    /// # Errors
    /// Like [`Bucket::open`]; [`BucketError::TooLarge`] beyond `limit`.
    pub async fn read(&self, key: &str, unless: Option<&Tag>, limit: ByteSize) -> Result<Read, BucketError> {
        let object = match self.open_unless(key, unless).await? {
            Opened::Object(object) => object,
            Opened::Absent => return Ok(Read::Absent),
            Opened::Unchanged => return Ok(Read::Unchanged),
        };
        let tag = object.tag.clone();
        let mut reading = self.reading(object);
        let mut bytes = Vec::new();
        while let Some(chunk) = reading.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > limit.bytes() {
                return Err(BucketError::TooLarge { limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        reading.was_good();
        Ok(Read::Object(tag, bytes.into()))
    }

    /// Whether there is such an object.
    pub async fn exists(&self, key: &str) -> Result<bool, BucketError> {
        self.bounded(0, self.0.objects.exists(key)).await
    }

    /// Puts an object in one piece, if the condition holds.
    pub async fn put(&self, key: &str, bytes: Bytes, when: &When) -> Result<Put, BucketError> {
        self.bounded(bytes.len() as u64, self.0.objects.put(key, bytes, when)).await
    }

    /// Begins to put an object in parts.
    pub async fn begin(&self, key: &str) -> Result<Writing, BucketError> {
        let parts = self.bounded(0, self.0.objects.begin(key)).await?;
        Ok(Writing { bucket: self.clone(), parts })
    }

    async fn open_unless(&self, key: &str, unless: Option<&Tag>) -> Result<Opened, BucketError> {
        admit(&self.0.reads)?;
        let opened = self.in_time(0, self.0.objects.open(key, unless)).await;
        match &opened {
            // Whether it can be read, and is what it must be, is seen at its end.
            Ok(Opened::Object(_)) => {}
            Ok(Opened::Absent | Opened::Unchanged) => self.0.reads.succeeded(),
            Err(error) => note(&self.0.reads, error),
        }
        opened
    }

    fn reading(&self, object: Object) -> Reading {
        let until = Instant::now() + self.allowance(object.length);
        Reading { bucket: self.clone(), object, until }
    }

    async fn bounded<T>(
        &self,
        bytes: u64,
        step: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        admit(&self.0.puts)?;
        let result = self.in_time(bytes, step).await;
        match &result {
            Ok(_) => self.0.puts.succeeded(),
            Err(error) => note(&self.0.puts, error),
        }
        result
    }

    async fn in_time<T>(
        &self,
        bytes: u64,
        step: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        let after = self.allowance(bytes);
        timeout(after, step).await.unwrap_or(Err(BucketError::Timeout { after }))
    }

    /// How long so many bytes may take.
    fn allowance(&self, bytes: u64) -> Duration {
        self.0.answer_max + Duration::from_secs(bytes / self.0.rate_min)
    }
}

fn admit(breaker: &Breaker) -> Result<(), BucketError> {
    if breaker.admits() { Ok(()) } else { Err(BucketError::Resting) }
}

fn note(breaker: &Breaker, error: &BucketError) {
    if error.is_outage() {
        breaker.failed();
    } else {
        breaker.succeeded();
    }
}

/// A small object that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// It, unverified.
    Object(Option<Tag>, Bytes),
    /// There is none.
    Absent,
    /// It is still the one of the tag that was given.
    Unchanged,
}

/// An object that is being read. Unverified.
pub struct Reading {
    bucket: Bucket,
    object: Object,
    until: Instant,
}

impl Reading {
    /// Its length in bytes, as the storage says.
    pub fn length(&self) -> u64 {
        self.object.length
    }

    /// Which state of it this is.
    pub fn tag(&self) -> Option<&Tag> {
        self.object.tag.as_ref()
    }

    /// The next bytes; `None` at a clean end.
    ///
    /// # Errors
    /// [`BucketError::Timeout`] where none come for `answer_max`, or the whole comes slower than `rate_min`.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BucketError> {
        let stalled = Instant::now() + self.bucket.0.answer_max;
        let after = self.bucket.allowance(self.object.length);
        let chunk = match timeout_at(self.until.min(stalled), self.object.body.next()).await {
            Ok(Some(Ok(bytes))) => return Ok(Some(bytes)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => Err(error),
            Err(_) => Err(BucketError::Timeout { after }),
        };
        chunk.inspect_err(|error| note(&self.bucket.0.reads, error))
    }

    /// It was read to its end, and was what it must be.
    pub fn was_good(self) {
        self.bucket.0.reads.succeeded();
    }

    /// It was not what it must be. That counts like an outage: a bucket that gives nothing but wrong bytes is left alone.
    pub fn was_bad(self) {
        self.bucket.0.reads.failed();
    }
}

/// An object that is being put in parts.
pub struct Writing {
    bucket: Bucket,
    parts: Box<dyn Parts>,
}

impl Writing {
    /// Adds a part: all but the last of one size, at least 5 MiB.
    pub async fn part(&mut self, bytes: Bytes) -> Result<(), BucketError> {
        self.bucket.bounded(bytes.len() as u64, self.parts.part(bytes)).await
    }

    /// Makes the parts an object.
    pub async fn finish(mut self) -> Result<(), BucketError> {
        self.bucket.bounded(0, self.parts.finish()).await
    }

    /// Removes the parts; those that cannot be removed are for the bucket's own rules.
    pub async fn abort(mut self) {
        if let Err(error) = self.bucket.bounded(0, self.parts.abort()).await {
            tracing::debug!(%error, "the parts of an object stay in the bucket");
        }
    }
}
