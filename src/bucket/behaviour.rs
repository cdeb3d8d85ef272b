//! What every bucket must do; run against each of them.

use std::sync::Arc;

use bytes::Bytes;
use url::Url;

use super::{
    memory::{Memory, Trouble},
    *,
};
use crate::base::ByteSize;

const LIMIT: ByteSize = ByteSize::mib(16);

fn bounded(objects: Arc<dyn Objects>) -> Bucket {
    Bucket::new(objects, &Settings::new(Url::parse("s3://test").unwrap()))
}

fn memory() -> Bucket {
    bounded(Arc::new(Memory::default()))
}

#[cfg(feature = "s3")]
fn object_store() -> Bucket {
    bounded(Arc::new(S3::over(Arc::new(object_store::memory::InMemory::new()), "a/prefix/".to_owned())))
}

async fn read(bucket: &Bucket, key: &str) -> Option<Bytes> {
    match bucket.read(key, None, LIMIT).await.unwrap() {
        Read::Object(_, bytes) => Some(bytes),
        Read::Absent | Read::Unchanged => None,
    }
}

fn tag_of(put: Put) -> Tag {
    match put {
        Put::Done(Some(tag)) => tag,
        other => panic!("{other:?}"),
    }
}

async fn an_object_comes_back_as_it_was_put(bucket: Bucket) {
    for length in [0_usize, 1, 100_000] {
        let (key, bytes) = (format!("blobs/{length}"), Bytes::from(vec![7; length]));
        assert!(read(&bucket, &key).await.is_none() && !bucket.exists(&key).await.unwrap());
        assert!(bucket.open(&key).await.unwrap().is_none());
        bucket.put(&key, bytes.clone(), &When::Absent).await.unwrap();
        assert_eq!(read(&bucket, &key).await.unwrap(), bytes);
        assert!(bucket.exists(&key).await.unwrap());
        assert_eq!(bucket.open(&key).await.unwrap().unwrap().length(), length as u64);
    }
}

async fn what_is_there_is_not_put_again(bucket: Bucket) {
    bucket.put("a", "first".into(), &When::Absent).await.unwrap();
    assert_eq!(bucket.put("a", "second".into(), &When::Absent).await.unwrap(), Put::Lost);
    assert_eq!(read(&bucket, "a").await.unwrap(), "first");
    bucket.put("a", "third".into(), &When::Always).await.unwrap();
    assert_eq!(read(&bucket, "a").await.unwrap(), "third");
}

async fn of_two_who_saw_the_same_state_one_replaces_it(bucket: Bucket) {
    let first = tag_of(bucket.put("a", "first".into(), &When::Absent).await.unwrap());
    let second = tag_of(bucket.put("a", "second".into(), &When::Still(first.clone())).await.unwrap());
    assert_ne!(first, second);
    assert_eq!(bucket.put("a", "late".into(), &When::Still(first.clone())).await.unwrap(), Put::Lost);
    assert_eq!(read(&bucket, "a").await.unwrap(), "second");
    assert_eq!(bucket.put("gone", "x".into(), &When::Still(first)).await.unwrap(), Put::Lost);
    assert!(read(&bucket, "gone").await.is_none());
}

async fn what_has_not_changed_is_not_read_again(bucket: Bucket) {
    let tag = tag_of(bucket.put("a", "first".into(), &When::Absent).await.unwrap());
    assert_eq!(bucket.read("a", Some(&tag), LIMIT).await.unwrap(), Read::Unchanged);
    let next = tag_of(bucket.put("a", "second".into(), &When::Still(tag.clone())).await.unwrap());
    assert_eq!(bucket.read("a", Some(&tag), LIMIT).await.unwrap(), Read::Object(Some(next), "second".into()));
}

async fn parts_become_an_object_when_they_are_finished_and_not_before(bucket: Bucket) {
    let part = Bytes::from(vec![1; 5 << 20]);
    let mut writing = bucket.begin("large").await.unwrap();
    writing.part(part.clone()).await.unwrap();
    writing.part("the end".into()).await.unwrap();
    assert!(!bucket.exists("large").await.unwrap());
    writing.finish().await.unwrap();
    assert_eq!(read(&bucket, "large").await.unwrap(), [part, "the end".into()].concat());
    let mut given_up = bucket.begin("never").await.unwrap();
    given_up.part("some".into()).await.unwrap();
    given_up.abort().await;
    assert!(!bucket.exists("never").await.unwrap());
}

async fn what_is_larger_than_expected_is_not_read_to_its_end(bucket: Bucket) {
    bucket.put("a", vec![0; 1000].into(), &When::Absent).await.unwrap();
    let read = bucket.read("a", None, ByteSize(999)).await;
    assert!(matches!(read, Err(BucketError::TooLarge { limit: ByteSize(999) })));
}

macro_rules! behaviour {
    ($($fact:ident)*) => {
        mod in_memory { $(#[tokio::test] async fn $fact() { super::$fact(super::memory()).await; })* }
        #[cfg(feature = "s3")]
        mod through_object_store { $(#[tokio::test] async fn $fact() { super::$fact(super::object_store()).await; })* }
    };
}

behaviour! {
    an_object_comes_back_as_it_was_put
    what_is_there_is_not_put_again
    of_two_who_saw_the_same_state_one_replaces_it
    what_has_not_changed_is_not_read_again
    parts_become_an_object_when_they_are_finished_and_not_before
    what_is_larger_than_expected_is_not_read_to_its_end
}

#[tokio::test]
async fn a_bucket_that_hangs_costs_the_time_of_an_answer_a_few_times_and_then_nothing() {
    let memory = Memory::default();
    memory.plant("a", "bytes");
    for trouble in [Trouble::Hangs, Trouble::HangsInBody, Trouble::Trickles, Trouble::BreaksOff, Trouble::Down] {
        let bucket = memory.bucket();
        memory.suffer(trouble);
        for _ in 0..3 {
            let error = bucket.read("a", None, LIMIT).await.unwrap_err();
            assert!(matches!(error, BucketError::Timeout { .. } | BucketError::Unavailable { .. }), "{error}");
        }
        assert!(!bucket.is_up());
        let asked = memory.asked().len();
        assert!(matches!(bucket.read("a", None, LIMIT).await, Err(BucketError::Resting)), "{trouble:?}");
        assert_eq!(memory.asked().len(), asked, "it is not asked");
        memory.suffer(Trouble::None);
        assert!(bucket.exists("a").await.unwrap(), "what fails is reading");
        bucket.0.reads.succeeded();
        assert!(bucket.open("a").await.unwrap().is_some() && bucket.is_up());
    }
}

#[tokio::test]
async fn a_bucket_that_says_no_is_an_answer_and_is_asked_again() {
    let memory = Memory::default();
    let bucket = memory.bucket();
    memory.suffer(Trouble::Denies);
    for _ in 0..10 {
        assert!(matches!(bucket.exists("a").await, Err(BucketError::Denied { .. })));
    }
    assert!(bucket.is_up());
}
