//! A bucket in memory that can fail and lie; for tests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};

use super::{Bucket, BucketError, Object, Objects, Opened, Parts, Put, Settings, Tag, When};
use crate::base::Span;

/// What goes wrong at every operation, until it is set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// It cannot be reached.
    Down,
    /// It says 403.
    Denies,
    /// It never answers.
    Hangs,
    /// It answers, and no byte follows.
    HangsInBody,
    /// Bytes come one by one, each in time, and the whole never ends.
    Trickles,
    /// The body breaks off in its middle.
    BreaksOff,
    /// The body ends cleanly in its middle.
    EndsEarly,
    /// Reads do well, puts cannot be reached.
    TakesNothing,
}

/// Shared by all that are cloned from it, as a bucket is by replicas.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, (u64, Bytes)>,
    changes: u64,
    trouble: Trouble,
    asked: Vec<String>,
}

impl Memory {
    /// As its users have it, with times that a test can wait for.
    pub(crate) fn bucket(&self) -> Bucket {
        let mut settings = Settings::new(url::Url::parse("s3://test").unwrap());
        settings.answer_max = Span::millis(40);
        settings.rest = Span::hours(1);
        settings.rest_max = Span::hours(1);
        Bucket::new(Arc::new(self.clone()), &settings)
    }

    pub(crate) fn suffer(&self, trouble: Trouble) {
        self.0.lock().unwrap().trouble = trouble;
    }

    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.0.lock().unwrap().objects.get(key).map(|(_, bytes)| bytes.clone())
    }

    /// Puts what anybody may have put there.
    pub(crate) fn plant(&self, key: &str, bytes: impl Into<Bytes>) {
        self.0.lock().unwrap().insert(key, bytes.into());
    }

    pub(crate) fn remove(&self, key: &str) {
        self.0.lock().unwrap().objects.remove(key);
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Operations so far, as `open key`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }

    fn begin_operation(&self, name: &str, key: &str) -> Trouble {
        let mut state = self.0.lock().unwrap();
        state.asked.push(format!("{name} {key}"));
        state.trouble
    }

    async fn answer(&self, name: &str, key: &str) -> Result<Trouble, BucketError> {
        match self.begin_operation(name, key) {
            Trouble::Down => Err(BucketError::Unavailable { why: "down".to_owned() }),
            Trouble::TakesNothing if name != "open" => Err(BucketError::Unavailable { why: "read-only".to_owned() }),
            Trouble::Denies => Err(BucketError::Denied { why: "403".to_owned() }),
            Trouble::Hangs => std::future::pending().await,
            other => Ok(other),
        }
    }
}

impl State {
    fn insert(&mut self, key: &str, bytes: Bytes) -> Tag {
        self.changes += 1;
        self.objects.insert(key.to_owned(), (self.changes, bytes));
        Tag(self.changes.to_string())
    }
}

impl Objects for Memory {
    fn open<'a>(&'a self, key: &'a str, unless: Option<&'a Tag>) -> BoxFuture<'a, Result<Opened, BucketError>> {
        async move {
            let trouble = self.answer("open", key).await?;
            let Some((version, bytes)) = self.0.lock().unwrap().objects.get(key).cloned() else {
                return Ok(Opened::Absent);
            };
            let tag = Tag(version.to_string());
            if unless == Some(&tag) {
                return Ok(Opened::Unchanged);
            }
            let (length, half) = (bytes.len() as u64, bytes.slice(..bytes.len() / 2));
            let broken = || Err(BucketError::Unavailable { why: "broke off".to_owned() });
            let body = match trouble {
                Trouble::HangsInBody => stream::once(async move { Ok(half) }).chain(stream::pending()).boxed(),
                Trouble::Trickles => stream::repeat(half.slice(..1))
                    .then(|byte| async move {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        Ok(byte)
                    })
                    .boxed(),
                Trouble::BreaksOff => stream::iter([Ok(half), broken()]).boxed(),
                Trouble::EndsEarly => stream::iter([Ok(half)]).boxed(),
                _ => stream::iter(
                    bytes.chunks(10_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>(),
                )
                .boxed(),
            };
            Ok(Opened::Object(Object { tag: Some(tag), length, body }))
        }
        .boxed()
    }

    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, BucketError>> {
        async move {
            self.answer("exists", key).await?;
            Ok(self.get(key).is_some())
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, when: &'a When) -> BoxFuture<'a, Result<Put, BucketError>> {
        async move {
            self.answer("put", key).await?;
            let mut state = self.0.lock().unwrap();
            let found = state.objects.get(key).map(|(version, _)| Tag(version.to_string()));
            let holds = match when {
                When::Absent => found.is_none(),
                When::Still(tag) => found.as_ref() == Some(tag),
                When::Always => true,
            };
            Ok(if holds { Put::Done(Some(state.insert(key, bytes))) } else { Put::Lost })
        }
        .boxed()
    }

    fn begin<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Parts>, BucketError>> {
        async move {
            self.answer("begin", key).await?;
            Ok(Box::new(MemoryParts { memory: self.clone(), key: key.to_owned(), bytes: Vec::new() }) as Box<dyn Parts>)
        }
        .boxed()
    }
}

struct MemoryParts {
    memory: Memory,
    key: String,
    bytes: Vec<u8>,
}

impl Parts for MemoryParts {
    fn part(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BucketError>> {
        async move {
            self.memory.answer("part", &self.key).await?;
            self.bytes.extend_from_slice(&bytes);
            Ok(())
        }
        .boxed()
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), BucketError>> {
        async move {
            self.memory.answer("finish", &self.key).await?;
            self.memory.plant(&self.key, std::mem::take(&mut self.bytes));
            Ok(())
        }
        .boxed()
    }

    fn abort(&mut self) -> BoxFuture<'_, Result<(), BucketError>> {
        async move { self.memory.answer("abort", &self.key).await.map(drop) }.boxed()
    }
}

/// Waits for what happens in the background.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to hold: {what}");
}
